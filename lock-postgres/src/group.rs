//! Many requests, few statements: which go together, and which answer is whose.

use futures_util::future::join_all;
use lock_core::{AcquireRequest, Capabilities, LockName, Operation, ReleaseRequest, RenewRequest, StoreError};

use crate::error::row_is_held;

/// How many requests one statement carries at most.
pub(crate) const MOST: usize = 1000;

/// What the three grouped operations have in common.
pub(crate) trait Request {
    const OPERATION: Operation;
    fn name(&self) -> &LockName;
    fn check(&self, can: &Capabilities) -> Result<(), StoreError>;
}

impl Request for AcquireRequest {
    const OPERATION: Operation = Operation::Acquire;
    fn name(&self) -> &LockName {
        &self.name
    }
    fn check(&self, can: &Capabilities) -> Result<(), StoreError> {
        Self::check(self, can)
    }
}

impl Request for RenewRequest {
    const OPERATION: Operation = Operation::Renew;
    fn name(&self) -> &LockName {
        &self.name
    }
    fn check(&self, can: &Capabilities) -> Result<(), StoreError> {
        Self::check(self, can)
    }
}

impl Request for ReleaseRequest {
    const OPERATION: Operation = Operation::Release;
    fn name(&self) -> &LockName {
        &self.name
    }
    fn check(&self, can: &Capabilities) -> Result<(), StoreError> {
        Self::check(self, can)
    }
}

/// Sends a group in as few statements as it can, and returns each request's answer in their order.
///
/// Where another transaction holds a row, each request of that statement goes by itself: who waits for the row must not
/// cost the others their leases.
pub(crate) async fn send_all<'a, R, A, S>(
    requests: &'a [R],
    can: &Capabilities,
    send: impl Fn(Vec<&'a R>) -> S,
) -> Vec<Result<A, StoreError>>
where
    R: Request,
    S: Future<Output = Result<Vec<Result<A, StoreError>>, StoreError>>,
{
    let mut group = Group::new(requests, can);
    for wave in group.waves() {
        match send(group.requests_of(&wave)).await {
            Err(error) if wave.len() > 1 && row_is_held(&error) => {
                let singles = wave.iter().map(|at| send(vec![&requests[*at]]));
                for (at, outcome) in wave.iter().zip(join_all(singles).await) {
                    group.settle(&[*at], outcome);
                }
            }
            outcome => group.settle(&wave, outcome),
        }
    }
    group.finish()
}

/// Requests and the answers there are so far.
struct Group<'a, R, A> {
    requests: &'a [R],
    answers: Vec<Option<Result<A, StoreError>>>,
}

impl<'a, R: Request, A> Group<'a, R, A> {
    /// Answers the requests that the store can't do; those are not sent.
    fn new(requests: &'a [R], can: &Capabilities) -> Self {
        Self { requests, answers: requests.iter().map(|request| request.check(can).err().map(Err)).collect() }
    }

    /// The unanswered requests in the order they came, cut so that each wave names a lock once:
    /// PostgreSQL refuses to change a row twice in one statement.
    fn waves(&self) -> Vec<Vec<usize>> {
        let mut waves: Vec<Vec<usize>> = Vec::new();
        let mut next_of = std::collections::HashMap::new();
        for at in (0..self.requests.len()).filter(|at| self.answers[*at].is_none()) {
            // A later request for a lock must not overtake an earlier one.
            let next = next_of.entry(self.requests[at].name()).or_insert(0);
            while waves.get(*next).is_some_and(|wave| wave.len() >= MOST) {
                *next += 1;
            }
            if waves.len() <= *next {
                waves.push(Vec::new());
            }
            waves[*next].push(at);
            *next += 1;
        }
        waves
    }

    fn requests_of(&self, wave: &[usize]) -> Vec<&'a R> {
        wave.iter().map(|at| &self.requests[*at]).collect()
    }

    /// Notes what came of a wave: an answer for each of its requests in order, or one error for all.
    fn settle(&mut self, wave: &[usize], outcome: Result<Vec<Result<A, StoreError>>, StoreError>) {
        match outcome {
            Ok(answers) => {
                for (at, answer) in wave.iter().zip(answers) {
                    self.answers[*at] = Some(answer);
                }
            }
            Err(error) => {
                for at in wave {
                    self.answers[*at] = Some(Err(error.clone()));
                }
            }
        }
    }

    fn finish(self) -> Vec<Result<A, StoreError>> {
        let unanswered = || Err(crate::rows::corrupt("the server's answer left a lock out"));
        let answers = self.answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered));
        let named = |(answer, request): (Result<A, StoreError>, &R)| {
            answer.map_err(|error| error.at("postgres", R::OPERATION, Some(request.name())))
        };
        answers.zip(self.requests).map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lock_core::OwnerId;

    fn release(name: &str) -> ReleaseRequest {
        ReleaseRequest::new(LockName::new(name).unwrap(), OwnerId::from_u128(1), None)
    }

    #[test]
    fn a_wave_names_a_lock_once_and_keeps_the_order() {
        let requests = ["a", "b", "a", "a", "c"].map(release);
        let group = Group::<_, ()>::new(&requests, &Capabilities::new("postgres"));
        assert_eq!(group.waves(), [vec![0, 1, 4], vec![2], vec![3]]);
    }

    #[test]
    fn a_wave_is_never_too_large() {
        let requests: Vec<_> = (0..2 * MOST + 1).map(|n| release(&format!("{}", n % (MOST + 1)))).collect();
        let group = Group::<_, ()>::new(&requests, &Capabilities::new("postgres"));
        let waves = group.waves();
        assert!(waves.iter().all(|wave| !wave.is_empty() && wave.len() <= MOST));
        assert_eq!(waves.iter().map(Vec::len).sum::<usize>(), requests.len());
        for wave in &waves {
            let names: std::collections::HashSet<_> = wave.iter().map(|at| &requests[*at].name).collect();
            assert_eq!(names.len(), wave.len());
        }
    }
}
