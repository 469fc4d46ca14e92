//! Renewing: one keep-alive for all, and one look whether each entry is still there, which proves the keep-alive too.

use std::{collections::BTreeMap, time::Duration};

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use futures_util::future::join_all;
use lock_core::{Moment, RenewRequest, Renewed, StoreError};

use crate::{
    book::{Own, Place, Stand, Who},
    class::{Shared, whole_seconds},
    store::{Store, of_wanted},
    txn,
};

type Answer = Result<Renewed, StoreError>;

/// A hold that is known here.
struct Kept<'a> {
    request: &'a RenewRequest,
    who: Who,
    own: Own,
    stand: Stand,
}

impl Store {
    pub(crate) async fn renew_wave(&self, requests: Vec<&RenewRequest>) -> Result<Vec<Answer>, StoreError> {
        let asked = self.now();
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(requests.len());
        let mut classes: BTreeMap<u64, Vec<(usize, Kept<'_>)>> = BTreeMap::new();
        let mut others = Vec::new();
        for (at, request) in requests.iter().enumerate() {
            answers.push(None);
            let who = (request.name.clone(), request.owner);
            match self.book.get(&who) {
                Some((own, until)) if own.leaving || until <= asked => answers[at] = Some(Ok(Renewed::Lost)),
                Some((own, _)) if whole_seconds(request.ttl) <= own.seconds => match own.place {
                    Place::Held(stand) if u64::try_from(stand.created) == Ok(request.token.get()) => {
                        classes.entry(own.seconds).or_default().push((at, Kept { request, who, own, stand }));
                    }
                    _ => others.push((at, who)),
                },
                _ => others.push((at, who)),
            }
        }
        let of_classes = classes.into_iter().map(|(seconds, kept)| self.renew_class(seconds, kept, asked));
        let of_others = others
            .into_iter()
            .map(|(at, who)| (at, who, requests[at]))
            .map(|(at, who, request)| async move { (at, self.extend(&who, request.token, request.ttl, asked).await) });
        let (of_classes, of_others) = tokio::join!(join_all(of_classes), join_all(of_others));
        for (at, answer) in of_classes.into_iter().flatten().chain(of_others) {
            answers[at] = Some(answer);
        }
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(txn::strange()))).collect())
    }

    /// Renews what lives off one lease.
    async fn renew_class(&self, seconds: u64, kept: Vec<(usize, Kept<'_>)>, asked: Moment) -> Vec<(usize, Answer)> {
        let class = self.classes.of(Duration::from_secs(seconds));
        let failed = |kept: Vec<(usize, Kept<'_>)>, error: &StoreError| {
            kept.into_iter().map(|(at, _)| (at, Err(error.clone()))).collect()
        };
        let shared = match class.lease(Duration::from_secs(seconds) / 6).await {
            Ok(shared) => shared,
            Err(error) => return failed(kept, &error),
        };
        let looked = self.look_at(&kept, shared).await;
        let (there, term) = match looked {
            Ok(looked) => looked,
            Err(error) => return failed(kept, &error),
        };
        let Some((_, first)) = kept.first() else { return Vec::new() };
        let proven = match self.prove(&class, shared, term, &first.who, asked).await {
            Ok(proven) => proven,
            Err(error) => return failed(kept, &error),
        };
        let answers = kept.into_iter().zip(there).map(|((at, kept), there)| {
            let proven = &proven;
            async move {
                if !there {
                    // Gone, or moved by another process, or to be moved.
                    return (at, self.extend(&kept.who, kept.request.token, kept.request.ttl, asked).await);
                }
                let told = of_wanted(proven, seconds, whole_seconds(kept.request.ttl));
                // Its end may have come while the store was asked: then it is being deleted.
                let kept = self.book.extend(&kept.who, asked + told, |_| {});
                (at, Ok(if kept { Renewed::Held(told) } else { Renewed::Lost }))
            }
        });
        join_all(answers).await
    }

    /// Whether each is there as it was, under this lease; and the raft term of the look.
    async fn look_at(&self, kept: &[(usize, Kept<'_>)], shared: Shared) -> Result<(Vec<bool>, u64), StoreError> {
        let keys: Vec<_> = kept.iter().map(|(_, kept)| self.key(&kept.who)).collect();
        let as_they_were: Vec<_> = keys
            .iter()
            .zip(kept)
            .map(|(key, (_, kept))| Compare::mod_revision(key.as_slice(), CompareOp::Equal, kept.stand.modified))
            .collect();
        let gets: Vec<_> = keys.iter().map(|key| TxnOp::get(key.as_slice(), None)).collect();
        let answered = self.look(&Txn::new().when(as_they_were).or_else(gets)).await?;
        let under = |own: &Own| own.lease == shared.id;
        if answered.answer.succeeded() {
            return Ok((kept.iter().map(|(_, kept)| under(&kept.own)).collect(), answered.term));
        }
        let found = txn::gets(&answered.answer)?;
        if found.len() != kept.len() {
            return Err(txn::strange());
        }
        let there = kept.iter().zip(found).map(|((_, kept), found)| {
            under(&kept.own) && found.is_some_and(|kv| kv.mod_revision() == kept.stand.modified)
        });
        Ok((there.collect(), answered.term))
    }
}
