//! Who makes the faults: one after the other in each lane, as chance has it, and each in the history.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use lock_verify::history::{Effect, F};

use super::{
    chance::Chance,
    fault::{Fault, Lane},
    ground::Ground,
    pen::Pen,
    scale::Scale,
};
use crate::{
    Failure,
    asker::{Outcome, now, sleep},
};

/// Makes faults until it is told to cease.
#[derive(Debug)]
pub(super) struct Nemesis {
    pen: Pen,
    scale: Scale,
    ceased: AtomicBool,
    /// Only what the control needs.
    narrowed: AtomicBool,
    /// What is going on, and what has been done how often.
    goes_on: Mutex<BTreeMap<&'static str, usize>>,
    done: Mutex<BTreeMap<&'static str, usize>>,
    /// Whose turn it is of the faults that are kept apart.
    apart: tokio::sync::Mutex<()>,
}

/// How often it is looked whether a fault has to end early.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

impl Nemesis {
    pub(super) fn new(pen: Pen, scale: Scale) -> Arc<Self> {
        Arc::new(Self {
            pen,
            scale,
            ceased: AtomicBool::new(false),
            narrowed: AtomicBool::new(false),
            goes_on: Mutex::default(),
            done: Mutex::default(),
            apart: tokio::sync::Mutex::default(),
        })
    }

    /// No fault begins any more; those that go on are ended.
    pub(super) fn cease(&self) {
        self.ceased.store(true, Ordering::SeqCst);
    }

    /// From now on only holders of what nothing fences are frozen.
    pub(super) fn narrow(&self) {
        self.narrowed.store(true, Ordering::SeqCst);
    }

    fn has_ceased(&self) -> bool {
        self.ceased.load(Ordering::SeqCst)
    }

    /// How often each fault was made.
    pub(super) fn done(&self) -> BTreeMap<&'static str, usize> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What goes on now.
    pub(super) fn goes_on(&self) -> Vec<&'static str> {
        let goes_on = self.goes_on.lock().unwrap_or_else(PoisonError::into_inner);
        goes_on.iter().filter(|(_, count)| **count > 0).map(|(name, _)| *name).collect()
    }

    /// Makes one fault after the other, with calm between them, until it is to cease; `control` alone, once it is narrowed.
    pub(super) async fn rage(
        self: Arc<Self>,
        lane: Lane,
        faults: Vec<Fault>,
        control: Option<Fault>,
        chance: Chance,
    ) -> Outcome {
        // Each kind once before any comes again, in an order by chance; so none is missing from a run that is long enough.
        let mut deck: Vec<Fault> = Vec::new();
        while !self.has_ceased() {
            self.calm(lane, &chance).await;
            if deck.is_empty() {
                deck = faults.clone();
            }
            let fault = if self.narrowed.load(Ordering::SeqCst) {
                control.clone()
            } else {
                (!deck.is_empty()).then(|| deck.swap_remove(chance.below(deck.len())))
            };
            if let Some(fault) = fault.filter(|_| !self.has_ceased()) {
                self.make(&fault, &chance).await?;
            }
        }
        Ok(())
    }

    /// Makes this fault, to its end.
    ///
    /// Tokens rise over a loss of data, and over a clock that steps, and need not over both: so these come one after the
    /// other, and what was granted before the one is older than any step when the other comes.
    pub(super) async fn make(&self, fault: &Fault, chance: &Chance) -> Outcome {
        if fault.lane != Lane::Clock && fault.effect != Effect::DataLoss {
            return self.strike(fault, chance).await;
        }
        let _turn = self.apart.lock().await;
        if self.has_ceased() {
            return Ok(());
        }
        self.strike(fault, chance).await?;
        sleep(self.scale.grace).await;
        Ok(())
    }

    /// Records what servers do by themselves, as the faults that it is like. Returns only if that can't be heard of.
    pub(super) async fn heed(&self, ground: &dyn Ground, chance: &Chance) -> Result<Infallible, Failure> {
        loop {
            self.strike(&ground.by_itself().await?, chance).await?;
        }
    }

    async fn strike(&self, fault: &Fault, chance: &Chance) -> Outcome {
        let Some(stroke) = fault.strike(chance, &self.scale) else { return Ok(()) };
        let named = |failure| Failure::new(format!("the fault {} of {}: {failure}", fault.name, stroke.target));
        let begun = self.pen.invoke(F::Fault, |event| {
            let event = event.fault(fault.name).target(stroke.target.as_str()).effect(fault.effect);
            event.clients(stroke.clients.clone())
        });
        self.count(&self.goes_on, fault.name, true);
        let struck = stroke.begin.await;
        let until = now() + stroke.lasts;
        while struck.is_ok() && now() < until && !self.has_ceased() {
            sleep(LOOK.min(until.since(now()))).await;
        }
        // Also what didn't begin as a whole is ended: a server that stands still wouldn't be removed.
        let ended = stroke.end.await;
        struck.and(ended).map_err(named)?;
        self.pen.ok(&begun, |event| event);
        self.count(&self.goes_on, fault.name, false);
        self.count(&self.done, fault.name, true);
        Ok(())
    }

    async fn calm(&self, lane: Lane, chance: &Chance) {
        let (least, most) = match lane {
            Lane::Client => (0.1, 0.8),
            Lane::Network => (0.3, 2.0),
            Lane::Server => (1.5, 6.0),
            Lane::Clock => (0.5, 2.0),
            Lane::People => (0.5, 3.0),
        };
        let until = now() + self.scale.ttls(least, most, chance);
        while now() < until && !self.has_ceased() {
            sleep(LOOK.min(until.since(now()))).await;
        }
    }

    fn count(&self, counts: &Mutex<BTreeMap<&'static str, usize>>, name: &'static str, up: bool) {
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name).or_default();
        *count = if up { *count + 1 } else { count.saturating_sub(1) };
    }
}
