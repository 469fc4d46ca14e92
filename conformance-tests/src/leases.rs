//! Leases: how long a grant lasts.

use std::time::Duration;

use lock_core::{LockState, Released, Renewed};

use crate::{
    Failure, Harness,
    asker::{Asker, Outcome, SOON, client, fresh_name, now, sleep_until, ttl},
    ensure,
};

/// Two owners of two clients after one lock.
async fn two(h: &dyn Harness, about: &str, millis: u64) -> Result<(Asker, Asker), Failure> {
    let (one, two) = (h.provider().await?, h.provider().await?);
    let (name, ttl) = (fresh_name(about)?, ttl(&one, millis));
    Ok((Asker::new(&one, &name, ttl), Asker::new(&two, &name, ttl)))
}

/// L1: A lease that isn't renewed ends after its ttl and the grace, and not before.
pub async fn a_lease_expires_after_its_ttl_and_not_before(h: &dyn Harness) -> Outcome {
    let (holder, other) = two(h, "expires", 800).await?;
    let got = holder.get().await?;
    let next = other.get_within(got.gone_within(&other.provider)).await?;
    let early = got.not_before(&other.provider).since(next.answered);
    ensure!(early.is_zero(), "a lease of {:?} was given away {early:?} before its end", got.ttl);
    other.must_release(next.token).await
}

/// L1: A lease that is renewed outlives its first ttl, by as much as it was renewed for.
pub async fn renewed_it_outlives_its_ttl(h: &dyn Harness) -> Outcome {
    let (holder, other) = two(h, "renewed", 2000).await?;
    let got = holder.get().await?;
    sleep_until(got.asked + got.ttl / 2).await;
    let renewed_at = now();
    holder.must_renew(got.token).await?;
    let next = other.get_within(got.gone_within(&other.provider) * 2).await?;
    let can = other.provider.capabilities();
    let early = ((renewed_at + got.ttl.mul_f64(0.99) + can.grace) - can.ttl.granularity).since(next.answered);
    ensure!(early.is_zero(), "a renewed lease of {:?} was given away {early:?} before its end", got.ttl);
    other.must_release(next.token).await
}

/// L3: Renewal works again and again, each from the last, and changes nothing but the end.
pub async fn renewed_three_times(h: &dyn Harness) -> Outcome {
    let (holder, other) = two(h, "thrice", 2000).await?;
    let got = holder.get().await?;
    for round in 1..=3_u32 {
        sleep_until(got.asked + got.ttl / 2 * round).await;
        holder.must_renew(got.token).await?;
        holder.must_still_hold(got.token, "after a renewal").await?;
        other.must_be_refused("the lease is renewed").await?;
    }
    ensure!(now() > got.over_at(&holder.provider) - got.ttl / 4, "the renewals must reach beyond the first ttl");
    holder.must_release(got.token).await
}

/// L5: Once another has taken the lock over, the first holder's renewal fails and changes nothing.
pub async fn a_stale_renew_after_take_over_fails(h: &dyn Harness) -> Outcome {
    let (stale, successor) = two(h, "stale-renew", 400).await?;
    let old = stale.get().await?;
    let successor = Asker { ttl: ttl(&successor.provider, 10_000), ..successor };
    let new = successor.get_within(old.gone_within(&successor.provider)).await?;
    must_be_lost(&stale, &old, "a renewal after a take-over").await?;
    successor.must_still_hold(new.token, "after a stale renewal").await?;
    successor.must_release(new.token).await
}

async fn must_be_lost(asker: &Asker, got: &crate::asker::Got, what: &str) -> Outcome {
    let answer = asker.renew(got.token).await?;
    ensure!(answer == Renewed::Lost, "{what} was answered with {answer:?}");
    Ok(())
}

/// L1: An expired lease is not renewable, even when nobody took it.
pub async fn a_renew_after_expiry_without_take_over_fails(h: &dyn Harness) -> Outcome {
    let (holder, other) = two(h, "late-renew", 400).await?;
    let got = holder.get().await?;
    sleep_until(got.over_at(&holder.provider)).await;
    must_be_lost(&holder, &got, "a renewal after the expiry").await?;
    let next = other.get_within(got.gone_within(&other.provider)).await?;
    other.must_release(next.token).await
}

/// L5: What was released is not renewable.
pub async fn a_renew_after_release_fails(h: &dyn Harness) -> Outcome {
    let (holder, other) = two(h, "released-renew", 10_000).await?;
    let got = holder.get().await?;
    holder.must_release(got.token).await?;
    must_be_lost(&holder, &got, "a renewal after the release").await?;
    let next = other.get().await?;
    must_be_lost(&holder, &got, "a renewal after the release and a take-over").await?;
    other.must_still_hold(next.token, "after a renewal of what was released").await?;
    other.must_release(next.token).await
}

