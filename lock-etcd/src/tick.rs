//! What is kept of a lock's ticks: the last one that was used up, and whose grant did it.
//!
//! The value is `TICK` or `TICK OWNER`. The tick has 20 digits, so that the order of values is that of their ticks. The
//! owner stands there where a grant used it up: a call that asks again, because the answer was lost, finds that it was its
//! own.

use etcd_client::{Compare, CompareOp};
use lock_core::{AcquireRequest, OwnerId, StoreError, Tick};

use crate::error::corrupt;

const DIGITS: usize = 20;
/// Above all that may follow a tick.
const ABOVE: u8 = u8::MAX;

/// The last tick that was used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastTick {
    pub(crate) tick: Tick,
    /// Whose grant used it up; nobody's where a release did.
    pub(crate) owner: Option<OwnerId>,
}

impl LastTick {
    pub(crate) fn write(&self) -> Vec<u8> {
        let tick = decimal(self.tick);
        self.owner.map_or(tick.clone(), |owner| format!("{tick} {owner}")).into_bytes()
    }

    pub(crate) fn read(value: &[u8]) -> Result<Self, StoreError> {
        Self::parse(value).ok_or_else(|| corrupt("the lock's last tick can't be read: it is no 20 digits in range"))
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (digits, owner) = text.split_once(' ').map_or((text, None), |(digits, owner)| (digits, Some(owner)));
        let all = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
        let tick = Tick(digits.parse().ok().filter(|_| all)?);
        let owner = owner.map(str::parse).transpose().ok()?;
        (tick <= Tick::MAX).then_some(Self { tick, owner })
    }

    /// Itself, if the tick that is asked for is used up with it.
    pub(crate) fn finishes(&self, request: &AcquireRequest) -> Option<Tick> {
        request.is_finished(Some(self.tick)).then_some(self.tick)
    }

    /// Whether this owner's grant used it up.
    pub(crate) fn is_of(&self, owner: OwnerId) -> bool {
        self.owner == Some(owner)
    }
}

/// Whether the last tick under this key is this one, or a later one.
pub(crate) fn is_used_up(key: Vec<u8>, Tick(micros): Tick) -> Compare {
    match micros.checked_sub(1) {
        // Etcd has no "at least": above the tick before, whatever follows that.
        Some(before) => Compare::value(key, CompareOp::Greater, above(Tick(before))),
        None => Compare::create_revision(key, CompareOp::Greater, 0),
    }
}

fn above(tick: Tick) -> Vec<u8> {
    let mut bound = decimal(tick).into_bytes();
    bound.push(ABOVE);
    bound
}

fn decimal(Tick(micros): Tick) -> String {
    format!("{micros:0DIGITS$}")
}

#[cfg(test)]
mod tests {
    use lock_core::ErrorKind;

    use super::*;

    #[test]
    fn it_reads_back_what_it_wrote() {
        for tick in [Tick(0), Tick(100), Tick::MAX] {
            for owner in [None, Some(OwnerId::from_u128(7)), Some(OwnerId::from_u128(u128::MAX))] {
                let last = LastTick { tick, owner };
                assert_eq!(LastTick::read(&last.write()).unwrap(), last);
            }
        }
        assert_eq!(LastTick::read(b"00000000000000000100").unwrap(), LastTick { tick: Tick(100), owner: None });
    }

    #[test]
    fn what_somebody_else_wrote_is_corrupt() {
        for strange in [
            &b""[..],
            b"100",
            b"+0000000000000000100",
            b"00000000000000000100 ",
            b"00000000000000000100 me",
            b"00000000000000000100\n",
            b"00009007199254740992",
            b"99999999999999999999",
            b"\xff",
        ] {
            let error = LastTick::read(strange).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{strange:?}");
        }
    }

    /// As etcd compares, byte by byte, whoever used it up.
    #[test]
    fn a_tick_is_above_all_before_it_and_only_those() {
        let ticks = [0, 1, 9, 10, 11, 1 << 32, Tick::MAX.0 - 1, Tick::MAX.0].map(Tick);
        for last in ticks {
            for owner in [None, Some(OwnerId::from_u128(0)), Some(OwnerId::from_u128(u128::MAX))] {
                let value = LastTick { tick: last, owner }.write();
                for Tick(asked) in ticks.into_iter().filter(|asked| asked.0 > 0) {
                    assert_eq!(value > above(Tick(asked - 1)), last.0 >= asked, "{last:?} {owner:?} {asked}");
                }
            }
        }
    }
}
