//! Ticks: a job runs at most once per scheduled time.

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use lock_core::{
    AcquireRequest, Acquired, Fairness, FencingToken, LockProvider, ReleaseRequest, Released, Tick, TickUse, Waiting,
};

use crate::{
    Failure, Harness,
    asker::{Asker, Outcome, SOON, fresh_name, now, sleep, ttl, within},
    ensure,
};

/// A wish for a tick that its grant uses up.
fn at_once(asker: &Asker, tick: u64) -> AcquireRequest {
    AcquireRequest { tick: Some(Tick(tick)), tick_use: TickUse::AtGrant, ..asker.request() }
}

/// A wish for a tick that is used up once the work is done.
fn after_work(asker: &Asker, tick: u64) -> AcquireRequest {
    AcquireRequest { tick_use: TickUse::AtRelease, ..at_once(asker, tick) }
}

async fn granted(asker: &Asker, request: &AcquireRequest, why: &str) -> Result<FencingToken, Failure> {
    match asker.provider.acquire(request).await? {
        Acquired::Granted(grant) => Ok(grant.token),
        other => Err(Failure::new(format!("{why}: the answer was {other:?}"))),
    }
}

async fn finished(asker: &Asker, request: &AcquireRequest, last: u64, why: &str) -> Outcome {
    let answer = asker.provider.acquire(request).await?;
    ensure!(matches!(answer, Acquired::Finished(Tick(told)) if told == last), "{why}: the answer was {answer:?}");
    Ok(())
}

/// A tick that was finished, and each before it, is not granted again; one that was not finished is, and so is a later one.
pub async fn a_finished_tick_is_not_granted_again(h: &dyn Harness) -> Outcome {
    let providers = [h.provider().await?, h.provider().await?];
    let name = fresh_name("tick")?;
    let lease = ttl(&providers[0], 20_000);
    let mut last = None;
    // What is asked for, what is to be the last finished one then, and whether this run finishes it.
    for (round, (tick, finished, finishes)) in
        [(100, None, false), (100, None, true), (100, Some(100), false), (99, Some(100), false), (101, None, true)]
            .into_iter()
            .enumerate()
    {
        let asker = Asker::new(&providers[round % 2], &name, lease);
        let request = after_work(&asker, tick);
        let answer = asker.provider.acquire(&request).await?;
        match (answer, finished) {
            (Acquired::Granted(grant), None) => {
                ensure!(last.is_none_or(|last| grant.token > last), "the token fell from {last:?} to {}", grant.token);
                last = Some(grant.token);
                let release = ReleaseRequest::new(name.clone(), asker.owner, Some(grant.token));
                let done = finishes.then_some(Tick(tick));
                let released = asker.provider.release(&ReleaseRequest { done, ..release }).await?;
                ensure!(released == Released::Released, "the holder's release: {released:?}");
            }
            (Acquired::Finished(Tick(told)), Some(finished)) => {
                ensure!(told == finished, "{finished} was the last finished tick, and {told} was told");
            }
            (answer, finished) => {
                return Err(Failure::new(format!(
                    "tick {tick} with {finished:?} finished was answered with {answer:?}"
                )));
            }
        }
    }
    // Who waits while the tick is finished is told so when his turn comes.
    let [holder, waiter] = [0, 1].map(|which: usize| Asker::new(&providers[which], &name, lease));
    let got = holder.get().await?;
    let waiting = if waiter.provider.capabilities().fairness == Fairness::None {
        Waiting::Wake(lease)
    } else {
        Waiting::InLine(lease)
    };
    let request = AcquireRequest { waiting, ..after_work(&waiter, 150) };
    let answer = waiter.provider.acquire(&request).await?;
    ensure!(matches!(answer, Acquired::Held(_)), "a held lock, waited for with a tick: {answer:?}");
    let release = ReleaseRequest::new(name.clone(), holder.owner, Some(got.token));
    holder.provider.release(&ReleaseRequest { done: Some(Tick(150)), ..release }).await?;
    let answer = waiter.provider.acquire(&request).await?;
    ensure!(matches!(answer, Acquired::Finished(Tick(150))), "a tick that was finished meanwhile: {answer:?}");
    // A tick that is being worked on is held, as any lock.
    let [holder, other] = [0, 1].map(|which: usize| Asker::new(&providers[which], &name, lease));
    let got = holder.get().await?;
    let answer = other.provider.acquire(&after_work(&other, 200)).await?;
    ensure!(matches!(answer, Acquired::Held(_)), "a held lock, asked for with a tick: {answer:?}");
    holder.must_release(got.token).await
}

/// A grant uses its tick up at once: for all others, while it is held and after a release that says nothing of it.
pub async fn a_tick_is_used_up_by_its_grant(h: &dyn Harness) -> Outcome {
    let providers = [h.provider().await?, h.provider().await?];
    let name = fresh_name("used")?;
    let lease = ttl(&providers[0], 20_000);
    let [first, second, third] = [0, 1, 0].map(|which: usize| Asker::new(&providers[which], &name, lease));
    let token = granted(&first, &at_once(&first, 100), "a free lock for a new tick").await?;
    let again = granted(&first, &at_once(&first, 100), "the holder's own call, once more").await?;
    ensure!(again == token, "the token went from {token} to {again} though it is one call");
    finished(&second, &at_once(&second, 100), 100, "a tick that somebody was granted").await?;
    finished(&second, &after_work(&second, 99), 100, "a tick before one that somebody was granted").await?;
    let answer = second.provider.acquire(&at_once(&second, 101)).await?;
    ensure!(matches!(answer, Acquired::Held(_)), "the next tick, while the lock is held: {answer:?}");
    first.must_release(token).await?;
    finished(&third, &at_once(&third, 100), 100, "a tick whose holder has released").await?;
    let next = granted(&third, &at_once(&third, 101), "the next tick, once the lock is free").await?;
    ensure!(next > token, "the token went from {token} to {next}");
    third.must_release(next).await?;
    // Work without a tick has nothing to do with those that have one, and forgets none.
    let plain = second.get().await?;
    second.must_release(plain.token).await?;
    finished(&first, &at_once(&first, 101), 101, "a tick, after a hold without one").await
}

