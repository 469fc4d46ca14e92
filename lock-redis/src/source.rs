//! Where the servers are: by URL, or by what the application has already.

use std::fmt;

use lock_core::{ErrorKind, StoreError};
use redis::{
    Client, ConnectionInfo, IntoConnectionInfo, aio::ConnectionManager, cluster::ClusterClient,
    cluster_async::ClusterConnection,
};
use url::{Url, form_urlencoded};

use crate::{
    door::{Place, address},
    error,
    sentinel::Sentinels,
};

/// The parameter of a URL that names the prefix of all keys.
const PREFIX_PARAMETER: &str = "leasehold_prefix";
/// What begins so in a URL is ours.
const OURS: &str = "leasehold_";

/// The name under which sentinels watch the primary, and how to log in at them. The words are Lettuce's and fred's.
const SERVICE_PARAMETER: &str = "sentinelServiceName";
const SENTINEL_USER_PARAMETER: &str = "sentinelUsername";
const SENTINEL_PASSWORD_PARAMETER: &str = "sentinelPassword";

/// Where the servers are: a URL, or the application's own client or connection.
pub struct Source(pub(crate) Result<Given, StoreError>);

/// What a [`Source`] came to. Not `Debug`: it holds passwords.
pub(crate) struct Given {
    pub(crate) way: Way,
    pub(crate) prefix: Option<String>,
}

/// How requests get to the servers.
pub(crate) enum Way {
    /// Over a connection of our own.
    Own(Place),
    /// Over a cluster connection of our own, found through one of these nodes.
    Nodes(Vec<ConnectionInfo>),
    /// Over a cluster connection of our own, made with the application's settings.
    ClusterClient(Box<ClusterClient>),
    /// Over the application's connection.
    Cluster(ClusterConnection),
    /// Over the application's connection.
    Manager(ConnectionManager),
}

impl Source {
    fn of(way: Way) -> Self {
        Self(Ok(Given { way, prefix: None }))
    }
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

impl From<ConnectionInfo> for Source {
    fn from(info: ConnectionInfo) -> Self {
        Self::of(Way::Own(Place::Server(Box::new(info))))
    }
}

impl From<Client> for Source {
    /// Its address and credentials; connections are our own.
    fn from(client: Client) -> Self {
        Self::from(client.get_connection_info().clone())
    }
}

impl From<ConnectionManager> for Source {
    fn from(manager: ConnectionManager) -> Self {
        Self::of(Way::Manager(manager))
    }
}

impl From<ClusterClient> for Source {
    fn from(client: ClusterClient) -> Self {
        Self::of(Way::ClusterClient(Box::new(client)))
    }
}

impl From<ClusterConnection> for Source {
    fn from(connection: ClusterConnection) -> Self {
        Self::of(Way::Cluster(connection))
    }
}

impl fmt::Debug for Source {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match &self.0 {
            Err(error) => return f.debug_tuple("Source").field(error).finish(),
            Ok(Given { way: Way::Own(Place::Server(info)), .. }) => address(info.addr()),
            Ok(Given { way: Way::Own(Place::Primary(sentinels)), .. }) => sentinels.to_string(),
            Ok(Given { way: Way::Own(Place::AnyOf(nodes)) | Way::Nodes(nodes), .. }) => {
                nodes.iter().map(|node| address(node.addr())).collect::<Vec<_>>().join(", ")
            }
            Ok(Given { way: Way::ClusterClient(_), .. }) => "the application's cluster client".to_owned(),
            Ok(Given { way: Way::Cluster(_), .. }) => "the application's cluster connection".to_owned(),
            Ok(Given { way: Way::Manager(_), .. }) => "the application's connection".to_owned(),
        };
        f.debug_tuple("Source").field(&text).finish()
    }
}

