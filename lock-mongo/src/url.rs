//! Connection URLs: what is ours in them, and what the driver makes of the rest.

use std::time::Duration;

use lock_core::{ErrorKind, StoreError};
use mongodb::{
    error::ErrorKind as DriverKind,
    options::{ClientOptions, ServerAddress},
};

use crate::{
    config::{check_database, invalid},
    error::one_line,
};

/// What our own parameters begin with.
const OURS: &str = "leasehold_";
const COLLECTION_PARAMETER: &str = "leasehold_collection";

/// How often the driver looks at each server: so often, and the connect timeout more, until a server that fell silent is
/// taken for gone and the commands under way there are ended.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// A URL, taken apart. Not `Debug`: it holds the password.
pub(crate) struct Address {
    /// Without our parameters, which the driver doesn't know.
    theirs: String,
    pub(crate) hosts: String,
    pub(crate) collection: Option<String>,
}

/// Takes our parameters out of a URL.
pub(crate) fn without_ours(url: &str) -> Result<Address, StoreError> {
    let is_ours = |scheme: &str| matches!(scheme, "mongodb" | "mongodb+srv");
    let Some((_, rest)) = url.split_once("://").filter(|(scheme, _)| is_ours(scheme)) else {
        return Err(invalid("the URL of a MongoDB server begins with mongodb:// or mongodb+srv://"));
    };
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (ours, theirs): (Vec<_>, Vec<_>) =
        query.split('&').filter(|pair| !pair.is_empty()).partition(|pair| pair.starts_with(OURS));
    let mut collection = None;
    for (key, value) in ours.iter().flat_map(|pair| url::form_urlencoded::parse(pair.as_bytes())) {
        if key != COLLECTION_PARAMETER {
            return Err(invalid(format!(
                "of the parameters that begin with {OURS} there is {COLLECTION_PARAMETER} alone"
            )));
        }
        collection = Some(value.into_owned());
    }
    let theirs = if theirs.is_empty() { base.to_owned() } else { format!("{base}?{}", theirs.join("&")) };
    Ok(Address { theirs, hosts: hosts(rest), collection })
}

/// The hosts of what comes after `://`; nothing if they can't be told from a password.
fn hosts(rest: &str) -> String {
    let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
    let first = |text: &'_ str| text.split('/').next().unwrap_or_default().to_owned();
    let hosts = match base.rsplit_once('@') {
        // A question mark within a password, unescaped: the hosts may be anywhere.
        _ if query.contains('@') => String::new(),
        Some((_, after)) => first(after),
        // The @ may have been forgotten, and what looks like hosts be a user and a password.
        None => Some(first(base)).filter(|hosts| hosts.split(',').all(is_host)).unwrap_or_default(),
    };
    if hosts.is_empty() { "servers that can't be told".to_owned() } else { hosts }
}

/// Whether nothing but a port follows a colon.
fn is_host(text: &str) -> bool {
    // The colons of an IPv6 address stand in brackets.
    let after = text.split_once(']').map_or(text, |(_, after)| after);
    after.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok())
}

impl Address {
    /// What the driver is to do, with our own defaults where the URL says nothing.
    ///
    /// Looks up the servers of a `mongodb+srv` URL.
    pub(crate) async fn options(
        &self,
        connect_timeout: Duration,
        connections: u32,
    ) -> Result<ClientOptions, StoreError> {
        let parsed = ClientOptions::parse(&self.theirs).await;
        let mut options = parsed.map_err(|error| match error.kind.as_ref() {
            DriverKind::DnsResolve { message, .. } => {
                let message = format!("the servers of {} can't be looked up: {}", self.hosts, one_line(message));
                StoreError::refused(ErrorKind::Unreachable, message)
            }
            DriverKind::InvalidArgument { message, .. } => invalid(misunderstood(message)),
            _ => invalid("the URL can't be understood"),
        })?;
        if let Some(database) = &options.default_database {
            check_database(database)?;
        }
        options.app_name.get_or_insert_with(|| "leasehold".to_owned());
        options.connect_timeout.get_or_insert(connect_timeout);
        options.server_selection_timeout.get_or_insert(connect_timeout);
        options.heartbeat_freq.get_or_insert(HEARTBEAT);
        // We try again ourselves, on a standalone too. The server's help for that costs two more writes for each of ours,
        // replicated like it (its books of transactions and of images).
        options.retry_writes = Some(false);
        // One more for the change stream. Who wants more commands at once asks the builder.
        options.max_pool_size = Some(connections + 1);
        options.min_pool_size = None;
        Ok(options)
    }
}

