//! What a URL says: where its servers are, and what nobody else is to read.

/// The `host:port`s of a URL, of which it may name several with commas between them; a port is the server's usual one
/// where it names none.
pub(crate) fn host_ports(url: &str, usual: u16) -> Vec<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let hosts = authority.rsplit('@').next().unwrap_or_default();
    hosts.split(',').map(|host| host_port(host, usual)).collect()
}

fn host_port(host: &str, usual: u16) -> String {
    // The colons inside the brackets of an IPv6 address are no port.
    let has_port =
        host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    if has_port { host.to_owned() } else { format!("{}:{usual}", host.trim_end_matches(':')) }
}

/// The URL without its password, for people to read.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((login, host)) => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}{tail}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_of_a_url() {
        for (url, expected) in [
            ("postgres://u:p@db.example:6000/x?y=1", "db.example:6000"),
            ("postgres://u:p@db.example/x", "db.example:5432"),
            ("postgres://db.example", "db.example:5432"),
            ("postgres://u:a@b@[::1]:6000/x", "[::1]:6000"),
            ("postgres://[::1]/x", "[::1]:5432"),
        ] {
            assert_eq!(host_ports(url, 5432), [expected], "{url}");
        }
    }

    #[test]
    fn each_host_of_a_url() {
        assert_eq!(host_ports("mongodb://u:p@a:1,b,[::1]:3/x", 27017), ["a:1", "b:27017", "[::1]:3"]);
    }

    #[test]
    fn the_password_is_hidden() {
        for (url, expected) in [
            ("postgres://u:secret@h:1/x", "postgres://u:***@h:1/x"),
            ("postgres://u:s@cret@h/x", "postgres://u:***@h/x"),
            ("redis://:secret@h:1/0", "redis://:***@h:1/0"),
            ("mongodb://u:secret@h:1,h:2/x", "mongodb://u:***@h:1,h:2/x"),
            ("postgres://h/x", "postgres://h/x"),
        ] {
            assert_eq!(without_password(url), expected, "{url}");
        }
    }
}
