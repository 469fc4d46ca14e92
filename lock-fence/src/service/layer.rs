//! The layer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, request::Parts};
use lock_core::{Fence, FenceRegister, FenceReport, Observer, Pass, RefusalReason, Resource};
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument as _;

use super::{
    gate::{Gate, Stay},
    header,
    refusal::Refusal,
};

type Naming = dyn Fn(&Parts) -> Result<Resource, Refusal> + Send + Sync;

/// Lets requests in by their [`HEADER`](super::HEADER), and answers those that are stale with 409.
///
/// Clones share what is being answered. What is let in carries its [`Fence`] among the request's extensions.
///
/// A request that goes through several layers, one resource each, stays inside of the outer one while it waits for the inner
/// one. So nest them in the same order on every route: in opposite orders two requests may each wait for the other for ever.
#[derive(Clone)]
pub struct FenceLayer {
    register: Arc<dyn FenceRegister>,
    naming: Arc<Naming>,
    pass: Pass,
    optional: bool,
    gate: Arc<Gate>,
    report: FenceReport,
}

impl FenceLayer {
    /// All requests write this one resource.
    #[must_use]
    pub fn new(register: impl FenceRegister, resource: Resource) -> Self {
        Self::by(register, move |_| Ok(resource.clone()))
    }

    /// A request says what it writes, by its path or otherwise. Of what `naming` gives, the register keeps one entry each:
    /// let it name what there is, and not whatever a request asks for.
    ///
    /// ```
    /// use lock_core::MemoryFences;
    /// use lock_fence::{Resource, service::{FenceLayer, Refusal}};
    ///
    /// let layer = FenceLayer::by(MemoryFences::new(), |request| {
    ///     let account = request.uri.path().rsplit('/').next().unwrap_or_default();
    ///     Resource::new(format!("account-{account}")).map_err(Refusal::Resource)
    /// });
    /// ```
    #[must_use]
    pub fn by(
        register: impl FenceRegister,
        naming: impl Fn(&Parts) -> Result<Resource, Refusal> + Send + Sync + 'static,
    ) -> Self {
        let (register, naming) = (Arc::new(register), Arc::new(naming));
        let report = FenceReport::new("service");
        Self { register, naming, pass: Pass::Again, optional: false, gate: Arc::default(), report }
    }

    /// Which tokens pass; [`Pass::Again`] by default. With [`Pass::Once`] a request that waits for others is judged only when
    /// they are gone, and those that wait are let in in no order. None is answered after a newer one all the same, since it is
    /// judged inside; but a newer one may have to wait until many that are stale were told so.
    #[must_use]
    pub fn pass(mut self, pass: Pass) -> Self {
        self.pass = pass;
        self
    }

    /// Lets requests in that carry no fence, as reads may. They are not checked at all.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Tells this observer of requests whose header is missing or no fence, for metrics: as store `service`, for the reason
    /// [`Invalid`](RefusalReason::Invalid). Of those that the register refuses, the register tells its own observer.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.report = self.report.observer(observer);
        self
    }

    /// By the header alone; `None` if it is missing, and may be.
    fn fence_of(&self, parts: &Parts) -> Result<Option<Fence>, Refusal> {
        let read = match header::read(&parts.headers) {
            Ok(None) if !self.optional => Err(Refusal::Missing),
            read => read,
        };
        if read.is_err() {
            self.report.refused(RefusalReason::Invalid);
        }
        read
    }

    async fn let_in(&self, parts: &Parts) -> Result<Option<(Fence, Stay)>, Refusal> {
        let Some(fence) = self.fence_of(parts)? else { return Ok(None) };
        let resource = (self.naming)(parts)?;
        let stay = loop {
            let empty = match self.gate.enter(&resource, &fence, false) {
                Ok(stay) => break stay,
                Err(empty) => empty,
            };
            let emptied = empty.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            // Before the wait: from here on no more of those come in that it waits for, since these are asked as well now; and
            // who is stale needn't wait. One that passes once is judged when it is inside, and waits until then, also for
            // those of its own grant.
            let asked = self.pass == Pass::Again;
            if asked {
                self.register.raise(&resource, &fence, self.pass).await?;
            }
            match self.gate.enter(&resource, &fence, asked) {
                Ok(stay) => break stay,
                // The last one may have gone before the wait was set up, and others come since: these tell anew.
                Err(now) if Arc::ptr_eq(&now, &empty) => emptied.await,
                Err(_) => {}
            }
        };
        // Inside, so that nobody is let in between this and the end of the request who would change its answer.
        self.register.raise(&resource, &fence, self.pass).await?;
        Ok(Some((fence, stay)))
    }
}

impl fmt::Debug for FenceLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("FenceLayer");
        shown.field("register", &self.register).field("pass", &self.pass).field("optional", &self.optional);
        shown.finish_non_exhaustive()
    }
}

impl<S> Layer<S> for FenceLayer {
    type Service = FenceService<S>;

    fn layer(&self, inner: S) -> FenceService<S> {
        FenceService { inner, layer: self.clone() }
    }
}

/// A service behind a [`FenceLayer`].
#[derive(Clone, Debug)]
pub struct FenceService<S> {
    inner: S,
    layer: FenceLayer,
}

impl<S, Q, B> Service<Request<Q>> for FenceService<S>
where
    S: Service<Request<Q>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    Q: Send + 'static,
    B: From<String> + Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        // The one that was polled ready is called; its clone waits to be polled.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let stay = match layer.let_in(&parts).await {
                Ok(Some((fence, stay))) => {
                    parts.extensions.insert(fence);
                    Some(stay)
                }
                Ok(None) => None,
                Err(refusal) => {
                    tell(&refusal);
                    return Ok(refusal.response());
                }
            };
            let Some(stay) = stay else { return inner.call(Request::from_parts(parts, body)).await };
            // Inside until it is answered, also if nobody waits for the answer any more: a client that goes away doesn't take
            // back what the handler has sent to a database.
            let answer = async move {
                let answer = inner.call(Request::from_parts(parts, body)).await;
                drop(stay);
                answer
            };
            let answer = tokio::spawn(answer.in_current_span());
            match answer.await {
                Ok(answer) => answer,
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // Nobody aborts it, so the runtime is shutting down, and this with it.
                    Err(_) => std::future::pending().await,
                },
            }
        })
    }
}

fn tell(refusal: &Refusal) {
    match refusal {
        Refusal::Unavailable(error) | Refusal::Unknown(error) => {
            tracing::warn!(%error, "a fenced request was turned away")
        }
        refusal => tracing::info!(%refusal, "a fenced request was turned away"),
    }
}
