//! Waiting: who waits gets it, in time, at no cost, and leaves nothing behind.

use std::time::Duration;

use lock_core::{FencingToken, LockError, LockState, Locks};

use crate::{
    Failure, Harness,
    asker::{Asker, Got, Outcome, SOON, client, client_of, fresh_name, now, sleep, ttl, within},
    child::Child,
    ensure,
};

/// Longer than any property may take: what is got before was not got by an expiry or by the safety net.
const LONG: u64 = 120_000;

/// A held lock, and a client that may wait for it.
async fn held(h: &dyn Harness, about: &str, millis: u64) -> Result<(Asker, Got, Locks), Failure> {
    let provider = h.provider().await?;
    let holder = Asker::new(&provider, &fresh_name(about)?, ttl(&provider, millis));
    let got = holder.get().await?;
    Ok((holder, got, client(h).await?))
}

/// L7: A waiter gets a released lock by an event, long before any lease ends.
pub async fn a_waiter_gets_a_released_lock_by_event(h: &dyn Harness) -> Outcome {
    let (holder, got, locks) = held(h, "event", LONG).await?;
    let ttl = holder.ttl;
    let name = holder.name.to_string();
    let waiter = tokio::spawn(async move { locks.lock(name).ttl(ttl).acquire().await });
    // Whether it waits by then or not: it must get the lock in both cases.
    sleep(Duration::from_millis(500)).await;
    ensure!(!waiter.is_finished(), "a waiter got a held lock");
    holder.must_release(got.token).await?;
    let guard = within(SOON, "a waiter's way to a released lock", waiter).await???;
    ensure!(guard.token() > got.token, "the token fell from {} to {}", got.token, guard.token());
    guard.release().await?;
    Ok(())
}

/// L11: While a waiter waits, the store sees at most three commands in three seconds, by its own count.
pub async fn a_waiter_that_waits_costs_no_commands(h: &dyn Harness) -> Outcome {
    const WATCHED: Duration = Duration::from_secs(3);
    let (holder, got, locks) = held(h, "silence", LONG).await?;
    let (name, ttl) = (holder.name.to_string(), holder.ttl);
    let before = h.commands()?.await?;
    let waiter = tokio::spawn(async move { locks.lock(name).ttl(ttl).acquire().await });
    // It has asked, and then the count stands still: it waits.
    let settled = within(SOON, "the silence of a waiter (it polls, or never asked)", async {
        let mut last = before;
        loop {
            sleep(Duration::from_millis(700)).await;
            let seen = h.commands()?.await?;
            if seen == last && seen > before {
                return Ok::<_, Failure>(seen);
            }
            last = seen;
        }
    })
    .await??;
    sleep(WATCHED).await;
    let cost = h.commands()?.await? - settled;
    ensure!(cost <= 3, "in {WATCHED:?} of waiting the store saw {cost} commands");
    ensure!(!waiter.is_finished(), "a waiter got a held lock");
    holder.must_release(got.token).await?;
    within(SOON, "the waiter's turn", waiter).await???.release().await?;
    Ok(())
}

/// L7: A waiter gets a lock whose holder vanished, once its lease is over and not before.
pub async fn a_waiter_gets_an_expired_lock(h: &dyn Harness) -> Outcome {
    let (holder, got, locks) = held(h, "expired", 800).await?;
    let lock = locks.lock(holder.name.as_str()).ttl(holder.ttl);
    let guard =
        within(got.gone_within(&holder.provider), "a waiter's way to an expired lock", lock.acquire()).await??;
    let early = got.not_before(&holder.provider).since(now());
    ensure!(early.is_zero(), "a waiter got the lock {early:?} before its lease was over");
    ensure!(guard.token() > got.token, "the token fell from {} to {}", got.token, guard.token());
    guard.release().await?;
    Ok(())
}

/// L7: A waiter gives up when its time is over, neither much later nor before, and is told who holds the lock.
pub async fn a_time_out_is_honoured(h: &dyn Harness) -> Outcome {
    let (holder, got, locks) = held(h, "time-out", LONG).await?;
    for wait in [Duration::ZERO, Duration::from_millis(600)] {
        let asked = now();
        let lock = locks.lock(holder.name.as_str()).ttl(holder.ttl).wait_at_most(wait);
        let answer = within(SOON, "giving up", lock.acquire()).await?;
        let waited = now().since(asked);
        match answer {
            Err(LockError::Busy(busy)) => {
                ensure!(waited >= wait, "a waiter with {wait:?} gave up after {waited:?}");
                let pid = busy.held.holder.as_ref().map(|holder| holder.pid);
                ensure!(pid == Some(std::process::id()), "who holds it was told as {:?}", busy.held);
            }
            other => return Err(Failure::new(format!("waiting for a held lock ended with {other:?}"))),
        }
    }
    let answer = locks.lock(holder.name.as_str()).ttl(holder.ttl).try_acquire().await?;
    ensure!(answer.is_none(), "try_acquire got a held lock");
    holder.must_still_hold(got.token, "after others gave up").await?;
    holder.must_release(got.token).await
}