/// L1: A renewal, or a repeated acquire, that says an earlier end doesn't shorten the lease.
pub async fn a_delayed_duplicate_renewal_does_not_shorten(h: &dyn Harness) -> Outcome {
    let (holder, other) = two(h, "delayed", 500).await?;
    let (short, long) = (holder.ttl, ttl(&holder.provider, 30_000));
    let got = holder.get().await?;
    for ttl in [long, short] {
        let answer = holder.renew_for(got.token, ttl).await?;
        ensure!(matches!(answer, Renewed::Held(_)), "a renewal of a live lease: {answer:?}");
    }
    let again = holder.get().await?;
    ensure!(again.token == got.token, "a repeated acquire changed the token");
    sleep_until(again.over_at(&holder.provider) + holder.provider.capabilities().grace).await;
    other.must_be_refused("the longer of two renewals has not ended").await?;
    holder.must_still_hold(got.token, "within the longer of two renewals").await?;
    holder.must_release(got.token).await
}

/// L1: At-least-for keeps the lock taken after an early release: that long, not for ever, and held by nobody.
pub async fn at_least_for_keeps_the_lock_after_an_early_release(h: &dyn Harness) -> Outcome {
    const LEAST: Duration = Duration::from_millis(1500);
    let (locks, provider) = (client(h).await?, h.provider().await?);
    let name = fresh_name("at-least")?;
    let before = now();
    let guard = locks.lock(name.as_str()).ttl(ttl(&provider, 5000)).at_least_for(LEAST).acquire().await?;
    let token = guard.token();
    guard.release().await?;
    let other = Asker::new(&provider, &name, ttl(&provider, 5000));
    if let lock_core::KeptBy::Store = provider.capabilities().minimum_hold
        && now() < before + LEAST / 2
    {
        let held = other.must_be_refused("its at-least-for is not over").await?;
        ensure!(held.holder.is_none(), "nobody holds it any more, and the refusal names {:?}", held.holder);
        let state = provider.inspect(&name).await?.map(|status| status.state);
        ensure!(matches!(state, Some(LockState::Resting(_))), "a lock kept taken by at-least-for is {state:?}");
    }
    let next = other.get_within(LEAST + SOON).await?;
    // The hold began no earlier than `before`; the drift is the store's clock against ours.
    let early = (before + LEAST.mul_f64(0.99)).since(next.answered);
    ensure!(early.is_zero(), "it was free {early:?} before its at-least-for was over");
    ensure!(next.token > token, "the token fell from {token} to {}", next.token);
    other.must_release(next.token).await
}

/// L1, L2: A client whose wall clock is an hour off, either way, changes nothing: not the leases, not the order of tokens.
pub async fn a_client_whose_wall_clock_is_an_hour_off_changes_nothing(h: &dyn Harness) -> Outcome {
    const HOUR: i64 = 3600 * 1_000_000;
    for micros in [HOUR, -HOUR] {
        let (right, off) = (h.provider().await?, h.skewed_provider(micros)?.await?);
        let (name, lease) = (fresh_name("skewed")?, ttl(&right, 700));
        let mut last = None;
        for (holder, other) in [(&off, &right), (&right, &off), (&off, &right)] {
            let (holder, other) = (Asker::new(holder, &name, lease), Asker::new(other, &name, lease));
            let got = holder.get().await?;
            holder.must_renew(got.token).await?;
            ensure!(last.is_none_or(|last| got.token > last), "{} after {last:?}", got.token);
            let refused = other.must_be_refused("held by a client with another wall clock").await;
            // On a machine that stood still the lease may be over; then the refusal proves nothing either way.
            if now() < got.not_before(&other.provider) {
                refused?;
            }
            let next = other.get_within(got.gone_within(&other.provider)).await?;
            let early = got.not_before(&other.provider).since(next.answered);
            ensure!(early.is_zero(), "given away {early:?} before its end");
            ensure!(next.token > got.token, "{} after {}", next.token, got.token);
            let stale = holder.release(got.token).await?;
            ensure!(stale == Released::NotHeld, "a stale release over wall clocks: {stale:?}");
            let released = other.release(next.token).await?;
            // As before: on a machine that stood still that lease may be over, too.
            let held = now() < next.holds_until(&other.provider);
            ensure!(released == Released::Released || !held, "the holder's release over wall clocks: {released:?}");
            last = Some(next.token);
        }
    }
    Ok(())
}
