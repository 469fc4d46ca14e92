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
    /// Whether a newer grant waits for them to be gone: more of theirs would only be turned away, and be waited for.
    closed: bool,
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
    /// Lets the request in, unless others are inside under another grant, or it is closed: then it tells how to wait for the
    /// last of them.
    pub(super) fn enter(self: &Arc<Self>, resource: &Resource, fence: &Fence) -> Result<Stay, Arc<Notify>> {
        let stay = || Stay { gate: self.clone(), resource: resource.clone() };
        match self.inside().entry(resource.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(Inside { fence: fence.clone(), count: 1, closed: false, empty: Arc::default() });
                Ok(stay())
            }
            Entry::Occupied(mut entry) if entry.get().fence == *fence && !entry.get().closed => {
                entry.get_mut().count += 1;
                Ok(stay())
            }
            Entry::Occupied(entry) => Err(entry.get().empty.clone()),
        }
    }

    /// Lets in no more of those that are inside, by whose `empty` they are known.
    pub(super) fn close(&self, resource: &Resource, empty: &Arc<Notify>) {
        if let Some(inside) = self.inside().get_mut(resource).filter(|inside| Arc::ptr_eq(&inside.empty, empty)) {
            inside.closed = true;
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
