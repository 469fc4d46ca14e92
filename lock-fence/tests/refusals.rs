//! What a request that isn't let in is told: a status, a word and a body for each reason.
#![cfg(feature = "tower")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

use http::StatusCode;
use lock_core::{ErrorKind, Fence, FenceError, FencingToken, LockName, NotHeld, Pass, Resource, StoreError, admit};
use lock_fence::service::Refusal;
use serde_json::{Value, json};

/// Where the register is, which is nobody's affair outside.
const WHERE: &str = "db.internal:5432";

fn store(applied: fn(ErrorKind, &'static str) -> StoreError, kind: ErrorKind) -> Refusal {
    FenceError::from(applied(kind, WHERE)).into()
}

fn judged(seen: &str, fence: &str, pass: Pass) -> Refusal {
    let (seen, fence): (Fence, Fence) = (seen.parse().unwrap(), fence.parse().unwrap());
    Refusal::from(admit(Some(&seen), &Resource::new("accounts").unwrap(), &fence, pass).unwrap_err())
}

/// Status, word and body, without the message, which is for people.
fn answer(refusal: &Refusal) -> (StatusCode, &'static str, Value) {
    let response = refusal.response::<String>();
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.status(), refusal.status());
    let mut body: Value = serde_json::from_str(response.body()).unwrap();
    let fields = body.as_object_mut().unwrap();
    assert_eq!(fields.remove("error").unwrap(), refusal.code());
    assert_eq!(fields.remove("message").unwrap(), refusal.to_string());
    assert!(!response.body().contains(WHERE), "{}", response.body());
    (refusal.status(), refusal.code(), body)
}

#[test]
fn each_reason_has_its_status_its_word_and_its_body() {
    let (lock, token) = (LockName::new("x").unwrap(), FencingToken::new(5));
    let stale = json!({"resource": "accounts", "lock": "x", "token": 5, "highest": 6});
    let used = json!({"resource": "accounts", "lock": "x", "token": 6, "highest": 6});
    let other = json!({"resource": "accounts", "lock": "y", "fenced_by": "x"});
    let table = [
        (judged("6@x", "5@x", Pass::Again), StatusCode::CONFLICT, "stale_fence", stale),
        (judged("6@x", "6@x", Pass::Once), StatusCode::CONFLICT, "stale_fence", used),
        (judged("6@x", "7@y", Pass::Again), StatusCode::CONFLICT, "other_lock", other),
        (FenceError::from(NotHeld { lock, token }).into(), StatusCode::CONFLICT, "not_held", json!({})),
        (Refusal::Missing, StatusCode::PRECONDITION_REQUIRED, "fence_required", json!({})),
        (Refusal::Repeated, StatusCode::BAD_REQUEST, "invalid_fence", json!({})),
        (
            FenceError::from("0@x".parse::<Fence>().unwrap_err()).into(),
            StatusCode::BAD_REQUEST,
            "invalid_fence",
            json!({}),
        ),
        (Refusal::Resource(Resource::new("").unwrap_err()), StatusCode::BAD_REQUEST, "invalid_resource", json!({})),
    ];
    for (refusal, status, code, body) in table {
        assert_eq!(answer(&refusal), (status, code, body), "{refusal:?}");
    }
}

/// Whatever it was that failed in the store: what counts is whether it may be sent again.
#[test]
fn a_store_that_failed_is_told_by_whether_it_may_have_written() {
    let kinds =
        [ErrorKind::NotReady, ErrorKind::Unreachable, ErrorKind::Timeout, ErrorKind::Denied, ErrorKind::Contention];
    for kind in kinds {
        let no = store(StoreError::refused, kind);
        assert_eq!(answer(&no), (StatusCode::SERVICE_UNAVAILABLE, "fence_unavailable", json!({})), "{kind:?}");
        assert!(no.to_string().contains("try again"), "{no}");
        let maybe = store(StoreError::unknown, kind);
        assert_eq!(answer(&maybe), (StatusCode::INTERNAL_SERVER_ERROR, "outcome_unknown", json!({})), "{kind:?}");
        assert!(!maybe.to_string().contains("try again"), "{maybe}");
    }
}
