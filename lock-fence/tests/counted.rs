//! What is refused is told to whoever counts it, once.
#![cfg(all(feature = "axum", feature = "files", feature = "object-store"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

use std::sync::Arc;

use axum::{Router, body::Body};
use http::{Request, StatusCode};
use lock_core::{
    Event, Fence, FenceError, FenceRegister, MemoryFences, Observer, Pass, RefusalReason, Resource, TestObserver, Told,
};
use lock_fence::{files::FileFences, object::FencedObjects, service::FenceLayer};
use object_store::{ObjectStore, memory::InMemory};
use tower::ServiceExt;

use RefusalReason::{Invalid, OtherLock, Stale, Used};

/// Which stores it was told of, and why they refused: since this was last asked, in order, and nothing but that.
fn refusals(told: &TestObserver) -> Vec<(&'static str, RefusalReason)> {
    let refusal = |told: Told| match told.event {
        Event::FenceRefused { reason } if told.class.is_none() => (told.store, reason),
        _ => panic!("{told:?}"),
    };
    told.take().into_iter().map(refusal).collect()
}

fn accounts() -> Resource {
    Resource::new("accounts").unwrap()
}

fn fence(text: &str) -> Fence {
    text.parse().unwrap()
}

/// What is no fence, as a lease that isn't exclusive has none.
struct NoFence;

impl lock_core::ToFence for NoFence {
    fn to_fence(&self) -> Result<Fence, lock_core::InvalidFence> {
        "0@accounts".parse()
    }
}

/// A write under a fence, in one of a register's ways; whether it was refused.
async fn refused<T>(outcome: impl Future<Output = Result<T, FenceError>>) -> bool {
    match outcome.await {
        Ok(_) => false,
        Err(error) => {
            assert!(error.is_refusal(), "{error}");
            true
        }
    }
}

#[tokio::test]
async fn files_tell_each_refusal_once() {
    let (directory, seen) = (tempfile::tempdir().unwrap(), Arc::new(TestObserver::default()));
    let fences = FileFences::open(directory.path()).await.unwrap().observer(seen.clone());
    let r = accounts();
    assert!(!refused(fences.raise(&r, &fence("6@x"), Pass::Again)).await && refusals(&seen).is_empty());
    assert!(refused(fences.raise(&r, &fence("5@x"), Pass::Again)).await);
    assert!(refused(fences.admit(&r, &fence("6@x"), Pass::Once)).await);
    assert!(refused(fences.write(&r, &fence("9@y"), Pass::Again, "a", "a")).await);
    assert!(refused(fences.admit(&r, &NoFence, Pass::Again)).await);
    assert!(refused(fences.write(&r, &NoFence, Pass::Again, "a", "a")).await);
    assert_eq!(refusals(&seen), [Stale, Used, OtherLock, Invalid, Invalid].map(|reason| ("files", reason)));
    // A mistake in the file's name is no refusal of the fence.
    let wrong = fences.write(&r, &fence("6@x"), Pass::Again, "../a", "a").await.unwrap_err();
    assert!(!wrong.is_refusal() && wrong.to_string().contains("files"), "{wrong}");
    assert!(refusals(&seen).is_empty());
}

#[tokio::test]
async fn objects_tell_each_refusal_once() {
    let seen = Arc::new(TestObserver::default());
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let objects = FencedObjects::new(store).observer(seen.clone());
    let r = accounts();
    assert!(!refused(objects.put(&r, &fence("6@x"), Pass::Again, "a".into())).await && refusals(&seen).is_empty());
    assert!(refused(objects.raise(&r, &fence("5@x"), Pass::Again)).await);
    assert!(refused(objects.put(&r, &fence("6@x"), Pass::Once, "b".into())).await);
    assert!(refused(objects.update(&r, &fence("9@y"), Pass::Again, |_| "b".into())).await);
    assert!(refused(objects.put(&r, &NoFence, Pass::Again, "b".into())).await);
    assert_eq!(refusals(&seen), [Stale, Used, OtherLock, Invalid].map(|reason| ("object store", reason)));
}

async fn status(app: &Router, headers: &[&str]) -> StatusCode {
    let request = headers.iter().fold(Request::post("/"), |request, value| request.header("Fencing-Token", *value));
    app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
}

#[tokio::test]
async fn a_service_tells_of_the_header_and_its_register_of_the_rest() {
    let (by_register, by_layer) = (Arc::new(TestObserver::default()), Arc::new(TestObserver::default()));
    let register = MemoryFences::new().observer(by_register.clone());
    let layer = FenceLayer::new(register, accounts()).observer(by_layer.clone());
    let app: Router = Router::new().fallback(|| async { "written" }).layer(layer.clone());
    let reads: Router = Router::new().fallback(|| async { "read" }).layer(layer.optional());
    assert_eq!(status(&app, &["6@x"]).await, StatusCode::OK);
    assert_eq!(status(&reads, &[]).await, StatusCode::OK);
    assert!(refusals(&by_register).is_empty() && refusals(&by_layer).is_empty());
    for headers in [&[][..], &["6"], &["6@x", "7@x"]] {
        assert!(status(&app, headers).await.is_client_error(), "{headers:?}");
        assert_eq!((refusals(&by_layer), refusals(&by_register)), (vec![("service", Invalid)], vec![]), "{headers:?}");
    }
    for (header, reason) in [("5@x", Stale), ("7@y", OtherLock)] {
        assert_eq!(status(&app, &[header]).await, StatusCode::CONFLICT);
        assert_eq!((refusals(&by_layer), refusals(&by_register)), (vec![], vec![("memory", reason)]), "{header}");
    }
}

/// Keeps what it is told, and panics.
#[derive(Debug, Default)]
struct Panics(TestObserver);

impl Observer for Panics {
    fn observed(&self, store: &'static str, class: Option<&str>, event: &Event) {
        self.0.observed(store, class, event);
        panic!("{store} told of {event:?}");
    }
}

#[tokio::test]
async fn a_service_answers_though_its_observer_panics() {
    let told = Arc::new(Panics::default());
    let layer = FenceLayer::new(MemoryFences::new(), accounts()).observer(told.clone());
    let app: Router = Router::new().fallback(|| async { "written" }).layer(layer);
    for (headers, answer) in [(&[][..], StatusCode::PRECONDITION_REQUIRED), (&["6"], StatusCode::BAD_REQUEST)] {
        assert_eq!(status(&app, headers).await, answer);
        assert_eq!(refusals(&told.0), [("service", Invalid)]);
    }
    assert_eq!(status(&app, &["6@x"]).await, StatusCode::OK);
}
