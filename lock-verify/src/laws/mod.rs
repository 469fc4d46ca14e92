//! The laws, as checks of a history.
//!
//! Each law is a pure function over the [`Facts`] of a history and the [`Terms`] under which it was recorded. It says how
//! many things it checked, what broke it, and what broke it but was to be expected because a fault had put the law's own
//! condition out of force (a store that lost its data can't keep L1). A law that found nothing to check says so and is
//! never counted as kept.
//!
//! What all of them rest on: calls are recorded around the true ones (see [`crate::history`]), so a grant's recorded belief
//! is never longer than the true one. The checks can miss what happened between a record and the truth; they don't invent.
//! Each check is linear, or a sort, in the number of events;
//! [`linear`] searches, but only stretches of a bounded size.

mod belief;
mod capacity;
mod doubt;
mod facts;
mod fence;
mod finality;
mod finding;
mod grants;
pub mod linear;
mod liveness;
mod occupied;
mod order;
mod report;
mod resource;
mod silence;
mod strangers;
mod terms;
pub mod timeline;

pub use belief::belief;
pub use capacity::capacity;
pub use doubt::doubt;
pub use facts::Facts;
pub use fence::{fence, stability};
pub use finality::finality;
pub use finding::{Finding, Law, Violation};
pub use grants::Grant;
pub use liveness::liveness;
pub use order::order;
pub use report::Report;
pub use resource::resource;
pub use silence::silence;
pub use strangers::strangers;
pub use terms::{Terms, Window};

use crate::history::History;

/// Judges a history by all laws.
#[must_use]
pub fn judge(history: &History, terms: &Terms) -> Report {
    let facts = Facts::new(history, terms);
    let laws = [
        belief,
        fence,
        stability,
        resource,
        strangers,
        doubt,
        liveness,
        order,
        capacity,
        finality,
        silence,
        linear::linear,
    ];
    Report::new(laws.iter().map(|law| law(&facts, terms)).collect())
}
