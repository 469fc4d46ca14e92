//! The bucket of an S3.

use std::sync::Arc;

use conformance_tests::Failure;
use object_store::{
    ObjectStore,
    aws::{AmazonS3Builder, S3ConditionalPut},
};

/// A client of the bucket at this URL, with connections of its own.
pub(crate) fn client(url: &str) -> Result<Arc<dyn ObjectStore>, Failure> {
    // None speaks TLS, and none is built without. It may be set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bucket = testbed::Bucket::at(url).ok_or_else(|| Failure::new("what is given for an S3 is no bucket's URL"))?;
    let built = AmazonS3Builder::new()
        .with_endpoint(bucket.endpoint)
        .with_allow_http(true)
        .with_bucket_name(bucket.name)
        .with_access_key_id(bucket.key)
        .with_secret_access_key(bucket.secret)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .build();
    Ok(Arc::new(built?))
}