/// The driver's words, if no half of a password with an unescaped character can be among them.
fn misunderstood(said: &str) -> String {
    let about_login = ["address", "username", "password", "host", "port"].iter().any(|word| said.contains(word));
    if about_login {
        return "the URL can't be understood: check its hosts, and that reserved characters in user name and password are percent-encoded".to_owned();
    }
    // These name the parameter and not its value.
    if said.starts_with("connection string `") {
        return format!("the URL can't be understood: {}", one_line(said));
    }
    "the URL can't be understood: one of its parameters has a wrong value".to_owned()
}

/// A server, for people.
pub(crate) fn shown(address: &ServerAddress) -> String {
    address.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_parameter_is_ours_alone() {
        let address =
            without_ours("mongodb://u:p@h:1,i:2/x?tls=true&leasehold_collection=a%20b&appName=c%26d").unwrap();
        assert_eq!(address.collection.as_deref(), Some("a b"));
        assert_eq!(address.theirs, "mongodb://u:p@h:1,i:2/x?tls=true&appName=c%26d");
        assert_eq!(address.hosts, "h:1,i:2");
        let address = without_ours("mongodb://h/x?leasehold_collection=y").unwrap();
        assert_eq!((address.theirs.as_str(), address.hosts.as_str()), ("mongodb://h/x", "h"));
    }

    #[test]
    fn hosts_are_shown_without_any_part_of_a_password() {
        for (rest, shown) in [
            ("u:p@h:1/x", "h:1"),
            ("u:s3c@ret@h/x", "h"),
            ("u:s3c/ret@h/x", "h"),
            ("u:s3c?ret@h/x", "servers that can't be told"),
            ("u:a@s3cret?b@h/x", "servers that can't be told"),
            ("u:s3cret/x", "servers that can't be told"),
            ("h1,u:s3cret/x", "servers that can't be told"),
            ("h1,h2", "h1,h2"),
            ("h1:27017,[::1]:27018/x?a=b", "h1:27017,[::1]:27018"),
        ] {
            assert_eq!(hosts(rest), shown, "{rest}");
        }
    }

    #[tokio::test]
    async fn what_the_driver_refuses_is_told_without_the_password() {
        for url in [
            "mongodb://u:s3cret?@h/x",
            "mongodb://u:s3cret/@h/x",
            "mongodb://u:s3cret:x@h/x",
            "mongodb://u:s3cret%@h/x",
            "mongodb://u:s3cret@h:99999/x",
            "mongodb://u:p@h/x?tls=s3cret",
            "mongodb://u:p@h/x?authMechanism=s3cret",
            "mongodb://u:p@h/x?readPreference=s3cret",
            "mongodb://u:p@h/x?tlsCAFile=s3cret&tls=maybe",
            "mongodb://u:p@h/a%20b",
        ] {
            let error = without_ours(url).unwrap().options(Duration::from_secs(3), 4).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn what_the_url_says_goes_before_our_defaults() {
        let address = without_ours("mongodb://h/x?connectTimeoutMS=70&appName=app&maxPoolSize=50").unwrap();
        let options = address.options(Duration::from_secs(3), 4).await.unwrap();
        assert_eq!(options.connect_timeout, Some(Duration::from_millis(70)));
        assert_eq!(options.server_selection_timeout, Some(Duration::from_secs(3)));
        assert_eq!(options.app_name.as_deref(), Some("app"));
        assert_eq!(options.max_pool_size, Some(5));
    }
}
