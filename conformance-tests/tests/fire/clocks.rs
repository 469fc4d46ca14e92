//! What can be done to the wall clocks by which servers judge leases.
//!
//! Steps and rates stay within what leases allow for: while they go on no two moments of a store, at whichever of its servers,
//! are farther apart than one grace. So a clock is only ever put ahead of where it stands, by less than a grace, and back to
//! there; and a lease that was granted at either is judged at the other.
//!
//! A clock that leaps ahead stays there. Put back, it would leave leases behind that last for as long as it had leapt. One
//! that leaps back is set right again, or nobody would be granted anything until it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use conformance_tests::{
    Outcome,
    fire::{Chance, Effect, Fault, Lane, Scale, Stroke, blocking},
};
use lock_core::{Clock, SystemClock};
use testbed::Error;
use tokio::{sync::oneshot, time::sleep};

/// How clocks can leap without taking more from a store than leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaps {
    /// Each by itself: servers that know nothing of one another.
    Alone,
    /// All at once: each may come to judge the leases of the others.
    Together,
    /// All at once, and ahead only: the servers themselves bear nothing else.
    TogetherAhead,
}

/// Sets a clock, by its number, so many microseconds ahead of the machine's.
type Set = dyn Fn(usize, i64) -> Result<(), Error> + Send + Sync;

/// The clocks of a store's servers.
#[derive(Clone)]
struct Clocks {
    set: Arc<Set>,
    /// Where each stands: as far ahead as it has leapt.
    stand: Arc<[AtomicI64]>,
}

/// The faults of so many clocks; none if there are none that can be set.
pub(crate) fn faults(
    count: usize,
    leaps: Leaps,
    set: impl Fn(usize, i64) -> Result<(), Error> + Send + Sync + 'static,
) -> Vec<Fault> {
    if count == 0 {
        return Vec::new();
    }
    let clocks = Clocks { set: Arc::new(set), stand: (0..count).map(|_| AtomicI64::new(0)).collect() };
    vec![steps(clocks.clone()), runs_wrong(clocks.clone()), leaps_far(clocks, leaps)]
}

/// A little less than the grace: what is left is for clocks that run wrong.
const OF_GRACE: f64 = 0.95;

fn steps(clocks: Clocks) -> Fault {
    let about =
        "a server's clock, or each one's, steps forward and back again and again, each time by less than the grace";
    Fault::new(Lane::Clock, "server-clock-steps", about, move |chance, scale| {
        let (which, most) = (clocks.some(chance), micros(scale.grace.mul_f64(OF_GRACE)));
        let (own, scale) = (chance.fork(), *scale);
        let step = move |_| {
            let ahead = match own.below(4) {
                0 => 0,
                1 => i64::try_from(own.below(usize::try_from(most).unwrap_or(0))).unwrap_or(0),
                _ => most,
            };
            (ahead, scale.ttls(0.05, 0.5, &own))
        };
        Some(clocks.walk(which, scale.ttls(0.5, 3.0, chance), step))
    })
}

/// With the 0.9 % of clients no more than the 1 % by which rates may differ.
const PPM: usize = 1_000;
/// How often a clock is set that runs wrong: what it is off by then is a twentieth of a millisecond.
const TICK: Duration = Duration::from_millis(50);

fn runs_wrong(clocks: Clocks) -> Fault {
    let about = "a server's clock, or each one's, runs up to 0.1 % fast or slow, and is set right in the end";
    Fault::new(Lane::Clock, "server-clock-runs-wrong", about, move |chance, scale| {
        let ppm = i64::try_from(PPM / 5 + chance.below(PPM - PPM / 5)).unwrap_or(0);
        let ppm = if chance.once_in(2) { ppm } else { -ppm };
        let tick = move |passed: Duration| (micros(passed) * ppm / 1_000_000, TICK);
        Some(clocks.walk(clocks.some(chance), scale.ttls(1.0, 4.0, chance), tick))
    })
}

fn leaps_far(clocks: Clocks, leaps: Leaps) -> Fault {
    let about = match leaps {
        Leaps::TogetherAhead => "the servers' clocks leap ahead by seconds to an hour, and stay there: two may believe",
        _ => {
            "a server's clock leaps by seconds to an hour: ahead, and stays there, or back, and is set right after a while: \
             two may believe"
        }
    };
    let fault = Fault::new(Lane::Clock, "server-clock-leaps", about, move |chance, scale| {
        let which = if leaps == Leaps::Alone { clocks.some(chance) } else { clocks.all() };
        let by = micros(if chance.once_in(2) {
            chance.between(Duration::from_secs(2), Duration::from_secs(20))
        } else {
            chance.between(Duration::from_secs(20), Duration::from_secs(3_600))
        });
        let goes_back = chance.once_in(2) && leaps != Leaps::TogetherAhead;
        Some(if goes_back { clocks.back(which, by, chance, scale) } else { clocks.ahead(which, by) })
    });
    fault.effect(Effect::ClockBeyondBounds)
}

impl Clocks {
    fn all(&self) -> Vec<usize> {
        (0..self.stand.len()).collect()
    }

    /// One of them, or all.
    fn some(&self, chance: &Chance) -> Vec<usize> {
        if chance.once_in(2) { self.all() } else { vec![chance.below(self.stand.len())] }
    }

    /// Puts these so far ahead of where they stand.
    async fn put(&self, which: &[usize], ahead: i64) -> Outcome {
        let (clocks, which) = (self.clone(), which.to_vec());
        blocking(move || {
            which.iter().try_for_each(|clock| (clocks.set)(*clock, clocks.stand[*clock].load(Ordering::SeqCst) + ahead))
        })
        .await
    }

    /// Puts these, again and again until the end, to what `next` says after that time; then back to where they stand.
    fn walk(
        &self,
        which: Vec<usize>,
        lasts: Duration,
        next: impl Fn(Duration) -> (i64, Duration) + Send + 'static,
    ) -> Stroke {
        let (stop, mut stopped) = oneshot::channel::<()>();
        let (told, hears) = oneshot::channel();
        let (clocks, target) = (self.clone(), format!("clock {which:?}"));
        let walks = async move {
            let began = SystemClock.now();
            loop {
                let (ahead, rest) = next(SystemClock.now().since(began));
                clocks.put(&which, ahead).await?;
                tokio::select! {
                    _ = &mut stopped => return clocks.put(&which, 0).await,
                    () = sleep(rest) => {}
                }
            }
        };
        let begin = async move {
            _ = told.send(tokio::spawn(walks));
            Ok(())
        };
        let end = async move {
            drop(stop);
            // Unless it never began.
            match hears.await {
                Ok(walks) => walks.await?,
                Err(_) => Ok(()),
            }
        };
        Stroke::new(target, lasts, begin, end)
    }

    fn ahead(&self, which: Vec<usize>, by: i64) -> Stroke {
        let clocks = self.clone();
        Stroke::at_once(format!("clock {which:?} by {:.1} s", seconds(by)), async move {
            for clock in &which {
                clocks.stand[*clock].fetch_add(by, Ordering::SeqCst);
            }
            clocks.put(&which, 0).await
        })
    }

    fn back(&self, which: Vec<usize>, by: i64, chance: &Chance, scale: &Scale) -> Stroke {
        let (begins, ends, same) = (self.clone(), self.clone(), which.clone());
        let target = format!("clock {which:?} by {:.1} s", seconds(-by));
        let begin = async move { begins.put(&same, -by).await };
        let end = async move { ends.put(&which, 0).await };
        Stroke::new(target, scale.ttls(0.3, 1.5, chance), begin, end)
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "it is for people")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
