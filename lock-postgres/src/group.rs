//! A group whose statement meets a row that somebody else's transaction holds.

use futures_util::future::join_all;
use lock_core::{Request, StoreError};

use crate::error::row_is_held;

/// How many requests one statement carries at most.
pub(crate) const MOST: usize = 1000;

/// Sends a wave in one statement; where another transaction holds a row, each of its requests by itself: who waits for
/// the row must not cost the others their leases.
pub(crate) async fn together<'a, R, A, S>(
    wave: Vec<&'a R>,
    send: impl Fn(Vec<&'a R>) -> S,
) -> Result<Vec<Result<A, StoreError>>, StoreError>
where
    R: Request,
    S: Future<Output = Result<Vec<Result<A, StoreError>>, StoreError>>,
{
    match send(wave.clone()).await {
        Err(error) if wave.len() > 1 && row_is_held(&error) => {
            let singles = join_all(wave.into_iter().map(|request| send(vec![request]))).await;
            let first = |answers: Vec<_>| {
                answers.into_iter().next().unwrap_or_else(|| Err(crate::rows::corrupt("there was no answer")))
            };
            Ok(singles.into_iter().map(|outcome| outcome.and_then(first)).collect())
        }
        outcome => outcome,
    }
}
