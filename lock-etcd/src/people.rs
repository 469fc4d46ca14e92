//! Looks at locks, for people: one, or a page; and takes one away.

use std::{collections::HashMap, time::Duration};

use etcd_client::{Compare, CompareOp, Error as DriverError, GetOptions, KeyValue};
use futures_util::future::join_all;
use lock_core::{ErrorKind, Holding, ListRequest, LockName, LockState, LockStatus, OwnerId, StoreError};

use crate::{acquire::token_of, entry::Entry, store::Store, txn};

/// How many locks a page of a list has at most.
const LONGEST_PAGE: usize = 1000;
/// How many entries are read at once.
const STEP: i64 = 1000;

/// A lock's entries so far.
struct Queue {
    name: LockName,
    /// The one that holds, if none older comes.
    head: (OwnerId, KeyValue),
    entries: u64,
}

impl Queue {
    fn take(&mut self, owner: OwnerId, entry: KeyValue) {
        self.entries += 1;
        if entry.create_revision() < self.head.1.create_revision() {
            self.head = (owner, entry);
        }
    }
}

impl Store {
    pub(crate) async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        let (start, end) = self.keys.queue(name);
        let mut queue: Option<Queue> = None;
        let mut next = start;
        loop {
            let (entries, more) = self.entries(next, end.clone()).await?;
            let Some(last) = entries.last() else { break };
            next = after(last.key());
            for entry in entries {
                if let Some((name, owner)) = self.keys.read(entry.key()) {
                    match &mut queue {
                        Some(queue) => queue.take(owner, entry),
                        None => queue = Some(Queue { name, head: (owner, entry), entries: 1 }),
                    }
                }
            }
            if !more {
                break;
            }
        }
        Ok(self.statuses(queue.into_iter().collect()).await?.into_iter().next())
    }

    pub(crate) async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        let most = usize::try_from(request.limit).unwrap_or(LONGEST_PAGE).clamp(1, LONGEST_PAGE);
        let (mut next, end) = self.keys.page(&request.prefix, request.after.as_ref());
        let mut queues: Vec<Queue> = Vec::new();
        'pages: loop {
            let (entries, more) = self.entries(next, end.clone()).await?;
            let Some(last) = entries.last() else { break };
            next = after(last.key());
            for entry in entries {
                let Some((name, owner)) = self.keys.read(entry.key()) else { continue };
                if let Some(queue) = queues.last_mut().filter(|queue| queue.name == name) {
                    queue.take(owner, entry);
                } else if queues.len() == most {
                    // The last one is known with all its entries.
                    break 'pages;
                } else {
                    queues.push(Queue { name, head: (owner, entry), entries: 1 });
                }
            }
            if !more {
                break;
            }
        }
        self.statuses(queues).await
    }

    /// Some entries, in the order of their keys, and whether more follow.
    async fn entries(&self, start: Vec<u8>, end: Vec<u8>) -> Result<(Vec<KeyValue>, bool), StoreError> {
        let answer = self
            .link
            .read(|client| {
                let (start, end) = (start.clone(), end.clone());
                let options = GetOptions::new().with_range(end).with_limit(STEP);
                async move { client.kv_client().get(start, Some(options)).await }
            })
            .await?;
        Ok((answer.kvs().to_vec(), answer.more()))
    }

    async fn statuses(&self, queues: Vec<Queue>) -> Result<Vec<LockStatus>, StoreError> {
        let mut leases: Vec<i64> = queues.iter().map(|queue| queue.head.1.lease()).collect();
        leases.sort_unstable();
        leases.dedup();
        let rests = join_all(leases.iter().map(|lease| self.rest(*lease))).await;
        let rests: HashMap<i64, Duration> =
            leases.into_iter().zip(rests).map(|(lease, rest)| Ok((lease, rest?))).collect::<Result<_, StoreError>>()?;
        let status = |queue: Queue| {
            let (owner, head) = queue.head;
            let entry = Entry::read(head.value());
            let token = token_of(head.create_revision());
            let rest = rests.get(&head.lease()).copied().unwrap_or_default();
            // It may end before its lease, if it is ours and nobody renews it.
            let own_end = self.book.get(&(queue.name.clone(), owner)).map(|(_, until)| until.since(self.now()));
            let remaining = rest.min(own_end.unwrap_or(rest)).max(Duration::from_millis(1));
            let state = if entry.rests {
                LockState::Resting(remaining)
            } else {
                LockState::Held(Holding { owner, token, remaining, holder: entry.holder })
            };
            LockStatus { name: queue.name, state, last_token: Some(token), waiters: Some(queue.entries - 1) }
        };
        Ok(queues.into_iter().map(status).collect())
    }

    /// How much is left of a lease at most; nothing if it is gone.
    async fn rest(&self, lease: i64) -> Result<Duration, StoreError> {
        let ask = |client: etcd_client::Client| async move {
            match client.lease_client().time_to_live(lease, None).await {
                Err(error) if is_gone(&error) => Ok(0),
                // The server tells whole seconds, rounded down.
                answer => answer.map(|answer| (answer.ttl() + 1).min(answer.granted_ttl())),
            }
        };
        let left = self.link.read(ask).await?;
        Ok(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
    }

    pub(crate) async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        let (start, end) = self.keys.queue(name);
        // Each round somebody else was quicker.
        for _ in 0..8 {
            let answer = self
                .link
                .read(|client| {
                    let (start, options) = (start.clone(), txn::oldest(end.clone()));
                    async move { client.kv_client().get(start, Some(options)).await }
                })
                .await?;
            let Some(head) = answer.kvs().first() else { return Ok(false) };
            let Some((_, owner)) = self.keys.read(head.key()) else {
                return Err(crate::error::corrupt("an entry of the lock has a key that no version of this writes"));
            };
            let as_it_was = Compare::mod_revision(head.key(), CompareOp::Equal, head.mod_revision());
            let done = self.change(&txn::delete(&self.keys, name, owner, [as_it_was])).await?;
            match (done.answer.answer.succeeded(), done.in_doubt) {
                (true, _) => return Ok(!Entry::read(head.value()).rests),
                (false, false) => {}
                (false, true) => {
                    return Err(StoreError::unknown(
                        ErrorKind::Unreachable,
                        "the connection broke; who held it doesn't any more, by this or since before",
                    ));
                }
            }
        }
        Err(StoreError::refused(ErrorKind::Contention, "its holders change too quickly"))
    }
}

fn is_gone(error: &DriverError) -> bool {
    matches!(error, DriverError::GRpcStatus(status) if status.message().contains("requested lease not found"))
}

/// The first key behind this one.
fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}
