//! Objects in a bucket that are replaced only under the highest token they have seen.
//!
//! The fence stands in a line before the object's content, so one conditional write (`If-Match`, `If-None-Match`) judges,
//! raises and replaces at once: no lock, no other object. (In the object's metadata it would be no part of what S3 judges a
//! condition by, whose `ETag` is made of the content alone.) Over anything that `object_store` reaches and that writes
//! conditionally (S3 and what is compatible with it, Google Cloud Storage, Azure; memory), or over [`ConditionalObjects`] of
//! one's own.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use lock_fence::{Fence, Pass, Resource, object::FencedObjects};
//! use object_store::memory::InMemory;
//!
//! let objects = FencedObjects::new(Arc::new(InMemory::new()) as Arc<dyn object_store::ObjectStore>);
//! let report = Resource::new("reports/2026-11.csv")?;
//! let (old, new): (Fence, Fence) = ("5@report".parse()?, "6@report".parse()?);
//! objects.put(&report, &new, Pass::Again, "a,b\n".into()).await?;
//! assert!(objects.put(&report, &old, Pass::Again, "late".into()).await.is_err());
//! assert_eq!(objects.get(&report).await?.unwrap(), "a,b\n");
//! # Ok(()) }
//! ```
//!
//! # What it can't do
//!
//! - Keep the object as others know it: who reads it past [`FencedObjects::get`] finds a first line
//!   `leasehold-fence 6@report …` before the content.
//! - Guard against who writes without it: give nobody else the right to.
//! - Several objects at once: a bucket has no transactions. One object is one resource.
//! - A store without conditional writes is refused (`Unsupported`): local files, for example, as `object_store` has
//!   them, at the first replacement.

mod conditional;
mod envelope;
mod fenced;

pub use conditional::{ConditionalObjects, Found};
pub use fenced::FencedObjects;

use lock_core::{Operation, StoreError};

fn placed(error: StoreError) -> StoreError {
    error.at("object store", Operation::Fence, None)
}