/// A URL taken apart. Nothing of it is ever quoted: a password with an unescaped sign may stand anywhere.
struct Parts<'a> {
    scheme: &'a str,
    /// `user:password@`, or nothing.
    login: &'a str,
    hosts: Vec<&'a str>,
    /// With its slash.
    path: &'a str,
    parameters: Vec<(String, String)>,
    fragment: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(rest, fragment)| (rest, Some(fragment)));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        let parameters = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Some(Self { scheme, login, hosts: hosts.split(',').collect(), path, parameters, fragment })
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.parameters.iter().position(|(key, _)| key == name)?;
        Some(self.parameters.remove(at).1)
    }

    /// One of the hosts as a URL of its own, in the driver's words.
    fn server(&self, scheme: &str, login: &str, host: &str, path: &str) -> Result<ConnectionInfo, StoreError> {
        let mut url = Url::parse(&format!("{scheme}://{login}{host}{path}"))
            .map_err(|error| invalid(format!("the URL can't be understood: {error}")))?;
        if !self.parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.parameters);
        }
        url.into_connection_info().map_err(error::of_config)
    }
}

fn parse(url: &str) -> Result<Given, StoreError> {
    let mut parts = Parts::of(url).ok_or_else(not_ours)?;
    let prefix = parts.take(PREFIX_PARAMETER);
    if parts.parameters.iter().any(|(name, _)| name.starts_with(OURS)) {
        return Err(invalid(format!("of the parameters that begin with {OURS} there is only {PREFIX_PARAMETER}")));
    }
    let way = match parts.scheme {
        "redis" | "valkey" | "rediss" | "valkeys" | "unix" | "redis+unix" | "valkey+unix" => {
            if parts.hosts.len() > 1 {
                return Err(invalid("several hosts are a cluster (redis-cluster://) or sentinels (redis-sentinel://)"));
            }
            refuse_fragment(&parts)?;
            let (scheme, login, host) = (parts.scheme, parts.login, parts.hosts[0]);
            Way::Own(Place::Server(Box::new(parts.server(scheme, login, host, parts.path)?)))
        }
        "redis-cluster" | "rediss-cluster" => {
            refuse_fragment(&parts)?;
            if !matches!(parts.path, "" | "/" | "/0") {
                return Err(invalid("a cluster has the database 0 alone"));
            }
            let scheme = plain_scheme(parts.scheme);
            let nodes = parts.hosts.iter().map(|host| parts.server(scheme, parts.login, host, ""));
            Way::Nodes(nodes.collect::<Result<_, _>>()?)
        }
        "redis-sentinel" | "rediss-sentinel" => Way::Own(Place::Primary(Box::new(sentinels(&mut parts)?))),
        _ => return Err(not_ours()),
    };
    Ok(Given { way, prefix })
}

/// `redis-sentinel://user:password@host,host/database?sentinelServiceName=name`; the user is the primary's.
fn sentinels(parts: &mut Parts<'_>) -> Result<Sentinels, StoreError> {
    let service = parts.take(SERVICE_PARAMETER).or_else(|| parts.fragment.map(str::to_owned));
    let service = service.filter(|name| !name.is_empty()).ok_or_else(|| {
        invalid(format!("say which primary the sentinels are to tell: redis-sentinel://…?{SERVICE_PARAMETER}=mymaster"))
    })?;
    let user = parts.take(SENTINEL_USER_PARAMETER).unwrap_or_default();
    let password = parts.take(SENTINEL_PASSWORD_PARAMETER);
    let scheme = plain_scheme(parts.scheme);
    let server = parts.server(scheme, parts.login, parts.hosts[0], parts.path)?;
    let mut sentinels = Vec::new();
    for host in &parts.hosts {
        let sentinel = parts.server(scheme, "", &with_port(host), "")?;
        let mut settings = sentinel.redis_settings().clone();
        if !user.is_empty() {
            settings = settings.set_username(&user);
        }
        if let Some(password) = &password {
            settings = settings.set_password(password);
        }
        sentinels.push(sentinel.set_redis_settings(settings));
    }
    Ok(Sentinels::new(sentinels, service, server))
}

fn plain_scheme(scheme: &str) -> &'static str {
    if scheme.starts_with("rediss") { "rediss" } else { "redis" }
}

