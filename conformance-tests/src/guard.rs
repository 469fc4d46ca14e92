//! The guard: what its holder may believe, and what becomes of the work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lock_core::{LockError, LossReason, ReleaseOutcome};

use crate::{
    Failure, Harness,
    asker::{Asker, Got, Outcome, SOON, client, client_of, fresh_name, now, sleep, ttl, within},
    child::Child,
    ensure,
};

/// L1: Whoever can't renew stops believing before the store gives the lock away.
pub async fn lost_before_the_store_gives_the_lock_away(h: &dyn Harness) -> Outcome {
    let (faulty, direct) = (h.faulty()?.await?, h.provider().await?);
    let locks = client_of(faulty.provider);
    for millis in [400, 900] {
        let (name, lease) = (fresh_name("belief")?, ttl(&direct, millis));
        let guard = locks.lock(name.as_str()).ttl(lease).acquire().await?;
        faulty.faults.stall();
        let believer = guard.lease().clone();
        let watch = tokio::spawn(async move {
            let mut deadline = believer.deadline();
            while believer.is_valid() {
                deadline = deadline.max(believer.deadline());
                sleep(Duration::from_millis(1)).await;
            }
            deadline
        });
        let other = Asker::new(&direct, &name, lease);
        let next = other.get_within(lease * 2 + direct.capabilities().grace + SOON).await?;
        ensure!(!guard.is_valid(), "the holder still believed when the lock was given away");
        let deadline = watch.await?;
        ensure!(deadline <= next.answered, "believed until {deadline:?}, given away by {:?}", next.answered);
        let reason = within(SOON, "the signal of the loss", guard.lost()).await?;
        ensure!(reason == LossReason::Expired, "the loss without renewals is told as: {reason}");
        faulty.faults.resume();
        other.must_release(next.token).await?;
        drop(guard);
    }
    Ok(())
}

/// L1: A guard whose record was deleted is lost, at its next renewal.
pub async fn lost_when_the_record_is_deleted(h: &dyn Harness) -> Outcome {
    let (locks, provider) = (client(h).await?, h.provider().await?);
    let name = fresh_name("deleted")?;
    let guard = locks.lock(name.as_str()).ttl(ttl(&provider, 1500)).acquire().await?;
    h.delete_record(&name)?.await?;
    let reason = within(SOON, "the holder's notice of a deleted record", guard.lost()).await?;
    ensure!(reason == LossReason::NotOurs, "the loss by a deleted record is told as: {reason}");
    ensure!(!guard.is_valid(), "a guard that is lost says that it is valid");
    let outcome = guard.release().await?;
    ensure!(outcome == ReleaseOutcome::AlreadyLost(LossReason::NotOurs), "the release of a lost guard: {outcome:?}");
    Ok(())
}

/// L1: Neither a release nor a drop reads as a loss (a channel whose sender is dropped must not be taken for one).
pub async fn not_lost_on_a_normal_release(h: &dyn Harness) -> Outcome {
    let (locks, provider) = (client(h).await?, h.provider().await?);
    // Longer than a busy disk stands still.
    let lease = ttl(&provider, 2000);
    for released in [true, false] {
        let name = fresh_name("normal")?;
        let guard = locks.lock(name.as_str()).ttl(lease).acquire().await?;
        let view = guard.lease().clone();
        let lost = tokio::spawn(view.lost());
        tokio::task::yield_now().await;
        if released {
            let outcome = guard.release().await?;
            ensure!(outcome == ReleaseOutcome::Released, "a normal release: {outcome:?}");
        } else {
            drop(guard);
        }
        ensure!(!view.is_valid(), "valid after its release");
        sleep(lease * 2).await;
        ensure!(!lost.is_finished(), "a normal release reads as a loss");
        let told = view.check().map_err(|over| over.reason);
        ensure!(told == Err(LossReason::Released), "after a normal release the work is told {told:?}");
        lost.abort();
    }
    Ok(())
}

