//! A service that refuses stale requests: what it answers, and that nothing is overtaken.
#![cfg(feature = "axum")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::{Router, body::Body, extract::State};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use lock_core::{ErrorKind, Fence, FenceError, FenceRegister, MemoryFences, Pass, Resource, StoreError};
use lock_fence::service::{FenceLayer, Refusal, RequestFence};
use tokio::sync::Notify;
use tower::ServiceExt;

#[derive(Clone, Default)]
struct Ledger {
    written: Arc<Mutex<Vec<u64>>>,
    /// A write under token 1 waits for it.
    go_on: Arc<Notify>,
    began: Arc<Notify>,
}

async fn write(State(ledger): State<Ledger>, fence: Option<RequestFence>) -> &'static str {
    let token = fence.map_or(0, |RequestFence(fence)| fence.token().get());
    if token == 1 {
        ledger.began.notify_one();
        ledger.go_on.notified().await;
    }
    ledger.written.lock().unwrap().push(token);
    "written"
}

fn app(ledger: &Ledger, layer: FenceLayer) -> Router {
    Router::new().fallback(write).layer(layer).with_state(ledger.clone())
}

fn accounts() -> Resource {
    Resource::new("accounts").unwrap()
}

async fn send(app: &Router, path: &str, headers: &[&str]) -> (StatusCode, serde_json::Value) {
    let mut request = Request::post(path);
    for value in headers {
        request = request.header("Fencing-Token", *value);
    }
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn a_stale_request_is_answered_with_409_and_what_was_seen() {
    let ledger = Ledger::default();
    let app = app(&ledger, FenceLayer::new(MemoryFences::new(), accounts()));
    for token in ["6@accounts", "6@accounts", "7@accounts"] {
        assert_eq!(send(&app, "/", &[token]).await.0, StatusCode::OK);
    }
    let (status, body) = send(&app, "/", &["6@accounts"]).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        (&body["error"], &body["resource"], &body["lock"], &body["token"], &body["highest"]),
        (&"stale_fence".into(), &"accounts".into(), &"accounts".into(), &6.into(), &7.into())
    );
    let (status, body) = send(&app, "/", &["8@other"]).await;
    assert_eq!((status, &body["error"]), (StatusCode::CONFLICT, &"other_lock".into()));
    assert_eq!(body["fenced_by"], "accounts");
    assert_eq!(*ledger.written.lock().unwrap(), [6, 6, 7]);
}

#[tokio::test]
async fn what_is_no_fence_is_answered_with_400_and_what_is_missing_with_428() {
    let ledger = Ledger::default();
    let app = app(&ledger, FenceLayer::new(MemoryFences::new(), accounts()));
    for bad in
        ["", "7", "-7@accounts", "0@accounts", "9223372036854775808@accounts", "seven@accounts", "7 @accounts", "é"]
    {
        let (status, body) = send(&app, "/", &[bad]).await;
        assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &"invalid_fence".into()), "{bad}");
        assert!(body["message"].as_str().unwrap().starts_with("the header Fencing-Token"), "{body}");
    }
    let (status, body) = send(&app, "/", &["6@accounts", "7@accounts"]).await;
    assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &"invalid_fence".into()));
    let (status, body) = send(&app, "/", &[]).await;
    assert_eq!((status, &body["error"]), (StatusCode::PRECONDITION_REQUIRED, &"fence_required".into()));
    assert!(ledger.written.lock().unwrap().is_empty());
}

#[tokio::test]
async fn reads_may_go_without_and_once_is_once() {
    let ledger = Ledger::default();
    let app = app(&ledger, FenceLayer::new(MemoryFences::new(), accounts()).optional().pass(Pass::Once));
    let statuses = [send(&app, "/", &[]).await.0, send(&app, "/", &["6@a"]).await.0, send(&app, "/", &["6@a"]).await.0];
    assert_eq!(statuses, [StatusCode::OK, StatusCode::OK, StatusCode::CONFLICT]);
    assert_eq!(*ledger.written.lock().unwrap(), [0, 6]);
}

