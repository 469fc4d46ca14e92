//! Ends a session of ZooKeeper that somebody else has.
//!
//! A server accepts a second connection of a session, and what that one closes is closed for the first as well. It asks
//! for the session's password, which ZooKeeper makes from the session's id alone (`ZooKeeperServer.generatePasswd`).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// `ZooKeeperServer.superSecret`
const SECRET: i64 = 0xB341_5C00;
/// `ZooDefs.OpCode.closeSession`
const CLOSE: i32 = -11;
/// More than either of the two answers, in bytes.
const MOST: u32 = 1024;

/// Closes this session at the server at this address, and answers when it is closed.
pub(crate) fn close(address: SocketAddr, limit: Duration, session: i64) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;

    stream.write_all(&packet(&connect(session)))?;
    let answer = receive(&mut stream)?;
    // Protocol, time-out, session: of one that is gone, 0.
    if answer.get(8..16) != Some(&session.to_be_bytes()) {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no session 0x{session:x}")));
    }
    let xid = 1_i32;
    stream.write_all(&packet(&[xid.to_be_bytes(), CLOSE.to_be_bytes()].concat()))?;
    let answer = receive(&mut stream)?;
    // Xid, transaction, error.
    if answer.get(..4) == Some(&xid.to_be_bytes()) && answer.get(12..16) == Some(&[0; 4]) {
        return Ok(());
    }
    Err(io::Error::other(format!("the session wasn't closed, but answered {answer:?}")))
}

/// `ConnectRequest`: protocol, last transaction seen, time-out in milliseconds, session, password, read only.
fn connect(session: i64) -> Vec<u8> {
    let time_out = 10_000_i32.to_be_bytes();
    [&[0; 12], time_out.as_slice(), &session.to_be_bytes(), &packet(&password(session)), &[0]].concat()
}

/// The bytes and before them how many they are.
fn packet(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MOST {
        return Err(io::Error::other("what answers there isn't ZooKeeper"));
    }
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Sixteen bytes of Java's `Random`, seeded with the session's id.
fn password(session: i64) -> [u8; 16] {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;
    let mut state = ((session ^ SECRET) as u64 ^ MULTIPLIER) & MASK;
    let mut password = [0; 16];
    for four in password.chunks_mut(4) {
        state = (state.wrapping_mul(MULTIPLIER) + 0xB) & MASK;
        // The upper 32 of the 48 bits; their lowest byte comes first.
        four.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_count_their_bytes() {
        assert_eq!(packet(b"abc"), b"\0\0\0\x03abc");
        // 12 before the time-out, 4, 8, 4 + 16, 1.
        assert_eq!(connect(7).len(), 45);
    }

    #[test]
    fn random_is_that_of_java() {
        // new Random(0).nextBytes(...)
        assert_eq!(password(SECRET)[..8], [0x60, 0xb4, 0x20, 0xbb, 0x38, 0x51, 0xd9, 0xd4]);
    }
}
