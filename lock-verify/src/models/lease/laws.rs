//! The laws as properties of the states, and the situations that the model must reach.

use stateright::Property;

use super::{
    LeaseModel,
    state::{Call, LOCKS, Phase, Renewal, State, Write},
    store::TTL,
};

/// The laws that this model is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Law {
    /// Belief intervals never overlap.
    Belief = 1,
    /// Tokens are unique per grant and rise.
    Fence,
    /// Renewal and retry keep the token.
    Stability,
    /// Of the accepted writes the tokens never fall.
    Resource,
    /// A stale owner changes nothing.
    Strangers,
    /// What is in doubt is free again after the ttl; a retry gets the grant.
    Doubt,
    /// What is lost stays lost.
    Finality = 10,
}

impl Law {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Belief, Self::Fence, Self::Stability, Self::Resource, Self::Strangers, Self::Doubt, Self::Finality];

    /// How its property's name begins.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Belief => "L1",
            Self::Fence => "L2",
            Self::Stability => "L3",
            Self::Resource => "L4",
            Self::Strangers => "L5",
            Self::Doubt => "L6",
            Self::Finality => "L10",
        }
    }

    pub(super) fn property(self) -> Property<LeaseModel> {
        match self {
            Self::Belief => Property::always("L1 belief intervals never overlap", |model, state: &State| {
                (0..LOCKS).all(|lock| believers(model, state, lock) <= 1)
            }),
            Self::Fence => {
                Property::always("L2 tokens are unique and rise", |_, state: &State| state.keeps(Self::Fence))
            }
            Self::Stability => {
                Property::always("L3 renewal and retry keep the token", |_, state: &State| state.keeps(Self::Stability))
            }
            Self::Resource => Property::always("L4 accepted writes never fall in token", |_, state: &State| {
                state.keeps(Self::Resource)
            }),
            Self::Strangers => Property::always("L5 strangers change nothing", |model, state: &State| {
                state.keeps(Self::Strangers) && model.strangers_change_nothing
            }),
            // In whatever state: if nothing more arrives for it, the lock is free after one ttl.
            Self::Doubt => {
                Property::always("L6 free again after the ttl, and a retry gets its grant", |_, state: &State| {
                    state.keeps(Self::Doubt)
                        && state.locks.iter().all(|lock| lock.record.is_none_or(|kept| kept.left <= TTL))
                })
            }
            Self::Finality => {
                Property::always("L10 what is lost stays lost", |_, state: &State| state.keeps(Self::Finality))
            }
        }
    }
}

impl State {
    fn keeps(&self, law: Law) -> bool {
        self.broken != Some(law)
    }
}

fn held<'a>(model: &LeaseModel, state: &'a State) -> impl Iterator<Item = &'a Call> {
    state.calls[..model.calls].iter().filter(|call| call.believes())
}

fn believers(model: &LeaseModel, state: &State, lock: usize) -> usize {
    held(model, state).filter(|call| usize::from(call.lock) == lock).count()
}

/// Two calls for the same lock, the first under the lower token.
fn in_turn(model: &LeaseModel, state: &State, wanted: impl Fn(&Call, &Call) -> bool) -> bool {
    let calls = &state.calls[..model.calls];
    let follows = |one: &Call, other: &Call| one.lock == other.lock && 0 < one.token && one.token < other.token;
    calls.iter().any(|one| calls.iter().any(|other| follows(one, other) && wanted(one, other)))
}

/// A model that can't get there proves nothing.
pub(super) fn situations(calls: usize, locks: u8) -> Vec<Property<LeaseModel>> {
    let mut situations = vec![
        Property::sometimes("a lease that was lost is taken over", |model, state: &State| {
            in_turn(model, state, |lost, live| lost.phase == Phase::Lost && live.believes())
        }),
        Property::sometimes(
            "a released lock is had by the next while the first one's write is late",
            |model, state: &State| in_turn(model, state, |gone, live| gone.phase == Phase::Released && live.believes()),
        ),
        Property::sometimes("a late write is refused", |_, state: &State| {
            state.calls.iter().any(|call| call.write == Write::Refused)
        }),
        Property::sometimes("a late write is on its way when its lock is another's", |model, state: &State| {
            in_turn(model, state, |late, live| {
                late.phase == Phase::Lost && late.write == Write::Sent && live.believes()
            })
        }),
        Property::sometimes("a retry gets the grant that was made before", |_, state: &State| {
            let regained =
                |call: &Call| matches!(call.phase, Phase::Asking { reply, made, .. } if made > 0 && reply == made);
            state.calls.iter().any(regained)
        }),
        Property::sometimes("a good renewal comes when the lease is lost", |_, state: &State| {
            let late = |call: &Call| matches!(call.renewal, Renewal::Answered { held: true, .. });
            state.calls.iter().any(|call| call.phase == Phase::Lost && late(call))
        }),
        Property::sometimes("a record was swept, and higher tokens are granted", |_, state: &State| {
            state.locks.iter().any(|lock| lock.record.is_none() && lock.highest > 0)
        }),
        Property::sometimes("the lock is taken for a call that is over", |_, state: &State| {
            let owns = |at: usize, call: &Call| {
                let record = state.locks[usize::from(call.lock)].record;
                record.is_some_and(|kept| kept.left > 0 && kept.owner == Some(at as u8))
            };
            state.calls.iter().enumerate().any(|(at, call)| call.phase == Phase::Released && owns(at, call))
        }),
        Property::sometimes("a holder believes to the last tick before the next can have it", |_, state: &State| {
            state.gained
                && state.calls.iter().any(|call| {
                    let record = state.locks[usize::from(call.lock)].record;
                    call.phase == (Phase::Live { left: 1 }) && record.is_some_and(|kept| kept.left == 1)
                })
        }),
    ];
    if calls > 1 && locks > 1 {
        situations.push(Property::sometimes("both locks are held at once", |model, state: &State| {
            [0, 1].iter().all(|lock| held(model, state).any(|call| call.lock == *lock))
        }));
    }
    situations
}

/// What comes of a store that loses its data, or of people who take a lock away: the first law is not about that.
pub(super) fn situations_of_loss() -> Vec<Property<LeaseModel>> {
    vec![
        Property::sometimes("two believe at once", |model, state: &State| {
            (0..LOCKS).any(|lock| believers(model, state, lock) > 1)
        }),
        Property::sometimes("a renewal is refused to who still believes", |_, state: &State| {
            let refused = |call: &Call| matches!(call.renewal, Renewal::Answered { held: false, .. });
            state.calls.iter().any(|call| call.believes() && refused(call))
        }),
        Property::sometimes("a write of who still believes is refused", |_, state: &State| {
            state.calls.iter().any(|call| call.believes() && call.write == Write::Refused)
        }),
    ]
}
