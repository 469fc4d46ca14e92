//! From what a master answers to what it means. A master is not trusted: what can't be read is its silence.

use std::time::Duration;

use lock_core::{ErrorKind, FencingToken, HolderInfo, OwnerId, StoreError, Tick};
use redis::Value;

use super::ballot::{Claim, Claimed, Refused};

/// The longest holder, in bytes of JSON, that is looked at.
const LONGEST_HOLDER: usize = 16 * 1024;

pub(crate) fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::unknown(ErrorKind::Corrupt, what)
}

/// Whether the key is one of ours at all; if not, nothing was changed.
fn ours(answer: &Value) -> Result<(), StoreError> {
    match answer {
        Value::Int(-1) => Err(StoreError::refused(ErrorKind::Corrupt, "the key holds something else than a lock")),
        _ => Ok(()),
    }
}

/// An answer of `claim.lua`.
pub(crate) fn claim(answer: &Value) -> Result<Claim, StoreError> {
    ours(answer)?;
    let [verdict, one, two, three] = list(answer)?;
    match number(verdict)? {
        1 => Ok(Claim::Claimed(Claimed { last: token(one)?, granted: token(two)?, micros: exact(number(three)?)? })),
        0 => Ok(Claim::Refused(Refused {
            owner: owner(one)?,
            remaining: Duration::from_micros(number(two)?),
            holder: holder(three)?,
        })),
        2 => Ok(Claim::Finished(Tick(exact(number(one)?)?))),
        _ => Err(corrupt("a claim was answered with neither yes nor no")),
    }
}

/// A yes or no.
pub(crate) fn yes(answer: &Value) -> Result<bool, StoreError> {
    ours(answer)?;
    match number(answer)? {
        1 => Ok(true),
        0 => Ok(false),
        _ => Err(corrupt("the answer is neither yes nor no")),
    }
}

/// What one master knows of a lock.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    /// Who holds it here, and under which token, if it was told one.
    pub(crate) owner: Option<OwnerId>,
    pub(crate) granted: Option<FencingToken>,
    pub(crate) remaining: Duration,
    /// How long until it may be had here.
    pub(crate) taken: Duration,
    pub(crate) holder: Option<HolderInfo>,
    pub(crate) last: Option<FencingToken>,
}

/// An answer of `inspect.lua`; `None` where there is no record.
pub(crate) fn sight(answer: &Value) -> Result<Option<Sight>, StoreError> {
    if matches!(answer, Value::Array(empty) if empty.is_empty()) {
        return Ok(None);
    }
    let [who, granted, remaining, taken, info, last] = list(answer)?;
    Ok(Some(Sight {
        owner: owner(who)?,
        granted: token(granted)?,
        remaining: Duration::from_micros(number(remaining)?),
        taken: Duration::from_micros(number(taken)?),
        holder: holder(info)?,
        last: token(last)?,
    }))
}

fn list<const LENGTH: usize>(answer: &Value) -> Result<&[Value; LENGTH], StoreError> {
    match answer {
        Value::Array(parts) => parts.as_slice().try_into().map_err(|_| corrupt("an answer has another length")),
        _ => Err(corrupt("an answer is no list")),
    }
}

fn text(value: &Value) -> Result<&str, StoreError> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).map_err(|_| corrupt("a text isn't UTF-8")),
        Value::SimpleString(text) => Ok(text),
        _ => Err(corrupt("an answer holds no text where one belongs")),
    }
}

fn number(value: &Value) -> Result<u64, StoreError> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| corrupt("a number is negative")),
        other => text(other)?.parse().map_err(|_| corrupt("a number can't be read")),
    }
}

fn token(value: &Value) -> Result<Option<FencingToken>, StoreError> {
    match value {
        Value::Int(0) => Ok(None),
        Value::BulkString(empty) if empty.is_empty() || empty == b"0" => Ok(None),
        other => Ok(Some(FencingToken::new(exact(number(other)?)?))),
    }
}

/// Beyond this Lua would no longer tell one number from the next.
fn exact(number: u64) -> Result<u64, StoreError> {
    match number {
        0..=0x1f_ffff_ffff_ffff => Ok(number),
        _ => Err(corrupt("a token, a tick, or the master's clock, is too large to be right")),
    }
}

fn owner(value: &Value) -> Result<Option<OwnerId>, StoreError> {
    match text(value)? {
        "" => Ok(None),
        id => id.parse().map(Some).map_err(|_| corrupt("an owner can't be read")),
    }
}

/// A hint: that somebody holds it is known even if who it is can't be read.
fn holder(value: &Value) -> Result<Option<HolderInfo>, StoreError> {
    let json = text(value)?;
    if json.is_empty() {
        return Ok(None);
    }
    let told = if json.len() > LONGEST_HOLDER { None } else { serde_json::from_str(json).ok() };
    Ok(Some(HolderInfo::bounded(told.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn claims_are_read() {
        let yes = Value::Array(vec![Value::Int(1), bulk("17"), bulk(""), bulk("1795180471423102")]);
        let expected = Claimed { last: Some(FencingToken::new(17)), granted: None, micros: 1_795_180_471_423_102 };
        assert_eq!(claim(&yes).unwrap(), Claim::Claimed(expected));
        let no = Value::Array(vec![Value::Int(0), bulk(""), bulk("10495022"), bulk("")]);
        let Claim::Refused(refused) = claim(&no).unwrap() else { panic!("refused") };
        assert_eq!((refused.owner, refused.remaining), (None, Duration::from_micros(10_495_022)));
        let finished = Value::Array(vec![Value::Int(2), bulk("1767225600500000"), bulk(""), bulk("")]);
        assert_eq!(claim(&finished).unwrap(), Claim::Finished(Tick(1_767_225_600_500_000)));
    }

    #[test]
    fn what_no_script_of_ours_answers_is_not_believed() {
        let too_large = (1_u64 << 53).to_string();
        for bad in [
            Value::Okay,
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(1), bulk("x"), bulk(""), bulk("1")]),
            Value::Array(vec![Value::Int(3), bulk("1"), bulk(""), bulk("1")]),
            Value::Array(vec![Value::Int(2), bulk("-1"), bulk(""), bulk("")]),
            Value::Array(vec![Value::Int(2), bulk(&too_large), bulk(""), bulk("")]),
            Value::Array(vec![Value::Int(1), bulk(&too_large), bulk(""), bulk("1")]),
            Value::Array(vec![Value::Int(0), bulk("nobody"), bulk("1"), bulk("")]),
            Value::Array(vec![Value::Int(0), bulk(""), bulk("-1"), bulk("")]),
        ] {
            assert_eq!(claim(&bad).unwrap_err().kind(), ErrorKind::Corrupt, "{bad:?}");
        }
        let hostile = Value::Array(vec![Value::Int(0), bulk(""), bulk("1"), bulk("{\"host\":7}")]);
        assert!(claim(&hostile).is_ok(), "the holder is for people");
    }
}
