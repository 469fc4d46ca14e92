//! The highest fence of each resource, kept in ZooKeeper.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::future::join;
use lock_core::{
    Applied, ErrorKind, Fence, FenceError, FenceRegister, FenceReport, Observer, Pass, Resource, StoreError, ToFence,
    admit,
};
use zookeeper_client::{CheckWriter, Client, CreateMode, Error, MultiWriteResult};

use crate::{
    config::{Builder, Settings, Source},
    error::Trouble,
    fence::{
        builder::FencesBuilder,
        remembered::Remembered,
        step::{Miss, below, commit, rooted, told, unsent},
    },
    ground::{Ground, LONGEST, Patience},
    names::{encoded, read_back},
    people::Front,
    provider::STORE,
};

/// Fences of what lives in ZooKeeper, whatever store keeps the lock. Clones share a session.
///
/// A write goes along with its check in one multi: both are done, or neither. Once the highest fence of a resource is known,
/// as it is after the first write, that is one message. A fence is the name of a node, `/leasehold/fences/RESOURCE/FENCE`,
/// so people see it by `ls`.
///
/// ```no_run
/// # async fn example(guard: lock_core::LeaseGuard) -> Result<(), Box<dyn std::error::Error>> {
/// use lock_core::{FenceRegister, Pass, Resource};
/// use lock_zookeeper::ZooKeeperFences;
///
/// let fences = ZooKeeperFences::connect("zookeeper://zk1.example,zk2.example,zk3.example").await?;
/// let accounts = Resource::new("accounts")?;
/// // Before the first read: from here on writes under earlier grants are refused.
/// fences.raise(&accounts, &guard.fence()?, Pass::Again).await?;
/// fences.write(&accounts, &guard, Pass::Again, |multi| multi.add_set_data("/accounts/42", b"100", None)).await?;
/// # Ok(()) }
/// ```
///
/// # Forgetting, and what people may delete
///
/// [`forget`](FenceRegister::forget) deletes a resource's node, and so may people (`deleteall`, as long as no holder of the
/// lock is at work: its late write would be the first, and pass). Nothing that was remembered of it lets a write pass
/// afterwards that what is kept by then refuses.
#[derive(Clone)]
pub struct ZooKeeperFences {
    inner: Arc<Inner>,
    report: FenceReport,
}

struct Inner {
    ground: Arc<Ground>,
    front: Front,
    highest: Remembered<Resource, Fence>,
}

