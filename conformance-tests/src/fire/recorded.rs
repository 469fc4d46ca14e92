//! A store whose renewals and releases go into the history, whoever sends them.

use std::sync::Arc;

use async_trait::async_trait;
use lock_core::{
    AcquireRequest, Acquired, Applied, Capabilities, ListRequest, LockName, LockProvider, LockStatus, OwnerId,
    ReleaseRequest, Released, RenewRequest, Renewed, StoreError, Waiting, Watch,
};
use lock_verify::history::{Event, F, Why};
use tokio::sync::watch;

use super::{
    owners::{Owners, call_of},
    pen::Pen,
};

/// Records what the core asks of a store on its own: renewals, releases, places in line. What tasks ask for, they record.
#[derive(Debug)]
pub(super) struct Recorded {
    store: Arc<dyn LockProvider>,
    pen: Pen,
    owners: Owners,
    told_to_queue: watch::Sender<u64>,
}

impl Recorded {
    pub(super) fn new(store: Arc<dyn LockProvider>, pen: Pen, owners: Owners) -> Self {
        Self { store, pen, owners, told_to_queue: watch::Sender::new(0) }
    }

    /// How often somebody was told to stand in line.
    pub(super) fn told_to_queue(&self) -> watch::Receiver<u64> {
        self.told_to_queue.subscribe()
    }

    fn queued(&self, request: &AcquireRequest, answer: &Result<Acquired, StoreError>) {
        if let (Waiting::InLine(_), Ok(Acquired::Held(_))) = (request.waiting, answer) {
            // Whose call it is, its label says.
            if let Some(call) = call_of(request) {
                self.pen.within(call, F::Queued, |event| event.lock(request.name.as_str()).owner(request.owner));
                self.told_to_queue.send_modify(|told| *told += 1);
            }
        }
    }

    fn renews(&self, request: &RenewRequest) -> Event {
        // Without a ttl: until when the client believes it says itself, and this is recorded a little after its `sent`.
        self.pen.invoke(F::Renew, |event| event.lock(request.name.as_str()).owner(request.owner).token(request.token))
    }

    fn renewed(&self, begun: &Event, answer: &Result<Renewed, StoreError>) {
        match answer {
            Ok(Renewed::Held(_)) => self.pen.ok(begun, |event| event),
            Ok(_) => self.pen.fail(begun, Why::NotOurs),
            Err(error) => self.failed(begun, error),
        }
    }

    fn releases(&self, request: &ReleaseRequest) -> Event {
        self.pen.invoke(F::Release, |event| {
            let event = event.lock(request.name.as_str()).owner(request.owner);
            let event = if request.keep_for.is_zero() { event } else { event.keep_for(request.keep_for) };
            match request.token {
                Some(token) => event.token(token),
                None => event,
            }
        })
    }

    fn released(&self, begun: &Event, answer: &Result<Released, StoreError>) {
        match answer {
            Ok(Released::Released) => self.pen.ok(begun, |event| event),
            Ok(_) => self.pen.fail(begun, Why::NotOurs),
            Err(error) => self.failed(begun, error),
        }
    }

    fn failed(&self, begun: &Event, error: &StoreError) {
        match error.applied() {
            Applied::No => self.pen.fail_with(begun, Why::Error, error),
            Applied::Maybe => self.pen.info_with(begun, error),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl LockProvider for Recorded {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        self.owners.note(request);
        let answer = self.store.acquire(request).await;
        self.queued(request, &answer);
        answer
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        let begun = self.renews(request);
        let answer = self.store.renew(request).await;
        self.renewed(&begun, &answer);
        answer
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        let begun = self.releases(request);
        let answer = self.store.release(request).await;
        self.released(&begun, &answer);
        answer
    }

    async fn watch(&self, name: &LockName, owner: OwnerId) -> Result<Watch, StoreError> {
        self.store.watch(name, owner).await
    }

    async fn inspect(&self, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        self.store.inspect(name).await
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        self.store.list(request).await
    }

    async fn force_release(&self, name: &LockName) -> Result<bool, StoreError> {
        self.store.force_release(name).await
    }

    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        requests.iter().for_each(|request| self.owners.note(request));
        let answers = self.store.acquire_many(requests).await;
        requests.iter().zip(&answers).for_each(|(request, answer)| self.queued(request, answer));
        answers
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        let begun: Vec<_> = requests.iter().map(|request| self.renews(request)).collect();
        let answers = self.store.renew_many(requests).await;
        begun.iter().zip(&answers).for_each(|(begun, answer)| self.renewed(begun, answer));
        answers
    }

    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        let begun: Vec<_> = requests.iter().map(|request| self.releases(request)).collect();
        let answers = self.store.release_many(requests).await;
        begun.iter().zip(&answers).for_each(|(begun, answer)| self.released(begun, answer));
        answers
    }
}
