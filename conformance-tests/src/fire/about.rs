//! What a history is of: enough to judge it again.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use lock_core::LockProvider;
use lock_verify::laws::Terms;
use serde::{Deserialize, Serialize};

use super::{
    ground::Ground,
    run::{Fire, SOON},
    silence::SPARE,
};
use crate::Failure;

/// A run, and the terms under which it was recorded; a file beside its history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) store: String,
    pub(super) seed: u64,
    pub(super) clients: usize,
    /// For how long there were faults.
    pub(super) took: Duration,
    /// For how long the machine itself stood still meanwhile.
    pub(super) stalled: Duration,
    /// Faults by name, and how often: all that were to be made, also those that were not.
    pub(super) faults: BTreeMap<String, usize>,
    /// Those that were chosen; `None` if it is simply all.
    #[serde(default)]
    pub(super) chosen: Option<Vec<String>>,
    grace: Duration,
    poll: Duration,
    fair: bool,
    silent: bool,
}

/// The file.
const FILE: &str = "run.json";

impl About {
    pub(super) fn new(
        fire: &Fire,
        took: Duration,
        stalled: Duration,
        faults: BTreeMap<String, usize>,
        ground: &dyn Ground,
        operator: &dyn LockProvider,
    ) -> Self {
        let terms = Terms::of(operator.capabilities());
        Self {
            store: fire.store.clone(),
            seed: fire.seed,
            clients: fire.clients,
            took,
            stalled,
            faults,
            chosen: fire.faults.clone(),
            grace: terms.grace,
            // The core asks again after a ttl, or a second if that is longer.
            poll: terms.poll.max(ground.scale().ttl).max(Duration::from_secs(1)),
            fair: terms.fair,
            silent: terms.silent,
        }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), Failure> {
        Ok(fs::write(folder.join(FILE), serde_json::to_string_pretty(self)?)?)
    }

    pub(super) fn read(folder: &Path) -> Result<Self, Failure> {
        Ok(serde_json::from_str(&fs::read_to_string(folder.join(FILE))?)?)
    }

    /// What the store promises, and how slow all may be.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            grace: self.grace,
            poll: self.poll,
            fair: self.fair,
            silent: self.silent,
            spare_requests: SPARE * self.clients as u64,
            settle: SOON + self.stalled,
            ..Terms::default()
        }
    }
}
