//! What the records say. The database is shared with others: nothing in it is trusted.

use std::time::Duration;

use lock_core::{
    AcquireRequest, Acquired, ErrorKind, FencingToken, Held, HolderInfo, Holding, LockName, LockState, LockStatus,
    OwnerId, StoreError, Tick,
};
use mongodb::bson::{self, Bson, DateTime, Document, spec::ElementType};

/// A record as `pipelines/shown.jsonc` asks for it.
pub(crate) struct Record<'a> {
    fields: &'a Document,
}

impl<'a> Record<'a> {
    pub(crate) const fn new(fields: &'a Document) -> Self {
        Self { fields }
    }

    pub(crate) fn name(&self) -> Result<LockName, StoreError> {
        let name = self.fields.get_str("_id").map_err(|error| unreadable("_id").caused_by(error))?;
        LockName::new(name).map_err(|error| corrupt("a name breaks a rule").caused_by(error))
    }

    /// Whose it is or was last, live or not; nobody's after a release.
    pub(crate) fn owner(&self) -> Result<Option<OwnerId>, StoreError> {
        match self.fields.get("owner") {
            None | Some(Bson::Null) => Ok(None),
            Some(Bson::String(owner)) => owner.parse().map(Some),
            Some(_) => Err(unreadable("owner")),
        }
    }

    pub(crate) fn token(&self) -> Result<FencingToken, StoreError> {
        let value = match self.fields.get("token") {
            Some(Bson::Int64(value)) => *value,
            Some(Bson::Int32(value)) => i64::from(*value),
            _ => return Err(unreadable("token")),
        };
        u64::try_from(value).map(FencingToken::new).map_err(|_| corrupt("a token is negative"))
    }

    pub(crate) fn holder(&self) -> Result<HolderInfo, StoreError> {
        let Some(Bson::Document(holder)) = self.fields.get("holder") else { return Ok(HolderInfo::default()) };
        bson::deserialize_from_document::<HolderInfo>(holder.clone())
            .map(HolderInfo::bounded)
            .map_err(|error| unreadable("holder").caused_by(error))
    }

    /// The last tick that was used up, where this request is for it or for one before it.
    pub(crate) fn finishes(&self, request: &AcquireRequest) -> Result<Option<Tick>, StoreError> {
        if request.tick.is_none() {
            return Ok(None);
        }
        Ok(self.last_tick()?.filter(|last| request.is_finished(Some(*last))))
    }

    fn last_tick(&self) -> Result<Option<Tick>, StoreError> {
        let value = match self.fields.get("last_tick") {
            None => return Ok(None),
            Some(Bson::Int64(value)) => *value,
            Some(Bson::Int32(value)) => i64::from(*value),
            Some(_) => return Err(unreadable("last_tick")),
        };
        let tick = u64::try_from(value).map(Tick).ok().filter(|tick| *tick <= Tick::MAX);
        tick.map(Some).ok_or_else(|| corrupt("the last tick is out of range"))
    }

    /// Whether this very request was the last to change it.
    pub(crate) fn was_changed_by(&self, change: i64) -> bool {
        self.fields.get("changed_by") == Some(&Bson::Int64(change))
    }

    /// Whether this very request was the last to release it, whatever came after that.
    pub(crate) fn was_released_by(&self, change: i64) -> bool {
        self.fields.get("released_by") == Some(&Bson::Int64(change))
    }

    /// How long until the lease ends, by the server's clock.
    pub(crate) fn expires_in(&self) -> Result<Duration, StoreError> {
        self.left_until("expires_at")
    }

    /// How long until others may have it, by the server's clock.
    pub(crate) fn free_in(&self) -> Result<Duration, StoreError> {
        self.left_until("free_at")
    }

    fn left_until(&self, field: &'static str) -> Result<Duration, StoreError> {
        Ok(self.time(field)?.saturating_duration_since(self.time("now")?))
    }

    fn time(&self, field: &'static str) -> Result<DateTime, StoreError> {
        match self.fields.get(field) {
            Some(Bson::DateTime(time)) => Ok(*time),
            other => Err(unreadable(field)
                .caused_by(format!("it is {:?}", other.map_or(ElementType::Undefined, Bson::element_type)))),
        }
    }

    /// What a request is told by a record that was only read: nothing, unless somebody else has the lock.
    ///
    /// Nor that its tick is finished: what was only read may be undone by a fail-over, and then nobody would run it.
    pub(crate) fn refuses(&self, request: &AcquireRequest) -> Option<Acquired> {
        let taken = self.free_in().is_ok_and(|left| !left.is_zero());
        let somebody_elses = self.owner().is_ok_and(|found| found != Some(request.owner));
        let unfinished = self.finishes(request).is_ok_and(|last| last.is_none());
        (taken && somebody_elses && unfinished).then(|| Acquired::Held(self.held()))
    }

