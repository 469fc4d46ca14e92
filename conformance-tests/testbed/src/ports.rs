//! Ports for private servers.

use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::{Error, container};

/// Above the shared servers' ports and below those from which systems take the ports of outgoing connections: a server
/// that is down must find its port free when it comes back.
const RANGE: Range<u16> = 27_000..32_700;

/// The first of so many ports, one after the other, that nobody listens on and no container of the testbed owns.
pub(crate) fn free(count: u16) -> Result<u16, Error> {
    // A server that was killed still owns its ports.
    let owned: Vec<u16> = container::list()?.into_iter().filter_map(|listed| listed.port).collect();
    for _ in RANGE.step_by(usize::from(count)) {
        let first = next(count);
        let is_owned = owned.iter().any(|port| (first.saturating_sub(MOST)..first + count).contains(port));
        if !is_owned && (first..first + count).all(is_free) {
            return Ok(first);
        }
    }
    let source = io::Error::new(io::ErrorKind::AddrInUse, format!("no {count} free ports in {RANGE:?}"));
    Err(Error::NotRun { command: "bind 127.0.0.1".to_owned(), source })
}

/// No kind has more ports than this and one.
const MOST: u16 = 8;

/// Each process goes round the range from a place of its own, so that two rarely try the same.
fn next(count: u16) -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let size = RANGE.end - RANGE.start - count;
    let begin = (std::process::id().wrapping_mul(67) % u32::from(size)) as u16;
    RANGE.start + (begin + TAKEN.fetch_add(count, Ordering::Relaxed) % size) % size
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::KINDS;

    #[test]
    fn no_kind_has_more_ports_than_are_kept_apart() {
        assert!(KINDS.iter().all(|kind| (1..=MOST + 1).contains(&kind.ports)));
    }

    #[test]
    fn ports_stay_in_their_range() {
        for _ in 0..10_000 {
            let first = next(3);
            assert!(RANGE.contains(&first) && RANGE.contains(&(first + 2)), "{first}");
        }
    }
}