impl ZooKeeperFences {
    /// Connects by URL, with the defaults of [`FencesBuilder`], as the locks do:
    /// `zookeeper://user:password@host1:2181,host2:2181/chroot?leasehold_path=/path`.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).build().await
    }

    /// Sets a register up, from a URL.
    pub fn builder(source: impl Into<Source>) -> FencesBuilder {
        FencesBuilder::new(Builder::new(source.into()))
    }

    pub(super) async fn start(settings: Settings) -> Result<Self, StoreError> {
        let ground = Arc::new(Ground::new(settings));
        let (client, _) = ground.open(LONGEST).await?;
        ground.prepare(&client, &[ground.paths.fences()]).await?;
        let front = Front::new(&ground, client);
        let inner = Arc::new(Inner { ground, front, highest: Remembered::default() });
        Ok(Self { inner, report: FenceReport::new(STORE) })
    }

    /// Tells refusals to this observer, for metrics. Clones that were made before don't.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// Does what `write` adds if the fence passes, in one step with the check and with the raise, if it is the highest by now.
    /// The answers to what was added, in that order.
    ///
    /// Paths are below the URL's chroot. `write` is called again when somebody else has raised the fence between the look and
    /// the step; it adds the same each time, and sends nothing itself. What it added is sent once: when no answer comes,
    /// that is told, and it isn't sent again.
    ///
    /// Not cancel safe: dropped after it was sent, it may be done.
    ///
    /// # Errors
    /// [`FenceError::Stale`] and [`FenceError::OtherLock`], with nothing written, here or in the register.
    /// [`FenceError::Store`], which says whether something may have been: where the server refused one of the operations
    /// that were added, nothing was, and its source is the driver's
    /// [`MultiWriteError`](zookeeper_client::MultiWriteError) with the place of that operation among them;
    /// [`ErrorKind::Corrupt`] if the register holds what no version writes.
    pub async fn write(
        &self,
        resource: &Resource,
        fence: &impl ToFence,
        pass: Pass,
        write: impl FnMut(&mut CheckWriter<'_>) -> Result<(), Error>,
    ) -> Result<Vec<MultiWriteResult>, FenceError> {
        let fence = self.report.told(None, fence.to_fence())?;
        self.report.told(Some(fence.lock()), self.step(resource, &fence, pass, write).await)
    }

    async fn step(
        &self,
        resource: &Resource,
        fence: &Fence,
        pass: Pass,
        mut write: impl FnMut(&mut CheckWriter<'_>) -> Result<(), Error>,
    ) -> Result<Vec<MultiWriteResult>, FenceError> {
        let Inner { ground, front, highest: remembered } = &*self.inner;
        let patience = ground.patience(ground.operation_timeout);
        let path = ground.paths.fence(resource);
        let mut memory = remembered.get(resource);
        loop {
            let (highest, is_remembered) = match memory.take() {
                Some(highest) => (Some(highest), true),
                None => (self.look(&path, &patience).await?, false),
            };
            let raises = match admit(highest.as_ref(), resource, fence, pass) {
                Ok(raises) => raises,
                // Maybe it was forgotten since.
                Err(_) if is_remembered => continue,
                Err(refusal) => {
                    if let Some(highest) = highest {
                        remembered.keep(resource.clone(), highest);
                    }
                    return Err(refusal);
                }
            };
            let client = rooted(&front.client(&patience).await?, ground.chroot());
            let step = Step { ground, path: &path, highest: highest.as_ref(), raised: raises.then_some(fence) };
            let (mut multi, own) = step.begin(&client).map_err(unsent)?;
            write(&mut multi).map_err(unsent)?;
            match commit(multi, own, &patience).await {
                Ok(results) => {
                    remembered.keep(resource.clone(), fence.clone());
                    return Ok(results);
                }
                Err(Miss::Own(error)) => {
                    remembered.drop(resource);
                    self.after_refusal(error, &path, highest.is_none(), &patience).await?;
                }
                Err(Miss::Theirs(error)) => return Err(error.into()),
                Err(Miss::Request(trouble)) => {
                    front.note(&trouble);
                    return Err(told(trouble, &path));
                }
            }
        }
    }

    /// What follows where our part of a step was refused: the fence was changed meanwhile, and is looked at again, or
    /// something is amiss.
    async fn after_refusal(
        &self,
        error: Error,
        path: &str,
        was_first: bool,
        patience: &Patience<'_>,
    ) -> Result<(), StoreError> {
        let Inner { ground, front, .. } = &*self.inner;
        match error {
            Error::NoNode | Error::NodeExists if patience.is_over() => {
                let message = format!("{path} changed again and again for {:?}", ground.operation_timeout);
                Err(StoreError::refused(ErrorKind::Contention, message))
            }
            // The parent of all was deleted, or its node was by whoever forgot it.
            Error::NoNode if was_first => {
                let (client, fences) = (front.client(patience).await?, ground.paths.fences());
                let made = ground.make(&client, &fences, patience).await;
                made.map_err(|trouble| trouble.told(&fences, Applied::No))
            }
            Error::NoNode | Error::NodeExists => Ok(()),
            Error::NotEmpty => Err(corrupt(path)),
            error => Err(Trouble::from(error).told(path, Applied::No)),
        }
    }

    /// The highest fence as it is kept.
    async fn look(&self, path: &str, patience: &Patience<'_>) -> Result<Option<Fence>, StoreError> {
        let Some(children) = self.children(path, patience).await? else { return Ok(None) };
        let [only] = &*children else { return Err(corrupt(path)) };
        let fence = read_back(only).and_then(|text| text.parse().ok());
        fence.map(Some).ok_or_else(|| corrupt(path))
    }

    /// What is below a resource's node, as it is by now everywhere; `None` where that isn't.
    async fn children(&self, path: &str, patience: &Patience<'_>) -> Result<Option<Vec<String>>, StoreError> {
        let children = |client: Client| async move {
            let (synced, children) = (client.sync(path), client.list_children(path));
            let (synced, children) = patience.of(async { Ok::<_, Trouble>(join(synced, children).await) }).await?;
            match (synced, children) {
                (_, Err(Error::NoNode)) => Ok(None),
                (Err(error), _) | (_, Err(error)) => Err(error.into()),
                (Ok(()), Ok(children)) => Ok(Some(children)),
            }
        };
        self.inner.front.ask(path, patience, children).await
    }

    async fn forget_all(&self, resource: &Resource) -> Result<bool, FenceError> {
        let Inner { ground, front, highest: remembered } = &*self.inner;
        let patience = ground.patience(ground.operation_timeout);
        let path = ground.paths.fence(resource);
        remembered.drop(resource);
        loop {
            let Some(children) = self.children(&path, &patience).await? else { return Ok(false) };
            let client = front.client(&patience).await?;
            let own = children.len() + 1;
            let multi = || {
                let mut multi = client.new_check_writer(&path, None)?;
                for child in &children {
                    multi.add_delete(&format!("{path}/{child}"), None)?;
                }
                multi.add_delete(&path, None)?;
                Ok(multi)
            };
            match commit(multi().map_err(unsent)?, own, &patience).await {
                Ok(_) => return Ok(true),
                Err(Miss::Own(Error::NoNode)) if !patience.is_over() => {}
                Err(Miss::Own(Error::NotEmpty)) => return Err(corrupt(&path).into()),
                Err(Miss::Own(error)) => return Err(Trouble::from(error).told(&path, Applied::No).into()),
                Err(Miss::Theirs(error)) => return Err(error.into()),
                Err(Miss::Request(trouble)) => {
                    front.note(&trouble);
                    return Err(told(trouble, &path));
                }
            }
        }
    }
}

/// Our part of a write.
struct Step<'a> {
    ground: &'a Ground,
    path: &'a str,
    highest: Option<&'a Fence>,
    raised: Option<&'a Fence>,
}

