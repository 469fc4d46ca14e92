//! The network between the nodes and the store: what is on its way, and what becomes of it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::future::join_all;
use lock_core::{
    AcquireRequest, Acquired, Capabilities, ErrorKind, EventSource, Heard, ListRequest, Listener, LockName,
    LockProvider, LockStatus, OwnerId, ReleaseRequest, Released, RenewRequest, Renewed, StoreError, Watch,
};
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    oneshot,
};

use super::{
    clock::NodeClock,
    resource::Write,
    world::{Shared, World},
};

/// Something on its way.
pub(super) struct Message {
    /// Whose it is, or whose answer.
    pub(super) node: usize,
    /// Which life of the node.
    pub(super) life: u32,
    pub(super) body: Body,
}

pub(super) enum Body {
    /// To the store, or to a resource.
    Question(Question, Way),
    /// To the node, in words for the trace.
    Answer(&'static str, Deliver),
}

/// Hands something over at its node.
pub(super) type Deliver = Box<dyn FnOnce() + Send>;

/// What becomes of the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) lost: bool,
    pub(super) delay: u64,
    /// When the node stops waiting for it.
    pub(super) given_up_at: u64,
}

pub(super) type Mouth<A> = Option<oneshot::Sender<Vec<Result<A, StoreError>>>>;

/// What is asked; without a mouth it is a double, and nobody hears the answer.
pub(super) enum Question {
    Acquire(Vec<AcquireRequest>, Mouth<Acquired>),
    Renew(Vec<RenewRequest>, Mouth<Renewed>),
    Release(Vec<ReleaseRequest>, Mouth<Released>),
    Listen(UnboundedSender<Heard>, Mouth<()>),
    Write(Write, Mouth<bool>),
}

impl Question {
    /// The same once more, as it arrives when a network doubles it.
    pub(super) fn double(&self) -> Option<Self> {
        Some(match self {
            Self::Acquire(requests, _) => Self::Acquire(requests.clone(), None),
            Self::Renew(requests, _) => Self::Renew(requests.clone(), None),
            Self::Release(requests, _) => Self::Release(requests.clone(), None),
            Self::Write(write, _) => Self::Write(write.clone(), None),
            Self::Listen(..) => return None,
        })
    }

    /// What tells the asker that it failed; nothing for a double.
    pub(super) fn fail(self, error: &StoreError) -> Option<Deliver> {
        match self {
            Self::Acquire(requests, mouth) => failed(requests.len(), mouth, error),
            Self::Renew(requests, mouth) => failed(requests.len(), mouth, error),
            Self::Release(requests, mouth) => failed(requests.len(), mouth, error),
            Self::Listen(_, mouth) => failed(1, mouth, error),
            Self::Write(_, mouth) => failed(1, mouth, error),
        }
    }
}

fn failed<A: Send + 'static>(count: usize, mouth: Mouth<A>, error: &StoreError) -> Option<Deliver> {
    let answers = (0..count).map(|_| Err(error.clone())).collect();
    told(mouth, answers)
}

/// Says this to the asker, if it is one.
pub(super) fn told<A: Send + 'static>(mouth: Mouth<A>, answers: Vec<Result<A, StoreError>>) -> Option<Deliver> {
    let mouth = mouth?;
    // Nobody may be there any more to hear it.
    Some(Box::new(move || drop(mouth.send(answers))))
}

/// A node's way to the store: the provider that its client is given.
pub(super) struct Link {
    line: Line,
    can: Capabilities,
    listener: Listener<Line>,
}

/// Sends the questions of one life of a node.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Arc<NodeClock>,
    pub(super) node: usize,
    pub(super) life: u32,
}

impl Line {
    pub(super) async fn ask<A>(&self, question: impl FnOnce(Mouth<A>) -> Question) -> Result<Vec<A>, StoreError>
    where
        A: Send,
    {
        self.ask_many(1, question).await.into_iter().collect()
    }

