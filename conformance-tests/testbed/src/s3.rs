//! SeaweedFS, which keeps objects and speaks the protocol of S3.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::http::{Answer, Question, exchange};
use crate::image::{Given, ImageKind};
use crate::kind::{Network, ServerKind};
use crate::program::Program;

static IMAGE: ImageKind =
    ImageKind { name: "s3", arguments: &[], given: Given::IsBase, fetch: Some(|folder| WEED.fetch(folder)) };

static WEED: Program = Program { name: "weed", place: "scripts/weed", size: 48, variable: "LEASEHOLD_TEST_S3" };

pub(crate) static S3: ServerKind = ServerKind {
    name: "s3",
    image: &IMAGE,
    inner_port: 8333,
    outer_port: Some(25333),
    ports: 1,
    members: 1,
    keeps_locks: false,
    network: Network::Published,
    // The one user, who may do anything.
    env: &[("AWS_ACCESS_KEY_ID", "leasehold"), ("AWS_SECRET_ACCESS_KEY", "leasehold")],
    command: &["sh", "/usr/local/lib/testbed/start.sh"],
    clocked: None,
    options: &[],
    prepare: &[&["sh", "/usr/local/lib/testbed/bucket.sh", "leasehold"]],
    url: |address| format!("http://leasehold:leasehold@{address}/leasehold"),
    probe,
    before: None,
};

/// What a client of a bucket is to be told, from the URL of an S3: `http://KEY:SECRET@HOST:PORT/BUCKET`.
#[derive(Clone, PartialEq, Eq)]
pub struct Bucket {
    /// `http://HOST:PORT`, below which the bucket is a folder.
    pub endpoint: String,
    /// Who asks.
    pub key: String,
    /// By what the one who asks is believed.
    pub secret: String,
    /// The bucket's name.
    pub name: String,
}

impl Bucket {
    /// The bucket at this URL; `None` if it isn't one.
    #[must_use]
    pub fn at(url: &str) -> Option<Self> {
        let (login, place) = url.strip_prefix("http://")?.rsplit_once('@')?;
        let (key, secret) = login.split_once(':')?;
        let (host, name) = place.split_once('/')?;
        let parts = [key, secret, host, name];
        let [key, secret, host, name] = parts.map(str::to_owned);
        (!parts.contains(&"") && !name.contains('/')).then(|| Self {
            endpoint: format!("http://{host}"),
            key,
            secret,
            name,
        })
    }
}

/// Without the secret.
impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { endpoint, key, secret: _, name } = self;
        f.debug_struct("Bucket")
            .field("endpoint", endpoint)
            .field("key", key)
            .field("name", name)
            .finish_non_exhaustive()
    }
}

/// Asks for the list of buckets, which nobody gets who doesn't say who he is.
fn probe(address: SocketAddr, limit: Duration) -> io::Result<()> {
    judge(&exchange(address, limit, &Question { method: "GET", path: "/", body: "" })?)
}

fn judge(Answer { status, body }: &Answer) -> io::Result<()> {
    if body.contains("<Code>AccessDenied</Code>") || body.contains("<ListAllMyBucketsResult") {
        return Ok(());
    }
    Err(io::Error::other(format!("what answers there isn't an S3 that serves: {status}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_the_bucket_is_and_who_asks() {
        let server = crate::Server::in_container(&S3, "a-container".to_owned(), 25333);
        let bucket = Bucket::at(server.url());
        let text = |text: &str| text.to_owned();
        let expected = Bucket {
            endpoint: text("http://127.0.0.1:25333"),
            key: text("leasehold"),
            secret: text("leasehold"),
            name: text("leasehold"),
        };
        assert_eq!(bucket, Some(expected));
        for bad in ["s3://k:s@h/b", "http://h/b", "http://k@h/b", "http://k:s@h", "http://k:s@h/", "http://k:s@h/b/c"] {
            assert_eq!(Bucket::at(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        let shown = format!("{:?}", Bucket::at("http://key:hush@h:1/b"));
        assert!(shown.contains("key") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn only_an_s3_that_serves_is_ready() {
        let answer = |status: &str, body: &str| Answer { status: status.to_owned(), body: body.to_owned() };
        assert!(judge(&answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>")).is_ok());
        assert!(judge(&answer("200 OK", "<ListAllMyBucketsResult xmlns=\"x\"/>")).is_ok());
        assert!(judge(&answer("503 Slow Down", "<Error><Code>SlowDown</Code></Error>")).is_err());
        assert!(judge(&answer("200 OK", "<html>")).is_err());
    }
}
