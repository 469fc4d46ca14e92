//! The check where the lock itself is: the holder's entry is there.
//!
//! What that proves, and why it is enough:
//!
//! - The entry is the one of the grant. A [`Lease`] says its owner and its token, which is the entry's `czxid`; of one's own
//!   leases the entry was noted when it was granted, of another client's it is looked for by both. An owner belongs to one
//!   call of `acquire`, so no later entry has this name. Who waits has an entry as well, but no lease; and what is looked
//!   for has to be first in line.
//! - While it is there nobody else holds the lock. Who is granted it is first in the queue, and entries that come later stay
//!   behind one that was granted until it is deleted (`line.rs`, `is_in_order`).
//! - It is deleted by a release, by force, and by the end of the session, which is a write of the leader like others: also
//!   when the holder knows nothing of it, stands still, or is cut off. A write that comes after that is refused.
//!
//! The session may have ended for its client before the leader says so: then the entry is there, and nobody has the lock yet.
//! A holder that was told that its lease is over, or has given it back, writes nothing under it all the same, not even while
//! at-least-for keeps the entry: it is refused here without a message.

use std::sync::Arc;

use lock_core::{Applied, FenceError, Lease, NotHeld, Observer, StoreError};
use zookeeper_client::{CheckWriter, Client, Error, MultiWriteResult, MultiWriter};

use crate::{
    config::invalid,
    error::Trouble,
    fence::step::{Miss, below, commit, rooted, told, unsent},
    ground::Patience,
    node::queue,
    provider::ZooKeeperLocks,
    stand::{synced_children, token},
    table::{Claim, Hold, Node},
};

/// Asks whether a node is there, whatever was written to it.
const ANY_VERSION: i32 = -1;

/// The entry of a grant.
struct Entry {
    path: String,
    /// If this process made it.
    claim: Option<Arc<Claim>>,
}

impl ZooKeeperLocks {
    /// Tells refusals of fenced writes to this observer, for metrics; clones that were made before don't. What happens to the
    /// locks themselves is told to the observer of [their client](lock_core::LocksBuilder::observer), and what becomes of
    /// the caller's own multis to nobody.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// Adds the condition that this lease holds its lock to a multi of the caller's own, which then fails as a whole with
    /// `NoNode` at this place if it doesn't, at the moment of the write.
    ///
    /// The multi belongs to any client of the same servers without a chroot (for others see
    /// [`write_over`](Self::write_over)) that may read the entry: where entries are their maker's alone, as with user and
    /// password in the locks' URL, it has to have added the same user. `MultiWriter::abort` takes the condition away again, and so
    /// does `commit`: call this anew for whatever is added after it, also to try again.
    ///
    /// That the entry's name means this very grant rests on owner ids being fresh for each acquire call, as they are but
    /// where a test hands in an [`Entropy`](lock_core::Entropy) that repeats itself.
    ///
    /// No message for a lease that was acquired here; for another client's one look, the first time.
    ///
    /// # Errors
    /// [`FenceError::NotHeld`] if that is known already, [`FenceError::Invalid`] for a lease that isn't exclusive,
    /// [`FenceError::Store`] from the look. Nothing was added.
    pub async fn hold(&self, lease: &Lease, multi: &mut MultiWriter<'_>) -> Result<(), FenceError> {
        let added = async {
            let ground = &self.inner.ground;
            let entry = self.entry(lease, &ground.patience(ground.operation_timeout)).await?;
            multi.add_check_version(&entry.path, ANY_VERSION).map_err(|error| FenceError::from(unsent(error)))
        };
        self.report.told(Some(lease.name()), added.await)
    }

    /// Does what `write` adds in one step with the condition that this lease holds its lock: one message over the lease's own
    /// session. The answers to what was added, in that order. Paths are below the URL's chroot.
    ///
    /// It is sent once: when no answer comes, that is told. Not cancel safe: dropped after it was sent, it may be done.
    ///
    /// # Errors
    /// [`FenceError::NotHeld`], with nothing written; the others of [`hold`](Self::hold). [`FenceError::Store`], which says
    /// whether something may have been written: where the server refused one of the operations that were added, nothing was,
    /// and its source is the driver's [`MultiWriteError`](zookeeper_client::MultiWriteError) with the place of that operation
    /// among them.
    ///
    /// ```no_run
    /// # async fn example(locks: lock_zookeeper::ZooKeeperLocks, guard: lock_core::LeaseGuard) -> Result<(), lock_core::FenceError> {
    /// locks.write(&guard, |multi| multi.add_set_data("/accounts/42", b"100", None)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn write(
        &self,
        lease: &Lease,
        write: impl FnOnce(&mut CheckWriter<'_>) -> Result<(), Error>,
    ) -> Result<Vec<MultiWriteResult>, FenceError> {
        let written = async {
            let inner = &*self.inner;
            let patience = inner.ground.patience(inner.ground.operation_timeout);
            let entry = self.entry(lease, &patience).await?;
            let client = match &entry.claim {
                Some(claim) => claim.session.client.clone(),
                None => inner.front.client(&patience).await?,
            };
            let sent = inner.ground.now();
            let outcome = conditional(&rooted(&client, inner.ground.chroot()), &entry, &patience, write).await;
            match (&outcome, &entry.claim) {
                (Ok(_), Some(claim)) => claim.session.wrote(sent),
                // Its next renewal says so.
                (Err(Miss::Own(Error::NoNode)), Some(claim)) => claim.lose(),
                (Err(Miss::Request(trouble)), Some(claim)) => claim.session.note(trouble),
                (Err(Miss::Request(trouble)), None) => inner.front.note(trouble),
                _ => {}
            }
            outcome.map_err(|miss| self.refusal(miss, lease, &entry))
        };
        self.report.told(Some(lease.name()), written.await)
    }