    async fn ask_many<A>(
        &self,
        count: usize,
        question: impl FnOnce(Mouth<A>) -> Question,
    ) -> Vec<Result<A, StoreError>> {
        let (mouth, ear) = oneshot::channel();
        let question = question(Some(mouth));
        World::send(&self.shared, self.node, self.life, self.clock.true_now(), question);
        ear.await.unwrap_or_else(|_| {
            let cut_off = || StoreError::unknown(ErrorKind::Other, "the simulation ended");
            (0..count).map(|_| Err(cut_off())).collect()
        })
    }

    async fn ask_one<A>(&self, question: impl FnOnce(Mouth<A>) -> Question) -> Result<A, StoreError> {
        let unanswered = || Err(StoreError::unknown(ErrorKind::Other, "no answer"));
        self.ask_many(1, question).await.pop().unwrap_or_else(unanswered)
    }
}

impl Link {
    pub(super) fn new(line: Line, can: Capabilities) -> Self {
        let listener = Listener::new(lock_core::WakeHub::default(), line.clone(), line.clock.clone());
        Self { line, can, listener }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("node", &self.line.node).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventSource for Line {
    type Subscription = UnboundedReceiver<Heard>;

    async fn subscribe(&self) -> Result<Self::Subscription, StoreError> {
        let (tell, ear) = unbounded_channel();
        self.ask(|mouth| Question::Listen(tell, mouth)).await.map(|_| ear)
    }

    async fn next(&self, ear: &mut Self::Subscription) -> Heard {
        tokio::select! {
            biased;
            heard = ear.recv() => heard.unwrap_or(Heard::Cut),
            () = self.clock.pause(std::time::Duration::from_secs(2)) => Heard::Nothing,
        }
    }
}

#[async_trait]
impl LockProvider for Link {
    fn capabilities(&self) -> &Capabilities {
        &self.can
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Acquired, StoreError> {
        self.line.ask_one(|mouth| Question::Acquire(vec![request.clone()], mouth)).await
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed, StoreError> {
        self.line.ask_one(|mouth| Question::Renew(vec![request.clone()], mouth)).await
    }

    async fn release(&self, request: &ReleaseRequest) -> Result<Released, StoreError> {
        self.line.ask_one(|mouth| Question::Release(vec![request.clone()], mouth)).await
    }

    async fn watch(&self, name: &LockName, _owner: OwnerId) -> Result<Watch, StoreError> {
        self.listener.watch(name).await
    }

    async fn inspect(&self, _name: &LockName) -> Result<Option<LockStatus>, StoreError> {
        Err(StoreError::refused(ErrorKind::Unsupported, "people don't look in a simulation"))
    }

    async fn list(&self, _request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
        Err(StoreError::refused(ErrorKind::Unsupported, "people don't look in a simulation"))
    }

    async fn force_release(&self, _name: &LockName) -> Result<bool, StoreError> {
        Err(StoreError::refused(ErrorKind::Unsupported, "the simulation takes locks away by itself"))
    }

    async fn acquire_many(&self, requests: &[AcquireRequest]) -> Vec<Result<Acquired, StoreError>> {
        if self.can.grouping.is_none() {
            return join_all(requests.iter().map(|request| self.acquire(request))).await;
        }
        self.line.ask_many(requests.len(), |mouth| Question::Acquire(requests.to_vec(), mouth)).await
    }

    async fn renew_many(&self, requests: &[RenewRequest]) -> Vec<Result<Renewed, StoreError>> {
        if self.can.grouping.is_none() {
            return join_all(requests.iter().map(|request| self.renew(request))).await;
        }
        self.line.ask_many(requests.len(), |mouth| Question::Renew(requests.to_vec(), mouth)).await
    }

    async fn release_many(&self, requests: &[ReleaseRequest]) -> Vec<Result<Released, StoreError>> {
        if self.can.grouping.is_none() {
            return join_all(requests.iter().map(|request| self.release(request))).await;
        }
        self.line.ask_many(requests.len(), |mouth| Question::Release(requests.to_vec(), mouth)).await
    }
}
