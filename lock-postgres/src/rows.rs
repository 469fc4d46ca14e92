//! What the rows say. The database is shared with others: nothing in it is trusted.

use std::time::Duration;

use lock_core::{
    AcquireRequest, Acquired, ErrorKind, FencingToken, Grant, Held, HolderInfo, Holding, LockName, LockState,
    LockStatus, OwnerId, StoreError, Tick,
};
use sqlx::{Decode, Postgres, Row, Type, postgres::PgRow};

/// A column, by its name in the statement.
pub(crate) fn column<'r, T: Decode<'r, Postgres> + Type<Postgres>>(
    row: &'r PgRow,
    name: &str,
) -> Result<T, StoreError> {
    row.try_get(name).map_err(|error| corrupt(format!("the column {name} can't be read")).caused_by(error))
}

pub(crate) fn token(value: i64) -> Result<FencingToken, StoreError> {
    u64::try_from(value).map(FencingToken::new).map_err(|_| corrupt("a token is negative"))
}

/// As a server's number; tokens that no grant has ever had match nothing.
pub(crate) fn token_value(token: FencingToken) -> i64 {
    i64::try_from(token.get()).unwrap_or(i64::MAX)
}

/// As a server's number; the check of a request has refused what is none.
pub(crate) fn tick_value(Tick(micros): Tick) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A span that the server computed; one that has passed is none.
pub(crate) fn span(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

pub(crate) fn holder(json: Option<&str>) -> Result<HolderInfo, StoreError> {
    let Some(json) = json else { return Ok(HolderInfo::default()) };
    serde_json::from_str::<HolderInfo>(json)
        .map(HolderInfo::bounded)
        .map_err(|error| corrupt("the holder can't be read").caused_by(error))
}

/// What the server keeps of a ttl; it counts in whole microseconds.
pub(crate) fn whole_micros(ttl: Duration) -> Duration {
    span(micros(ttl))
}

/// What a row of `acquire.sql` says to the request for its lock.
pub(crate) fn acquired(request: &AcquireRequest, row: &PgRow) -> Result<Acquired, StoreError> {
    if column::<Option<&str>>(row, "owner")?.is_some_and(|owner| owner.parse().ok() == Some(request.owner)) {
        let token = token(column(row, "token")?)?;
        return Ok(Acquired::Granted(Grant::new(token, whole_micros(request.ttl))));
    }
    if let Some(asked) = request.tick {
        let used_up = column::<Option<i64>>(row, "last_tick")?.filter(|last| *last >= tick_value(asked));
        if let Some(last) = used_up.map(tick).transpose()? {
            return Ok(Acquired::Finished(last));
        }
    }
    let by = column::<Option<&str>>(row, "holder")?;
    Ok(Acquired::Held(Held {
        // A hint: that somebody holds it is known even if who it is can't be read.
        holder: by.map(|json| holder(Some(json)).unwrap_or_default()),
        remaining: column::<Option<i64>>(row, "remaining")?.map(span),
        position: None,
    }))
}

fn tick(micros: i64) -> Result<Tick, StoreError> {
    let tick = u64::try_from(micros).ok().map(Tick).filter(|tick| *tick <= Tick::MAX);
    tick.ok_or_else(|| corrupt("the last tick is none that there is; set last_tick to NULL"))
}

/// A row of `inspect.sql` or `list.sql`.
pub(crate) fn status(row: &PgRow) -> Result<LockStatus, StoreError> {
    let name = LockName::new(column::<&str>(row, "name")?)
        .map_err(|error| corrupt("a name breaks a rule").caused_by(error))?;
    let token = token(column(row, "token")?)?;
    let free_in = span(column(row, "free_in")?);
    let state = match column::<Option<&str>>(row, "owner")? {
        Some(owner) => LockState::Held(Holding {
            owner: owner.parse::<OwnerId>()?,
            token,
            remaining: span(column(row, "expires_in")?),
            holder: holder(column(row, "holder")?)?,
        }),
        None if free_in.is_zero() => LockState::Free,
        None => LockState::Resting(free_in),
    };
    Ok(LockStatus { name, state, last_token: Some(token), waiters: None })
}

pub(crate) fn corrupt(message: impl Into<String>) -> StoreError {
    StoreError::refused(ErrorKind::Corrupt, message)
}
