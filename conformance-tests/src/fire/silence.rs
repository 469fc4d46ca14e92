//! Law 11: whoever waits costs the store nothing. When all was healed and every client has ended, many wait for one lock, and
//! what is asked of the store meanwhile is counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lock_core::{LockProvider, Locks};
use lock_verify::history::{F, Process};
use tokio::task::JoinSet;

use super::{ground::Ground, network::Network, pen::Pen, run::SOON, scale::Scale, scene::Scene};
use crate::{
    Counted, Failure,
    asker::{Outcome, now, sleep, within},
    ensure,
};

/// Who counts, in the history.
pub(super) const COUNTER: Process = Process::Client(u32::MAX - 1);

/// For what all wait.
const LOCK: &str = "silence";

/// How many wait in each client.
const WAITERS: usize = 4;

/// Counts for so many ttls: in one alone a waiter that asks once a ttl might not be seen.
const TTLS: f64 = 1.5;

/// What a connection may send by itself, beyond what it sent in an equal time in which nobody waited.
pub(super) const SPARE: u64 = 4;

/// What was asked of the store so far.
struct Asked<'a> {
    network: &'a Network,
    /// What those who wait asked of their providers. Several that go by one connection may be one piece on its wire.
    operations: Arc<AtomicU64>,
}

/// What was asked in a while: on the wires, and of the providers.
#[derive(Clone, Copy)]
struct Cost {
    /// On all wires, of which each request may take several.
    pieces: u64,
    operations: u64,
    over: Duration,
}

impl Cost {
    /// Requests beyond what an idle while of the same length has: whatever tells of more. Each request is a piece on the way to
    /// each of so many servers.
    fn beyond(self, idle: Self, servers: u64) -> u64 {
        let times = self.over.as_secs_f64() / idle.over.as_secs_f64();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a count"
        )]
        let of_idle = |count: u64| (count as f64 * times).ceil() as u64;
        let pieces = self.pieces.saturating_sub(of_idle(idle.pieces));
        let operations = self.operations.saturating_sub(of_idle(idle.operations));
        pieces.div_ceil(servers.max(1)).max(operations)
    }
}

impl Asked<'_> {
    fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    async fn over(&self, time: Duration) -> Cost {
        let so_far = || (now(), self.network.requests().unwrap_or_default(), self.operations());
        let (began, pieces, operations) = so_far();
        sleep(time).await;
        let (ended, all_pieces, all_operations) = so_far();
        Cost { pieces: all_pieces - pieces, operations: all_operations - operations, over: ended.since(began) }
    }

    /// Returns when all have asked and nobody asks any more; or after a while in which somebody did again and again, which
    /// the count will show.
    async fn settled(&self, waiters: u64, ttl: Duration) {
        let (begun, ends) = (self.operations(), now() + SOON);
        let (mut last, mut since) = (begun, now());
        while now() < ends && (last < begun + waiters || now().since(since) < ttl / 2) {
            sleep(Duration::from_millis(20)).await;
            let count = self.operations();
            if count != last {
                (last, since) = (count, now());
            }
        }
    }
}

/// In how many whiles it is counted at most. What a machine that stands still adds comes and goes, as when a renewal is late
/// and all look whether the lease is over; what waiters ask by themselves comes in each, if it comes once in that time.
const WHILES: usize = 3;

/// How often all begin to wait anew, if a machine that stands still ended their waiting.
const ATTEMPTS: usize = 5;

