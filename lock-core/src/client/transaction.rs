//! Work whose writes are kept only if its lease held to their end.

use std::panic::{AssertUnwindSafe, resume_unwind};

use async_trait::async_trait;
use futures_util::FutureExt;
use scopeguard::ScopeGuard;
use tokio::runtime::Handle;

use super::{
    current::Under,
    error::LockError,
    lease::Lease,
    lock::Lock,
    locks::Client,
    run::{PATIENCE, give_back},
};
use crate::{
    error::{Applied, StoreError},
    fence::{Fence, FenceError},
};

/// The transactions of a database that keeps the lock and the data: what a store adds to
/// [`Lock::run_in_transaction`].
///
/// What is refused here is counted by [`Lock::run_in_transaction`], with the lock's class; so an implementation counts nothing.
#[async_trait]
pub trait Transactions: Send + Sync {
    /// One that was begun. Dropped, it is rolled back.
    type Transaction: Send;

    /// Begins one in which this grant holds its lock, until the transaction ends: nobody is granted the lock before, even
    /// if the lease ends or is given back.
    ///
    /// # Errors
    /// [`FenceError::NotHeld`] if the grant doesn't hold its lock any more; [`FenceError::Store`].
    async fn begin(&self, fence: &Fence) -> Result<Self::Transaction, FenceError>;

    /// Commits it if the grant holds its lock still, by the store's clock. Otherwise it is rolled back.
    ///
    /// # Errors
    /// [`FenceError::NotHeld`]: nothing was kept. [`FenceError::Store`], which says whether something may have been.
    async fn commit(&self, transaction: Self::Transaction, fence: &Fence) -> Result<(), FenceError>;

    /// Rolls it back, and waits for that. It may be dropped before: then the store does it when the connection is gone.
    ///
    /// # Errors
    /// One that [may have been applied](Applied::Maybe) only if the transaction had ended before (the work ended it, or the
    /// store did for an error that the work ignored), so that what was written after that may stand: the caller is told.
    /// Otherwise the store's; the store then rolls back by itself when it learns that the connection is gone.
    async fn roll_back(&self, transaction: Self::Transaction) -> Result<(), StoreError>;

    /// Leaves one behind whose work was broken off: it panicked, or nobody waits for it any more. Nobody is told what becomes
    /// of it.
    ///
    /// Must not block, nor panic. It is called in the context of the runtime, wherever the work is dropped. Drops it, unless a
    /// store has more to do than that.
    fn abandon(&self, transaction: Self::Transaction) {
        drop(transaction);
    }
}

/// Why work in a transaction under a lock was not kept.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError<E> {
    /// The lock wasn't had, or was lost before the work was done: nothing was kept.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The work failed: nothing was kept.
    #[error("the work in the transaction failed: {0}")]
    Work(E),
    /// The work was done, but its lease didn't hold to the end, and nothing was kept; or the store failed, which says
    /// whether something may have been.
    #[error(transparent)]
    Fence(#[from] FenceError),
}

impl<E> TransactionError<E> {
    /// Whether what was written may have been kept all the same.
    pub const fn applied(&self) -> Applied {
        match self {
            Self::Fence(error) => error.applied(),
            Self::Lock(_) | Self::Work(_) => Applied::No,
        }
    }
}

