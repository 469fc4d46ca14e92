//! What the scripts answered. The server is shared with others: nothing in it is trusted.

use std::time::Duration;

use lock_core::{
    AcquireRequest, Acquired, ErrorKind, FencingToken, Grant, Held, HolderInfo, Holding, LockName, LockState,
    LockStatus, OwnerId, StoreError, Tick,
};
use redis::Value;

/// The answers to a group, one for each of its keys.
pub(crate) fn answers(reply: Value) -> Result<Vec<Value>, StoreError> {
    match reply {
        Value::Array(answers) => Ok(answers),
        _ => Err(corrupt("a script's answer is no list")),
    }
}

/// One answer's parts. One that begins with -1 tells why the record can't be read.
fn parts(answer: &Value) -> Result<&[Value], StoreError> {
    match answer {
        Value::Array(parts) => match parts.as_slice() {
            [Value::Int(-1), why] => Err(corrupt(text(why).unwrap_or("the record can't be read"))),
            parts => Ok(parts),
        },
        _ => Err(corrupt("an answer has no parts")),
    }
}

/// To acquire.
pub(crate) fn acquired(answer: &Value, request: &AcquireRequest) -> Result<Acquired, StoreError> {
    match parts(answer)? {
        [Value::Int(1), token] => {
            Ok(Acquired::Granted(Grant::new(FencingToken::new(number(token)?), whole_micros(request.ttl))))
        }
        // A Lua table ends before its first `false`.
        [Value::Int(0), remaining, holder @ ..] => Ok(Acquired::Held(Held {
            // A hint: that somebody holds it is known even if who it is can't be read.
            holder: match holder.first() {
                None | Some(Value::Nil) => None,
                Some(json) => Some(self::holder(json).unwrap_or_default()),
            },
            remaining: Some(Duration::from_micros(number(remaining)?)),
            position: None,
        })),
        [Value::Int(2), last] => Some(Tick(number(last)?))
            .filter(|last| *last <= Tick::MAX && request.is_finished(Some(*last)))
            .map(Acquired::Finished)
            .ok_or_else(|| corrupt("a tick was called used up that can't be")),
        _ => Err(corrupt("an answer to acquire has the wrong parts")),
    }
}

/// To renew, release and force release: whether it was so.
pub(crate) fn yes(answer: &Value) -> Result<bool, StoreError> {
    match parts(answer)? {
        [Value::Int(said @ (0 | 1))] => Ok(*said == 1),
        _ => Err(corrupt("an answer is neither yes nor no")),
    }
}

/// To inspect; `None` where there is no record.
pub(crate) fn status(answer: &Value, name: &LockName) -> Result<Option<LockStatus>, StoreError> {
    if matches!(answer, Value::Nil | Value::Boolean(false)) {
        return Ok(None);
    }
    let (token, state) = match parts(answer)? {
        [token, free_in] => {
            let free_in = span(free_in)?;
            (token, if free_in.is_zero() { LockState::Free } else { LockState::Resting(free_in) })
        }
        [token, _, owner, remaining, rest @ ..] => {
            let holding = Holding {
                owner: text(owner).ok_or_else(|| corrupt("an owner is no text"))?.parse::<OwnerId>()?,
                token: FencingToken::new(number(token)?),
                remaining: span(remaining)?,
                holder: rest.first().map(holder).transpose()?.unwrap_or_default(),
            };
            (token, LockState::Held(holding))
        }
        _ => return Err(corrupt("an answer to inspect has the wrong parts")),
    };
    let last_token = Some(FencingToken::new(number(token)?));
    Ok(Some(LockStatus { name: name.clone(), state, last_token, waiters: None }))
}

fn holder(json: &Value) -> Result<HolderInfo, StoreError> {
    let text = text(json).ok_or_else(|| corrupt("the holder is no text"))?;
    serde_json::from_str::<HolderInfo>(text)
        .map(HolderInfo::bounded)
        .map_err(|error| corrupt("the holder can't be read").caused_by(error))
}

/// A number as the scripts write it.
fn number(value: &Value) -> Result<u64, StoreError> {
    text(value).and_then(|digits| digits.parse().ok()).ok_or_else(|| corrupt("a number can't be read"))
}

/// Microseconds; those that have passed are none.
fn span(value: &Value) -> Result<Duration, StoreError> {
    let micros = text(value).and_then(|digits| digits.parse::<i64>().ok());
    let micros = micros.ok_or_else(|| corrupt("a time can't be read"))?;
    Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What the server keeps of a ttl; it counts in whole microseconds.
pub(crate) fn whole_micros(ttl: Duration) -> Duration {
    Duration::from_micros(micros(ttl))
}

pub(crate) fn corrupt(message: impl Into<String>) -> StoreError {
    StoreError::refused(ErrorKind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn ask(tick: Option<u64>) -> AcquireRequest {
        let name = LockName::new("x").unwrap();
        AcquireRequest { tick: tick.map(Tick), ..AcquireRequest::new(name, OwnerId::from_u128(1), Duration::ZERO) }
    }

    #[test]
    fn a_record_of_somebody_elses_is_corrupt_and_changes_nothing() {
        let error = acquired(&Value::Array(vec![Value::Int(-1), bulk("no lock")]), &ask(None)).unwrap_err();
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, lock_core::Applied::No));
        for odd in [
            Value::Nil,
            Value::Int(1),
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(1), bulk("1e15")]),
            Value::Array(vec![Value::Int(1), bulk("-5")]),
            Value::Array(vec![Value::Int(2), bulk("-1")]),
            Value::Array(vec![Value::Int(2), bulk("6")]),
            Value::Array(vec![Value::Int(2), bulk("9007199254740992")]),
        ] {
            assert_eq!(acquired(&odd, &ask(Some(7))).unwrap_err().kind(), ErrorKind::Corrupt, "{odd:?}");
            assert_eq!(yes(&odd).unwrap_err().kind(), ErrorKind::Corrupt, "{odd:?}");
        }
    }

    #[test]
    fn only_who_asks_for_a_tick_can_be_told_of_one() {
        let answer = Value::Array(vec![Value::Int(2), bulk("9007199254740991")]);
        assert!(matches!(acquired(&answer, &ask(Some(7))), Ok(Acquired::Finished(Tick::MAX))));
        assert_eq!(acquired(&answer, &ask(None)).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_holder_that_cannot_be_read_still_holds() {
        let answer = Value::Array(vec![Value::Int(0), bulk("1500"), bulk("{")]);
        let Acquired::Held(held) = acquired(&answer, &ask(None)).unwrap() else { panic!("not held") };
        assert_eq!(held.holder, Some(HolderInfo::default()));
        assert_eq!(held.remaining, Some(Duration::from_micros(1500)));
    }
}