#[tokio::test]
async fn resources_are_told_apart_by_the_request() {
    let ledger = Ledger::default();
    let by_path = FenceLayer::by(MemoryFences::new(), |request| {
        Resource::new(request.uri.path().trim_start_matches('/')).map_err(Refusal::Resource)
    });
    let app = app(&ledger, by_path);
    assert_eq!(send(&app, "/a", &["6@x"]).await.0, StatusCode::OK);
    assert_eq!(send(&app, "/b", &["5@x"]).await.0, StatusCode::OK);
    assert_eq!(send(&app, "/a", &["5@x"]).await.0, StatusCode::CONFLICT);
    let (status, body) = send(&app, &format!("/{}", "x".repeat(600)), &["6@x"]).await;
    assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &"invalid_resource".into()));
}

/// The check alone would let it in: it came first, and wrote last.
#[tokio::test]
async fn a_request_that_is_being_answered_is_not_overtaken() {
    let (ledger, fences) = (Ledger::default(), MemoryFences::new());
    let app = app(&ledger, FenceLayer::new(fences.clone(), accounts()));
    let spawn = |token: &'static str| {
        let app = app.clone();
        tokio::spawn(async move { send(&app, "/", &[token]).await.0 })
    };
    let slow = spawn("1@accounts");
    ledger.began.notified().await;
    let next = spawn("2@accounts");
    // The newer one is seen, though it isn't let in yet: once that is so, a late one is turned away without a wait.
    while fences.highest(&accounts()).await.unwrap().unwrap().token().get() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(send(&app, "/", &["1@accounts"]).await.0, StatusCode::CONFLICT);
    assert!(!next.is_finished() && ledger.written.lock().unwrap().is_empty(), "it overtook");
    ledger.go_on.notify_one();
    assert_eq!((slow.await.unwrap(), next.await.unwrap()), (StatusCode::OK, StatusCode::OK));
    assert_eq!(*ledger.written.lock().unwrap(), [1, 2]);
}

#[tokio::test]
async fn a_request_that_is_given_up_lets_the_next_one_in_when_it_has_ended() {
    let ledger = Ledger::default();
    let app = app(&ledger, FenceLayer::new(MemoryFences::new(), accounts()));
    let slow = tokio::spawn({
        let app = app.clone();
        async move { send(&app, "/", &["1@accounts"]).await.0 }
    });
    ledger.began.notified().await;
    let next = tokio::spawn({
        let app = app.clone();
        async move { send(&app, "/", &["2@accounts"]).await.0 }
    });
    slow.abort();
    assert!(slow.await.unwrap_err().is_cancelled());
    // Its client is gone, and its write may be on its way.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!next.is_finished() && ledger.written.lock().unwrap().is_empty(), "it overtook");
    ledger.go_on.notify_one();
    assert_eq!(next.await.unwrap(), StatusCode::OK);
    assert_eq!(*ledger.written.lock().unwrap(), [1, 2]);
}

#[tokio::test]
async fn a_panic_of_the_handler_is_passed_on_and_lets_the_next_one_in() {
    async fn panics(fence: RequestFence) -> &'static str {
        assert!(fence.0.token().get() > 1, "the first one fails");
        "written"
    }
    let app: Router = Router::new().fallback(panics).layer(FenceLayer::new(MemoryFences::new(), accounts()));
    let first = tokio::spawn({
        let app = app.clone();
        async move { send(&app, "/", &["1@accounts"]).await.0 }
    });
    let panic = first.await.unwrap_err().into_panic();
    assert_eq!(*panic.downcast::<&str>().unwrap(), "the first one fails");
    assert_eq!(send(&app, "/", &["2@accounts"]).await.0, StatusCode::OK);
}

/// A register that takes its time.
#[derive(Debug)]
struct Slow(MemoryFences);

#[async_trait]
impl FenceRegister for Slow {
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let answer = self.0.raise(resource, fence, pass).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        answer
    }
    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        self.0.highest(resource).await
    }
    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        self.0.forget(resource).await
    }
}

/// Each of the old ones comes before the one before it has been told that it is stale: if they were let in for that, they
/// would never be gone.
#[tokio::test]
async fn a_stream_of_old_requests_does_not_keep_the_newer_one_out() {
    let ledger = Ledger::default();
    let app = app(&ledger, FenceLayer::new(Slow(MemoryFences::new()), accounts()));
    let spawn = |token: &'static str| {
        let app = app.clone();
        tokio::spawn(async move { send(&app, "/", &[token]).await.0 })
    };
    let first = spawn("1@accounts");
    ledger.began.notified().await;
    let newer = spawn("2@accounts");
    let mut old = Vec::new();
    for turn in 0..1_000 {
        old.push(spawn("1@accounts"));
        tokio::task::yield_now().await;
        if turn == 200 {
            // All that are waiting in the handler.
            ledger.go_on.notify_waiters();
        }
    }
    assert!(newer.is_finished(), "a thousand old ones kept it out");
    assert_eq!((first.await.unwrap(), newer.await.unwrap()), (StatusCode::OK, StatusCode::OK));
    let mut late = 0;
    for old in old {
        late += usize::from(old.await.unwrap() == StatusCode::CONFLICT);
    }
    assert!(late > 900, "{late}");
    let written = ledger.written.lock().unwrap();
    assert!(written.is_sorted(), "{written:?}");
}

