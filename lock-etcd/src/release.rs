//! Giving back: a hold, a place in line, or whatever there may be.

use std::sync::Arc;

use futures_util::future::join_all;
use lock_core::{Applied, ErrorKind, HolderInfo, ReleaseRequest, Released, StoreError};

use crate::{
    acquire::token_of,
    book::Own,
    class::{new_lease, whole_seconds},
    entry::Entry,
    error,
    store::Store,
    txn::{self, Left, Release},
};

type Answers = Vec<Result<Released, StoreError>>;

impl Store {
    pub(crate) async fn release_wave(&self, requests: Vec<&ReleaseRequest>) -> Result<Answers, StoreError> {
        let rests = join_all(requests.iter().map(|request| self.rest_of(request))).await;
        let mut answers: Vec<Option<Result<Released, StoreError>>> = vec![None; requests.len()];
        let mut releases = Vec::new();
        for (at, (request, rest)) in requests.iter().zip(rests).enumerate() {
            let known = self.book.get(&(request.name.clone(), request.owner)).map(|(own, _)| own);
            match rest {
                Ok(rest) => releases.push((at, release(request, known.as_ref(), rest))),
                Err(error) => answers[at] = Some(Err(error)),
            }
        }
        if !releases.is_empty() {
            let done = match self.send_releases(&mut releases).await {
                Ok(done) => done,
                Err(error) => {
                    if error.applied() == Applied::No {
                        let rests = releases.iter().map(|(_, release)| release.rest.as_ref());
                        rests.for_each(|rest| self.drop_rest(rest.map(|(_, lease)| *lease)));
                    }
                    return Err(error);
                }
            };
            for ((at, release), left) in releases.iter().zip(done.left) {
                let request = requests[*at];
                let who = (request.name.clone(), request.owner);
                let known = self.book.get(&who).and_then(|(own, _)| own.stand());
                // A stale token says nothing of the hold there is.
                if left != Left::Nothing
                    || known.is_none_or(|stand| request.token.is_none_or(|token| token == token_of(stand.created)))
                {
                    self.forget(&who);
                }
                if left == Left::Nothing && !done.in_doubt {
                    self.drop_rest(release.rest.as_ref().map(|(_, lease)| *lease));
                }
                answers[*at] = Some(match (left, done.in_doubt) {
                    (Left::Hold, _) => Ok(Released::Released),
                    (_, false) => Ok(Released::NotHeld),
                    // What an attempt finds whose predecessor did it, too.
                    (_, true) => Err(StoreError::unknown(
                        ErrorKind::Unreachable,
                        "the connection broke; it isn't yours any more, by this release or since before",
                    )),
                });
            }
        }
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(txn::strange()))).collect())
    }

    /// What the lock becomes while it is kept taken, and under which lease of its own.
    async fn rest_of(&self, request: &ReleaseRequest) -> Result<Option<(Vec<u8>, i64)>, StoreError> {
        if request.keep_for.is_zero() {
            return Ok(None);
        }
        let lease = new_lease(&self.link, whole_seconds(request.keep_for)).await?;
        let value = Entry { rests: true, holder: HolderInfo::default(), ttl: lease.ttl }.write();
        Ok(Some((value, lease.id)))
    }

    /// Ends a lease that no lock rests under, behind the answer.
    fn drop_rest(&self, lease: Option<i64>) {
        let Some(lease) = lease else { return };
        let link = Arc::clone(&self.link);
        tokio::spawn(async move {
            let revoked = link.read(|client| async move { client.lease_client().revoke(lease).await }).await;
            if let Err(error) = revoked {
                tracing::debug!(%error, "a lease that nothing is under could not be revoked; it ends by itself");
            }
        });
    }

    async fn send_releases(&self, releases: &mut [(usize, Release<'_>)]) -> Result<Sent, StoreError> {
        loop {
            let txns = releases.iter().map(|(_, release)| release.txn(&self.keys)).collect();
            match self.change(&txn::together(txns)).await {
                Ok(done) => {
                    let answers = txn::apart(&done.answer, releases.len())?;
                    let left =
                        releases.iter().zip(&answers).map(|((_, release), answer)| release.left(&self.keys, answer));
                    return Ok(Sent { left: left.collect::<Result<_, _>>()?, in_doubt: done.in_doubt });
                }
                // The marks' lease is gone: who waits looks around instead.
                Err(error)
                    if error::lease_is_gone(&error) && releases.iter().any(|(_, own)| own.mark_under.is_some()) =>
                {
                    releases.iter_mut().for_each(|(_, release)| release.mark_under = None);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

struct Sent {
    left: Vec<Left>,
    in_doubt: bool,
}

fn release<'a>(request: &'a ReleaseRequest, known: Option<&Own>, rest: Option<(Vec<u8>, i64)>) -> Release<'a> {
    let created = request.token.map(|token| i64::try_from(token.get()).unwrap_or(0));
    Release {
        name: &request.name,
        owner: request.owner,
        created,
        // Only a holder may say that the next one's turn has come, and only holders know a token.
        mark_under: known.filter(|_| created.is_some()).map(|own| own.lease),
        rest,
        done: request.done,
    }
}