/// L1: A process that was stopped for longer than its ttl sees at its first look that the lease is over.
pub async fn invalid_at_the_first_look_after_a_stop_longer_than_the_ttl(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let (name, lease) = (fresh_name("stopped")?, ttl(&provider, 1000));
    let mut child = Child::hold(h, &name, lease).await?;
    child.say("look").await?;
    child.expect("valid true", SOON).await?;
    child.stop()?;
    // Stopped for longer than the ttl, grace included: another has the lock.
    let other = Asker::new(&provider, &name, ttl(&provider, 30_000));
    let stopped = Got { token: child.token, ttl: lease, asked: now(), answered: now() };
    let next = other.get_within(stopped.gone_within(&provider)).await?;
    ensure!(next.token > child.token, "the token fell from {} to {}", child.token, next.token);
    // Asked before it goes on, so that its first look is the one after the stop.
    child.say("look").await?;
    child.resume()?;
    child.expect("valid false", SOON).await?;
    child.say("release").await?;
    child.expect("lost", SOON).await?;
    other.must_still_hold(next.token, "after the stopped holder went on").await?;
    other.must_release(next.token).await
}

/// L1: Dropping the guard releases the lock, long before its ttl is over.
pub async fn drop_releases(h: &dyn Harness) -> Outcome {
    let (locks, provider) = (client(h).await?, h.provider().await?);
    let (name, lease) = (fresh_name("drop")?, ttl(&provider, 120_000));
    let guard = locks.lock(name.as_str()).ttl(lease).acquire().await?;
    let token = guard.token();
    let other = Asker::new(&provider, &name, lease);
    other.must_be_refused("held by a guard").await?;
    drop(guard);
    let got = other.get_within(SOON).await?;
    ensure!(got.token > token, "the token fell from {token} to {}", got.token);
    other.must_release(got.token).await
}

/// Notes that it was dropped.
struct Work(Arc<AtomicBool>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// L1: Work under `run` is dropped when the lease is lost, before `run` returns; work that ends in time keeps its result.
pub async fn work_under_run_is_dropped_on_loss(h: &dyn Harness) -> Outcome {
    let (locks, people) = (client(h).await?, h.provider().await?);
    let lease = ttl(&people, 1500);
    let done =
        locks.lock(fresh_name("run-done")?.as_str()).ttl(lease).run(|lease| async move { lease.is_valid() }).await?;
    ensure!(done, "work under run began without a valid lease");

    let name = fresh_name("run-lost")?;
    let dropped = Arc::new(AtomicBool::new(false));
    let work = Work(Arc::clone(&dropped));
    let (started, begun) = tokio::sync::oneshot::channel();
    let run = locks.lock(name.as_str()).ttl(lease).run(|_lease| async move {
        let _work = work;
        let _ = started.send(());
        std::future::pending::<()>().await;
    });
    let take_away = async {
        begun.await?;
        people.force_release(&name).await?;
        Ok::<_, Failure>(())
    };
    let (answer, taken) = tokio::join!(within(SOON, "the end of work whose lease was lost", run), take_away);
    taken?;
    match answer? {
        Err(LockError::Lost(lost)) => ensure!(lost.reason == LossReason::NotOurs, "the loss is told as: {lost}"),
        other => return Err(Failure::new(format!("run after a loss returned {other:?}"))),
    }
    ensure!(dropped.load(Ordering::SeqCst), "run returned, and its work still lives");
    Ok(())
}

/// L7: The lock of a process that was killed is free within its ttl.
pub async fn the_lock_of_a_killed_process_is_free_within_its_ttl(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let (name, lease) = (fresh_name("killed")?, ttl(&provider, 1500));
    let mut child = Child::hold(h, &name, lease).await?;
    let other = Asker::new(&provider, &name, lease);
    other.must_be_refused("held by another process").await?;
    child.kill().await?;
    let killed = Got { token: child.token, ttl: lease, asked: now(), answered: now() };
    let next = other.get_within(killed.gone_within(&provider)).await?;
    ensure!(next.token > child.token, "the token fell from {} to {}", child.token, next.token);
    other.must_release(next.token).await
}
