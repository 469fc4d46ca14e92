//! What the nodes said, and what is wrong with it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Mutex,
};

use crate::node::Said;

pub(crate) struct Account {
    ticks: u64,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// For each tick, under which tokens it was run.
    runs: BTreeMap<u64, Vec<u64>>,
    /// For each node, the tick that it asks for and has no answer for yet.
    asks: HashMap<usize, u64>,
    /// For each tick, how many calls were told that it is used up.
    finished: BTreeMap<u64, usize>,
    failed: Vec<(u64, String)>,
    held: BTreeSet<u64>,
    kills: usize,
}

impl Account {
    pub(crate) fn new(ticks: u64) -> Self {
        Self { ticks, heard: Mutex::default() }
    }

    pub(crate) fn hear(&self, node: usize, said: Said) {
        let heard = &mut *self.heard.lock().unwrap();
        match said {
            Said::Asks(tick) => _ = heard.asks.insert(node, tick),
            Said::Runs(tick, token) => heard.runs.entry(tick).or_default().push(token),
            Said::Ran(_) => _ = heard.asks.remove(&node),
            Said::Finished(tick) => {
                heard.asks.remove(&node);
                *heard.finished.entry(tick).or_default() += 1;
            }
            Said::Held(tick) => {
                heard.asks.remove(&node);
                heard.held.insert(tick);
            }
            Said::Failed(tick, why) => {
                heard.asks.remove(&node);
                heard.failed.push((tick, why));
            }
        }
    }

    pub(crate) fn killed(&self, _place: usize) {
        self.heard.lock().unwrap().kills += 1;
    }

    pub(crate) fn ran_twice(&self) -> Vec<u64> {
        let heard = self.heard.lock().unwrap();
        heard.runs.iter().filter(|(_, tokens)| tokens.len() > 1).map(|(tick, _)| *tick).collect()
    }

    fn lost(&self) -> Vec<u64> {
        let heard = self.heard.lock().unwrap();
        (0..self.ticks).filter(|tick| !heard.runs.contains_key(tick)).collect()
    }

    /// What the fleet did wrong, if it did.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        let twice = self.ran_twice();
        if !twice.is_empty() {
            return Err(format!("ticks that ran more than once: {twice:?}"));
        }
        let lost = self.lost();
        let heard = self.heard.lock().unwrap();
        if !heard.held.is_empty() {
            return Err(format!("the lock was held for a minute at the ticks {:?}", heard.held));
        }
        let tokens: Vec<u64> = heard.runs.values().flatten().copied().collect();
        if !tokens.is_sorted_by(|one, next| one < next) {
            return Err(format!("the tokens don't rise from tick to tick: {tokens:?}"));
        }
        // At most once means that a tick may fall to a node that dies before it begins, or to a call that isn't told. Each
        // that is missing must be one that such a node had asked for, and that the others were told is used up.
        for tick in lost {
            let died = heard.asks.values().any(|asked| *asked == tick);
            let untold = heard.failed.iter().any(|(failed, _)| *failed == tick);
            if !died && !untold {
                return Err(format!("tick {tick} was run by nobody, though nobody who asked for it was killed"));
            }
            if !heard.finished.contains_key(&tick) {
                return Err(format!("tick {tick} was run by nobody, and used up by nobody"));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self.lost();
        let heard = self.heard.lock().unwrap();
        write!(
            f,
            "{} of {} ticks ran, {} nodes killed, {} of them asking; missing {lost:?}; failed calls {:?}",
            heard.runs.len(),
            self.ticks,
            heard.kills,
            heard.asks.len(),
            heard.failed
        )
    }
}
