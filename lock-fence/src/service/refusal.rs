//! What a request that isn't let in is told.

use http::{Response, StatusCode, header::CONTENT_TYPE};
use lock_core::{Applied, FenceError, FencingToken, InvalidFence, StoreError};
use serde::Serialize;

/// Why a request was not let in. But for [`Unknown`](Self::Unknown) nothing was done for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// 409: it is stale, or comes under another lock than the resource is fenced by.
    #[error(transparent)]
    Conflict(FenceError),
    /// 428: it doesn't say under which grant it is made.
    #[error("the header Fencing-Token is missing: this resource is written under a lock, with the fence of its lease")]
    Missing,
    /// 400: the header isn't a fence.
    #[error("the header Fencing-Token: {0}")]
    Invalid(InvalidFence),
    /// 400: which one is meant?
    #[error("the header Fencing-Token comes more than once")]
    Repeated,
    /// 400: the resource that the request names can't be one.
    #[error("{0}")]
    Resource(StoreError),
    /// 503: the store failed, and nothing was written.
    #[error("what this resource has seen can't be looked up now; try again")]
    Unavailable(StoreError),
    /// 500: the store failed, and something may have been written all the same: the fence, or more if the handler gives back
    /// what its own write was told.
    #[error("whether this was done isn't known; look before it is sent again")]
    Unknown(StoreError),
}

/// The body: for programs by its `error`, for people by its `message`.
#[derive(Debug, Default, Serialize)]
struct Body {
    error: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<FencingToken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    highest: Option<FencingToken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fenced_by: Option<String>,
}

impl Refusal {
    /// The status that it is answered with.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Missing => StatusCode::PRECONDITION_REQUIRED,
            Self::Invalid(_) | Self::Repeated | Self::Resource(_) => StatusCode::BAD_REQUEST,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            // Not 503, which proxies and clients take for leave to send it again.
            Self::Unknown(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The word for it in the body: `stale_fence`, `other_lock`, `not_held`, `fence_required`, `invalid_fence`,
    /// `invalid_resource`, `fence_unavailable`, `outcome_unknown`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Conflict(FenceError::OtherLock(_)) => "other_lock",
            Self::Conflict(FenceError::NotHeld(_)) => "not_held",
            Self::Conflict(_) => "stale_fence",
            Self::Missing => "fence_required",
            Self::Invalid(_) | Self::Repeated => "invalid_fence",
            Self::Resource(_) => "invalid_resource",
            Self::Unavailable(_) => "fence_unavailable",
            Self::Unknown(_) => "outcome_unknown",
        }
    }

    /// The answer, in JSON. What the register's store said stays here: it is the service's own affair.
    ///
    /// ```text
    /// 409 {"error":"stale_fence","message":"…","resource":"accounts","lock":"accounts","token":5,"highest":6}
    /// ```
    #[must_use]
    pub fn response<B: From<String>>(&self) -> Response<B> {
        let mut body = Body { error: self.code(), message: self.to_string(), ..Body::default() };
        match self {
            Self::Conflict(FenceError::Stale(stale)) => {
                body.resource = Some(stale.resource.as_str().to_owned());
                body.lock = Some(stale.lock.as_str().to_owned());
                (body.token, body.highest) = (Some(stale.token), Some(stale.highest));
            }
            Self::Conflict(FenceError::OtherLock(other)) => {
                body.resource = Some(other.resource.as_str().to_owned());
                body.lock = Some(other.lock.as_str().to_owned());
                body.fenced_by = Some(other.fenced_by.as_str().to_owned());
            }
            _ => {}
        }
        // Strings and numbers always serialize.
        let text = serde_json::to_string(&body).unwrap_or_default();
        let mut response = Response::new(B::from(text));
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        response
    }
}

impl From<FenceError> for Refusal {
    fn from(error: FenceError) -> Self {
        match error {
            FenceError::Store(error) if error.applied() == Applied::No => Self::Unavailable(error),
            FenceError::Store(error) => Self::Unknown(error),
            FenceError::Invalid(error) => Self::Invalid(error),
            refused => Self::Conflict(refused),
        }
    }
}