impl Step<'_> {
    /// A multi with our part, and how many operations that is besides the check. Refused as a whole unless what is kept is
    /// still what was seen.
    fn begin<'c>(&self, client: &'c Client) -> Result<(CheckWriter<'c>, usize), Error> {
        let inside = |path: String| below(self.ground.chroot(), &path).unwrap_or(&path).to_owned();
        let node = |fence: &Fence| inside(format!("{}/{}", self.path, encoded(&fence.to_string())));
        let options = self.ground.options(CreateMode::Persistent);
        let first = self.highest.map_or_else(|| inside(self.ground.paths.fences()), node);
        let mut multi = client.new_check_writer(&first, None)?;
        let Some(raised) = self.raised else { return Ok((multi, 0)) };
        match self.highest {
            Some(highest) => multi.add_delete(&node(highest), None)?,
            None => multi.add_create(&inside(self.path.to_owned()), b"", &options)?,
        }
        multi.add_create(&node(raised), b"", &options)?;
        Ok((multi, 2))
    }
}

fn corrupt(path: &str) -> StoreError {
    let message = format!(
        "{path} has to have one child, which is a fence and has none: delete it with all that is below when no holder of its lock is at work"
    );
    StoreError::refused(ErrorKind::Corrupt, message)
}

#[async_trait]
impl FenceRegister for ZooKeeperFences {
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        self.write(resource, fence, pass, |_| Ok(())).await.map(drop)
    }

    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        let Inner { ground, .. } = &*self.inner;
        let patience = ground.patience(ground.operation_timeout);
        self.report.told(None, self.look(&ground.paths.fence(resource), &patience).await)
    }

    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        self.report.told(None, self.forget_all(resource).await)
    }
}

impl fmt::Debug for ZooKeeperFences {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperFences")
            .field("servers", &self.inner.ground.hosts())
            .field("path", &self.inner.ground.paths.fences())
            .finish_non_exhaustive()
    }
}