    /// The same over the caller's own client of the same servers; paths are below that one's chroot, if it has one.
    ///
    /// It has to have the right to read the entry, as in [`hold`](Self::hold). On other servers the entry isn't there, and the
    /// write is refused as if the lease were over.
    ///
    /// # Errors
    /// As [`write`](Self::write); and [`ErrorKind::InvalidConfig`](lock_core::ErrorKind::InvalidConfig) if the locks aren't
    /// below the client's chroot.
    pub async fn write_over(
        &self,
        client: &Client,
        lease: &Lease,
        write: impl FnOnce(&mut CheckWriter<'_>) -> Result<(), Error>,
    ) -> Result<Vec<MultiWriteResult>, FenceError> {
        let written = async {
            let ground = &self.inner.ground;
            let patience = ground.patience(ground.operation_timeout);
            let entry = self.entry(lease, &patience).await?;
            let outcome = conditional(client, &entry, &patience, write).await;
            outcome.map_err(|miss| self.refusal(miss, lease, &entry))
        };
        self.report.told(Some(lease.name()), written.await)
    }

    /// The entry by which this lease holds its lock, as far as is known.
    async fn entry(&self, lease: &Lease, patience: &Patience<'_>) -> Result<Entry, FenceError> {
        let inner = &*self.inner;
        // Shared ones prove nothing.
        lease.fence()?;
        lease.check().map_err(|_| not_held(lease))?;
        let lock = inner.ground.paths.lock(lease.name());
        if let Some(claim) = inner.line.table.find(lease.name(), lease.owner()) {
            let node = match &*claim.hold() {
                Hold::Held { node, .. } if node.token == lease.token() => Some(node.name.clone()),
                _ => None,
            };
            let name = node.filter(|_| !inner.line.is_over(&claim)).ok_or_else(|| not_held(lease))?;
            return Ok(Entry { path: format!("{lock}/{name}"), claim: Some(claim) });
        }
        let key = (lease.owner(), lease.token());
        if let Some(path) = inner.others.get(&key) {
            return Ok(Entry { path, claim: None });
        }
        let node = self.held_elsewhere(lease, &lock, patience).await?.ok_or_else(|| not_held(lease))?;
        let path = format!("{lock}/{}", node.name);
        inner.others.keep(key, path.clone());
        Ok(Entry { path, claim: None })
    }

    /// The entry of a lease that another client acquired, if it is first in line.
    async fn held_elsewhere(
        &self,
        lease: &Lease,
        path: &str,
        patience: &Patience<'_>,
    ) -> Result<Option<Node>, StoreError> {
        let head = |client: Client| async move {
            let children = synced_children(&client, path, patience).await?;
            let head = queue(&children).into_iter().next();
            let Some(head) = head.filter(|head| head.owner == Some(lease.owner())) else { return Ok(None) };
            let stat = patience.of(client.check_stat(&format!("{path}/{}", head.node))).await?;
            Ok(stat.map(|stat| Node { name: head.node, token: token(&stat) }))
        };
        let found = self.inner.front.ask(path, patience, head).await?;
        Ok(found.filter(|node| node.token == lease.token()))
    }

    fn refusal(&self, miss: Miss, lease: &Lease, entry: &Entry) -> FenceError {
        match miss {
            Miss::Own(Error::NoNode) => {
                self.inner.others.drop(&(lease.owner(), lease.token()));
                not_held(lease)
            }
            Miss::Own(error) => Trouble::from(error).told(&entry.path, Applied::No).into(),
            Miss::Theirs(error) => error.into(),
            Miss::Request(trouble) => told(trouble, &entry.path),
        }
    }
}

/// Sends what `write` adds behind the condition that the entry is there.
async fn conditional(
    client: &Client,
    entry: &Entry,
    patience: &Patience<'_>,
    write: impl FnOnce(&mut CheckWriter<'_>) -> Result<(), Error>,
) -> Result<Vec<MultiWriteResult>, Miss> {
    let path = below(client.path(), &entry.path).ok_or_else(|| {
        Miss::Theirs(invalid(format!("the locks aren't below the client's chroot {}", client.path())))
    })?;
    let begun = client.new_check_writer(path, None).and_then(|mut multi| write(&mut multi).map(|()| multi));
    commit(begun.map_err(|error| Miss::Theirs(unsent(error)))?, 0, patience).await
}

fn not_held(lease: &Lease) -> FenceError {
    NotHeld { lock: lease.name().clone(), token: lease.token() }.into()
}
