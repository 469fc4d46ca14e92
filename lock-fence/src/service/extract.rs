//! For axum.

use axum_core::{
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;
use lock_core::Fence;

use super::{header, refusal::Refusal};

/// The fence that a request came with, to be taken on into the transaction of its write.
///
/// By itself it checks nothing but the form: a [`FenceLayer`](super::FenceLayer) or the write does. `Option<RequestFence>`
/// takes requests without one as well.
#[derive(Clone, Debug)]
pub struct RequestFence(pub Fence);

impl<S: Send + Sync> FromRequestParts<S> for RequestFence {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        header::read(&parts.headers)?.map(Self).ok_or(Refusal::Missing)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for RequestFence {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Refusal> {
        Ok(header::read(&parts.headers)?.map(Self))
    }
}

/// So that a handler may give back what the database said: `fences.admit(…).await.map_err(Refusal::from)?`.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.response::<Body>()
    }
}
