//! The check at the resource, where that is in ZooKeeper: a condition that goes along in the multi that writes.
//!
//! A multi is done as a whole or not at all, and the leader judges its conditions in the order of all writes. So whatever is
//! a condition here holds at the very moment of the write, whichever server took the request and however late it came.
//!
//! A condition can ask for a node's version, but versions begin anew when a node is deleted and made again, and who
//! remembers one would take the new node for the old. So nothing here is told by a version. Both kinds of check ask whether
//! **a node of this name is there**, and the name says all:
//!
//! - The guard ([`guard`]) asks for the holder's entry. Its name has the owner in it, which is random and belongs to one
//!   call of `acquire`.
//! - The register ([`register`]) has a node for each resource, with a single child whose *name* is the highest fence. It is
//!   made, replaced and deleted together with what depends on it, in one multi that names the child before. So "this child
//!   is there" says "this is the highest", now, whatever was forgotten, deleted and made anew in between.

mod builder;
mod guard;
mod register;
mod remembered;
mod step;

pub use builder::FencesBuilder;
pub use register::ZooKeeperFences;
pub(crate) use remembered::Remembered;
