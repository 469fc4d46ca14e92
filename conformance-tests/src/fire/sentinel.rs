//! What a sentinel of Redis tells of its servers, put in terms of the wires that lead there.

use std::{io, net::SocketAddr, sync::Arc};

/// A server, and where a client is to go instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alias {
    server: SocketAddr,
    instead: SocketAddr,
}

impl Alias {
    /// # Errors
    /// That the two aren't at the same host: only ports are exchanged, since a reply may tell the host long before the port.
    pub(super) fn new(server: &str, instead: SocketAddr) -> io::Result<Self> {
        let wrong = |why: &dyn std::fmt::Display| io::Error::other(format!("no alias for {server:?}: {why}"));
        let server: SocketAddr = server.parse().map_err(|error: std::net::AddrParseError| wrong(&error))?;
        if server.ip() != instead.ip() {
            return Err(wrong(&format!("{instead} is at another host")));
        }
        Ok(Self { server, instead })
    }
}

/// The replies on one connection, of RESP2 or RESP3, that come in pieces.
///
/// An address is exchanged where a bulk string tells it whole (`host:port`, or `host port` as messages of a fail-over do), and
/// where a port is a bulk string of its own, after that of its host or a word that ends with `port`. All else passes as it is.
#[derive(Debug)]
pub(super) struct Replies {
    aliases: Arc<[Alias]>,
    /// What has come of an element that isn't whole yet.
    rest: Vec<u8>,
    /// The bulk string before.
    last: Vec<u8>,
}

impl Replies {
    pub(super) fn new(aliases: Arc<[Alias]>) -> Self {
        Self { aliases, rest: Vec::new(), last: Vec::new() }
    }

    /// Takes in a piece, and gives what is to be passed on by now: whole elements.
    pub(super) fn put(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        self.rest.extend_from_slice(piece);
        let (mut out, mut read) = (Vec::new(), 0);
        while let Some(element) = element(&self.rest[read..])? {
            match element {
                Element::Line(length) => {
                    out.extend_from_slice(&self.rest[read..read + length]);
                    read += length;
                }
                Element::Bulk { head, text } => {
                    let (kind, text) = (self.rest[read], &self.rest[read + head..read + head + text]);
                    let told = told(&self.aliases, &self.last, text);
                    out.push(kind);
                    out.extend_from_slice(format!("{}\r\n", told.len()).as_bytes());
                    out.extend_from_slice(&told);
                    out.extend_from_slice(END);
                    read += head + text.len() + END.len();
                    self.last = text.to_vec();
                }
            }
        }
        self.rest.drain(..read);
        Ok(out)
    }
}

const END: &[u8] = b"\r\n";

enum Element {
    /// Of so many bytes with its end: a number, a status, an error, the head of an array.
    Line(usize),
    /// A text of so many bytes, after a head of so many, and before its end.
    Bulk { head: usize, text: usize },
}

/// The first element of these bytes, if it is whole.
fn element(bytes: &[u8]) -> io::Result<Option<Element>> {
    let Some(end) = bytes.windows(END.len()).position(|window| window == END) else { return Ok(None) };
    let (line, head) = (&bytes[..end], end + END.len());
    // Texts, errors as texts, and texts with a format.
    let [b'$' | b'!' | b'=', length @ ..] = line else { return Ok(Some(Element::Line(head))) };
    let length = std::str::from_utf8(length).ok().and_then(|length| length.parse::<i64>().ok());
    let length = length.ok_or_else(|| io::Error::other("a length that is none"))?;
    // Negative: nothing.
    let Ok(text) = usize::try_from(length) else { return Ok(Some(Element::Line(head))) };
    Ok((bytes.len() >= head + text + END.len()).then_some(Element::Bulk { head, text }))
}

/// The text as the client is to hear it.
fn told(aliases: &[Alias], last: &[u8], text: &[u8]) -> Vec<u8> {
    for Alias { server, instead } in aliases {
        let follows = last.ends_with(b"port") || last == server.ip().to_string().as_bytes();
        if follows && text == server.port().to_string().as_bytes() {
            return instead.port().to_string().into_bytes();
        }
    }
    let (mut out, mut read) = (Vec::new(), 0);
    while read < text.len() {
        let found = aliases.iter().find_map(|alias| Some((alias, told_here(alias, text, read)?)));
        match found {
            Some((alias, length)) => {
                // The host and what parts it from its port stay.
                let port = alias.server.port().to_string().len();
                out.extend_from_slice(&text[read..read + length - port]);
                out.extend_from_slice(alias.instead.port().to_string().as_bytes());
                read += length;
            }
            None => {
                out.push(text[read]);
                read += 1;
            }
        }
    }
    out
}

