//! Many requests, few messages to the store: which go together, and which answer is whose.

use std::collections::HashMap;

use crate::{
    capability::Capabilities,
    error::{ErrorKind, Operation, StoreError},
    name::LockName,
    request::{AcquireRequest, ReleaseRequest, RenewRequest},
};

/// What the three requests that can be sent together have in common.
pub trait Request: Clone + Send + Sync + sealed::Sealed + 'static {
    /// What is asked for.
    const OPERATION: Operation;

    /// Which lock it is about.
    fn name(&self) -> &LockName;

    /// Checks the wish against what the store can do.
    ///
    /// # Errors
    /// What the store can't keep; nothing was sent.
    fn check(&self, can: &Capabilities) -> Result<(), StoreError>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! request {
    ($($kind:ident is $operation:ident),*) => {$(
        impl sealed::Sealed for $kind {}
        impl Request for $kind {
            const OPERATION: Operation = Operation::$operation;
            fn name(&self) -> &LockName {
                &self.name
            }
            fn check(&self, can: &Capabilities) -> Result<(), StoreError> {
                Self::check(self, can)
            }
        }
    )*};
}
request!(AcquireRequest is Acquire, RenewRequest is Renew, ReleaseRequest is Release);

/// Sends a group in as few waves as it can, for a provider's `_many` operations; each request's answer, in their order.
///
/// Requests that the store can't do are answered and not sent. A wave names each lock once and has at most as many
/// requests as [`Capabilities::grouping`] says; a later request for a lock never overtakes an earlier one. `send` answers
/// a wave's requests in their order, or fails for all of them; the errors are told where they happened.
pub async fn in_waves<'a, R, A, S>(
    requests: &'a [R],
    can: &Capabilities,
    send: impl Fn(Vec<&'a R>) -> S,
) -> Vec<Result<A, StoreError>>
where
    R: Request,
    S: Future<Output = Result<Vec<Result<A, StoreError>>, StoreError>>,
{
    let mut answers: Vec<Option<Result<A, StoreError>>> =
        requests.iter().map(|request| request.check(can).err().map(Err)).collect();
    let open = (0..requests.len()).filter(|at| answers[*at].is_none());
    let most = can.grouping.map_or(1, std::num::NonZero::get);
    for wave in waves(requests, open, most) {
        match send(wave.iter().map(|at| &requests[*at]).collect()).await {
            Ok(answered) => wave.iter().zip(answered).for_each(|(at, answer)| answers[*at] = Some(answer)),
            Err(error) => wave.iter().for_each(|at| answers[*at] = Some(Err(error.clone()))),
        }
    }
    let unanswered = || Err(StoreError::unknown(ErrorKind::Corrupt, "the store's answer left a lock out"));
    let named = |(answer, request): (Option<Result<A, StoreError>>, &R)| {
        let answer = answer.unwrap_or_else(unanswered);
        answer.map_err(|error| error.at(can.store, R::OPERATION, Some(request.name())))
    };
    answers.into_iter().zip(requests).map(named).collect()
}

fn waves<R: Request>(requests: &[R], open: impl Iterator<Item = usize>, most: usize) -> Vec<Vec<usize>> {
    let mut waves: Vec<Vec<usize>> = Vec::new();
    let mut next_of = HashMap::new();
    for at in open {
        let next = next_of.entry(requests[at].name()).or_insert(0);
        while waves.get(*next).is_some_and(|wave| wave.len() >= most) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::OwnerId;

    fn release(name: &str) -> ReleaseRequest {
        ReleaseRequest::new(LockName::new(name).unwrap(), OwnerId::from_u128(1), None)
    }

    #[test]
    fn a_wave_names_a_lock_once_and_keeps_the_order() {
        let requests = ["a", "b", "a", "a", "c"].map(release);
        assert_eq!(waves(&requests, 0..5, 1000), [vec![0, 1, 4], vec![2], vec![3]]);
        assert_eq!(waves(&requests, [0, 2, 4].into_iter(), 1000), [vec![0, 4], vec![2]]);
    }

    #[test]
    fn a_wave_is_never_too_large() {
        let requests: Vec<_> = (0..2001).map(|n| release(&format!("{}", n % 1001))).collect();
        let waves = waves(&requests, 0..2001, 1000);
        assert!(waves.iter().all(|wave| !wave.is_empty() && wave.len() <= 1000));
        assert_eq!(waves.iter().map(Vec::len).sum::<usize>(), requests.len());
        for wave in &waves {
            let names: std::collections::HashSet<_> = wave.iter().map(|at| &requests[*at].name).collect();
            assert_eq!(names.len(), wave.len());
        }
    }

    #[tokio::test]
    async fn each_request_gets_its_own_answer_and_a_refused_one_is_not_sent() {
        let mut can = Capabilities::new("store");
        can.grouping = std::num::NonZeroUsize::new(2);
        let mut requests = ["a", "b", "a", "c"].map(release);
        requests[1].keep_for = ReleaseRequest::KEEP_FOR_MAX * 2;
        let sent = std::sync::Mutex::new(Vec::new());
        let answers = in_waves(&requests, &can, |wave: Vec<&ReleaseRequest>| {
            let names: Vec<String> = wave.iter().map(|request| request.name.to_string()).collect();
            sent.lock().unwrap().push(names.clone());
            async move {
                match names.first().map(String::as_str) {
                    // The last wave fails as a whole.
                    Some("a") if names.len() == 1 => Err(StoreError::unknown(ErrorKind::Timeout, "no answer")),
                    _ => Ok(names.into_iter().map(Ok).collect()),
                }
            }
        })
        .await;
        assert_eq!(*sent.lock().unwrap(), [vec!["a", "c"], vec!["a"]]);
        assert_eq!(answers[0].as_ref().unwrap(), "a");
        assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::InvalidTtl);
        let failed = answers[2].as_ref().unwrap_err();
        assert_eq!(
            (failed.kind(), failed.store(), failed.operation()),
            (ErrorKind::Timeout, Some("store"), Some(Operation::Release))
        );
        assert_eq!(answers[3].as_ref().unwrap(), "c");
    }
}
