//! How long the machine itself stood still: bounds of slowness are counted in times when nobody was starved.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    Failure,
    asker::{now, sleep},
};

/// Measures, from its start until it is dropped, by how much a thread that sleeps is late.
#[derive(Debug)]
pub(super) struct Stalls {
    nanos: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

/// How long the thread sleeps each time.
const NAP: Duration = Duration::from_millis(10);
/// How long it is until something is asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// What is no stall yet.
const USUAL: Duration = Duration::from_millis(10);

impl Stalls {
    pub(super) fn start() -> Self {
        let stalls = Self { nanos: Arc::default(), ended: Arc::default() };
        let (nanos, ended) = (Arc::clone(&stalls.nanos), Arc::clone(&stalls.ended));
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let slept_at = now();
                thread::sleep(NAP);
                let late = now().since(slept_at).saturating_sub(NAP);
                if late > USUAL {
                    nanos.fetch_add(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
                }
            }
        });
        stalls
    }

    /// Asks until it succeeds, for so long on a machine that isn't stalled: what is asked of servers that are well, but perhaps
    /// just as the machine stands still.
    pub(super) async fn patiently<T>(
        &self,
        limit: Duration,
        ask: impl AsyncFn() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (began, stalled) = (now(), self.so_far());
        loop {
            match ask().await {
                Err(_) if now() < began + limit + (self.so_far() - stalled) => sleep(AGAIN).await,
                answered => return answered,
            }
        }
    }

    /// In all.
    pub(super) fn so_far(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
