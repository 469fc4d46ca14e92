//! Connection URLs.

use std::time::Duration;

use lock_core::StoreError;
use url::{Url, form_urlencoded};

use crate::config::invalid;

/// Our parameters; there are no others.
const PATH_PARAMETER: &str = "leasehold_path";
const TICK_PARAMETER: &str = "leasehold_tick_ms";

const PORT: u16 = 2181;

/// Where the servers are, and as whom to speak to them. Not `Debug`: it holds the password.
#[derive(Clone)]
pub(crate) struct Address {
    /// `host:port,host:port`, as the driver reads them and as people do.
    pub(crate) hosts: String,
    /// `user:password` of the digest scheme.
    pub(crate) login: Option<String>,
    /// Begins with a slash and doesn't end with one; empty for none.
    pub(crate) chroot: String,
    pub(crate) path: Option<String>,
    pub(crate) tick: Option<Duration>,
}

impl Address {
    /// Reads `zookeeper://user:password@host:port,host/chroot?leasehold_path=/path`.
    pub(crate) fn read(url: &str) -> Result<Self, StoreError> {
        if url.starts_with("zookeepers://") {
            return Err(invalid("TLS (zookeepers://) is not supported"));
        }
        let Some(rest) = url.strip_prefix("zookeeper://") else {
            return Err(invalid("the URL of ZooKeeper servers begins with zookeeper://"));
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, chroot) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        if chroot.contains('@') || query.contains('@') {
            return Err(invalid("reserved characters in user name and password must be percent-encoded"));
        }
        let hosts = hosts.split(',').map(host).collect::<Result<Vec<_>, _>>()?.join(",");
        let login = login.map(self::login).transpose()?;
        let chroot = checked_path("the chroot", &decoded(chroot)?)?;
        let (mut path, mut tick) = (None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                PATH_PARAMETER => path = Some(value.into_owned()),
                TICK_PARAMETER => {
                    let millis = value.parse().map_err(|_| invalid(format!("{TICK_PARAMETER} is a number")))?;
                    tick = Some(Duration::from_millis(millis));
                }
                _ => {
                    let message = format!("of parameters there are {PATH_PARAMETER} and {TICK_PARAMETER} alone");
                    return Err(invalid(message));
                }
            }
        }
        Ok(Self { hosts, login, chroot, path, tick })
    }
}

/// A server, with its port.
fn host(text: &str) -> Result<String, StoreError> {
    // The password may have been meant as a host: it isn't repeated.
    let misunderstood = || invalid("the URL's hosts can't be understood: they are like host:port,host:port");
    let url = Url::parse(&format!("http://{text}/")).map_err(|_| misunderstood())?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let host = url.host_str().filter(|_| bare && url.password().is_none()).ok_or_else(misunderstood)?;
    // The port of http is left out by the parser.
    let port = if text.ends_with(":80") { 80 } else { url.port().unwrap_or(PORT) };
    Ok(format!("{host}:{port}"))
}

fn login(text: &str) -> Result<String, StoreError> {
    let (user, password) =
        text.split_once(':').ok_or_else(|| invalid("the URL has a user and no password: user:password@"))?;
    let (user, password) = (decoded(user)?, decoded(password)?);
    if user.is_empty() || user.contains(':') {
        return Err(invalid("a user's name isn't empty and has no colon in it"));
    }
    Ok(format!("{user}:{password}"))
}

/// Undoes percent-encoding; a plus sign is itself.
fn decoded(text: &str) -> Result<String, StoreError> {
    let escaped = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
    let value = form_urlencoded::parse(escaped.as_bytes()).next().map(|(_, value)| value.into_owned());
    value.filter(|value| !value.contains('\u{fffd}')).ok_or_else(|| invalid("the URL is not UTF-8"))
}

/// A path of nodes, without a slash at its end.
pub(crate) fn checked_path(what: &str, path: &str) -> Result<String, StoreError> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(String::new());
    }
    let part = |part: &str| crate::names::decoded(part).is_some_and(|name| name.as_str() == part);
    match path.strip_prefix('/') {
        Some(parts) if parts.split('/').all(part) => Ok(path.to_owned()),
        _ => Err(invalid(format!("{what} is a path like /apps/locks, of nodes that ZooKeeper can name"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let address =
            Address::read("zookeeper://us%3aer:p%40+ss@a,b:2182,[::1]:80/x/y/?leasehold_path=/z%2Fw").err().unwrap();
        assert!(address.to_string().contains("colon"));
        let address = Address::read(
            "zookeeper://user:p%40+&s:s@a,b:2182,[::1]:80/x/y/?leasehold_path=/z%2Fw&leasehold_tick_ms=9",
        )
        .unwrap();
        assert_eq!(address.hosts, "a:2181,b:2182,[::1]:80");
        assert_eq!(address.login.as_deref(), Some("user:p@+&s:s"));
        assert_eq!((address.chroot.as_str(), address.path.as_deref()), ("/x/y", Some("/z/w")));
        assert_eq!(address.tick, Some(Duration::from_millis(9)));
        let address = Address::read("zookeeper://h").unwrap();
        assert_eq!((address.hosts.as_str(), address.chroot.as_str()), ("h:2181", ""));
        assert!(address.login.is_none() && address.path.is_none());
    }

    #[test]
    fn what_cannot_be_understood_is_refused_without_its_secrets() {
        for bad in [
            "redis://u:s3cret@h",
            "zookeepers://u:s3cret@h",
            "zookeeper://",
            "zookeeper://u:s3cret",
            "zookeeper://u:s3/cret@h",
            "zookeeper://u:s3?cret@h",
            "zookeeper://us3cret@h",
            "zookeeper://u:s3cret@h,,i",
            "zookeeper://u:s3cret@h//x",
            "zookeeper://u:s3cret@h/..",
            "zookeeper://u:s3cret@h/x?timeout=3",
            "zookeeper://u:s3cret@h/x?leasehold_tick_ms=2s",
            "zookeeper://u:s3cret@h/%FF",
        ] {
            let error = Address::read(bad).err().unwrap_or_else(|| panic!("{bad}"));
            assert_eq!(error.kind(), lock_core::ErrorKind::InvalidConfig);
            assert!(!format!("{error} {error:?}").contains("s3"), "{error}");
        }
    }
}