    /// Why the lock is not to be had. A hint: a record that can't be read in full is held all the same.
    pub(crate) fn held(&self) -> Held {
        let live =
            self.owner().is_ok_and(|owner| owner.is_some()) && self.expires_in().map_or(true, |left| !left.is_zero());
        Held {
            holder: live.then(|| self.holder().unwrap_or_default()),
            remaining: self.free_in().ok().filter(|left| !left.is_zero()),
            position: None,
        }
    }

    /// Whether others can ever get it: where the time or the token can't be read, nobody is granted it.
    pub(crate) fn is_sound(&self) -> Result<(), StoreError> {
        self.free_in()?;
        self.token().map(drop)
    }

    pub(crate) fn status(&self) -> Result<LockStatus, StoreError> {
        let token = self.token()?;
        let (expires_in, free_in) = (self.expires_in()?, self.free_in()?);
        let state = match self.owner()? {
            Some(owner) if !expires_in.is_zero() => {
                LockState::Held(Holding { owner, token, remaining: expires_in, holder: self.holder()? })
            }
            _ if free_in.is_zero() => LockState::Free,
            _ => LockState::Resting(free_in),
        };
        Ok(LockStatus { name: self.name()?, state, last_token: Some(token), waiters: None })
    }
}

/// As a server's number; tokens that no grant has ever had match nothing.
pub(crate) fn token_value(token: FencingToken) -> i64 {
    i64::try_from(token.get()).unwrap_or(i64::MAX)
}

/// As a server's number, or null.
pub(crate) fn tick_value(tick: Option<Tick>) -> Bson {
    tick.map_or(Bson::Null, |Tick(micros)| Bson::Int64(i64::try_from(micros).unwrap_or(i64::MAX)))
}

/// In the server's whole milliseconds, and never less.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// A time from now on, of which nothing is lost: `$$NOW` is cut to whole milliseconds, so that counted from it a span
/// would end up to one too early.
pub(crate) fn millis_from_now(duration: Duration) -> i64 {
    if duration.is_zero() { 0 } else { millis(duration).saturating_add(1) }
}

pub(crate) fn holder_document(holder: &HolderInfo) -> Result<Document, StoreError> {
    bson::serialize_to_document(&holder.clone().bounded())
        .map_err(|error| StoreError::refused(ErrorKind::Other, "the holder can't be written").caused_by(error))
}

/// The first text, in byte order, that comes after all that begin so; `None` if there is none.
pub(crate) fn after_all_with(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        // The order of UTF-8 is that of the characters; some numbers are none.
        if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

fn unreadable(field: &str) -> StoreError {
    corrupt(format!("the field {field} can't be read"))
}

/// An answer to a change that can't be read: it may have been made.
pub(crate) fn garbled(message: impl Into<String>) -> StoreError {
    StoreError::unknown(ErrorKind::Corrupt, message)
}

pub(crate) fn corrupt(message: impl Into<String>) -> StoreError {
    StoreError::refused(ErrorKind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::doc;

    #[test]
    fn what_comes_after_a_prefix() {
        for (prefix, end) in [
            ("a", Some("b")),
            ("az", Some("a{")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("", None),
        ] {
            assert_eq!(after_all_with(prefix).as_deref(), end, "{prefix:?}");
        }
    }

    #[test]
    fn nothing_is_kept_for_less_than_was_told() {
        assert_eq!(millis(Duration::from_nanos(1_000_001)), 2);
        assert_eq!(millis_from_now(Duration::from_millis(100)), 101);
        assert_eq!(millis_from_now(Duration::ZERO), 0);
    }

    #[test]
    fn what_nobody_of_us_wrote_is_told_as_such() {
        let good = doc! {
            "_id": "x", "owner": "0".repeat(32), "token": 7_i64, "now": DateTime::from_millis(1_000),
            "expires_at": DateTime::from_millis(2_000), "free_at": DateTime::from_millis(2_500),
        };
        let status = Record::new(&good).status().unwrap();
        assert!(matches!(status.state, LockState::Held(holding) if holding.remaining == Duration::from_secs(1)));
        let bad: [(&str, Bson); 8] = [
            ("_id", 5.into()),
            ("_id", "".into()),
            ("owner", 5.into()),
            ("owner", "$owner".into()),
            ("token", "9".into()),
            ("token", (-9_i64).into()),
            ("expires_at", 5.into()),
            ("free_at", Bson::Null),
        ];
        for (field, value) in bad {
            let mut record = good.clone();
            record.insert(field, value);
            let error = Record::new(&record).status().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{field}: {error}");
        }
    }
}
