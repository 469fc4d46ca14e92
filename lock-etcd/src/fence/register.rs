//! The register: the highest fence of each resource, next to the data.
//!
//! A register's value is the fence as text (`TOKEN@LOCK`), which has one spelling only. A write compares it for equality
//! with a value that lets the fence pass by the core's rule, and puts its own in the same transaction. Etcd could compare
//! tokens by byte order as well, and judge a write without knowing what is there; but between any two tokens there are
//! values that no version writes (`5` and a line feed), and they would pass for lower ones.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use etcd_client::{Client, Compare, CompareOp, KeyValue, Txn, TxnOp, TxnResponse};
use lock_core::{
    ErrorKind, Fence, FenceError, FenceRegister, FenceReport, Moment, Observer, Pass, Resource, StoreError, ToFence,
    admit,
};

use super::{config::FencesBuilder, known::Known};
use crate::{
    config::{Builder, Settings},
    contact,
    keys::Keys,
    link::Link,
    provider::STORE,
    source::Source,
    txn,
};

/// The highest fence of each resource, kept in etcd next to the data, for locks of any store.
///
/// A write and its check are one transaction: accepted if its token is the highest that the resource has seen, or a higher
/// one, which the resource has then seen. Clones share one connection.
///
/// # Cost
/// One message for a write where the register reads as this process saw it last, or holds the write's own fence: all
/// writes of a grant but perhaps its first, which takes two. A refusal costs one or two. Each write puts the register's
/// key with it, into the same entry of etcd's log.
///
/// # Examples
/// ```no_run
/// # async fn example(lease: lock_core::LeaseGuard) -> Result<(), Box<dyn std::error::Error>> {
/// use lock_core::{FenceRegister, Pass, Resource};
/// use lock_etcd::{EtcdFences, etcd_client::TxnOp};
///
/// let fences = EtcdFences::connect("etcd://app:secret@etcd1,etcd2,etcd3/").await?;
/// let accounts = Resource::new("accounts")?;
/// // Before the first read: late writes of the holder before are refused from here on.
/// fences.raise(&accounts, &lease.fence()?, Pass::Again).await?;
/// fences.write(&accounts, &*lease, Pass::Again, [TxnOp::put("accounts/7", "100", None)]).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct EtcdFences {
    inner: Arc<Inner>,
    report: FenceReport,
}

struct Inner {
    link: Link,
    keys: Keys,
    known: Known,
}

impl EtcdFences {
    /// Connects by URL, as [`EtcdLocks::connect`](crate::EtcdLocks::connect) does.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).build().await
    }

    /// Sets a register up, from a URL or from the application's own client.
    pub fn builder(source: impl Into<Source>) -> FencesBuilder {
        FencesBuilder(Builder::new(source.into()))
    }

    pub(super) async fn start(settings: Settings) -> Result<Self, StoreError> {
        let Settings { way, keys, clock, operation_timeout, connect_timeout, .. } = settings;
        let link = Link::new(way, clock, operation_timeout, connect_timeout);
        contact::first(&link, &keys, 'f').await?;
        let inner = Arc::new(Inner { link, keys, known: Known::default() });
        Ok(Self { inner, report: FenceReport::new(STORE) })
    }

    /// Tells refusals to this observer, for metrics; clones that were made before don't. What becomes of the caller's own
    /// transactions is told to nobody.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// Does these operations if the fence passes, and raises what the resource has seen, in one transaction.
    ///
    /// The answer tells first what became of each of them, in their order, and last of the register. They may be
    /// transactions themselves, with compares of their own; the write counts as done whichever way those go. They may not
    /// write the register's own key: the server refuses that. It takes so many at once as its `--max-txn-ops` says (128),
    /// the register's among them.
    ///
    /// What may have been applied is never sent again. Not cancel safe: dropped, it may have been done or may be yet, but
    /// not once a higher fence was seen.
    ///
    /// # Errors
    /// [`FenceError::Stale`], [`FenceError::OtherLock`] and [`FenceError::Invalid`], with nothing written. In
    /// [`FenceError::Store`]: [`ErrorKind::Corrupt`] for a register that holds what no version writes, with nothing
    /// written; [`ErrorKind::Contention`] for one that others raise too quickly, likewise; and whatever became of the
    /// connection, which says whether it may have been applied.
    pub async fn write(
        &self,
        resource: &Resource,
        fence: &impl ToFence,
        pass: Pass,
        operations: impl Into<Vec<TxnOp>>,
    ) -> Result<TxnResponse, FenceError> {
        let fence = self.report.told(None, fence.to_fence())?;
        let written = self.inner.write(resource, &fence, pass, operations.into()).await;
        self.report.told(Some(fence.lock()), written)
    }

    /// For the caller's own transaction, with compares of its own: these and the operation are to be put into it.
    ///
    /// It takes part only if the resource has seen this very fence: it must have been [raised](FenceRegister::raise)
    /// before, and nobody have raised it further since. Good for as many transactions as one likes. Put the operation last:
    /// it writes the register anew, should another operation of the transaction have deleted it. A transaction that didn't
    /// succeed was refused by one of its compares, and doesn't say by which; a raise that is refused says that the fence is
    /// stale now. A transaction that writes nothing but this is safe, since this is a write.
    ///
    /// Asks the store nothing.
    ///
    /// # Errors
    /// [`FenceError::Invalid`] for a lease that fences nothing.
    pub fn admit(&self, resource: &Resource, fence: &impl ToFence) -> Result<(Vec<Compare>, TxnOp), FenceError> {
        let fence = self.report.told(None, fence.to_fence())?;
        let key = self.inner.keys.fence(resource);
        Ok((vec![reads(&key, Some(&fence))], put(&key, &fence)))
    }
}

