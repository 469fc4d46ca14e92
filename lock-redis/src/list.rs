//! Looks at records, for people: one, or a page of all that have one.

use std::{collections::BTreeSet, time::Duration};

use lock_core::{ErrorKind, ListRequest, LockName, LockStatus, StoreError};
use redis::{Value, from_redis_value};

use crate::{
    keys::Keys,
    link::Primary,
    operation::Runner,
    replies,
    scripts::{Call, INSPECT},
};

/// How many locks a page of a list has at most.
const LONGEST_PAGE: u32 = 1000;

/// How many keys a server looks at for one step of a scan: it does nothing else meanwhile.
const STEP: u32 = 1000;

/// How long a list may take: it looks at every key of the database.
pub(crate) const LONGEST_SCAN: Duration = Duration::from_secs(60);

/// What is known of these locks, in their order; those without a record are left out.
pub(crate) async fn inspect(runner: &Runner, keys: &Keys, names: &[LockName]) -> Result<Vec<LockStatus>, StoreError> {
    let asked: Vec<_> = names.iter().collect();
    let mut found: Vec<Option<LockStatus>> = vec![None; names.len()];
    for group in runner.link.groups(keys, &asked, |name| name) {
        for some in group.chunks(crate::provider::MOST) {
            let records = some.iter().map(|at| keys.record(&names[*at])).collect();
            let answers = replies::answers(runner.read(Call::new(&INSPECT, records, Vec::new())).await?)?;
            for (at, answer) in some.iter().zip(&answers) {
                found[*at] = replies::status(answer, &names[*at])?;
            }
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// A page, in byte order of the names.
pub(crate) async fn list(runner: &Runner, keys: &Keys, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
    let give_up = runner.clock.now() + LONGEST_SCAN;
    tokio::select! {
        page = page(runner, keys, request) => page,
        () = runner.clock.sleep_until(give_up) => Err(too_many_keys()),
    }
}

pub(crate) fn too_many_keys() -> StoreError {
    let message = format!("the database has too many keys to look through within {LONGEST_SCAN:?}");
    StoreError::refused(ErrorKind::Timeout, message)
}

async fn page(runner: &Runner, keys: &Keys, request: &ListRequest) -> Result<Vec<LockStatus>, StoreError> {
    let limit = request.limit.clamp(1, LONGEST_PAGE) as usize;
    let mut after = request.after.clone();
    loop {
        let names = names_after(runner, keys, &request.prefix, after.as_ref(), limit).await?;
        let Some(last) = names.last().cloned() else { return Ok(Vec::new()) };
        let page = inspect(runner, keys, &names).await?;
        if !page.is_empty() {
            return Ok(page);
        }
        // All of them went meanwhile; an empty page would say that no more follow.
        after = Some(last);
    }
}

/// The first names that begin so and have a record.
pub(crate) async fn names_after(
    runner: &Runner,
    keys: &Keys,
    beginning: &str,
    after: Option<&LockName>,
    limit: usize,
) -> Result<Vec<LockName>, StoreError> {
    let pattern = keys.pattern(beginning);
    let mut names = BTreeSet::new();
    for primary in runner.primaries().await? {
        let mut cursor = 0;
        loop {
            let (next, found) = scan(runner, primary, cursor, &pattern).await?;
            for key in found {
                let name = keys.name(&key).filter(|name| name.as_str().starts_with(beginning));
                names.extend(name.filter(|name| after.is_none_or(|after| name > after)));
            }
            while names.len() > limit {
                names.pop_last();
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(names.into_iter().collect())
}

async fn scan(
    runner: &Runner,
    primary: Primary,
    cursor: u64,
    pattern: &str,
) -> Result<(u64, Vec<Vec<u8>>), StoreError> {
    let mut scan = redis::cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP).arg("TYPE").arg("hash");
    let answer: Value = runner.ask(primary, scan).await?;
    from_redis_value(answer).map_err(|error| replies::corrupt("a step of a scan can't be read").caused_by(error))
}
