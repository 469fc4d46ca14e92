//! Whose each acquire is: known only once the core asks the store, and written down at that moment, for a process may be
//! killed, or give up, before the call that it was for ends.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use lock_core::{AcquireRequest, OwnerId};
use lock_verify::history::{Event, F, History, Kind, Malformed, Process};
use serde::{Deserialize, Serialize};

use crate::Failure;

/// What the files are called.
pub(super) const FILES: &str = "owners";

/// Writes down whose the calls of one process are.
#[derive(Clone, Debug)]
pub(super) struct Owners(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    file: fs::File,
    calls: HashSet<u64>,
    process: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    process: u32,
    call: u64,
    owner: String,
}

impl Owners {
    pub(super) fn to_file(path: impl AsRef<Path>, process: u32) -> io::Result<Self> {
        let file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(Arc::new(Mutex::new(Known { file, calls: HashSet::new(), process }))))
    }

    /// Before a request for a lock is sent, whose label says which call it is for.
    pub(super) fn note(&self, request: &AcquireRequest) {
        let Some(call) = call_of(request) else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.calls.insert(call) {
            let line = Line { process: known.process, call, owner: request.owner.to_string() };
            // In one write. One that fails leaves a call of which it isn't known whose it is.
            if let Ok(line) = serde_json::to_string(&line) {
                _ = known.file.write_all(format!("{line}\n").as_bytes());
            }
        }
    }
}

/// For which call a request is.
pub(super) fn call_of(request: &AcquireRequest) -> Option<u64> {
    request.holder.label.parse().ok()
}

/// The history with the owners of all acquires that came to have one.
pub(super) fn told(history: &History, files: &[PathBuf]) -> Result<History, Failure> {
    let mut owners: HashMap<(u32, u64), OwnerId> = HashMap::new();
    for file in files {
        for line in fs::read_to_string(file)?.lines() {
            // The last one may have been cut off with its process.
            if let Ok(Line { process, call, owner }) = serde_json::from_str(line)
                && let Ok(owner) = owner.parse()
            {
                owners.insert((process, call), owner);
            }
        }
    }
    let named = |event: &Event| {
        let owner = match (event.f, event.process) {
            (F::Acquire, Process::Client(process)) => owners.get(&(process, event.call)).copied(),
            _ => None,
        };
        match owner {
            // Before the invoke nobody knew it, and what was granted says it itself.
            Some(owner) if event.kind != Kind::Ok => event.clone().owner(owner),
            _ => event.clone(),
        }
    };
    let events = history.events().iter().map(named).collect();
    History::new(events).map_err(|Malformed { at, told }| Failure::new(format!("event {at}: {told}")))
}