#[derive(Debug)]
struct Away;

#[async_trait]
impl FenceRegister for Away {
    async fn raise(&self, _: &Resource, _: &Fence, _: Pass) -> Result<(), FenceError> {
        Err(StoreError::refused(ErrorKind::Unreachable, "no connection to db.internal:5432").into())
    }
    async fn highest(&self, _: &Resource) -> Result<Option<Fence>, FenceError> {
        Ok(None)
    }
    async fn forget(&self, _: &Resource) -> Result<bool, FenceError> {
        Ok(false)
    }
}

#[tokio::test]
async fn without_its_register_nothing_is_let_in_and_nothing_is_told_of_it() {
    let ledger = Ledger::default();
    let app = app(&ledger, FenceLayer::new(Away, accounts()));
    let (status, body) = send(&app, "/", &["1@accounts"]).await;
    assert_eq!((status, &body["error"]), (StatusCode::SERVICE_UNAVAILABLE, &"fence_unavailable".into()));
    assert!(!body.to_string().contains("db.internal") && ledger.written.lock().unwrap().is_empty(), "{body}");
}

/// Nobody is asked before he is inside, so those that wait are let in in any order.
#[tokio::test]
async fn with_once_none_is_answered_after_a_newer_one() {
    let tokens = ["3@accounts", "2@accounts", "4@accounts", "2@accounts", "3@accounts", "4@accounts"];
    for first in 0..tokens.len() {
        let ledger = Ledger::default();
        let app = app(&ledger, FenceLayer::new(Slow(MemoryFences::new()), accounts()).pass(Pass::Once));
        let spawn = |token: &'static str| {
            let app = app.clone();
            tokio::spawn(async move { send(&app, "/", &[token]).await.0 })
        };
        let slow = spawn("1@accounts");
        ledger.began.notified().await;
        let waiting: Vec<_> = (0..tokens.len()).map(|at| spawn(tokens[(first + at) % tokens.len()])).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(ledger.written.lock().unwrap().is_empty(), "{first}: one overtook");
        ledger.go_on.notify_one();
        let mut answered = usize::from(slow.await.unwrap() == StatusCode::OK);
        for request in waiting {
            match request.await.unwrap() {
                StatusCode::OK => answered += 1,
                status => assert_eq!(status, StatusCode::CONFLICT),
            }
        }
        let written = ledger.written.lock().unwrap().clone();
        assert!(written.windows(2).all(|two| two[0] < two[1]), "{first}: {written:?}");
        assert_eq!((written.first(), written.last(), written.len()), (Some(&1), Some(&4), answered), "{first}");
    }
}

/// As the layer's doc asks for: the same one is the outer one on both routes.
#[tokio::test]
async fn layers_that_are_nested_in_one_order_do_not_wait_for_each_other() {
    async fn touch() -> &'static str {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        "written"
    }
    let layer = |name: &str| FenceLayer::new(Slow(MemoryFences::new()), Resource::new(name).unwrap());
    let (outer, inner) = (layer("outer"), layer("inner"));
    let both = || Router::new().fallback(touch).layer(inner.clone()).layer(outer.clone());
    let (one, other): (Router, Router) = (both(), both());
    let sent = (1..=20).map(|token: u64| {
        let app = if token.is_multiple_of(2) { one.clone() } else { other.clone() };
        tokio::spawn(async move { send(&app, "/", &[&format!("{token}@accounts")]).await.0 })
    });
    let mut passed = 0;
    for request in sent.collect::<Vec<_>>() {
        let status =
            tokio::time::timeout(std::time::Duration::from_secs(30), request).await.expect("it waits for ever");
        passed += usize::from(status.unwrap() == StatusCode::OK);
    }
    assert!(passed > 0, "none passed");
}
