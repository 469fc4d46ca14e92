//! The fence: tokens that only ever rise.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;
use lock_core::{FencingToken, LockProvider};

use crate::{
    Failure, Harness,
    asker::{Asker, Outcome, SOON, clients, fresh_name, sleep_until, ttl},
    ensure,
};

/// L2: The grant after a release has a higher token.
pub async fn tokens_rise_over_release(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let name = fresh_name("rise-release")?;
    let mut last = None;
    for _ in 0..5 {
        let asker = Asker::new(&provider, &name, ttl(&provider, 20_000));
        let got = asker.get().await?;
        risen(last, got.token, "release")?;
        asker.must_release(got.token).await?;
        last = Some(got.token);
    }
    Ok(())
}

fn risen(before: Option<FencingToken>, after: FencingToken, over: &str) -> Outcome {
    ensure!(before.is_none_or(|before| after > before), "over {over} the token went from {before:?} to {after}");
    Ok(())
}

/// L2: The grant after an expiry has a higher token.
pub async fn tokens_rise_over_expiry(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let name = fresh_name("rise-expiry")?;
    let [first, second] = [0; 2].map(|_| Asker::new(&provider, &name, ttl(&provider, 300)));
    let old = first.get().await?;
    let new = second.get_within(old.gone_within(&provider)).await?;
    risen(Some(old.token), new.token, "expiry")?;
    // The same owner, too, gets a new grant once its lease is over: its old one may have been fenced off.
    let again = first.get_within(new.gone_within(&provider)).await?;
    risen(Some(new.token), again.token, "expiry, to an earlier owner")
}

/// L2: The grant after a forced release has a higher token, and it is to be had at once.
pub async fn tokens_rise_over_forced_release(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let name = fresh_name("rise-forced")?;
    let [first, second] = [0; 2].map(|_| Asker::new(&provider, &name, ttl(&provider, 20_000)));
    let old = first.get().await?;
    ensure!(provider.force_release(&name).await?, "a forced release of a held lock says that nobody held it");
    let new = second.get().await?;
    risen(Some(old.token), new.token, "forced release")?;
    second.must_release(new.token).await
}

/// L2: The grants after a restart of the store have higher tokens, and what was held is held.
pub async fn tokens_rise_over_a_restart(h: &dyn Harness) -> Outcome {
    let server = h.restartable()?.await?;
    let provider = server.provider().await?;
    let [released, held] = [fresh_name("rise-restart")?, fresh_name("held-restart")?];
    let first = Asker::new(&provider, &released, ttl(&provider, 20_000));
    let old = first.get().await?;
    first.must_release(old.token).await?;
    let holder = Asker::new(&provider, &held, ttl(&provider, 120_000));
    let kept = holder.get().await?;
    server.restart().await?;
    let provider = server.provider().await?;
    let second = Asker::new(&provider, &released, ttl(&provider, 20_000));
    let new = second.get().await?;
    risen(Some(old.token), new.token, "a restart")?;
    if provider.capabilities().durability == lock_core::Durability::Durable {
        let other = Asker::new(&provider, &held, ttl(&provider, 20_000));
        other.must_be_refused("an acknowledged grant must survive a restart").await?;
        // A lease that lives off a client's session goes on with that client, which finds its way back.
        let portable = provider.capabilities().portable_leases;
        let holder = if portable { Asker { provider: provider.clone(), ..holder } } else { holder };
        holder.must_renew(kept.token).await?;
    }
    Ok(())
}

/// L2: The grant after the record of the lock was deleted has a higher token.
pub async fn tokens_rise_over_deletion_of_the_record(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let name = fresh_name("rise-deletion")?;
    let old = several_grants(&provider, &name).await?;
    h.delete_record(&name)?.await?;
    let next = Asker::new(&provider, &name, ttl(&provider, 20_000));
    let new = next.get().await?;
    risen(Some(old), new.token, "deletion of the record")?;
    next.must_release(new.token).await
}

/// Several grants in a row, so that a counter that starts anew is behind; the last one stays held.
async fn several_grants(provider: &Arc<dyn LockProvider>, name: &lock_core::LockName) -> Result<FencingToken, Failure> {
    for _ in 0..3 {
        let asker = Asker::new(provider, name, ttl(provider, 20_000));
        let got = asker.get().await?;
        asker.must_release(got.token).await?;
    }
    Ok(Asker::new(provider, name, ttl(provider, 20_000)).get().await?.token)
}

/// L2: The grant after everything the store kept was deleted has a higher token; clients that were connected go on working.
pub async fn tokens_rise_over_a_wiped_store(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let name = fresh_name("rise-wiped")?;
    let old = several_grants(&provider, &name).await?;
    h.wipe()?.await?;
    for provider in [h.provider().await?, provider] {
        let next = Asker::new(&provider, &name, ttl(&provider, 20_000));
        let new = next.get().await?;
        risen(Some(old), new.token, "a wiped store")?;
        next.must_release(new.token).await?;
    }
    Ok(())
}

/// L3: Neither renewal nor re-entry changes the token.
pub async fn renewal_keeps_the_token(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let asker = Asker::new(&provider, &fresh_name("keeps")?, ttl(&provider, 5000));
    let got = asker.get().await?;
    for _ in 0..3 {
        asker.must_renew(got.token).await?;
        asker.must_still_hold(got.token, "after a renewal").await?;
        let again = asker.get().await?;
        ensure!(again.token == got.token, "re-entry changed the token from {} to {}", got.token, again.token);
        asker.must_still_hold(got.token, "after a re-entry").await?;
    }
    sleep_until(got.asked + got.ttl / 4).await;
    asker.must_renew(got.token).await?;
    asker.must_release(got.token).await
}

/// L2: A thousand grants fought over by sixteen tasks of four clients have a thousand tokens, that rise in the order of the holds.
pub async fn a_thousand_contended_grants_have_rising_tokens(h: &dyn Harness) -> Outcome {
    const CLIENTS: usize = 4;
    const TASKS: usize = 4;
    const GRANTS: usize = 1000;
    let name = fresh_name("thousand")?;
    let seen: Arc<Mutex<Vec<FencingToken>>> = Arc::default();
    let mut tasks = Vec::new();
    for locks in clients(h, CLIENTS).await? {
        for _ in 0..TASKS {
            let (locks, name, seen) = (locks.clone(), name.clone(), Arc::clone(&seen));
            tasks.push(tokio::spawn(async move {
                while seen.lock().unwrap_or_else(PoisonError::into_inner).len() < GRANTS {
                    let guard = locks.lock(name.as_str()).ttl(SOON * 3).acquire().await?;
                    // While it is held: the order of this list is the order of the holds.
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(guard.token());
                    guard.release().await?;
                }
                Ok::<_, Failure>(())
            }));
        }
    }
    try_join_all(tasks).await?.into_iter().collect::<Result<(), _>>()?;
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(seen.len() >= GRANTS, "only {} grants", seen.len());
    for pair in seen.windows(2) {
        risen(Some(pair[0]), pair[1], "a contended hand-off")?;
    }
    Ok(())
}