/// How long this server's address is that begins there, if it does.
fn told_here(alias: &Alias, text: &[u8], at: usize) -> Option<usize> {
    let (host, port) = (alias.server.ip().to_string(), alias.server.port().to_string());
    let rest = text[at..].strip_prefix(host.as_bytes())?;
    let rest = rest.strip_prefix(b":").or_else(|| rest.strip_prefix(b" "))?;
    let rest = rest.strip_prefix(port.as_bytes())?;
    // Not the beginning or the end of a longer number.
    let is_part = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let before = at.checked_sub(1).and_then(|before| text.get(before));
    (!is_part(before) && !is_part(rest.first())).then(|| host.len() + 1 + port.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Servers at 6379 and 6380, and wires to them at ports of more and of fewer digits.
    fn replies() -> Replies {
        let alias = |server: &str, port| Alias::new(server, SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        Replies::new([alias("127.0.0.1:6379", 40_123), alias("127.0.0.1:6380", 99)].into())
    }

    fn bulk(texts: &[&str]) -> String {
        let texts: String = texts.iter().map(|text| format!("${}\r\n{text}\r\n", text.len())).collect();
        texts
    }

    /// Whatever pieces it comes in.
    fn must_become(reply: &str, expected: &str) {
        for size in 1..=reply.len() {
            let mut replies = replies();
            let put = reply.as_bytes().chunks(size).map(|piece| replies.put(piece).unwrap());
            let told = put.collect::<Vec<_>>().concat();
            assert_eq!(String::from_utf8(told).unwrap(), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn the_primary_is_told_by_its_wire() {
        for (port, wire) in [("6379", "40123"), ("6380", "99")] {
            let reply = |port| format!("*2\r\n{}", bulk(&["127.0.0.1", port]));
            must_become(&reply(port), &reply(wire));
        }
        // Nobody's, and none.
        for other in ["*2\r\n$9\r\n127.0.0.1\r\n$5\r\n63799\r\n", "*-1\r\n", "$-1\r\n", "-ERR 127.0.0.1:6379\r\n"] {
            must_become(other, other);
        }
    }

    #[test]
    fn replicas_are_told_by_their_wires_and_numbers_that_are_no_ports_stay() {
        let reply = |name, port, master| {
            let told = ["name", name, "ip", "127.0.0.1", "port", port, "flags", "slave", "slave-repl-offset", "6379"];
            format!("*1\r\n*14\r\n{}{}", bulk(&told), bulk(&["master-host", "127.0.0.1", "master-port", master]))
        };
        must_become(&reply("127.0.0.1:6380", "6380", "6379"), &reply("127.0.0.1:99", "99", "40123"));
    }

    #[test]
    fn a_fail_over_is_told_by_the_wires() {
        let message = |told: &str| format!("*3\r\n{}", bulk(&["message", "+switch-master", told]));
        must_become(
            &message("leasehold 127.0.0.1 6379 127.0.0.1 6380"),
            &message("leasehold 127.0.0.1 40123 127.0.0.1 99"),
        );
        let other = message("leasehold 127.0.0.1 63791 1127.0.0.1 6380 127.0.0.16379");
        must_become(&other, &other);
        // RESP3: a push, and a text with a format.
        let text = |told: &str| format!(">1\r\n={}\r\ntxt:{told}\r\n#t\r\n", 4 + told.len());
        must_become(&text("address=127.0.0.1:6379,slaves=1"), &text("address=127.0.0.1:40123,slaves=1"));
    }

    #[test]
    fn what_is_no_reply_and_what_is_elsewhere_is_an_error() {
        assert!(replies().put(b"$x\r\n").is_err());
        assert!(Alias::new("10.0.0.1:6379", SocketAddr::from(([127, 0, 0, 1], 1))).is_err());
        assert!(Alias::new("somewhere:6379", SocketAddr::from(([127, 0, 0, 1], 1))).is_err());
    }
}
