//! The contract that every store keeps.

use std::fmt;

use async_trait::async_trait;
use futures_util::future::join_all;

use crate::{
    capability::Capabilities,
    error::StoreError,
    name::LockName,
    owner::OwnerId,
    request::{AcquireRequest, Acquired, ListRequest, LockStatus, ReleaseRequest, Released, RenewRequest, Renewed},
    wake::Watch,
};

/// A store of locks.
///
/// The contract is small, so that a new store is a day's work: renewing in time, waiting, guards and
/// grouping live above it, in [`Locks`](crate::Locks). The laws it must keep are in the project's
/// `docs/guarantees.md`, and the conformance suite tests them.
///
/// # Behaviour of every operation
/// - One atomic step at the store, judged by the *store's* clock, at most one round trip where nothing is amiss.
/// - An error says whether the request may have been applied ([`StoreError::applied`]). When in doubt: it may.
/// - It ends by itself within a bounded time; the caller needn't drop it. Dropping it early must leave the
///   provider usable, and leaves the outcome unknown.
#[async_trait]
pub trait LockProvider: fmt::Debug + Send + Sync + 'static {
    /// What the store, as configured now, can do. No round trip.
    fn capabilities(&self) -> &Capabilities;

    /// Hands the lock out if it can be had.
    ///
    /// - The owner's and live: the same token, the lease extended (never shortened).
    /// - Free, or expired for longer than the grace: a new, higher token.
    /// - Otherwise [`Acquired::Held`] with what is known; nothing changes but what [`Waiting`](crate::Waiting) says to remember.
    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError>;

    /// Extends a live lease of this owner and token; keeps the later expiry of the old and the new.
    ///
    /// An expired lease is not renewable even when nobody took it.
    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError>;

    /// Gives the lock back, if it is this owner's under this token; removes its waiting entry too. Idempotent.
    ///
    /// Wakes the watchers if somebody waits.
    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError>;

    /// Subscribes this asker to wake-ups for a lock. Once it returns, no release is missed without a wake-up
    /// (a cut subscription wakes everybody when it is made good). Several watches share one connection.
    ///
    /// A store that queues its askers wakes `owner` alone when its turn may have come, by an expiry as well. It learns of
    /// the place in the queue by [`acquire`](Self::acquire), which may come before or after. Other stores wake all who
    /// watch the lock.
    async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError>;

    /// What is known of a lock; `None` where the store has no record of it, which means free.
    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError>;

    /// A page of the locks that have a record, in byte order of their names.
    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError>;

    /// Takes the lock away from whoever holds it, for people; `true` if somebody did.
    ///
    /// The lock can be had at once. The holder learns at its next renewal, so two may believe until then: only
    /// the fence protects. The next token is higher all the same.
    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError>;

    /// [`acquire`](Self::acquire), many at once; answers in the order of the requests.
    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        join_all(requests.iter().map(|request| self.acquire(request))).await
    }

    /// [`renew`](Self::renew), many at once; answers in the order of the requests.
    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        join_all(requests.iter().map(|request| self.renew(request))).await
    }

    /// [`release`](Self::release), many at once; answers in the order of the requests.
    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        join_all(requests.iter().map(|request| self.release(request))).await
    }
}
