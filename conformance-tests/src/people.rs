//! People: what an operator sees and can do.

use lock_core::{ListRequest, LockName, LockProvider, LockState, LockStatus, LossReason};
use std::{sync::Arc, time::Duration};

use crate::{
    Failure, Harness,
    asker::{Asker, Outcome, SOON, client, fresh_name, ttl, within},
    ensure,
};

/// What `inspect` and `list` tell is so: holder, token, remaining time, free, and every lock once, in order, over pages.
pub async fn inspect_and_list_tell_the_truth(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let run = fresh_name("people")?;
    let none = provider.inspect(&run).await?;
    ensure!(none.is_none(), "a lock that never was is told as {none:?}");
    let lease = ttl(&provider, 30_000);
    // "%" and "_" in the prefix must be themselves, whatever the store's language makes of them.
    let prefix = format!("{run}_%");
    let mut askers = Vec::new();
    for end in ["a", "b", "B", "ä", "c"] {
        let asker = Asker::new(&provider, &LockName::new(format!("{prefix}{end}"))?, lease);
        let got = asker.get().await?;
        askers.push((asker, got));
    }
    Asker::new(&provider, &LockName::new(format!("{run}xxa"))?, lease).get().await?;
    askers.sort_by(|(one, _), (two, _)| one.name.cmp(&two.name));
    let (freed, got) = askers.last().ok_or_else(|| Failure::new("no askers"))?;
    freed.must_release(got.token).await?;

    for limit in [1, 2, 100] {
        let listed = list_all(&provider, &prefix, limit).await?;
        let names: Vec<_> = listed.iter().map(|status| &status.name).collect();
        let expected: Vec<_> = askers.iter().map(|(asker, _)| &asker.name).collect();
        // A store that keeps no record of an idle lock doesn't list the freed one.
        let without_freed = expected.split_last().map(|(_, rest)| rest.to_vec());
        ensure!(
            names == expected || Some(&names) == without_freed.as_ref(),
            "in pages of {limit}: listed {names:?}, expected {expected:?}"
        );
        for (status, (asker, got)) in listed.iter().zip(&askers) {
            check(status, asker, got, asker.owner == freed.owner)?;
        }
    }
    for (asker, got) in &askers {
        if let Some(status) = provider.inspect(&asker.name).await? {
            check(&status, asker, got, asker.owner == freed.owner)?;
        } else {
            ensure!(asker.owner == freed.owner, "a held lock has no record: {:?}", asker.name);
        }
    }
    let none = list_all(&provider, &format!("{run}-nothing"), 10).await?;
    ensure!(none.is_empty(), "a prefix that no lock has listed {none:?}");
    Ok(())
}

fn check(status: &LockStatus, asker: &Asker, got: &crate::asker::Got, free: bool) -> Outcome {
    ensure!(status.last_token == Some(got.token), "the last token of {status:?} should be {}", got.token);
    match &status.state {
        LockState::Free => ensure!(free, "a held lock is told as free: {status:?}"),
        LockState::Held(holding) => {
            let granularity = asker.provider.capabilities().ttl.granularity;
            let range = Duration::from_nanos(1)..=got.ttl + granularity;
            ensure!(
                !free
                    && holding.owner == asker.owner
                    && holding.token == got.token
                    && range.contains(&holding.remaining)
                    && holding.holder.pid == std::process::id()
                    && holding.holder.label == "conformance"
                    && holding.holder.since_micros > 0,
                "held by {asker:?} ({got:?}), told as {status:?}"
            );
        }
        other => return Err(Failure::new(format!("{:?} is told as {other:?}", asker.name))),
    }
    Ok(())
}

async fn list_all(provider: &Arc<dyn LockProvider>, prefix: &str, limit: u32) -> Result<Vec<LockStatus>, Failure> {
    let mut all: Vec<LockStatus> = Vec::new();
    loop {
        let after = all.last().map(|status| status.name.clone());
        let page = provider.list(&ListRequest { prefix: prefix.to_owned(), after, limit }).await?;
        ensure!(page.len() <= limit as usize, "a page of {} has {} entries", limit, page.len());
        ensure!(all.len() <= 1000, "the pages have no end");
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// A forced release is seen by the holder at its next renewal: its guard is lost, and says that the store took it away.
pub async fn forced_release_is_seen_by_the_holder(h: &dyn Harness) -> Outcome {
    let (locks, people) = (client(h).await?, h.provider().await?);
    let name = fresh_name("seen")?;
    ensure!(!people.force_release(&name).await?, "a forced release of what nobody holds says that somebody did");
    let guard = locks.lock(name.as_str()).ttl(ttl(&people, 1500)).acquire().await?;
    ensure!(people.force_release(&name).await?, "a forced release of a held lock says that nobody held it");
    let reason = within(SOON, "the holder's notice of a forced release", guard.lost()).await?;
    ensure!(reason == LossReason::NotOurs, "the loss by a forced release is told as: {reason}");
    ensure!(!guard.is_valid(), "a guard that is lost says that it is valid");
    let next = Asker::new(&people, &name, ttl(&people, 5000));
    let got = next.get().await?;
    ensure!(got.token > guard.token(), "the token fell from {} to {}", guard.token(), got.token);
    drop(guard);
    next.must_still_hold(got.token, "after the old holder's guard was dropped").await?;
    next.must_release(got.token).await
}
