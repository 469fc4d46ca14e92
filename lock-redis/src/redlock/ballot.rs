//! What the masters' answers amount to. Pure: no time, no network.

use std::time::Duration;

use lock_core::{FencingToken, Held, HolderInfo, OwnerId};

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
    /// No majority for anybody: several asked at once and shared the masters among them.
    Split,
    /// Too few answered.
    Silent,
}

impl Ballot {
    pub(crate) fn new(masters: usize) -> Self {
        Self { masters, claimed: Vec::new(), refused: Vec::new(), silent: 0 }
    }

    pub(crate) fn count(&mut self, master: usize, claim: Claim) {
        match claim {
            Claim::Claimed(claimed) => self.claimed.push((master, claimed)),
            Claim::Refused(refused) => self.refused.push(refused),
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
        let answered = self.claimed.len() + self.refused.len();
        let pending = if ended { 0 } else { self.masters - answered - self.silent };
        if self.claimed.len() >= quorum {
            return Standing::Claimed(self.token());
        }
        if let Some(held) = self.held(quorum) {
            return Standing::Held(held);
        }
        if pending > 0 && (self.claimed.len() + pending >= quorum || self.refused.len() + pending >= quorum) {
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

    /// Who has it, if a majority says the same: one owner, or that it rests.
    fn held(&self, quorum: usize) -> Option<Held> {
        let same =
            |refused: &&Refused| self.refused.iter().filter(|other| other.owner == refused.owner).count() >= quorum;
        let one = self.refused.iter().find(same)?;
        // It may be had when a majority may be had: as soon as enough of those that refuse it stop.
        let mut remaining: Vec<Duration> = self.refused.iter().map(|refused| refused.remaining).collect();
        remaining.sort_unstable();
        let missing = quorum.saturating_sub(self.masters - self.refused.len()).max(1);
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