/// Sentinels listen at 26379 if nothing else is said.
fn with_port(host: &str) -> String {
    let after_address = host.rsplit_once(']').map_or(host, |(_, after)| after);
    if after_address.contains(':') { host.to_owned() } else { format!("{host}:26379") }
}

fn refuse_fragment(parts: &Parts<'_>) -> Result<(), StoreError> {
    match parts.fragment {
        None | Some("") => Ok(()),
        Some("insecure") => Err(invalid(
            "a server must prove who it is, so #insecure isn't supported: name the authority to trust in SSL_CERT_FILE",
        )),
        Some(_) => Err(invalid("the URL has a part after #, which means nothing here; in a password write %23")),
    }
}

fn not_ours() -> StoreError {
    invalid("the URL of a Redis server begins with redis://, rediss://, redis-cluster:// or redis-sentinel://")
}

fn invalid(message: impl Into<String>) -> StoreError {
    StoreError::refused(ErrorKind::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::ConnectionAddr;

    fn server(url: &str) -> ConnectionInfo {
        match parse(url).unwrap().way {
            Way::Own(Place::Server(info)) => *info,
            _ => panic!("{url} is no single server"),
        }
    }

    #[test]
    fn our_parameter_is_ours_alone() {
        let url = "redis://app:p%40ss@h:7000/3?leasehold_prefix=a%20b%3A&protocol=resp2";
        assert_eq!(parse(url).unwrap().prefix.as_deref(), Some("a b:"));
        let info = server(url);
        assert_eq!(info.addr(), &ConnectionAddr::Tcp("h".into(), 7000));
        let settings = info.redis_settings();
        assert_eq!((settings.db(), settings.username(), settings.password()), (3, Some("app"), Some("p@ss")));
        assert_eq!(parse("redis://h").unwrap().prefix, None);
    }

    #[test]
    fn each_scheme_leads_to_its_servers() {
        assert!(matches!(server("rediss://[::1]/").addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
        assert!(matches!(server("redis+unix:///run/redis.sock?db=2").addr(), ConnectionAddr::Unix(_)));
        let Way::Nodes(nodes) = parse("rediss-cluster://u:p@a,b:7001").unwrap().way else { panic!("no cluster") };
        assert_eq!(nodes.iter().map(|node| address(node.addr())).collect::<Vec<_>>(), ["a:6379", "b:7001"]);
        assert!(nodes.iter().all(|node| node.redis_settings().password() == Some("p")));
        for url in [
            "redis-sentinel://u:p@a,[::1]:7/2?sentinelServiceName=main&sentinelPassword=q",
            "redis-sentinel://u:p@a,[::1]:7/2?sentinelPassword=q#main",
        ] {
            let Way::Own(Place::Primary(sentinels)) = parse(url).unwrap().way else { panic!("no sentinels") };
            assert_eq!(sentinels.to_string(), "the primary \"main\" of the sentinels a:26379, [::1]:7");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_not_quoted() {
        for bad in [
            "s3cret",
            "mysql://u:s3cret@h",
            "redis://u:s3cret@h:99999",
            "redis://u:s3cret/1@h",
            "redis://u:s3cret@h/x",
            "redis://u:s3cret@h/0?leasehold_prefx=s3cret",
            "redis://u:s3cret@h?protocol=s3cret",
            "redis://u:s3cret@a,b",
            "rediss://u:s3cret@h#insecure",
            "redis://u:s3#cret@h",
            "redis-cluster://u:s3cret@a,b/1",
            "redis-sentinel://u:s3cret@a,b/1",
            "redis://",
        ] {
            let source = Source::from(bad);
            assert!(!format!("{source:?}").contains("s3cret"), "{source:?}");
            assert_eq!(source.0.err().unwrap().kind(), ErrorKind::InvalidConfig, "{bad}");
        }
        let given = Source::from("redis-cluster://u:s3cret@a,b");
        assert!(!format!("{given:?}").contains("s3cret"), "{given:?}");
    }
}
