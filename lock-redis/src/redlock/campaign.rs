//! Acquiring: claims, the choice of a token, its acceptance by a majority; or everything taken back.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use lock_core::{
    AcquireRequest, Acquired, Applied, Entropy, ErrorKind, FencingToken, Grant, Held, OsEntropy, StoreError,
};

use super::{
    ballot::{Ballot, Claim, Standing, Vote, quorum},
    masters::{Heard, Masters, Message},
    records::Records,
    rows, scripts,
};
use crate::scripts::Call;

/// Several that ask at once may share the masters among them, so that nobody has a majority. They take back what
/// they have and try again, so often, after pauses of chance that grow to the last.
const ROUNDS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(4);

/// An attempt may take this part of the ttl: what it gets must be worth having.
const PART_OF_TTL: u32 = 4;

/// Numbers the attempts of this process. An owner's attempts are all made by one.
static ATTEMPTS: AtomicU64 = AtomicU64::new(1);

/// One wave of requests, on its way to the masters.
pub(crate) struct Campaign<'a> {
    pub(crate) masters: &'a Masters,
    pub(crate) records: &'a Records,
    pub(crate) asked: &'a [&'a AcquireRequest],
}

/// One request of an attempt.
struct Candidate<'a> {
    request: &'a AcquireRequest,
    ballot: Ballot,
    failures: Vec<StoreError>,
    /// Masters that said nothing by the end: they may be claimed, now or later.
    unheard: usize,
    /// Who accepts the token, once a majority was claimed.
    vote: Vote,
    outcome: Outcome,
}

enum Outcome {
    Open,
    /// Nobody has a majority.
    Split,
    Answered(Result<Acquired, StoreError>),
}

