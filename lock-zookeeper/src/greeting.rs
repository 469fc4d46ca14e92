//! How short a session the servers grant, asked in the protocol's own words.
//!
//! The driver gives the opening of a session no more time than the session is to last, and its first answer two fifths of that.
//! The shortest would then never be had over a network, or of servers, that take longer than that to answer; and each of the
//! many attempts would be one more session for servers to agree on.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What is asked for. A shorter session is of no use.
const SHORTEST: Duration = Duration::from_millis(100);

/// A password of sixteen bytes, after its length.
const NO_PASSWORD: [u8; 20] = [0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The timeout of the shortest session that this server grants, by opening and closing one.
///
/// Dropped on the way, it leaves a session that ends by itself in that time.
pub(crate) async fn shortest(host: &str) -> io::Result<Duration> {
    let mut server = TcpStream::connect(host).await?;
    server.write_all(&packet(&greeting())).await?;
    let refused = || io::Error::other("no session was granted");
    let length = server.read_u32().await?;
    // All of it: a connection that is dropped with something unread is reset, and the farewell may be lost with it.
    let mut rest = vec![0; length.checked_sub(READ).filter(|_| length < MOST).ok_or_else(refused)? as usize];
    let (_version, millis, session) = (server.read_u32().await?, server.read_i32().await?, server.read_i64().await?);
    server.read_exact(&mut rest).await?;
    let granted = u64::try_from(millis).ok().filter(|millis| *millis > 0 && session != 0);
    let granted = granted.ok_or_else(refused)?;
    // Its answer is for nobody.
    server.write_all(&packet(&closing())).await?;
    Ok(Duration::from_millis(granted))
}

/// The version, the timeout and the session of an answer, in bytes.
const READ: u32 = 4 + 4 + 8;

/// More than any answer to a greeting, in bytes. What is longer isn't one.
const MOST: u32 = 1024;

/// `ConnectRequest`: its version, the last transaction seen, the timeout, session and password of none, and not read-only.
fn greeting() -> Vec<u8> {
    let millis = u32::try_from(SHORTEST.as_millis()).unwrap_or(u32::MAX);
    [&[0; 4][..], &[0; 8], &millis.to_be_bytes(), &[0; 8], &NO_PASSWORD, &[0]].concat()
}

/// `RequestHeader` of a request that has nothing else: its number and its kind.
fn closing() -> Vec<u8> {
    const CLOSE_SESSION: i32 = -11;
    [1_i32, CLOSE_SESSION].map(i32::to_be_bytes).concat()
}

/// What is sent, after its length.
fn packet(what: &[u8]) -> Vec<u8> {
    let length = u32::try_from(what.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], what].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// What is made of this answer, and what the server heard after it.
    async fn answered(answer: &[u8]) -> (io::Result<Duration>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let answer = answer.to_vec();
        let server = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut greeting = vec![0; 4 + 45];
            client.read_exact(&mut greeting).await.unwrap();
            assert_eq!((&greeting[..4], &greeting[16..20]), (&[0, 0, 0, 45][..], &[0, 0, 0, 100][..]));
            client.write_all(&answer).await.unwrap();
            let mut rest = Vec::new();
            // What wasn't read of an answer that is none ends the connection with an error.
            _ = client.read_to_end(&mut rest).await;
            rest
        });
        (shortest(&host).await, server.await.unwrap())
    }

    fn answer(millis: i32, session: i64) -> Vec<u8> {
        packet(&[&[0; 4][..], &millis.to_be_bytes(), &session.to_be_bytes(), &NO_PASSWORD, &[0]].concat())
    }

    #[tokio::test]
    async fn what_is_granted_is_told_and_given_back() {
        let (granted, heard) = answered(&answer(4_000, 7)).await;
        assert_eq!(granted.unwrap(), Duration::from_secs(4));
        assert_eq!(heard, [0, 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xf5]);
    }

    #[tokio::test]
    async fn what_is_no_grant_is_an_error() {
        for answer in
            [answer(0, 0), answer(-1, 7), answer(4_000, 0), b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), vec![0; 9]]
        {
            let (granted, heard) = answered(&answer).await;
            assert!(granted.is_err() && heard.is_empty(), "{granted:?} {heard:?}");
        }
    }
}
