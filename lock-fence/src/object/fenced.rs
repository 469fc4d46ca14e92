//! The fenced objects.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lock_core::{
    Applied, ErrorKind, Fence, FenceError, FenceRegister, FenceReport, Observer, Pass, Resource, StoreError, ToFence,
    admit,
};

use super::{
    conditional::{ConditionalObjects, Found},
    key,
    line::{Line, Mark, REMEMBERED},
};

/// How often a write that others came before is tried again: those have written, so somebody gets on.
const TRIES: usize = 64;

/// Objects, each of which keeps the highest fence it has seen in its first line.
///
/// The name of a resource is the object's key, in which `%`, `\`, control characters, slashes beside which there is nothing
/// and dots at the end of a part are `%` and one letter or digit: `%s` for a slash, `%d` for a dot, `%p` for `%`. So no key has more
/// than the 1,024 bytes that S3 takes.
#[derive(Debug)]
pub struct FencedObjects<S> {
    store: S,
    report: FenceReport,
}

/// An object, taken apart.
struct Object {
    found: Found,
    line: Line,
    content: Bytes,
}

/// What is to be written: the fence it has seen then, and its content. Or nothing, if there is no need.
type Next = Option<(Option<Fence>, Bytes)>;

impl<S: ConditionalObjects> FencedObjects<S> {
    /// Over this store.
    #[must_use]
    pub const fn new(store: S) -> Self {
        Self { store, report: FenceReport::new("object store") }
    }

    /// Tells refusals to this observer, for metrics.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// Replaces the object's content, or makes the object, if the fence passes. Two round trips if nobody comes between.
    ///
    /// # Errors
    /// Refusals ([`FenceError::is_refusal`]), with nothing written. [`FenceError::Store`], which says whether it may have
    /// been written. Then with [`Pass::Again`] the same `put` may be tried again. With [`Pass::Once`] that is refused as
    /// stale if the first one was written: look ([`highest`](FenceRegister::highest), [`get`](Self::get)) before you try.
    ///
    /// Not cancel safe: dropped, it may be written or not.
    pub async fn put(
        &self,
        resource: &Resource,
        lease: &impl ToFence,
        pass: Pass,
        bytes: Bytes,
    ) -> Result<(), FenceError> {
        self.update(resource, lease, pass, |_| bytes.clone()).await
    }

    /// Makes the object's new content of what it holds now (`None`: there is none), if the fence passes. `change` may be
    /// called more than once, each time with newer content, until nobody came between; what it makes is written once.
    ///
    /// # Errors
    /// Those of [`put`](Self::put). After a [`FenceError::Store`] that may have been applied, look before you try again.
    /// Such a one is also told if more than 15 other writes came between, since an object doesn't remember more.
    ///
    /// Not cancel safe: dropped, it may be written or not.
    pub async fn update(
        &self,
        resource: &Resource,
        lease: &impl ToFence,
        pass: Pass,
        change: impl Fn(Option<Bytes>) -> Bytes + Send + Sync,
    ) -> Result<(), FenceError> {
        let fence = self.report.told(None, lease.to_fence())?;
        let next = |now: Option<&Object>| {
            admit(now.and_then(|now| now.line.fence.as_ref()), resource, &fence, pass)?;
            let content = now.map(|now| now.content.clone());
            Ok(Some((Some(fence.clone()), change(content))))
        };
        self.report.told(Some(fence.lock()), self.write(resource, &next).await.map(drop))
    }

    /// What the object holds, without its first line if it is fenced; `None` if there is none. The fence isn't asked: who
    /// reads to write reads by [`update`](Self::update), or raises first.
    ///
    /// # Errors
    /// [`FenceError::Store`].
    pub async fn get(&self, resource: &Resource) -> Result<Option<Bytes>, FenceError> {
        Ok(self.report.told(None, self.find(resource).await)?.map(|now| now.content))
    }

