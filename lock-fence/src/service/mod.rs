//! An HTTP service that refuses stale requests.
//!
//! A client says under which grant it writes in one header, [`HEADER`]; the service's layer raises what the resource has seen
//! and lets the request in, or answers 409 with a body in JSON.
//!
//! ```
//! # #[cfg(feature = "axum")] {
//! use axum::{Router, routing::put};
//! use lock_fence::{Resource, service::{FenceLayer, RequestFence}};
//! use lock_core::MemoryFences;
//!
//! async fn set_balance(RequestFence(fence): RequestFence) -> String {
//!     format!("written under token {}", fence.token())
//! }
//!
//! let accounts = Resource::new("accounts").unwrap();
//! let app: Router = Router::new()
//!     .route("/accounts/{id}", put(set_balance))
//!     .layer(FenceLayer::new(MemoryFences::new(), accounts));
//! # }
//! ```
//!
//! # What it checks, and what not
//!
//! Within one process the check is one step with the request: while a request is being answered, none with a higher token is
//! let in for that resource, and from then on none with a lower one. So a handler needs to do nothing else, as long as it has
//! written when it answers. That holds per layer value and its clones: let all routes of a resource share one. A fenced
//! request is answered in a task of its own (of tokio's), so a client that goes away doesn't end it: its write may be on its
//! way, and the next holder is let in when the handler has ended.
//!
//! A handler that hangs therefore holds up the next holder's requests. A time-out inside of this layer isn't the cure: it
//! drops the handler, and what that has sent to a database may still be carried out after the next holder was let in. The
//! same goes for a handler that gives up or panics in the midst of a write, or leaves it to a task that it doesn't wait for.
//! Whose handler may do that has to check in the write itself, as below.
//!
//! A service of several processes shares a register in a database. Then the layer still turns late requests away, but one
//! that was let in here may be overtaken by a newer one that was let in there. There let the handler take the fence on
//! ([`RequestFence`]) into the transaction of its write (`admit` of the database's register).
//!
//! The header says under which grant a request is made; it doesn't prove that. Let only those set it who may write at all.

mod gate;
mod header;
mod layer;
mod refusal;

#[cfg(feature = "axum")]
mod extract;

#[cfg(feature = "axum")]
pub use extract::RequestFence;
pub use header::{HEADER, header, read};
pub use layer::{FenceLayer, FenceService};
pub use refusal::Refusal;
