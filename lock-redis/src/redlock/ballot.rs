//! What the masters' answers amount to. Pure: no time, no network.

use std::time::Duration;

use lock_core::{FencingToken, Held, HolderInfo, OwnerId, Tick};

/// How many of so many masters are a majority.
pub(crate) const fn quorum(masters: usize) -> usize {
    masters / 2 + 1
}

/// A master's answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The lock is the asker's here, until its ttl is over.
    Claimed(Claimed),
    /// It is somebody else's here, or rests.
    Refused(Refused),
    /// The tick that it is for was used up here; this is the last one that was.
    Finished(Tick),
}

/// What a master that was claimed knows of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    /// The last token that was accepted here; `None` if no record tells.
    pub(crate) last: Option<FencingToken>,
    /// The token accepted here for this very owner, if it asks again.
    pub(crate) granted: Option<FencingToken>,
    /// The master's clock, in microseconds since the Unix epoch.
    pub(crate) micros: u64,
}

/// What a master that refused knows of who has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    /// `None` if nobody has it any more but it isn't free yet (at-least-for, grace).
    pub(crate) owner: Option<OwnerId>,
    pub(crate) holder: Option<HolderInfo>,
    pub(crate) remaining: Duration,
}

/// The answers to one claim as they come in.
#[derive(Clone, Debug)]
pub(crate) struct Ballot {
    masters: usize,
    claimed: Vec<(usize, Claimed)>,
    refused: Vec<Refused>,
    finished: Vec<Tick>,
    silent: usize,
}

/// How a ballot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It can still go either way.
    Open,
    /// A majority is claimed; this is the token to have accepted by those that are.
    Claimed(FencingToken),
    /// So many refused that there can be no majority, and a majority names one owner, or rests: somebody has it.
    Held(Held),
    /// A majority says that the tick was used up; each tick until this one was, by a majority.
    Finished(Tick),
    /// No majority for anything: several asked at once and shared the masters among them, or the tick was used up at too
    /// few to say that it was and at too many to be granted it.
    Split,
    /// Too few answered.
    Silent,
}

impl Ballot {
    pub(crate) fn new(masters: usize) -> Self {
        Self { masters, claimed: Vec::new(), refused: Vec::new(), finished: Vec::new(), silent: 0 }
    }

    pub(crate) fn count(&mut self, master: usize, claim: Claim) {
        match claim {
            Claim::Claimed(claimed) => self.claimed.push((master, claimed)),
            Claim::Refused(refused) => self.refused.push(refused),
            Claim::Finished(last) => self.finished.push(last),
        }
    }

    /// A master whose answer didn't come, or made no sense.
    pub(crate) fn count_silent(&mut self) {
        self.silent += 1;
    }

    /// The masters that are claimed and whose last tokens were counted: only these may accept the token.
    ///
    /// A master that was claimed behind our back may know a higher one.
    pub(crate) fn claimed(&self) -> impl Iterator<Item = usize> + '_ {
        self.claimed.iter().map(|(master, _)| *master)
    }

    /// Whether an earlier call of the same owner had a token accepted somewhere.
    pub(crate) fn was_granted(&self) -> bool {
        self.claimed.iter().any(|(_, claimed)| claimed.granted.is_some())
    }

    /// How it stands; `ended` if no further answer is waited for.
    pub(crate) fn standing(&self, ended: bool) -> Standing {
        let quorum = quorum(self.masters);
        let votes = [self.claimed.len(), self.refused.len(), self.finished.len()];
        let answered: usize = votes.iter().sum();
        let pending = if ended { 0 } else { self.masters - answered - self.silent };
        if self.claimed.len() >= quorum {
            return Standing::Claimed(self.token());
        }
        if let Some(held) = self.held(quorum) {
            return Standing::Held(held);
        }
        if let Some(last) = self.used_up(quorum, pending) {
            return Standing::Finished(last);
        }
        if pending > 0 && votes.iter().any(|votes| votes + pending >= quorum) {
            return Standing::Open;
        }
        if answered >= quorum { Standing::Split } else { Standing::Silent }
    }

    /// Higher than every token that a grant may have been given out under.
    ///
    /// Such a grant was accepted by a majority, and so by one of those counted here: before the claim, or else it would
    /// have been refused there. In microseconds of the masters' clocks, so that it rises even if they all lost their data.
    fn token(&self) -> FencingToken {
        let last = self.claimed.iter().filter_map(|(_, claimed)| claimed.last).max();
        // The same owner asks again: its token stays, unless a master that didn't accept it from this owner knows of one
        // as high. That one may be somebody else's, granted meanwhile.
        let granted = self.claimed.iter().filter_map(|(_, claimed)| claimed.granted).max();
        let elsewhere = |granted| {
            self.claimed.iter().any(|(_, claimed)| claimed.last >= Some(granted) && claimed.granted != Some(granted))
        };
        if let Some(granted) = granted.filter(|granted| !elsewhere(*granted)) {
            return granted;
        }
        let micros = self.claimed.iter().map(|(_, claimed)| claimed.micros).max().unwrap_or(0);
        FencingToken::next(last, micros)
    }

    /// The last tick that a majority has recorded, if a majority refuses the claim for its tick; `None` also while an answer
    /// to come may tell of a later one.
    ///
    /// Not the last of them all: a minority may have recorded one that nobody was granted.
    fn used_up(&self, quorum: usize, pending: usize) -> Option<Tick> {
        let mut ticks = self.finished.clone();
        ticks.sort_unstable_by(|one, other| other.cmp(one));
        ticks.get(quorum - 1).copied().filter(|last| pending == 0 || *last == ticks[0])
    }

    /// Who has it, if a majority says the same: one owner, or that it rests.
    fn held(&self, quorum: usize) -> Option<Held> {
        let same =
            |refused: &&Refused| self.refused.iter().filter(|other| other.owner == refused.owner).count() >= quorum;
        let one = self.refused.iter().find(same)?;
        // It may be had when a majority may be had: as soon as enough of those that refuse it stop.
        let mut remaining: Vec<Duration> = self.refused.iter().map(|refused| refused.remaining).collect();
        remaining.sort_unstable();
        let to_be_had = self.masters - self.refused.len() - self.finished.len();
        let missing = quorum.saturating_sub(to_be_had).max(1);
        Some(Held {
            holder: one.owner.and_then(|_| one.holder.clone()),
            remaining: remaining.get(missing - 1).copied(),
            position: None,
        })
    }
}

