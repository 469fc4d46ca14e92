//! Where the servers are: by URL, or by what the application has already.

use std::fmt;

use etcd_client::Client;
use lock_core::{ErrorKind, StoreError};
use url::form_urlencoded;

/// The parameter of a URL that names the prefix of all keys.
const PREFIX_PARAMETER: &str = "leasehold_prefix";
/// What begins so in a URL is ours.
const OURS: &str = "leasehold_";
/// Where etcd listens if nothing else is said.
const PORT: u16 = 2379;

/// Where the servers are: a URL, or the application's own client.
pub struct Source(pub(crate) Result<Given, StoreError>);

/// What a [`Source`] came to. Not `Debug`: it holds the password.
pub(crate) struct Given {
    pub(crate) way: Way,
    pub(crate) prefix: Option<String>,
}

/// How requests get to the servers.
pub(crate) enum Way {
    /// Over a connection of our own, to one of these at a time.
    Own(Servers),
    /// Over the application's.
    Theirs(Box<Client>),
}

/// Servers of one cluster, and how to log in there.
#[derive(Clone)]
pub(crate) struct Servers {
    /// `host:port`.
    pub(crate) hosts: Vec<String>,
    pub(crate) tls: bool,
    pub(crate) login: Option<(String, String)>,
}

impl From<&str> for Source {
    fn from(url: &str) -> Self {
        Self(parse(url))
    }
}

impl From<String> for Source {
    fn from(url: String) -> Self {
        Self(parse(&url))
    }
}

impl From<&String> for Source {
    fn from(url: &String) -> Self {
        Self(parse(url))
    }
}

impl From<Client> for Source {
    /// Its connections, its user and its time-outs.
    fn from(client: Client) -> Self {
        Self(Ok(Given { way: Way::Theirs(Box::new(client)), prefix: None }))
    }
}

impl fmt::Debug for Source {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Err(error) => f.debug_tuple("Source").field(error).finish(),
            Ok(Given { way: Way::Own(servers), .. }) => f.debug_tuple("Source").field(&servers.hosts).finish(),
            Ok(Given { way: Way::Theirs(_), .. }) => {
                f.debug_tuple("Source").field(&"the application's client").finish()
            }
        }
    }
}

fn parse(url: &str) -> Result<Given, StoreError> {
    let ours = |scheme: &str| matches!(scheme, "etcd" | "etcds");
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| ours(scheme)) else {
        return Err(invalid("the URL of an etcd server begins with etcd:// or etcds://"));
    };
    if rest.contains('#') {
        return Err(invalid("the URL has a part after #, which means nothing here; in a password write %23"));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if !matches!(path, "" | "/") {
        return Err(invalid("an etcd server has no databases: nothing follows its hosts but /? and parameters"));
    }
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(read_login(login)?), hosts),
        None => (None, authority),
    };
    let mut prefix = None;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match key.as_ref() {
            PREFIX_PARAMETER => prefix = Some(value.into_owned()),
            _ if key.starts_with(OURS) => {
                return Err(invalid(format!(
                    "of the parameters that begin with {OURS} there is only {PREFIX_PARAMETER}"
                )));
            }
            _ => return Err(invalid(format!("the URL of an etcd server takes one parameter, {PREFIX_PARAMETER}"))),
        }
    }
    let hosts = hosts.split(',').map(read_host).collect::<Result<_, _>>()?;
    Ok(Given { way: Way::Own(Servers { hosts, tls: scheme == "etcds", login }), prefix })
}

fn read_login(login: &str) -> Result<(String, String), StoreError> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let unreadable = || invalid("user name and password of the URL can't be read: percent-encode what they hold");
    let (user, password) = (decoded(user).ok_or_else(unreadable)?, decoded(password).ok_or_else(unreadable)?);
    if user.is_empty() {
        return Err(invalid("the URL has a password and no user: etcd://user:password@host"));
    }
    Ok((user, password))
}

/// `host:port`, with etcd's own port if none is said.
fn read_host(host: &str) -> Result<String, StoreError> {
    let unreadable = || invalid("the hosts of the URL can't be read: etcd://user:password@host:port,host:port");
    let (address, port) = match host.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((address, port)) if !port.contains(']') => (address, port.parse().map_err(|_| unreadable())?),
        _ => (host, PORT),
    };
    let parsed = url::Host::parse(address).map_err(|_| unreadable())?;
    Ok(format!("{parsed}:{port}"))
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn invalid(message: impl Into<String>) -> StoreError {
    StoreError::refused(ErrorKind::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(url: &str) -> Servers {
        match parse(url).unwrap().way {
            Way::Own(servers) => servers,
            Way::Theirs(_) => panic!("{url} is no URL"),
        }
    }

    #[test]
    fn a_url_names_servers_login_and_prefix() {
        let url = "etcd://app:p%40s%3As@a,b:7000,[::1]:7001/?leasehold_prefix=my%20locks%2F";
        let read = servers(url);
        assert_eq!(read.hosts, ["a:2379", "b:7000", "[::1]:7001"]);
        assert_eq!(read.login, Some(("app".to_owned(), "p@s:s".to_owned())));
        assert!(!read.tls);
        assert_eq!(parse(url).unwrap().prefix.as_deref(), Some("my locks/"));
        let read = servers("etcds://h");
        assert!(read.tls && read.login.is_none() && read.hosts == ["h:2379"]);
    }

    #[test]
    fn what_cannot_be_understood_is_not_quoted() {
        for bad in [
            "s3cret",
            "mysql://u:s3cret@h",
            "etcd://u:s3cret@h:99999",
            "etcd://u:s3cret/1@h",
            "etcd://:s3cret@h",
            "etcd://u:s3#cret@h",
            "etcd://u:%zzs3cret@h",
            "etcd://u:s3cret@h/?leasehold_prefx=s3cret",
            "etcd://u:s3cret@h/?s3cret=s3cret",
            "etcd://u:s3cret@a b",
            "etcd://u:s3cret",
            "etcd://",
        ] {
            let source = Source::from(bad);
            assert!(!format!("{source:?}").contains("s3cret"), "{source:?}");
            assert_eq!(source.0.err().unwrap().kind(), ErrorKind::InvalidConfig, "{bad}");
        }
        let given = Source::from("etcd://u:s3cret@a,b");
        assert!(!format!("{given:?}").contains("s3cret"), "{given:?}");
    }
}
