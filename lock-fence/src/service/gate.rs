//! Who is being answered: of one resource only requests under one grant at a time.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lock_core::{Fence, Resource};
use tokio::sync::Notify;

/// The requests that are being answered, by resource. Holds nothing for a resource that nobody writes just now.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<HashMap<Resource, Inside>>);

#[derive(Debug)]
struct Inside {
    /// The grant they are made under.
    fence: Fence,
    count: usize,
    /// Somebody else waits for the last of them: no more of them may come unasked.
    waited: bool,
    /// Told when the last of them is gone.
    empty: Arc<Notify>,
}

/// A request's stay inside; dropped, it is gone.
#[derive(Debug)]
pub(super) struct Stay {
    gate: Arc<Gate>,
    resource: Resource,
}

impl Gate {
    /// Lets the request in, unless others are inside under another grant, or somebody under another one waits: then it tells
    /// how to wait for the last of those inside. `asked`: the register has let this fence pass since it was told to wait.
    pub(super) fn enter(
        self: &Arc<Self>,
        resource: &Resource,
        fence: &Fence,
        asked: bool,
    ) -> Result<Stay, Arc<Notify>> {
        let stay = || Stay { gate: self.clone(), resource: resource.clone() };
        match self.inside().entry(resource.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(Inside { fence: fence.clone(), count: 1, waited: false, empty: Arc::default() });
                Ok(stay())
            }
            Entry::Occupied(mut entry) => {
                let inside = entry.get_mut();
                let same = inside.fence == *fence;
                if same && (asked || !inside.waited) {
                    inside.count += 1;
                    return Ok(stay());
                }
                inside.waited |= !same;
                Err(inside.empty.clone())
            }
        }
    }

    fn inside(&self) -> MutexGuard<'_, HashMap<Resource, Inside>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut all = self.gate.inside();
        let Some(inside) = all.get_mut(&self.resource) else { return };
        inside.count -= 1;
        if inside.count == 0 {
            inside.empty.notify_waiters();
            all.remove(&self.resource);
        }
    }
}