/// Nor does a tick come back when its holder vanishes, or has the lock taken away.
pub async fn a_used_up_tick_outlives_its_holder(h: &dyn Harness) -> Outcome {
    let providers = [h.provider().await?, h.provider().await?];
    let (vanishing, forced) = (fresh_name("vanishing")?, fresh_name("forced")?);
    let short = ttl(&providers[0], 500);
    let [gone, next] = [0, 1].map(|which: usize| Asker::new(&providers[which], &vanishing, short));
    granted(&gone, &at_once(&gone, 100), "a free lock for a new tick").await?;
    let [victim, other] = [0, 1].map(|which: usize| Asker::new(&providers[which], &forced, ttl(&providers[0], 20_000)));
    granted(&victim, &at_once(&victim, 100), "a free lock for a new tick").await?;
    providers[1].force_release(&forced).await?;
    finished(&other, &at_once(&other, 100), 100, "a tick whose holder lost the lock by force").await?;
    let token = granted(&other, &at_once(&other, 101), "the tick after it").await?;
    other.must_release(token).await?;

    // Free again, by the word of one who asks for no tick.
    let got = next.get_within(short + SOON).await?;
    next.must_release(got.token).await?;
    finished(&next, &at_once(&next, 100), 100, "a tick whose holder vanished").await?;
    let token = granted(&next, &at_once(&next, 101), "the tick after it").await?;
    next.must_release(token).await
}

/// L6: A call whose grant was made, and whose answer was lost, is granted its tick when it asks again; nobody else is.
pub async fn a_tick_whose_grant_went_unanswered_is_that_calls(h: &dyn Harness) -> Outcome {
    let (faulty, direct) = (h.faulty()?.await?, h.provider().await?);
    let asker = Asker::new(&faulty.provider, &fresh_name("unanswered")?, ttl(&direct, 20_000));
    let warm = Asker { name: fresh_name("warm")?, ..asker.clone() };
    warm.must_release(warm.get().await?.token).await?;

    let request = at_once(&asker, 100);
    let lost = faulty.faults.lose_next_reply(&asker.name);
    let (first, swallowed) = tokio::join!(asker.provider.acquire(&request), within(SOON, "the loss of a reply", lost));
    swallowed??;
    if let Ok(answer) = first {
        // It asked again by itself.
        ensure!(matches!(answer, Acquired::Granted(_)), "a call's own tick was answered with {answer:?}");
    }
    let other = Asker::new(&direct, &asker.name, asker.ttl);
    finished(&other, &at_once(&other, 100), 100, "a tick that somebody was granted").await?;
    let token = granted(&asker, &request, "the call's own tick, once more").await?;
    asker.must_still_hold(token, "after the second attempt").await?;
    asker.must_release(token).await
}

/// Of many that ask for a tick at once, in groups as well, one runs it.
pub async fn of_many_at_once_one_runs_each_tick(h: &dyn Harness) -> Outcome {
    const ASKERS: usize = 6;
    let providers = [h.provider().await?, h.provider().await?];
    let name = fresh_name("many")?;
    let lease = ttl(&providers[0], 20_000);
    for tick in 1..=8 {
        let clients = providers.iter().map(|provider| {
            let askers: Vec<_> = (0..ASKERS).map(|_| Asker::new(provider, &name, lease)).collect();
            tokio::spawn(run_once(Arc::clone(provider), askers, tick))
        });
        let ran: usize = try_join_all(clients).await?.into_iter().sum::<Result<_, _>>()?;
        ensure!(ran == 1, "tick {tick} was granted {ran} times");
    }
    Ok(())
}

/// Asks for all of these in one call until each was told that the tick is used up; how many were granted.
async fn run_once(provider: Arc<dyn LockProvider>, mut askers: Vec<Asker>, tick: u64) -> Result<usize, Failure> {
    let (mut ran, end) = (0, now() + SOON * 3);
    while !askers.is_empty() {
        ensure!(now() < end, "{} askers were still told that tick {tick} is being worked on", askers.len());
        let requests: Vec<_> = askers.iter().map(|asker| at_once(asker, tick)).collect();
        let mut held = Vec::new();
        for (asker, answer) in askers.into_iter().zip(provider.acquire_many(&requests).await) {
            match answer? {
                Acquired::Granted(grant) => {
                    ran += 1;
                    asker.must_release(grant.token).await?;
                }
                Acquired::Held(_) => held.push(asker),
                Acquired::Finished(Tick(last)) => ensure!(last == tick, "{last} was told for tick {tick}"),
                other => return Err(Failure::new(format!("a wish for a tick was answered with {other:?}"))),
            }
        }
        askers = held;
        sleep(Duration::from_millis(10)).await;
    }
    Ok(ran)
}