/// L7: A wait that is cancelled, at whatever moment, leaves nothing behind: no hold, no place in a queue.
pub async fn a_cancelled_wait_leaves_nothing_behind_in_the_store(h: &dyn Harness) -> Outcome {
    let (mut holder, mut got, locks) = held(h, "cancelled", LONG).await?;
    for round in 0..24_u64 {
        let lock = locks.lock(holder.name.as_str()).ttl(holder.ttl);
        let waiter = tokio::spawn(async move { lock.acquire().await.map(drop) });
        // From "not yet asked" over "asking" to "waiting", and from before the release to after it.
        sleep(Duration::from_micros(300 * round * round)).await;
        let cancel = async {
            sleep(Duration::from_micros(500 * (round % 4))).await;
            waiter.abort();
            waiter.await
        };
        let (released, _) = tokio::join!(holder.must_release(got.token), cancel);
        released?;
        // What the waiter may have been granted is given back behind it, and long before its ttl is over.
        let next = Asker { owner: lock_core::OwnerId::random(&lock_core::OsEntropy), ..holder.clone() };
        got = next.get_within(SOON).await?;
        holder = next;
    }
    holder.must_release(got.token).await?;
    // The last one's request may have been on its way still when it was cancelled, and be granted only now.
    let settled = tokio::time::timeout(SOON, locks.settled()).await;
    ensure!(settled.is_ok(), "what goes on behind the cancelled waits doesn't end");
    let status = holder.provider.inspect(&holder.name).await?;
    let clean = status.as_ref().is_none_or(|status| {
        matches!(status.state, LockState::Free) && status.waiters.is_none_or(|waiters| waiters == 0)
    });
    ensure!(clean, "after the last cancelled wait the store keeps {status:?}");
    Ok(())
}

/// L7: An acquire that is dropped while under way, at whatever moment, leaves nothing held.
pub async fn a_dropped_acquire_leaves_nothing_held(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let (name, lease) = (fresh_name("dropped")?, ttl(&provider, LONG));
    let locks = client(h).await?;
    for round in 0..16_u64 {
        let acquire = locks.lock(name.as_str()).ttl(lease).acquire();
        drop(tokio::time::timeout(Duration::from_micros(100 * round * round), acquire).await);
        let next = Asker::new(&provider, &name, lease);
        let got = next.get_within(SOON).await?;
        next.must_release(got.token).await?;
    }
    // Dropped for certain while the request is on its way, which arrives later.
    let faulty = h.faulty()?.await?;
    let locks = client_of(faulty.provider);
    // Connected and warm, so that what is stalled is the request itself.
    locks.lock(fresh_name("warm")?.as_str()).ttl(lease).acquire().await?.release().await?;
    for _ in 0..3 {
        faulty.faults.stall();
        let acquire = locks.lock(name.as_str()).ttl(lease).acquire();
        let answer = tokio::time::timeout(Duration::from_millis(100), acquire).await;
        ensure!(answer.is_err(), "a stalled store granted a lock");
        faulty.faults.resume();
        // Until the late request has come and gone, the lock may be free, then held, then free for good.
        sleep(Duration::from_millis(200)).await;
        let next = Asker::new(&provider, &name, lease);
        let got = next.get_within(SOON).await?;
        next.must_release(got.token).await?;
    }
    Ok(())
}

