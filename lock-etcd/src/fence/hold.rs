//! The check by the lock itself: its key is compared in the transaction that writes.
//!
//! # What the compare proves
//! Whoever was granted a lock was the oldest in its line, and nothing comes before an entry that was the oldest once, since
//! each new one has a higher `create_revision`. So as long as that entry is there (its key, with the `create_revision`
//! that is the token), nobody was granted the lock after it, and in a transaction nobody is before it ends. The entry is
//! gone after a release, a forced release, the end of its lease at the store, and its deletion by its own process when
//! nobody renewed it; if the owner comes again, it has another `create_revision`. Where the lock is kept taken after a
//! release (at-least-for) the entry stays, but says so: that is the second compare.
//!
//! It does not prove that the holder's own deadline isn't over: between that and the deletion at the store the lock is
//! still nobody else's, and a write passes.
//!
//! One who waits has an entry too, and its `create_revision` is the token he may come to have. A lease is only had from a
//! grant; of a bare fence that can't be said, and so the oldest entry is looked up first.

use std::sync::Arc;

use etcd_client::{Client, Compare, Txn, TxnOp, TxnResponse};
use lock_core::{Fence, FenceError, Lease, NotHeld, Observer};

use crate::{
    entry::Entry,
    provider::EtcdLocks,
    txn::{self, is_there, oldest},
};

/// Writes that are done only while their lock is held at the store. For data in the same cluster as the lock; one message
/// each, and no register.
impl EtcdLocks {
    /// Tells refusals of fenced writes to this observer, for metrics; clones that were made before don't. What happens to the
    /// locks themselves is told to the observer of [their client](lock_core::LocksBuilder::observer), and what becomes of
    /// the caller's own transactions to nobody.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// For the caller's own transaction, in this cluster: it takes part only if this lease holds its lock at the store.
    ///
    /// Both compares are to be put into it, beside those of its own. What they prove: that this grant was neither
    /// released nor taken away, that it has not ended at the store, and that nobody was granted the lock since. So no later
    /// holder has written before, and a transaction that comes after a take-over, however late, is refused. They don't prove
    /// that the lease's own [deadline](Lease::deadline) isn't over: a write between that and the end at the store passes,
    /// since the lock is nobody else's yet.
    ///
    /// A transaction that writes nothing has to contain a read that isn't `serializable` (in `or_else`, if nowhere else): without
    /// one, etcd judges it by what the asked member has, which is old if that one is cut off from the others.
    ///
    /// Good for as many transactions as one likes. Asks the store nothing. The transaction's client must be allowed to
    /// read the lock's keys.
    ///
    /// ```no_run
    /// # async fn example(locks: lock_etcd::EtcdLocks, lease: lock_core::LeaseGuard, mut client: lock_etcd::etcd_client::Client)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// use lock_etcd::etcd_client::{Compare, CompareOp, Txn, TxnOp};
    ///
    /// let mut when = locks.hold(&lease)?.to_vec();
    /// when.push(Compare::value("accounts/7", CompareOp::Equal, "100"));
    /// let done = client.txn(Txn::new().when(when).and_then([TxnOp::put("accounts/7", "90", None)])).await?;
    /// assert!(done.succeeded(), "the lease is over, or the account isn't as it was");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`FenceError::Invalid`] for a lease that fences nothing.
    pub fn hold(&self, lease: &Lease) -> Result<[Compare; 2], FenceError> {
        let fence = self.report.told(None, lease.fence())?;
        Ok(is_there(&self.entry(lease), fence.token_i64()))
    }

    /// As [`hold`](Self::hold), where the lease itself isn't at hand: one read, to find the holder's key.
    ///
    /// # Errors
    /// [`FenceError::NotHeld`] if this isn't the grant that holds the lock, such as the place of one who waits for it;
    /// [`FenceError::Store`], with nothing written.
    pub async fn hold_fence(&self, fence: &Fence) -> Result<[Compare; 2], FenceError> {
        self.report.told(Some(fence.lock()), self.holder(fence).await)
    }

    async fn holder(&self, fence: &Fence) -> Result<[Compare; 2], FenceError> {
        let store = self.store();
        let (start, end) = store.keys.queue(fence.lock());
        let get = |client: Client| {
            let (start, options) = (start.clone(), oldest(end.clone()));
            async move { client.kv_client().get(start, Some(options)).await }
        };
        let found = store.link.read(get).await?;
        let holder = found.kvs().first().filter(|kv| kv.create_revision() == fence.token_i64());
        let holder = holder.filter(|kv| !Entry::read(kv.value()).rests);
        holder.map(|kv| is_there(kv.key(), fence.token_i64())).ok_or_else(|| not_held(fence))
    }

    /// Does these operations if this lease holds its lock at the store, in one transaction: see [`hold`](Self::hold) for
    /// what that proves.
    ///
    /// The answer tells what became of each of them, in their order. They may be transactions themselves, with compares of
    /// their own. They may not touch the lock's own keys.
    ///
    /// What may have been applied is never sent again. Not cancel safe: dropped, it may have been done or may be yet, but
    /// not once the lock is somebody else's.
    ///
    /// # Errors
    /// [`FenceError::NotHeld`] and [`FenceError::Invalid`], with nothing written; [`FenceError::Store`], which says whether
    /// it may have been applied.
    pub async fn write(&self, lease: &Lease, operations: impl Into<Vec<TxnOp>>) -> Result<TxnResponse, FenceError> {
        let fence = self.report.told(None, lease.fence())?;
        let written = self.written(lease, &fence, operations.into()).await;
        self.report.told(Some(fence.lock()), written)
    }

    async fn written(&self, lease: &Lease, fence: &Fence, operations: Vec<TxnOp>) -> Result<TxnResponse, FenceError> {
        let (link, key) = (&self.store().link, self.entry(lease));
        // A transaction in which nothing asks for more is judged by what the asked member has itself, which may be old if it
        // is cut off (etcd's `isTxnSerializable`). This read asks for more, and is done only where the compare fails.
        let look = [TxnOp::get(key.as_slice(), None)];
        let step = Txn::new().when(is_there(&key, fence.token_i64())).and_then(operations).or_else(look);
        let give_up = link.clock.now() + link.operation_timeout;
        let answer = link.write_once(give_up, |client| txn::send(client, step.clone())).await?.answer;
        if answer.succeeded() { Ok(answer) } else { Err(not_held(fence)) }
    }

    /// The key by which this lease holds its lock.
    fn entry(&self, lease: &Lease) -> Vec<u8> {
        self.store().keys.entry(lease.name(), lease.owner())
    }
}

fn not_held(fence: &Fence) -> FenceError {
    NotHeld { lock: fence.lock().clone(), token: fence.token() }.into()
}