impl Campaign<'_> {
    /// Asks until each request is answered, or has failed often enough for now.
    pub(crate) async fn run(&self) -> Vec<Result<Acquired, StoreError>> {
        let mut answers: BTreeMap<usize, Result<Acquired, StoreError>> = BTreeMap::new();
        for round in 0..ROUNDS {
            if round > 0 {
                let longest = FIRST_PAUSE * 2_u32.pow(round);
                let pause = Duration::from_nanos(OsEntropy.next_u64() % (longest.as_nanos() as u64));
                self.masters.clock.sleep_until(self.masters.clock.now() + pause).await;
            }
            let open: Vec<usize> = (0..self.asked.len()).filter(|at| !answers.contains_key(at)).collect();
            let requests = open.iter().map(|at| self.asked[*at]);
            for (at, outcome) in open.iter().zip(self.attempt(requests).await) {
                if let Outcome::Answered(answer) = outcome {
                    answers.insert(*at, answer);
                }
            }
            // Nobody's grant ages while others of its wave try their luck: those are asked again by whoever waits.
            let granted = answers.values().any(|answer| matches!(answer, Ok(Acquired::Granted(_))));
            if granted || answers.len() == self.asked.len() {
                break;
            }
        }
        let nobodys = || Ok(Acquired::Held(Held::default()));
        (0..self.asked.len()).map(|at| answers.remove(&at).unwrap_or_else(nobodys)).collect()
    }

    async fn attempt<'r>(&self, requests: impl Iterator<Item = &'r AcquireRequest>) -> Vec<Outcome> {
        let count = self.masters.count();
        let mut candidates: Vec<Candidate<'r>> = requests
            .map(|request| Candidate {
                request,
                ballot: Ballot::new(count),
                failures: Vec::new(),
                unheard: count,
                vote: Vote::new(count),
                outcome: Outcome::Open,
            })
            .collect();
        let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        self.claim(attempt, &mut candidates).await;
        self.accept(attempt, &mut candidates).await;
        self.take_back(attempt, &mut candidates).await;
        candidates.into_iter().map(|candidate| candidate.outcome).collect()
    }

    /// The time that a phase may take.
    fn limit(&self) -> Duration {
        let longest = self.asked.iter().map(|request| request.ttl).max().unwrap_or_default();
        self.masters.node_timeout.min(longest / PART_OF_TTL)
    }

    async fn claim(&self, attempt: u64, candidates: &mut [Candidate<'_>]) {
        let requests = candidates.iter().map(|candidate| candidate.request);
        let answers = match self.records.claim(attempt, requests) {
            Ok((keys, arguments)) => self.masters.send_all(&scripts::CLAIM, &keys, &arguments),
            Err(error) => {
                candidates.iter_mut().for_each(|candidate| candidate.outcome = Outcome::Answered(Err(error.clone())));
                return;
            }
        };
        let hear = |Heard { master, about, answers }: Heard| {
            match answers {
                Ok(answers) => {
                    for (at, answer) in about.into_iter().zip(answers) {
                        candidates[at].hear_claim(master, rows::claim(&answer));
                    }
                }
                Err(error) => about.into_iter().for_each(|at| candidates[at].hear_claim(master, Err(error.clone()))),
            }
            candidates.iter().all(|candidate| candidate.ballot.standing(false) != Standing::Open)
        };
        self.masters.listen(answers, self.limit(), hear).await;
    }

    async fn accept(&self, attempt: u64, candidates: &mut [Candidate<'_>]) {
        // By master: only those that were counted when the token was chosen may accept it.
        let mut parts: BTreeMap<usize, Vec<(usize, FencingToken)>> = BTreeMap::new();
        let mut tokens = BTreeMap::new();
        for (at, candidate) in candidates.iter_mut().enumerate() {
            if let Some(token) = candidate.take_stock(self.masters) {
                tokens.insert(at, token);
                let claimed: Vec<usize> = candidate.ballot.claimed().collect();
                (claimed.len()..self.masters.count()).for_each(|_| candidate.vote.count(false));
                for master in claimed {
                    parts.entry(master).or_default().push((at, token));
                }
            }
        }
        if parts.is_empty() {
            return;
        }
        let messages = parts.into_iter().map(|(master, part)| {
            let (keys, arguments) =
                self.records.accept(attempt, part.iter().map(|(at, token)| (candidates[*at].request, *token)));
            let about = part.into_iter().map(|(at, _)| at).collect();
            Message { master, about, call: Call::new(&scripts::ACCEPT, keys, arguments) }
        });
        let answers = self.masters.send(messages.collect::<Vec<_>>());
        let hear = |Heard { about, answers, .. }: Heard| {
            match answers {
                Ok(answers) => {
                    for (at, answer) in about.into_iter().zip(answers) {
                        match rows::yes(&answer) {
                            Ok(yes) => candidates[at].vote.count(yes),
                            Err(error) => candidates[at].failures.push(error),
                        }
                    }
                }
                Err(error) => about.into_iter().for_each(|at| candidates[at].failures.push(error.clone())),
            }
            tokens.keys().all(|at| candidates[*at].vote.outcome().is_some())
        };
        self.masters.listen(answers, self.limit(), hear).await;
        for (at, token) in tokens {
            candidates[at].judge(token, self.masters);
        }
    }

    /// Frees what was claimed by an attempt that came to nothing, where nobody else relies on it.
    async fn take_back(&self, attempt: u64, candidates: &mut [Candidate<'_>]) {
        let vain: Vec<&AcquireRequest> = candidates
            .iter()
            .filter(|candidate| candidate.has_left_something())
            .map(|candidate| candidate.request)
            .collect();
        if vain.is_empty() {
            return;
        }
        // Who saw that a majority is claimed sleeps until it is told otherwise; of a minority nobody takes notice.
        let wake =
            candidates.iter().any(|candidate| candidate.has_left_something() && candidate.may_be_seen(self.masters));
        let (keys, arguments) = self.records.take_back(attempt, wake, vain.into_iter());
        let answers = self.masters.send_all(&scripts::RELEASE, &keys, &arguments);
        let expected = self.masters.count() - candidates.iter().map(|candidate| candidate.unheard).max().unwrap_or(0);
        let mut heard = 0;
        // Who was silent before isn't waited for.
        let hear = |_: Heard| {
            heard += 1;
            heard >= expected
        };
        self.masters.listen(answers, self.masters.node_timeout, hear).await;
    }
}

impl Candidate<'_> {
    fn hear_claim(&mut self, master: usize, answer: Result<Claim, StoreError>) {
        match answer {
            Ok(Claim::Finished(last)) if !self.request.is_finished(Some(last)) => {
                self.hear_claim(master, Err(rows::corrupt("a tick was called used up that can't be")));
            }
            Ok(claim) => {
                self.unheard -= 1;
                self.ballot.count(master, claim);
            }
            Err(error) => {
                // It answered, if only with an error, or never got the request.
                if error.applied() == Applied::No {
                    self.unheard -= 1;
                }
                self.ballot.count_silent();
                self.failures.push(error);
            }
        }
    }

    /// Judges the claims; the token to have accepted, if a majority was claimed.
    fn take_stock(&mut self, masters: &Masters) -> Option<FencingToken> {
        if matches!(self.outcome, Outcome::Answered(_)) {
            return None;
        }
        self.outcome = match self.ballot.standing(true) {
            Standing::Claimed(token) => return Some(token),
            Standing::Held(held) => Outcome::Answered(Ok(Acquired::Held(held))),
            Standing::Finished(last) => Outcome::Answered(Ok(Acquired::Finished(last))),
            // It has, or had, it already; whether it still has isn't known.
            Standing::Split if self.ballot.was_granted() => Outcome::Answered(Err(StoreError::unknown(
                ErrorKind::Contention,
                "only a part of the masters still know of this owner's lease",
            ))),
            Standing::Open | Standing::Split => Outcome::Split,
            Standing::Silent => Outcome::Answered(Err(self.too_few(masters))),
        };
        None
    }

    /// Judges the acceptance of the token.
    fn judge(&mut self, token: FencingToken, masters: &Masters) {
        self.outcome = match self.vote.outcome() {
            Some(true) => Outcome::Answered(Ok(Acquired::Granted(Grant::new(
                token,
                super::records::whole_micros(self.request.ttl),
            )))),
            // The claims were taken away before the token was there: too slow, or forced.
            Some(false) if self.failures.is_empty() => Outcome::Split,
            _ => Outcome::Answered(Err(self.too_few(masters))),
        };
    }

    fn too_few(&self, masters: &Masters) -> StoreError {
        let answered = masters.count() - self.failures.len().max(self.unheard);
        masters.too_few(answered, &self.failures, self.ballot.claimed().next().is_some() || self.unheard > 0)
    }

    /// Whether others may have seen a majority claimed.
    fn may_be_seen(&self, masters: &Masters) -> bool {
        self.ballot.claimed().count() + self.unheard >= quorum(masters.count())
    }

    /// Whether something is, or may be, claimed that leads to nothing. What an earlier call of the same owner was
    /// granted is not touched.
    fn has_left_something(&self) -> bool {
        let granted = matches!(self.outcome, Outcome::Answered(Ok(Acquired::Granted(_))));
        let claimed = self.ballot.claimed().next().is_some() || self.unheard > 0;
        !granted && claimed && !self.ballot.was_granted()
    }
}