/// Yes or no from each master.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vote {
    masters: usize,
    yes: usize,
    no: usize,
}

impl Vote {
    pub(crate) fn new(masters: usize) -> Self {
        Self { masters, yes: 0, no: 0 }
    }

    pub(crate) fn count(&mut self, yes: bool) {
        if yes { self.yes += 1 } else { self.no += 1 }
    }

    /// Whether a majority said yes, or so many said no that there is none; `None` while, or if, that isn't known.
    pub(crate) fn outcome(&self) -> Option<bool> {
        let quorum = quorum(self.masters);
        match () {
            () if self.yes >= quorum => Some(true),
            () if self.no > self.masters - quorum => Some(false),
            () => None,
        }
    }

    /// How many answered.
    pub(crate) fn answered(&self) -> usize {
        self.yes + self.no
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(last: u64, micros: u64) -> Claim {
        Claim::Claimed(Claimed { last: (last > 0).then(|| FencingToken::new(last)), granted: None, micros })
    }

    fn refused(owner: u128, millis: u64) -> Claim {
        let owner = (owner > 0).then(|| OwnerId::from_u128(owner));
        Claim::Refused(Refused { owner, holder: None, remaining: Duration::from_millis(millis) })
    }

    fn ballot(masters: usize, claims: impl IntoIterator<Item = Claim>) -> Ballot {
        let mut ballot = Ballot::new(masters);
        claims.into_iter().enumerate().for_each(|(master, claim)| ballot.count(master, claim));
        ballot
    }

    fn token(ballot: &Ballot) -> u64 {
        match ballot.standing(false) {
            Standing::Claimed(token) => token.get(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_majority_decides_and_no_less() {
        assert_eq!([3, 4, 5, 7].map(quorum), [2, 3, 3, 4]);
        assert_eq!(ballot(5, [claimed(0, 1), claimed(0, 1)]).standing(false), Standing::Open);
        assert_eq!(ballot(5, [claimed(0, 1), claimed(0, 1)]).standing(true), Standing::Silent);
        assert!(matches!(
            ballot(5, [claimed(0, 1), claimed(0, 1), claimed(0, 1)]).standing(false),
            Standing::Claimed(_)
        ));
        assert_eq!(ballot(3, [claimed(0, 1), refused(1, 5)]).standing(false), Standing::Open);
        assert_eq!(ballot(3, [claimed(0, 1), refused(1, 5), refused(2, 5)]).standing(false), Standing::Split);
    }

    #[test]
    fn the_token_is_above_all_that_were_counted_and_above_the_clocks() {
        assert_eq!(token(&ballot(3, [claimed(7, 5), claimed(9, 8)])), 10);
        assert_eq!(token(&ballot(3, [claimed(7, 50), claimed(9, 80)])), 80);
        assert_eq!(token(&ballot(3, [claimed(0, 50), claimed(0, 49)])), 50, "they all lost their data");
    }

    #[test]
    fn who_asks_again_keeps_its_token_unless_somebody_else_had_the_lock_meanwhile() {
        let again = |last, granted| {
            Claim::Claimed(Claimed {
                last: Some(FencingToken::new(last)),
                granted: Some(FencingToken::new(granted)),
                micros: 3,
            })
        };
        assert_eq!(token(&ballot(3, [again(7, 7), claimed(5, 99)])), 7, "whatever the clocks say");
        assert_eq!(token(&ballot(3, [again(7, 7), claimed(8, 9)])), 9);
        // Chosen by an attempt that failed, accepted by one master alone, and then given out to somebody else as well.
        assert_eq!(token(&ballot(3, [again(7, 7), claimed(7, 3)])), 8);
    }

    #[test]
    fn held_is_told_when_a_majority_names_one_holder() {
        let Standing::Held(held) =
            ballot(5, [refused(1, 30), refused(1, 10), refused(2, 5), refused(1, 20)]).standing(false)
        else {
            panic!("a majority refused")
        };
        // One of five is still to be had; with two more it would be a majority.
        assert_eq!(held.remaining, Some(Duration::from_millis(10)));
        let resting = ballot(3, [refused(0, 30), refused(0, 20)]).standing(false);
        assert!(matches!(resting, Standing::Held(Held { holder: None, remaining: Some(_), .. })), "{resting:?}");
    }

    #[test]
    fn who_is_silent_is_no_vote() {
        let mut ballot = ballot(3, [claimed(0, 1)]);
        ballot.count_silent();
        assert_eq!(ballot.standing(false), Standing::Open);
        ballot.count_silent();
        assert_eq!(ballot.standing(false), Standing::Silent);
        let mut vote = Vote::new(5);
        vote.count(true);
        vote.count(true);
        assert_eq!(vote.outcome(), None);
        vote.count(false);
        vote.count(false);
        assert_eq!(vote.outcome(), None);
        vote.count(true);
        assert_eq!(vote.outcome(), Some(true));
    }

    #[test]
    fn a_tick_is_used_up_when_a_majority_says_so() {
        let finished = |last| Claim::Finished(Tick(last));
        let stands = |claims: &[Claim], ended| ballot(3, claims.iter().cloned()).standing(ended);
        assert_eq!(stands(&[finished(7), finished(7)], false), Standing::Finished(Tick(7)));
        // The third may know of 9 as well; if it says nothing, 8 is what is certain.
        assert_eq!(stands(&[finished(9), finished(8)], false), Standing::Open);
        assert_eq!(stands(&[finished(9), finished(8), finished(9)], false), Standing::Finished(Tick(9)));
        assert_eq!(stands(&[finished(9), finished(8)], true), Standing::Finished(Tick(8)));
        assert_eq!(stands(&[finished(7), claimed(0, 1)], false), Standing::Open);
        assert_eq!(stands(&[finished(7), claimed(0, 1)], true), Standing::Split);
        assert_eq!(stands(&[finished(7), claimed(0, 1), refused(1, 5)], false), Standing::Split);
        let Standing::Held(held) = stands(&[finished(7), refused(1, 10), refused(1, 30)], false) else {
            panic!("a majority refused")
        };
        assert_eq!(held.remaining, Some(Duration::from_millis(30)), "the first one is not to be had for this tick");
    }

    /// Every set of masters that accepted a grant, or failed to, every set that the next asker hears, over three and five.
    #[test]
    fn a_tick_is_granted_again_only_if_no_majority_had_accepted_it() {
        for masters in [3_usize, 5] {
            for accepting in 0_u32..1 << masters {
                for heard in 0_u32..1 << masters {
                    let mut ballot = Ballot::new(masters);
                    for master in (0..masters).filter(|master| heard & (1 << master) != 0) {
                        let used_up = accepting & (1 << master) != 0;
                        ballot.count(master, if used_up { Claim::Finished(Tick(7)) } else { claimed(0, 1) });
                    }
                    let granted = accepting.count_ones() as usize >= quorum(masters);
                    match ballot.standing(true) {
                        Standing::Claimed(_) => assert!(!granted, "{accepting:b} {heard:b}"),
                        Standing::Finished(last) => assert!(granted && last == Tick(7), "{accepting:b} {heard:b}"),
                        Standing::Split => assert!(heard.count_ones() as usize >= quorum(masters)),
                        Standing::Silent => assert!((heard.count_ones() as usize) < quorum(masters)),
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
    }

    /// Every pair of grants over three and five masters, every choice of counted and accepting masters that the rules
    /// allow: tokens that were given out are different and rise.
    #[test]
    fn no_two_grants_in_a_row_share_a_token_whichever_masters_took_part() {
        for masters in [3_usize, 5] {
            let sets = || (0_u32..1 << masters).filter(move |set| set.count_ones() as usize >= quorum(masters));
            let among = |set: u32| (0..masters).filter(move |master| set & (1 << master) != 0);
            for first_counted in sets() {
                for first_accepting in sets().filter(|set| set & !first_counted == 0) {
                    for second_counted in sets() {
                        let mut tokens = vec![0_u64; masters];
                        // Left behind by attempts that came to nothing.
                        tokens[0] = 40;
                        let mut ballot = Ballot::new(masters);
                        among(first_counted).for_each(|at| ballot.count(at, claimed(tokens[at], 7)));
                        let first = token(&ballot);
                        among(first_accepting).for_each(|at| tokens[at] = tokens[at].max(first));
                        let mut ballot = Ballot::new(masters);
                        among(second_counted).for_each(|at| ballot.count(at, claimed(tokens[at], 7)));
                        assert!(token(&ballot) > first);
                    }
                }
            }
        }
    }
}