/// L7: In a thousand hand-offs between two clients, released at every moment of the other's way into waiting, no wake-up is lost.
pub async fn a_thousand_hand_offs_lose_no_wake_up(h: &dyn Harness) -> Outcome {
    let (holder, got, first) = held(h, "hand-offs", LONG).await?;
    let first_can = first.provider().capabilities().clone();
    holder.must_release(got.token).await?;
    let clients = [first, client(h).await?];
    let lock = |round: usize| clients[round % 2].lock(holder.name.as_str()).ttl(holder.ttl);
    let mut guard = lock(0).acquire().await?;
    // Who polls finds each by chance, soon or less soon: as many as fit the time.
    let rounds = if first_can.wake == lock_core::Wake::Event { 1000 } else { 40 };
    for round in 1..=rounds {
        let token = guard.token();
        let pause = Duration::from_micros(u64::try_from(round % 16).unwrap_or(0) * 250);
        let release = async {
            sleep(pause).await;
            guard.release().await
        };
        let (next, released) = tokio::join!(within(SOON, "a hand-off", lock(round).acquire()), release);
        released?;
        guard = next.map_err(|lost| Failure::new(format!("hand-off {round}: {lost}")))??;
        ensure!(guard.token() > token, "the token fell from {token} to {}", guard.token());
    }
    guard.release().await?;
    Ok(())
}

/// L8: Of fifty waiters that queued one after the other, in five processes, those that stay are granted in that order.
pub async fn fifty_waiters_of_five_processes_are_granted_in_order(h: &dyn Harness) -> Outcome {
    const WAITERS: usize = 50;
    // Those in the middle of the line, at its front and at its end that give up.
    const GIVE_UP: [usize; 4] = [0, 20, 21, 49];
    let provider = h.provider().await?;
    let holder = Asker::new(&provider, &fresh_name("order")?, ttl(&provider, 30_000));
    let got = holder.get().await?;
    let kept = tokio::spawn({
        let holder = holder.clone();
        async move { keep(&holder, got.token).await }
    });
    let mut children = Vec::new();
    for _ in 0..5 {
        children.push(Child::start(h, "queue", &[holder.name.as_str(), &holder.ttl.as_millis().to_string()])?);
    }
    for number in 0..WAITERS {
        children[number % 5].say(&number.to_string()).await?;
        in_line(&holder, number + 1).await?;
    }
    for (gone, number) in GIVE_UP.iter().enumerate() {
        children[number % 5].say(&format!("-{number}")).await?;
        in_line(&holder, WAITERS - gone - 1).await?;
    }
    kept.abort();
    holder.must_release(got.token).await?;
    let mut granted = Vec::new();
    let stay: Vec<usize> = (0..WAITERS).filter(|number| !GIVE_UP.contains(number)).collect();
    for number in &stay {
        let line = children[number % 5].answer(SOON * 3).await?;
        let mut words = line.split(' ').map(str::parse::<u64>);
        match (words.next(), words.next(), words.next()) {
            (Some(Ok(number)), Some(Ok(at)), Some(Ok(token))) => granted.push((at, token, number)),
            _ => return Err(Failure::new(format!("a child was to say who had the lock and when, and said {line:?}"))),
        }
    }
    granted.sort_unstable();
    let order: Vec<usize> = granted.iter().filter_map(|(_, _, number)| usize::try_from(*number).ok()).collect();
    ensure!(order == stay, "queued as {stay:?}, granted as {order:?}");
    ensure!(granted.is_sorted_by_key(|(_, token, _)| token), "tokens fell in the order of the grants: {granted:?}");
    Ok(())
}

/// Renews in good time until it is aborted.
async fn keep(holder: &Asker, token: FencingToken) -> Outcome {
    loop {
        sleep(holder.ttl / 4).await;
        holder.must_renew(token).await?;
    }
}

/// Returns once so many wait for the lock, by the store's own word.
async fn in_line(holder: &Asker, waiters: usize) -> Outcome {
    within(SOON, "the place of a waiter in the line", async {
        loop {
            let status = holder.provider.inspect(&holder.name).await?;
            if status.and_then(|status| status.waiters) == Some(waiters as u64) {
                return Ok(());
            }
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await?
}

/// L7: Wake-ups that were lost with a cut subscription are made good.
pub async fn wake_ups_lost_by_a_cut_subscription_are_made_good(h: &dyn Harness) -> Outcome {
    let (mut holder, mut got, locks) = held(h, "cut", LONG).await?;
    for round in 0..4_u64 {
        let lock = locks.lock(holder.name.as_str()).ttl(holder.ttl);
        let waiter = tokio::spawn(async move { lock.acquire().await });
        sleep(Duration::from_millis(400)).await;
        h.cut_subscriptions()?.await?;
        sleep(Duration::from_millis(20 * round)).await;
        holder.must_release(got.token).await?;
        within(SOON, "a waiter's way to a lock released while its subscription was cut", waiter)
            .await???
            .release()
            .await?;
        let next = Asker { owner: lock_core::OwnerId::random(&lock_core::OsEntropy), ..holder.clone() };
        got = next.get().await?;
        holder = next;
    }
    holder.must_release(got.token).await
}
