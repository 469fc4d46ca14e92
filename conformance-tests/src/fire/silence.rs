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

use super::{ground::Ground, network::Network, pen::Pen, run::SOON, scene::Scene};
use crate::{
    Counted, Failure,
    asker::{Outcome, now, sleep, within},
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
}

impl Cost {
    fn since(self, before: Self) -> Self {
        Self { pieces: self.pieces - before.pieces, operations: self.operations - before.operations }
    }

    /// Requests beyond this: whatever tells of more. Each request is a piece on the way to each of so many servers.
    fn beyond(self, idle: Self, servers: u64) -> u64 {
        let [pieces, operations] = [(self.pieces, idle.pieces), (self.operations, idle.operations)]
            .map(|(waiting, idle)| waiting.saturating_sub(idle));
        pieces.div_ceil(servers.max(1)).max(operations)
    }
}

impl Asked<'_> {
    fn so_far(&self) -> Cost {
        Cost { pieces: self.network.requests().unwrap_or_default(), operations: self.operations() }
    }

    fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    async fn over(&self, time: Duration) -> Cost {
        let before = self.so_far();
        sleep(time).await;
        self.so_far().since(before)
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

/// Lets all wait, and records what that cost, beyond what the same clients cost when each only keeps a lock of its own.
pub(super) async fn listen(
    scenes: &[Scene],
    operator: Arc<dyn LockProvider>,
    network: &Network,
    ground: &dyn Ground,
    pen: &Pen,
) -> Outcome {
    let (scale, servers) = (ground.scale(), ground.asked_at_once());
    let (ttl, time) = (scale.ttl, scale.ttl.mul_f64(TTLS));
    let asked = Asked { network, operations: Arc::default() };
    let counted = |scene: &Scene| Counted::new(Arc::clone(&scene.locks), Arc::clone(&asked.operations));
    let clients: Vec<Locks> = scenes.iter().map(|scene| Locks::new(counted(scene))).collect();
    let mut kept = Vec::new();
    for (number, scene) in scenes.iter().enumerate() {
        // By a client of its own, so that its renewals are none of those who wait.
        let client = Locks::builder_shared(Arc::clone(&scene.locks)).build();
        kept.push(client.lock(format!("{LOCK}-{number}")).ttl(ttl).acquire().await?);
    }
    let held = Locks::builder_shared(operator).build().lock(LOCK).ttl(ttl).acquire().await?;
    let idle = asked.over(time).await;

    let mut waiting = JoinSet::new();
    for client in &clients {
        for _ in 0..WAITERS {
            let lock = client.lock(LOCK).ttl(ttl);
            waiting.spawn(async move {
                let guard = lock.acquire().await?;
                guard.release().await.map_err(Failure::from)
            });
        }
    }
    let waiters = u32::try_from(waiting.len())?;
    asked.settled(u64::from(waiters), ttl).await;
    let begun = pen.invoke(F::Requests, |event| event.lock(LOCK).ttl(ttl).waiters(waiters));
    let cost = asked.over(time).await;
    pen.ok(&begun, |event| event.count(cost.beyond(idle, servers)));

    held.release().await?;
    // Whoever is silent since nobody would wake him has broken another law.
    within((ttl + scale.grace) * waiters + SOON, "the grants of those who waited in silence", async {
        while let Some(had) = waiting.join_next().await {
            _ = had??;
        }
        Ok::<_, Failure>(())
    })
    .await??;
    for guard in kept {
        guard.release().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_to_each_of_three_servers_counts_once() {
        let cost = |pieces, operations| Cost { pieces, operations };
        let idle = cost(10, 0);
        assert_eq!(cost(10 + 78, 24).beyond(idle, 3), 26);
        assert_eq!(cost(10 + 78, 24).beyond(idle, 1), 78);
        assert_eq!(cost(12, 24).beyond(idle, 3), 24, "asked of providers, whatever the wires make of it");
    }
}
