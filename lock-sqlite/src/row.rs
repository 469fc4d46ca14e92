//! Between a row of the table and a [`Record`]. What the file says is not trusted.

use lock_core::{ErrorKind, FencingToken, HolderInfo, LockName, Moment, OwnerId, Record, StoreError, Tick};
use serde_json::json;

/// `name, token, owner, boot_id, until_ns, holder, last_tick`, as in `read.sql` and `list.sql`.
pub(crate) type Row = (String, i64, Option<String>, String, i64, Option<String>, Option<i64>);

/// Reads a row; a record that was written under another boot of the host counts as free.
///
/// The outer error is a name that no version of this crate writes, the inner one the rest of the row.
pub(crate) fn parse(row: Row, boot_id: &str) -> Result<(LockName, Result<Record, StoreError>), StoreError> {
    let (name, token, owner, boot, until_ns, holder, last_tick) = row;
    let name = LockName::new(&name).map_err(|why| corrupt(&why.to_string()))?;
    let record = || -> Result<Record, StoreError> {
        let token = u64::try_from(token).map_err(|_| corrupt("its token is negative"))?;
        // The next grant's must fit into SQLite's signed integers.
        if token >= i64::MAX.cast_unsigned() {
            return Err(corrupt("its token is the largest there is"));
        }
        let until = u64::try_from(until_ns).map_err(|_| corrupt("its lease ends before the clock began"))?;
        let last_tick = last_tick.map(tick).transpose()?;
        let owner = owner.map(|text| text.parse::<OwnerId>()).transpose()?;
        let holder = holder.and_then(|text| serde_json::from_str::<HolderInfo>(&text).ok()).unwrap_or_default();
        Ok(Record {
            token: FencingToken::new(token),
            taken_until: Moment::from_nanos(if boot == boot_id { until } else { 0 }),
            lease: owner.map(|owner| (owner, holder.bounded())),
            last_tick,
        })
    };
    Ok((name, record()))
}

fn tick(micros: i64) -> Result<Tick, StoreError> {
    let tick = u64::try_from(micros).ok().map(Tick).filter(|tick| *tick <= Tick::MAX);
    tick.ok_or_else(|| corrupt("its last tick is none that there is"))
}

/// One record as `write.sql` takes it.
pub(crate) fn to_json(name: &LockName, record: &Record, now: Moment, wall_micros: u64) -> serde_json::Value {
    let left = u64::try_from(record.taken_until.since(now).as_micros()).unwrap_or(u64::MAX);
    let (owner, holder) = record.lease.as_ref().map(|(owner, holder)| (owner.to_string(), holder)).unzip();
    json!({
        "name": name.as_str(),
        "token": capped(record.token.get()),
        "owner": owner,
        "until_ns": capped(record.taken_until.as_nanos()),
        "holder": holder,
        "ends_micros": capped(wall_micros.saturating_add(left)),
        "last_tick": record.last_tick.map(|Tick(micros)| capped(micros)),
    })
}

/// Within SQLite's signed integers. Times reach the cap in 292 years after boot.
pub(crate) fn capped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn corrupt(what: &str) -> StoreError {
    let advice = "something else writes the table leasehold_locks; a forced release mends the record";
    StoreError::refused(ErrorKind::Corrupt, format!("the record can't be understood: {what} ({advice})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(token: i64, owner: Option<&str>, until_ns: i64, holder: Option<&str>) -> Row {
        ("x".into(), token, owner.map(Into::into), "boot".into(), until_ns, holder.map(Into::into), None)
    }

    fn with_tick(micros: i64) -> Row {
        let mut row = row(1, None, 0, None);
        row.6 = Some(micros);
        row
    }

    #[test]
    fn untrusted_rows_are_errors_and_never_panics() {
        let ticks = [-1, i64::MAX, 1 << 53].map(with_tick);
        let rest =
            [row(-1, None, 0, None), row(i64::MAX, None, 0, None), row(1, None, -1, None), row(1, Some("me"), 0, None)];
        for bad in rest.into_iter().chain(ticks) {
            assert_eq!(parse(bad, "boot").unwrap().1.unwrap_err().kind(), ErrorKind::Corrupt);
        }
        let nameless = (String::new(), 1, None, "boot".into(), 0, None, None);
        assert_eq!(parse(nameless, "boot").unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_holder_that_is_not_json_is_nobody_in_particular() {
        let owner = "0".repeat(32);
        for holder in [None, Some("{"), Some("[1]"), Some(r#"{"pid":-5}"#)] {
            let (_, record) = parse(row(1, Some(&owner), 5, holder), "boot").unwrap();
            assert_eq!(record.unwrap().lease.unwrap().1, HolderInfo::default());
        }
    }

    #[test]
    fn another_boot_frees_it_and_keeps_its_token_and_tick() {
        let mut row = with_tick((1 << 53) - 1);
        row.4 = i64::MAX;
        let (_, record) = parse(row, "another").unwrap();
        let (token, taken_until) = (FencingToken::new(1), Moment::from_nanos(0));
        assert_eq!(record.unwrap(), Record { token, taken_until, lease: None, last_tick: Some(Tick::MAX) });
    }
}
