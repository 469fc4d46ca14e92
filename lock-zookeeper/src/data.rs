//! What is written into nodes. Whatever is read may be anybody's, and is judged as such.

use std::time::Duration;

use lock_core::{FencingToken, HolderInfo, OwnerId, Tick};
use serde_json::{Value, json};

use crate::node::prefix;

/// Who stands in an entry, for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) holder: HolderInfo,
    /// The timeout of its session, where it is said.
    pub(crate) ttl: Option<Duration>,
}

impl Standing {
    pub(crate) fn written(holder: &HolderInfo, ttl: Duration) -> Vec<u8> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        json!({ "holder": holder.clone().bounded(), "ttl_ms": millis }).to_string().into_bytes()
    }

    /// Other programs' data is somebody of whom nothing is known.
    pub(crate) fn read(data: &[u8]) -> Self {
        let Ok(mut read) = serde_json::from_slice::<Value>(data) else { return Self::default() };
        let ttl = read.get("ttl_ms").and_then(Value::as_u64).map(Duration::from_millis);
        let holder = read.get_mut("holder").map(Value::take).unwrap_or_default();
        let holder: HolderInfo = serde_json::from_value(holder).unwrap_or_default();
        Self { holder: holder.bounded(), ttl }
    }

    /// For how long the lease lasts at least if its holder lives: what the heartbeat's rhythm leaves of the session.
    /// Nobody else knows when the session was last heard of.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.ttl.map(|ttl| ttl - ttl / 4)
    }
}

/// What the last holder left in the lock's own node: its token, and the name of its entry.
pub(crate) struct Last;

impl Last {
    pub(crate) fn written(token: FencingToken, node: &str) -> Vec<u8> {
        format!("{token} {node}").into_bytes()
    }

    pub(crate) fn token(data: &[u8]) -> Option<FencingToken> {
        let (token, _) = std::str::from_utf8(data).ok()?.split_once(' ')?;
        token.parse().ok().map(FencingToken::new)
    }

    /// Whether the last holder's entry was this one.
    pub(crate) fn was(data: &[u8], node: &str) -> bool {
        std::str::from_utf8(data).ok().and_then(|text| text.split_once(' ')).is_some_and(|(_, last)| last == node)
    }
}

/// What is kept of a lock's ticks: the last one that was used up; and, if a grant did that, its token and entry, as in
/// [`Last`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UsedUp {
    pub(crate) tick: Tick,
    by: Option<Vec<u8>>,
}

impl UsedUp {
    pub(crate) fn by_release(tick: Tick) -> Self {
        Self { tick, by: None }
    }

    pub(crate) fn by_grant(tick: Tick, token: FencingToken, node: &str) -> Self {
        Self { tick, by: Some(Last::written(token, node)) }
    }

    /// Whether the grant to this very entry did it: an entry that was made anew has another token.
    pub(crate) fn is_by(&self, token: FencingToken, node: &str) -> bool {
        self.by.as_ref().is_some_and(|by| *by == Last::written(token, node))
    }

    /// Whether a grant of this call did it, whichever of its entries it was.
    pub(crate) fn is_of(&self, owner: OwnerId) -> bool {
        let by = self.by.as_deref().and_then(|by| std::str::from_utf8(by).ok()).and_then(|by| by.split_once(' '));
        by.is_some_and(|(_, node)| node.starts_with(&prefix(owner)))
    }

    pub(crate) fn written(&self) -> Vec<u8> {
        let mut data = self.tick.0.to_string().into_bytes();
        if let Some(by) = &self.by {
            data.push(b' ');
            data.extend_from_slice(by);
        }
        data
    }

    /// The number alone is what releases write, and people.
    pub(crate) fn read(data: &[u8]) -> Option<Self> {
        let (number, by) = match data.iter().position(|byte| *byte == b' ') {
            Some(at) => (&data[..at], Some(data[at + 1..].to_vec())),
            None => (data, None),
        };
        let tick = std::str::from_utf8(number).ok()?.parse().ok().map(Tick).filter(|tick| *tick <= Tick::MAX)?;
        Some(Self { tick, by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_strangers_are_nobody() {
        let holder = HolderInfo { host: "h".into(), pid: 7, label: "l".into(), since_micros: 9 };
        let read = Standing::read(&Standing::written(&holder, Duration::from_secs(8)));
        assert_eq!((read.holder.clone(), read.remaining()), (holder, Some(Duration::from_secs(6))));
        for strange in ["", "10.0.0.1", "[]", "{\"holder\":3,\"ttl_ms\":-1}"] {
            let read = Standing::read(strange.as_bytes());
            assert_eq!((read.holder, read.ttl), (HolderInfo::default(), None), "{strange}");
        }
        let last = Last::written(FencingToken::new(12), "a");
        assert_eq!(
            (Last::token(&last), Last::was(&last, "a"), Last::was(&last, "b")),
            (Some(FencingToken::new(12)), true, false)
        );
        assert_eq!(Last::token(b"10.0.0.1"), None);
    }

    #[test]
    fn a_tick_reads_back_with_the_grant_that_used_it_up() {
        let (token, other) = (FencingToken::new(12), FencingToken::new(13));
        let granted = UsedUp::by_grant(Tick(5), token, "a");
        assert_eq!(granted.written(), b"5 12 a");
        assert_eq!(UsedUp::read(b"5 12 a"), Some(granted.clone()));
        assert_eq!([(token, "a"), (other, "a"), (token, "b")].map(|(t, n)| granted.is_by(t, n)), [true, false, false]);
        let (own, other) = (OwnerId::from_u128(7), OwnerId::from_u128(8));
        let mine = UsedUp::by_grant(Tick(5), token, &format!("{}0000000042", prefix(own)));
        assert_eq!([own, other].map(|owner| mine.is_of(owner)), [true, false]);
        assert!(!granted.is_of(own) && !UsedUp::by_release(Tick(5)).is_of(own));
        // What was written before grants used ticks up.
        assert_eq!(UsedUp::read(b"5"), Some(UsedUp::by_release(Tick(5))));
        assert!(!UsedUp::by_release(Tick(5)).is_by(token, "a"));
        let last = Tick::MAX.0.to_string();
        assert_eq!(UsedUp::read(last.as_bytes()).map(|used| used.tick), Some(Tick::MAX));
        for strange in ["", " ", "x", "-5", "5x", " 5", "9007199254740992", "99999999999999999999 12 a"] {
            assert_eq!(UsedUp::read(strange.as_bytes()), None, "{strange}");
        }
    }
}
