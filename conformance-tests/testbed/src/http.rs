//! One question over HTTP, for servers that tell of themselves that way.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// More than any answer that is asked for here, in bytes.
const MOST: u64 = 65_536;

/// Asks and answers with the body; an answer other than 200 is an error that has it.
pub(crate) fn ask(address: SocketAddr, limit: Duration, question: &Question<'_>) -> io::Result<String> {
    judge(exchange(address, limit, question)?)
}

fn judge(Answer { status, body }: Answer) -> io::Result<String> {
    if status.starts_with("200") { Ok(body) } else { Err(io::Error::other(format!("{status}: {body}"))) }
}

/// Asks and answers with what is said, whatever it is.
pub(crate) fn exchange(address: SocketAddr, limit: Duration, question: &Question<'_>) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let Question { method, path, body } = question;
    // Of 1.0 the answer's end is that of the connection.
    write!(stream, "{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    read(&String::from_utf8_lossy(&answer))
}

pub(crate) struct Question<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) body: &'a str,
}

pub(crate) struct Answer {
    /// `200 OK`
    pub(crate) status: String,
    pub(crate) body: String,
}

fn read(answer: &str) -> io::Result<Answer> {
    let stranger = || io::Error::other("what answers there doesn't speak HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(stranger)?;
    let (version, status) = head.lines().next().and_then(|line| line.split_once(' ')).ok_or_else(stranger)?;
    if !version.starts_with("HTTP/1.") {
        return Err(stranger());
    }
    Ok(Answer { status: status.to_owned(), body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(answer: &str) -> io::Result<String> {
        read(answer).and_then(judge)
    }

    #[test]
    fn the_body_is_the_answer() {
        assert_eq!(heard("HTTP/1.0 200 OK\r\nDate: x\r\n\r\n{}\n").ok().as_deref(), Some("{}\n"));
    }

    #[test]
    fn a_refusal_says_what_it_is() {
        let error = heard("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"health\":\"false\"}").map_err(|e| e.to_string());
        assert_eq!(error, Err("503 Service Unavailable: {\"health\":\"false\"}".to_owned()));
    }

    #[test]
    fn silence_and_strangers_are_errors() {
        for answer in ["", "HTTP/1.0 200 OK\r\n", "+PONG 200\r\n\r\n"] {
            assert!(heard(answer).is_err(), "{answer}");
        }
    }
}
