//! What the rows say. The database is shared with others: nothing in it is trusted.

use std::time::Duration;

use lock_core::{ErrorKind, FencingToken, HolderInfo, Holding, LockName, LockState, LockStatus, OwnerId, StoreError};
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