    /// Whether there was need to write.
    async fn write(
        &self,
        resource: &Resource,
        next: &(dyn Fn(Option<&Object>) -> Result<Next, FenceError> + Send + Sync + '_),
    ) -> Result<bool, FenceError> {
        // By it a write is known again whose answer was lost, or that was sent twice below us.
        let mark = Mark::random();
        let key = key::of_resource(resource);
        let mut now = self.find(resource).await?;
        for _ in 0..TRIES {
            let Some((fence, content)) = next(now.as_ref())? else { return Ok(false) };
            let line = now.as_ref().map_or_else(Line::default, |now| now.line.clone()).next(fence, mark);
            let unchanged = now.as_ref().map(|now| &now.found);
            if self.store.put_if(&key, line.before(&content), unchanged).await? {
                return Ok(true);
            }
            let after = self.find(resource).await.map_err(|error| in_doubt(resource, Some(error)))?;
            match was_written(mark, now.as_ref(), after.as_ref()) {
                Some(true) => return Ok(true),
                Some(false) => now = after,
                None => return Err(in_doubt(resource, None).into()),
            }
        }
        let message = format!("others wrote \"{resource}\" first, {TRIES} times");
        Err(StoreError::refused(ErrorKind::Contention, message).into())
    }

    /// The object as it is now. An error says that nothing was written: nothing is.
    async fn find(&self, resource: &Resource) -> Result<Option<Object>, StoreError> {
        let found = self.store.get(&key::of_resource(resource)).await.map_err(|error| match error.applied() {
            Applied::No => error,
            _ => StoreError::refused(error.kind(), "the object can't be read").caused_by(error),
        })?;
        let Some(found) = found else { return Ok(None) };
        let Some((line, content)) = Line::split(&found.bytes) else {
            let message = format!(
                "the first line of \"{resource}\" begins as a fence does, and no version of this crate has written it"
            );
            return Err(StoreError::refused(ErrorKind::Corrupt, message));
        };
        Ok(Some(Object { found, line, content }))
    }
}

/// Whether a write of which it was told that others came first is in what is there now; `None` if that can't be seen.
fn was_written(mark: Mark, before: Option<&Object>, now: Option<&Object>) -> Option<bool> {
    let now = now?;
    if now.line.marks.contains(&mark) {
        return Some(true);
    }
    if before.is_some_and(|before| before.found.version == now.found.version) {
        return Some(false);
    }
    // It isn't among the writes that have been since, if those are all remembered.
    let all = match before.and_then(|before| before.line.marks.first()) {
        Some(last) => now.line.marks.contains(last),
        None => (1..REMEMBERED).contains(&now.line.marks.len()),
    };
    all.then_some(false)
}

fn in_doubt(resource: &Resource, error: Option<StoreError>) -> StoreError {
    let message =
        format!("others wrote \"{resource}\" after it was read, and whether it was written before can't be seen");
    match error {
        Some(error) => StoreError::unknown(error.kind(), message).caused_by(error),
        None => StoreError::unknown(ErrorKind::Contention, message),
    }
}

#[async_trait]
impl<S: ConditionalObjects> FenceRegister for FencedObjects<S> {
    /// An object that isn't there is made, with nothing in it but its first line.
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        let next = |now: Option<&Object>| {
            let raises = admit(now.and_then(|now| now.line.fence.as_ref()), resource, fence, pass)?;
            let content = now.map(|now| now.content.clone()).unwrap_or_default();
            Ok(raises.then(|| (Some(fence.clone()), content)))
        };
        self.report.told(Some(fence.lock()), self.write(resource, &next).await.map(drop))
    }

    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        Ok(self.report.told(None, self.find(resource).await)?.and_then(|now| now.line.fence))
    }

    /// Writes the object anew without what it has seen; its content stays, and so does its first line, with `-` for a fence.
    /// A first line that is [`Corrupt`](ErrorKind::Corrupt) is for people to mend: what follows it can't be told.
    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        let next = |now: Option<&Object>| {
            let known = now.filter(|now| now.line.fence.is_some());
            Ok(known.map(|now| (None, now.content.clone())))
        };
        self.report.told(None, self.write(resource, &next).await)
    }
}
