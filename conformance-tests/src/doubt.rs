//! Doubt: replies that are lost, stores that stall.

use std::{sync::Arc, time::Duration};

use lock_core::{Applied, LockProvider, LockState, LossReason, ReleaseOutcome, ReleaseRequest, Released, StoreError};

use crate::{
    Failure, Harness,
    asker::{Asker, Got, Outcome, SOON, client_of, fresh_name, now, sleep, sleep_until, ttl, within},
    ensure,
    faults::Faulty,
};

/// A client behind faults, and another that sees what the store sees.
struct Scene {
    faulty: Faulty,
    direct: Arc<dyn LockProvider>,
    asker: Asker,
}

async fn scene(h: &dyn Harness, about: &str, millis: u64) -> Result<Scene, Failure> {
    let (faulty, direct) = (h.faulty()?.await?, h.provider().await?);
    let asker = Asker::new(&faulty.provider, &fresh_name(about)?, ttl(&direct, millis));
    // Connected and warm, so that faults meet the request they are meant for.
    let warm = Asker { name: fresh_name("warm")?, ..asker.clone() };
    let got = warm.get().await?;
    warm.must_renew(got.token).await?;
    warm.must_release(got.token).await?;
    Ok(Scene { faulty, direct, asker })
}

impl Scene {
    /// Somebody else, with a good connection.
    fn other(&self) -> Asker {
        Asker::new(&self.direct, &self.asker.name, self.asker.ttl)
    }

    /// Who holds the lock, as the store sees it.
    async fn state(&self) -> Result<LockState, Failure> {
        Ok(self.direct.inspect(&self.asker.name).await?.map_or(LockState::Free, |status| status.state))
    }

    /// Does it while its reply is lost, until the store has applied it and the reply is gone.
    async fn losing_the_reply<T>(&self, operation: impl Future<Output = T>) -> Result<T, Failure> {
        let lost = self.faulty.faults.lose_next_reply(&self.asker.name);
        let (outcome, swallowed) =
            tokio::join!(operation, within(SOON, "the loss of a reply (the request never left)", lost));
        swallowed??;
        Ok(outcome)
    }
}

/// An answer that isn't there must be told as unknown; a provider that asked again by itself may have one.
fn not_definite(error: &StoreError) -> Outcome {
    ensure!(error.applied() == Applied::Maybe, "an applied request is told as definitely not applied: {error}");
    Ok(())
}

async fn acquire_in_doubt(scene: &Scene) -> Result<(), Failure> {
    let outcome = scene.losing_the_reply(scene.asker.provider.acquire(&scene.asker.request())).await?;
    match outcome {
        Ok(lock_core::Acquired::Granted(_)) => Ok(()),
        Ok(other) => Err(Failure::new(format!("an acquire that was applied is answered with {other:?}"))),
        Err(error) => not_definite(&error),
    }
}

/// L6: An acquire that was applied and whose reply was lost is granted to its retry, with the same token.
pub async fn acquire_applied_but_reply_lost_is_granted_to_the_retry(h: &dyn Harness) -> Outcome {
    let scene = scene(h, "doubt-acquire", 20_000).await?;
    acquire_in_doubt(&scene).await?;
    let state = scene.state().await?;
    let LockState::Held(holding) = &state else {
        return Err(Failure::new(format!("the request was not applied, so this shows nothing: {state:?}")));
    };
    ensure!(holding.owner == scene.asker.owner, "held by a stranger: {holding:?}");
    scene.other().must_be_refused("acquired, by one who doesn't know it yet").await?;
    let got = scene.asker.get().await?;
    ensure!(got.token == holding.token, "the retry changed the token from {} to {}", holding.token, got.token);
    scene.asker.must_release(got.token).await
}

/// L6: An acquire whose outcome stays unknown leaves the lock free again within its ttl and the grace.
pub async fn an_acquire_in_doubt_leaves_the_lock_free_within_its_ttl(h: &dyn Harness) -> Outcome {
    let scene = scene(h, "doubt-free", 700).await?;
    let asked = now();
    acquire_in_doubt(&scene).await?;
    let got = Got { token: lock_core::FencingToken::new(0), ttl: scene.asker.ttl, asked, answered: now() };
    let other = scene.other();
    let next = other.get_within(got.gone_within(&scene.direct)).await?;
    other.must_release(next.token).await
}

/// L6: Whoever gave up an acquire in doubt can release it without having learnt its token.
pub async fn an_acquire_in_doubt_can_be_released_without_its_token(h: &dyn Harness) -> Outcome {
    let scene = scene(h, "doubt-release", 60_000).await?;
    acquire_in_doubt(&scene).await?;
    let request = ReleaseRequest::new(scene.asker.name.clone(), scene.asker.owner, None);
    let answer = scene.asker.provider.release(&request).await?;
    ensure!(answer == Released::Released, "the release of an acquire in doubt: {answer:?}");
    let other = scene.other();
    let got = other.get().await?;
    other.must_release(got.token).await
}

/// L3: A renewal that was applied and whose reply was lost doesn't evict its own holder: still held, the same token.
pub async fn renew_applied_but_reply_lost_is_still_held(h: &dyn Harness) -> Outcome {
    let scene = scene(h, "doubt-renew", 3000).await?;
    let locks = client_of(scene.asker.provider.clone());
    let guard = locks.lock(scene.asker.name.as_str()).ttl(scene.asker.ttl).acquire().await?;
    let answered = now();
    let token = guard.token();
    // The next request about this lock is the keeper's renewal.
    scene.losing_the_reply(async {}).await?;
    let seen_at = now();
    match scene.state().await? {
        LockState::Held(holding) if holding.token == token => ensure!(
            seen_at + holding.remaining > answered + scene.asker.ttl,
            "the renewal was not applied, so this shows nothing"
        ),
        other => return Err(Failure::new(format!("after a renewal in doubt the lock is {other:?}"))),
    }
    // Beyond the first ttl and the renewal in doubt.
    sleep_until(answered + scene.asker.ttl * 2).await;
    ensure!(guard.is_valid(), "a renewal in doubt cost the holder its lease: {:?}", guard.check());
    let state = scene.state().await?;
    let held = matches!(&state, LockState::Held(holding) if holding.owner == guard.owner() && holding.token == token);
    ensure!(held && guard.token() == token, "after a renewal in doubt the lock is {state:?}");
    let outcome = guard.release().await?;
    ensure!(outcome == ReleaseOutcome::Released, "the release after it: {outcome:?}");
    Ok(())
}