impl Lock {
    /// Acquires it, does the work in a transaction, commits that if the lease still holds, and releases the lock. Otherwise
    /// all that the work wrote in the transaction is undone: when the work fails, when it panics, when the lease is lost.
    ///
    /// From its beginning to its end the transaction keeps others from being granted the lock, also beyond the lease; so
    /// nothing of theirs comes between. A commit that was begun isn't broken off: it is told how it ended. When the lease is
    /// lost before that, the work's future is dropped, as in [`run`](Self::run); the roll-back then has 5 s. Dropping this
    /// future rolls back, unless the commit has left already. Work that doesn't succeed has [failed](Lease::fail): a tick with
    /// [`retry`](Self::retry) is run again, also after a commit whose outcome is unknown.
    ///
    /// With [`reentrant`](Self::reentrant), work under the same lock has a transaction of its own under the same lease. The
    /// two know nothing of each other: what one has locked in the database, the other waits for.
    ///
    /// `store` is the transactions of the database that keeps both the lock and the data: each store crate has them. Keep
    /// the work short: the database keeps what it locked for as long as that takes.
    ///
    /// # Errors
    /// [`TransactionError`], which says whether anything may have been kept.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn run_in_transaction<S, T, E, W>(self, store: &S, work: W) -> Result<T, TransactionError<E>>
    where
        S: Transactions,
        W: AsyncFnOnce(&mut S::Transaction, &Lease) -> Result<T, E>,
    {
        let (client, has_tick, runtime) = (self.client.clone(), self.tick.is_some(), Handle::current());
        let (guard, under) = match self.joins()? {
            Some(under) => (None, under),
            None => {
                let guard = Box::pin(self.acquire()).await?;
                let under = Under::new(&guard);
                (Some(guard), under)
            }
        };
        let lease = under.lease().clone();
        let running = Box::pin(under.scope(transact(store, &client, &lease, work)));
        // Wherever it is dropped: a driver lets go of a connection in a task, and panics where there is no runtime.
        let mut running = scopeguard::guard(running, |left| {
            let _context = runtime.enter();
            drop(left);
        });
        let done = AssertUnwindSafe(running.as_mut()).catch_unwind().await;
        drop(running);
        // Joined work without a tick fails for itself: whoever called it may know what to do about it.
        if !matches!(done, Ok(Ok(_))) && (guard.is_some() || has_tick) {
            lease.fail();
        }
        if let Some(guard) = guard {
            give_back(&client, guard).await;
        }
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Client {
    /// Whoever counts refusals hears of this one, with the class of the lease.
    fn counted<T>(&self, lease: &Lease, outcome: Result<T, FenceError>) -> Result<T, FenceError> {
        self.watched.tell_of_refusal(lease.class(), &outcome);
        outcome
    }
}

async fn transact<S, T, E, W>(store: &S, client: &Client, lease: &Lease, work: W) -> Result<T, TransactionError<E>>
where
    S: Transactions,
    W: AsyncFnOnce(&mut S::Transaction, &Lease) -> Result<T, E>,
{
    let fence = client.counted(lease, lease.fence().map_err(FenceError::from))?;
    let begun = lease.while_held(store.begin(&fence)).await.map_err(LockError::from)?;
    let mut transaction = scopeguard::guard(client.counted(lease, begun)?, |left| store.abandon(left));
    let done = lease.while_held(work(&mut transaction, lease)).await;
    let transaction = ScopeGuard::into_inner(transaction);
    let error = match done {
        Ok(Ok(done)) => {
            // From here on the store decides: what it holds, nobody else is granted.
            client.counted(lease, store.commit(transaction, &fence).await)?;
            return Ok(done);
        }
        Ok(Err(error)) => TransactionError::Work(error),
        Err(lost) => LockError::from(lost).into(),
    };
    // Dropped, it is rolled back as well; nobody waits for a connection that says nothing.
    let patience = client.clock.sleep_until(client.clock.now() + PATIENCE);
    let undone = tokio::select! {
        biased;
        undone = store.roll_back(transaction) => undone,
        () = patience => {
            tracing::warn!(lock = %lease.name(), "the roll-back takes long; the store does it when the connection is gone");
            Ok(())
        }
    };
    match undone {
        Ok(()) => Err(error),
        // It had ended before: what the work wrote after that may stand.
        Err(kept) if kept.applied() == Applied::Maybe => Err(FenceError::from(kept).into()),
        Err(refused) => {
            tracing::debug!(lock = %lease.name(), error = %refused, "no roll-back; the store does it when the connection is gone");
            Err(error)
        }
    }
}