impl Inner {
    async fn write(
        &self,
        resource: &Resource,
        fence: &Fence,
        pass: Pass,
        operations: Vec<TxnOp>,
    ) -> Result<TxnResponse, FenceError> {
        let key = self.keys.fence(resource);
        let give_up = self.link.clock.now() + self.link.operation_timeout;
        let mut seen = self.known.guess(resource, fence, pass);
        loop {
            admit(seen.as_ref(), resource, fence, pass)?;
            let mut all = operations.clone();
            all.push(put(&key, fence));
            let step =
                Txn::new().when([reads(&key, seen.as_ref())]).and_then(all).or_else([TxnOp::get(key.as_slice(), None)]);
            let answer = self.send(give_up, |client| txn::send(client, step.clone())).await?.answer;
            if answer.succeeded() {
                self.known.remember(resource, fence);
                return Ok(answer);
            }
            // It reads otherwise, and says how: judged anew, it is compared with that.
            let found = txn::gets(&answer)?.into_iter().next().flatten();
            seen = found.map(|kv| read(resource, &kv)).transpose()?;
        }
    }

    async fn send<T, W>(&self, give_up: Moment, send: impl Fn(Client) -> W) -> Result<T, StoreError>
    where
        W: Future<Output = Result<T, etcd_client::Error>>,
    {
        if self.link.clock.now() >= give_up {
            let message = format!("others changed the register again and again for {:?}", self.link.operation_timeout);
            return Err(StoreError::refused(ErrorKind::Contention, message));
        }
        self.link.write_once(give_up, send).await
    }
}

/// The register as it is to read.
fn reads(key: &[u8], seen: Option<&Fence>) -> Compare {
    match seen {
        Some(fence) => Compare::value(key, CompareOp::Equal, fence.to_string()),
        None => Compare::create_revision(key, CompareOp::Equal, 0),
    }
}

/// The register's own write. Put even where it changes nothing, since the server then sees to it that no other operation
/// of the transaction writes there.
fn put(key: &[u8], fence: &Fence) -> TxnOp {
    TxnOp::put(key, fence.to_string(), None)
}

fn read(resource: &Resource, kv: &KeyValue) -> Result<Fence, StoreError> {
    String::from_utf8_lossy(kv.value()).parse().map_err(|error| {
        let what = format!("the register of \"{resource}\" holds what no version of this writes: {error}");
        StoreError::refused(ErrorKind::Corrupt, format!("{what}; nothing was written"))
    })
}

#[async_trait]
impl FenceRegister for EtcdFences {
    /// One message, or two.
    ///
    /// After an error that leaves it open whether it was applied, it may be asked for again; with [`Pass::Once`] that is
    /// refused where it was applied.
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        self.write(resource, fence, pass, []).await.map(drop)
    }

    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        let key = self.inner.keys.fence(resource);
        let get = |client: Client| {
            let key = key.clone();
            async move { client.kv_client().get(key, None).await }
        };
        let found = self.inner.link.read(get).await;
        let fence = found.and_then(|found| found.kvs().first().map(|kv| read(resource, kv)).transpose());
        self.report.told(None, fence)
    }

    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        let key = self.inner.keys.fence(resource);
        let delete = |client: Client| {
            let key = key.clone();
            async move { client.kv_client().delete(key, None).await }
        };
        let link = &self.inner.link;
        let deleted = link.write_once(link.clock.now() + link.operation_timeout, delete).await;
        self.inner.known.forget(resource);
        self.report.told(None, deleted.map(|deleted| deleted.deleted() > 0))
    }
}

impl fmt::Debug for EtcdFences {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdFences")
            .field("servers", &self.inner.link.shown())
            .field("prefix", &self.inner.keys.prefix())
            .finish_non_exhaustive()
    }
}
