//! The list in an object of a bucket, which a server keeps that speaks the protocol of S3.

use std::sync::Arc;

use conformance_tests::FencedList;

use crate::{bucket, objects};

/// The list in the object `name`.
pub(crate) async fn register_list(url: &str, name: &str) -> Arc<dyn FencedList> {
    objects::list(bucket::client(url).unwrap(), bucket::client(url).unwrap(), name)
}