/// Lets all wait, and records what that cost, beyond what the same clients cost when each only keeps a lock of its own.
pub(super) async fn listen(
    scenes: &[Scene],
    operator: Arc<dyn LockProvider>,
    network: &Network,
    ground: &dyn Ground,
    pen: &Pen,
) -> Outcome {
    let scale = ground.scale();
    let asked = Asked { network, operations: Arc::default() };
    let counted = |scene: &Scene| Counted::new(Arc::clone(&scene.locks), Arc::clone(&asked.operations));
    let clients: Vec<Locks> = scenes.iter().map(|scene| Locks::new(counted(scene))).collect();
    let mut kept = Vec::new();
    for (number, scene) in scenes.iter().enumerate() {
        // By a client of its own, so that its renewals are none of those who wait.
        let client = Locks::builder_shared(Arc::clone(&scene.locks)).build();
        kept.push(client.lock(format!("{LOCK}-{number}")).ttl(scale.ttl).acquire().await?);
    }
    let operator = Locks::builder_shared(operator).build();
    let silence = Silence { asked, clients, operator, scale, servers: ground.asked_at_once(), pen };
    let (mut attempts, mut counted) = (0, false);
    while !counted && attempts < ATTEMPTS {
        (attempts, counted) = (attempts + 1, silence.count().await?);
    }
    ensure!(
        counted,
        "nobody could wait in silence: {attempts} times the lease was lost for whose end all waited, or somebody gave up, as stderr tells"
    );
    for guard in kept {
        // What can't be given back just now is free after its ttl.
        _ = guard.release().await;
    }
    Ok(())
}

struct Silence<'a> {
    asked: Asked<'a>,
    clients: Vec<Locks>,
    operator: Locks,
    scale: Scale,
    /// To how many each request goes.
    servers: u64,
    pen: &'a Pen,
}

impl Silence<'_> {
    /// Whether it was counted while all waited: not if the lease for whose end they wait was lost meanwhile, or if somebody gave
    /// up since the store was too slow for him.
    async fn count(&self) -> Result<bool, Failure> {
        let Scale { ttl, grace } = self.scale;
        let time = ttl.mul_f64(TTLS);
        let held = self.operator.lock(LOCK).ttl(ttl).acquire().await?;
        let idle = self.asked.over(time).await;
        let mut waiting = JoinSet::new();
        for client in &self.clients {
            for _ in 0..WAITERS {
                let lock = client.lock(LOCK).ttl(ttl);
                waiting.spawn(async move {
                    match lock.acquire().await {
                        // What can't be given back just now is free after its ttl.
                        Ok(guard) => _ = guard.release().await,
                        Err(error) => {
                            eprintln!("one who waited in silence gave up: {error}");
                            return false;
                        }
                    }
                    true
                });
            }
        }
        let waiters = u32::try_from(waiting.len())?;
        self.asked.settled(u64::from(waiters), ttl).await;

        let mut counted = false;
        for number in 1..=WHILES {
            let begun = self.pen.invoke(F::Requests, |event| event.lock(LOCK).ttl(ttl).waiters(waiters));
            let count = self.asked.over(time).await.beyond(idle, self.servers);
            if !held.lease().is_valid() {
                self.pen.info_with(&begun, &"the lease was lost for whose end all waited");
                break;
            }
            counted = number == WHILES || count <= usual(u64::from(waiters));
            if counted {
                self.pen.ok(&begun, |event| event.count(count));
                break;
            }
            self.pen.info_with(&begun, &format!("{count} requests; it is counted once more"));
        }
        _ = held.release().await;
        // Whoever is silent since nobody would wake him has broken another law.
        within((ttl + grace) * waiters + SOON, "the grants of those who waited in silence", async {
            while let Some(had) = waiting.join_next().await {
                counted &= had?;
            }
            Ok::<_, Failure>(())
        })
        .await??;
        Ok(counted)
    }
}

/// Each looks once in a ttl, of which two are begun.
fn usual(waiters: u64) -> u64 {
    2 * waiters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(pieces: u64, operations: u64, seconds: u64) -> Cost {
        Cost { pieces, operations, over: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_request_to_each_of_three_servers_counts_once() {
        let idle = cost(10, 0, 3);
        assert_eq!(cost(10 + 78, 24, 3).beyond(idle, 3), 26);
        assert_eq!(cost(10 + 78, 24, 3).beyond(idle, 1), 78);
        assert_eq!(cost(12, 24, 3).beyond(idle, 3), 24, "asked of providers, whatever the wires make of it");
    }

    #[test]
    fn a_longer_while_has_more_of_what_is_idle() {
        assert_eq!(cost(20 + 7, 0, 6).beyond(cost(10, 0, 3), 1), 7);
        assert_eq!(cost(5, 0, 3).beyond(cost(20, 0, 6), 1), 0);
    }
}
