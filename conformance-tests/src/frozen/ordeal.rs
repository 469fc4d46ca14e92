//! The run: who is frozen when, for how long it goes on, and what is asked of the list afterwards.

use std::{
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lock_core::{Entropy, OsEntropy, OwnerId, SeededEntropy};

use super::{
    faults::Fault,
    herd::Herd,
    history::History,
    list::FencedList,
    seen::Seen,
    writer::{Plan, Scene, Site, play},
};
use crate::{
    Failure,
    asker::{Outcome, now, sleep, sleep_until},
    ensure,
};

/// Processes that append to one list under one lock, and are frozen at random.
///
/// The module's page shows a whole test program.
#[derive(Clone, Debug)]
#[must_use]
pub struct FrozenWriters {
    site: Site,
    ttl: Duration,
    length: Duration,
    processes: usize,
    seed: u64,
}

/// How often it is looked whether the run may end.
const LOOK: Duration = Duration::from_secs(1);

/// How many times its length a run may take in which too little happened so far: machines are noisy.
const AT_MOST: u32 = 3;

/// How many faults of a list are told.
const TOLD: usize = 5;

impl FrozenWriters {
    /// Six writers for a minute, on a list and a lock of a fresh name.
    ///
    /// `list` and `place` are handed to each process as they are ([`Site`]). `ttl` is that of the lock: the shortest that
    /// its store keeps well. Freezes last from 1.2 to 2.5 times as long.
    pub fn new(list: impl Into<String>, place: impl Into<String>, ttl: Duration) -> Self {
        let name = format!("frozen-{}", OwnerId::random(&OsEntropy));
        let site = Site { list: list.into(), place: place.into(), name };
        Self { site, ttl, length: Duration::from_secs(60), processes: 6, seed: OsEntropy.next_u64() }
    }

    /// For how long they write: at least so long, and at least for ten ttls; at most three times as long, if too little
    /// happened before.
    pub fn length(mut self, length: Duration) -> Self {
        self.length = length;
        self
    }

    /// What freezes and thoughts are drawn from, to draw them again. The machine's own timing isn't repeated.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How many writers there are, at least three.
    pub fn processes(mut self, count: usize) -> Self {
        self.processes = count.max(3);
        self
    }

    /// The name of the list, and of the lock.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.site.name
    }

    /// In a process that was started to be a writer: its whole life. `None` in any other.
    ///
    /// To be called first in `main`, before anything is printed. `open` connects to the lock's store and to the list; it
    /// is called again when one of them failed.
    pub fn play<O>(open: O) -> Option<ExitCode>
    where
        O: AsyncFn(Site) -> Result<Scene, Failure>,
    {
        play(open)
    }

    /// Runs it with the check, and looks for breaches of law 4. `list` is a view of the list of this [name](Self::name).
    ///
    /// The writers live as long as the thread that polls this first, so let `block_on` do that.
    ///
    /// # Errors
    /// What is wrong with the list; that too little happened to show anything; or that a writer failed.
    pub async fn must_be_fenced(&self, list: &dyn FencedList) -> Result<Seen, Failure> {
        let (seen, faults) = self.run(list, true).await?;
        ensure!(faults.is_empty(), "{}; {seen}", told(&faults));
        match seen.too_tame() {
            None => Ok(seen),
            Some(why) => Err(Failure::new(format!("too tame, it shows nothing: {why}; {seen}"))),
        }
    }

    /// Runs it without the check, the negative control: tokens that fall must be found, and nothing else that is wrong.
    /// Ends when they are.
    ///
    /// # Errors
    /// That no tokens fell; another fault of the list; or that a writer failed.
    pub async fn must_be_caught(&self, list: &dyn FencedList) -> Result<Seen, Failure> {
        let (seen, mut faults) = self.run(list, false).await?;
        faults.retain(|fault| !matches!(fault, Fault::Falls(..)));
        ensure!(faults.is_empty(), "{}; {seen}", told(&faults));
        ensure!(seen.falls > 0, "too tame: unfenced writers were frozen, and no token falls; {seen}");
        Ok(seen)
    }

    async fn run(&self, list: &dyn FencedList, fenced: bool) -> Result<(Seen, Vec<Fault>), Failure> {
        let plan = |writer: usize| Plan {
            site: self.site.clone(),
            ttl: self.ttl,
            fenced,
            writer,
            seed: self.seed.wrapping_add(1 + writer as u64),
        };
        let mut herd = Herd::start((0..self.processes).map(plan)).await?;
        let began = now();
        let heard = herd.shared();
        tokio::select! {
            failure = self.freeze_at_random(&mut herd) => failure?,
            () = self.look(&heard, list, fenced) => {}
        }
        let history = herd.stop().await?;
        let took = now().since(began);
        let faults = history.faults(&list.entries().await?);
        Ok((Seen::of(&history, falls(&faults), took, self.seed), faults))
    }

    /// Until a writer fails.
    async fn freeze_at_random(&self, herd: &mut Herd) -> Outcome {
        let chance = SeededEntropy::new(self.seed);
        let mut freeze_at = now() + self.times(0.5, 1.0, &chance);
        loop {
            herd.must_be_well().await?;
            let at = now();
            herd.thaw(at)?;
            if at >= freeze_at {
                if let Some(writer) = self.victim(herd, &chance) {
                    // Half of them in mid-write: between a check and its write, where those are two steps. The others fall
                    // where they fall, mostly between the look at the lease and the write.
                    if chance.next_u64().is_multiple_of(2) {
                        herd.next_try(writer).await;
                        sleep(Duration::from_millis(chance.next_u64() % 3)).await;
                    }
                    herd.freeze(writer, now() + self.times(1.2, 2.5, &chance))?;
                }
                freeze_at = at + self.times(0.1, 0.8, &chance);
            }
            sleep_until(herd.next_thaw().map_or(freeze_at, |thaw| thaw.min(freeze_at))).await;
        }
    }

    /// Until enough was seen, or there was time enough to see it.
    async fn look(&self, heard: &Mutex<History>, list: &dyn FencedList, fenced: bool) {
        let heard = || heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, length) = (now(), self.length.max(self.ttl * 10));
        let mut pause = LOOK;
        loop {
            sleep(pause).await;
            let asked = now();
            // Tokens that fall are found in any part of the list; what else may be wrong with it shows at the end, when it
            // must be readable as well.
            let entries = list.entries().await.unwrap_or_default();
            let passed = now().since(began);
            let fell = falls(&heard().faults(&entries)) > 0;
            let shows = || Seen::of(&heard(), 0, passed, self.seed).too_tame().is_none();
            if fell || fenced && passed >= length && shows() || passed >= length * AT_MOST {
                return;
            }
            // A long list may take long to read, which is not to be most of what its store does.
            pause = LOOK.max(now().since(asked) * 10);
        }
    }

    /// Who is frozen next: mostly the holder, and never more than half of all at once.
    fn victim(&self, herd: &Herd, chance: &SeededEntropy) -> Option<usize> {
        let awake = herd.awake();
        if awake.len() * 2 <= self.processes {
            return None;
        }
        let (mostly, any) = (!chance.next_u64().is_multiple_of(4), chance.next_u64());
        let holder = herd.heard().holder().filter(|holder| mostly && awake.contains(holder));
        holder.or_else(|| awake.get(usize::try_from(any % awake.len() as u64).ok()?).copied())
    }

    /// A time from `least` to `most` ttls.
    fn times(&self, least: f64, most: f64, chance: &SeededEntropy) -> Duration {
        let part = f64::from(u32::try_from(chance.next_u64() >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        self.ttl.mul_f64(least + (most - least) * part)
    }
}

fn falls(faults: &[Fault]) -> usize {
    faults.iter().filter(|fault| matches!(fault, Fault::Falls(..))).count()
}

fn told(faults: &[Fault]) -> String {
    let some: Vec<String> = faults.iter().take(TOLD).map(Fault::to_string).collect();
    format!("{} faults of the list: {}", faults.len(), some.join("; "))
}