/// L5: A release that was applied and whose reply was lost has released; doing it again is harmless.
pub async fn release_applied_but_reply_lost_is_released(h: &dyn Harness) -> Outcome {
    let scene = scene(h, "doubt-released", 60_000).await?;
    let got = scene.asker.get().await?;
    let request = ReleaseRequest::new(scene.asker.name.clone(), scene.asker.owner, Some(got.token));
    match scene.losing_the_reply(scene.asker.provider.release(&request)).await? {
        Ok(Released::Released) => {}
        // What asked again by itself finds that the lock isn't its own any more: that is its own doing, or unknown.
        Ok(answer) => return Err(Failure::new(format!("a release that was applied is answered with {answer:?}"))),
        Err(error) => not_definite(&error)?,
    }
    let other = scene.other();
    let next = other.get().await?;
    let again = scene.asker.release(got.token).await?;
    ensure!(again == Released::NotHeld, "the retry of a release that was applied: {again:?}");
    other.must_still_hold(next.token, "after the retry of its predecessor's release").await?;
    other.must_release(next.token).await?;

    // The guard tries again by itself, and doesn't take its own success for a loss.
    let locks = client_of(scene.asker.provider.clone());
    let guard = locks.lock(scene.asker.name.as_str()).ttl(scene.asker.ttl).acquire().await?;
    match scene.losing_the_reply(guard.release()).await? {
        Ok(ReleaseOutcome::Released) => {}
        Ok(lost) => return Err(Failure::new(format!("a release that was applied is told as {lost:?}"))),
        Err(error) => not_definite(&error)?,
    }
    let next = other.get_within(SOON).await?;
    other.must_release(next.token).await
}

/// L1, L10: Under a stalled store a guard is lost at its deadline, and never valid after it, not even when late answers come.
pub async fn a_stalled_store_loses_the_guard_at_its_deadline(h: &dyn Harness) -> Outcome {
    let scene = scene(h, "stalled", 1500).await?;
    let locks = client_of(scene.asker.provider.clone());
    let guard = locks.lock(scene.asker.name.as_str()).ttl(scene.asker.ttl).acquire().await?;
    scene.faulty.faults.stall();
    let mut deadline = guard.deadline();
    while guard.is_valid() {
        // Read before the look: a look that begins at or after the deadline must say no.
        let (before, seen) = (now(), guard.deadline());
        deadline = deadline.max(seen);
        ensure!(before < deadline || !guard.is_valid(), "valid at {before:?}, after its deadline {deadline:?}");
        sleep(Duration::from_millis(2)).await;
    }
    ensure!(now() >= deadline, "lost before its deadline, though no answer came");
    let reason = within(SOON, "the signal of a loss that has happened", guard.lost()).await?;
    ensure!(reason == LossReason::Expired, "the loss under a stalled store is told as: {reason}");
    scene.faulty.faults.resume();
    // A renewal that was held may be applied now: the guard stays lost, and the lock is to be had all the same.
    let other = scene.other();
    let asked = now();
    let got = Got { token: guard.token(), ttl: scene.asker.ttl, asked, answered: asked };
    let next = other.get_within(got.gone_within(&scene.direct)).await?;
    ensure!(!guard.is_valid() && guard.check().is_err(), "a lost guard came back to life");
    ensure!(next.token > guard.token(), "the token fell from {} to {}", guard.token(), next.token);
    let outcome = guard.release().await?;
    ensure!(outcome == ReleaseOutcome::AlreadyLost(LossReason::Expired), "the release of a lost guard: {outcome:?}");
    other.must_still_hold(next.token, "after the lost guard's release").await?;
    other.must_release(next.token).await
}

/// L7: A store that stalls and is back before the deadline costs nothing: still held, the same token.
pub async fn a_store_back_before_the_deadline_is_still_held(h: &dyn Harness) -> Outcome {
    let scene = scene(h, "back", 6000).await?;
    let locks = client_of(scene.asker.provider.clone());
    let guard = locks.lock(scene.asker.name.as_str()).ttl(scene.asker.ttl).acquire().await?;
    let (token, answered) = (guard.token(), now());
    // Over the time of the first renewal and its first time-out.
    sleep_until(answered + scene.asker.ttl / 4).await;
    scene.faulty.faults.stall();
    sleep_until(answered + scene.asker.ttl * 6 / 10).await;
    scene.faulty.faults.resume();
    sleep_until(answered + scene.asker.ttl * 3 / 2).await;
    ensure!(guard.is_valid(), "a stall shorter than the lease cost the holder its lease: {:?}", guard.check());
    ensure!(guard.token() == token, "a stall changed the token");
    let state = scene.state().await?;
    let held = matches!(&state, LockState::Held(holding) if holding.owner == guard.owner() && holding.token == token);
    ensure!(held, "after a stall the lock is {state:?}");
    let outcome = guard.release().await?;
    ensure!(outcome == ReleaseOutcome::Released, "the release after a stall: {outcome:?}");
    Ok(())
}
