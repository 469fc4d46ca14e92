//! Objects in a bucket that are replaced only under the highest token they have seen.
//!
//! The fence stands in the object's own first line, so one conditional write (`If-Match`, `If-None-Match`) judges, raises and
//! replaces at once: no lock, no other object. Over anything that `object_store` reaches and that writes conditionally, or over
//! [`ConditionalObjects`] of one's own. Seen were the memory of `object_store`, a store whose versions are hashes of the bytes
//! alone, as S3's are, and SeaweedFS 4.48 over the protocol of S3; no bucket of a cloud.
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
//! # Over S3
//!
//! With `object_store` and its feature `aws`. What makes a write conditional there is
//! [`S3ConditionalPut::ETagMatch`](https://docs.rs/object_store/latest/object_store/aws/enum.S3ConditionalPut.html), which is
//! its default as well.
//!
//! ```no_run
//! use std::sync::Arc;
//! use lock_fence::object::FencedObjects;
//! use object_store::{ObjectStore, aws::{AmazonS3Builder, S3ConditionalPut}};
//!
//! # fn main() -> Result<(), object_store::Error> {
//! // Credentials and region from the environment, as AWS_ACCESS_KEY_ID and so on; `with_endpoint` for what isn't Amazon's.
//! let bucket = AmazonS3Builder::from_env()
//!     .with_bucket_name("reports")
//!     .with_conditional_put(S3ConditionalPut::ETagMatch)
//!     .build()?;
//! let objects = FencedObjects::new(Arc::new(bucket) as Arc<dyn ObjectStore>);
//! # Ok(()) }
//! ```
//!
//! # What is in the bucket
//!
//! The first line of a fenced object is `leasehold-fence 1 TOKEN@LOCK MARKS`; the content follows. [`FencedObjects::get`] takes
//! it away, and who reads the bucket directly sees it. It holds a new random mark for each write, since the ETag of S3 and
//! of what is compatible with it is made of the bytes alone: without a mark an object that was raised, and holds the same,
//! would pass for unchanged. An object without such a line is taken as content that has seen no fence. Its content type and
//! the other attributes that `object_store` reads are kept when it is written anew; tags, rights and classes of storage
//! are not.
//!
//! # What it can't do
//!
//! - Guard against who writes without it: give nobody else the right to.
//! - Several objects at once: a bucket has no transactions. One object is one resource.
//! - Delete: with the object its fence is gone, and a late write makes it again. Write an empty one instead.
//! - Find out whether the store honours conditions. One that says that it can't is told as `Unsupported`, at the first write
//!   that needs it (local files, for example, as `object_store` has them, at the second one). But a server that takes
//!   `If-Match` or `If-None-Match` and ignores it, as some do that are compatible with S3, fences nothing, and nothing here
//!   sees that. SeaweedFS 4.48 honours them: of two writes at once one was done, in each of 400 races; of its 4.16 it is
//!   told that several were (its issue 8800). Try yours: a `PUT` with an `If-Match` that isn't the object's ETag, and one with
//!   `If-None-Match: *` over an object that is there, must both be answered with 412.
//! - On SeaweedFS, make an object whose name is a folder of others that are there (`a`, once there is `a/b`): it answers such a
//!   conditional write with 412, as if there were one, which is told as [`Contention`](lock_core::ErrorKind::Contention). And its
//!   filer takes 255 bytes between two slashes, unless its `max_file_name_length` says more.

mod conditional;
mod fenced;
mod key;
mod line;

pub use conditional::{ConditionalObjects, Found};
pub use fenced::FencedObjects;
