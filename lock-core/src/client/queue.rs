//! Waiters of one lock within one client: they queue here, and only the first contends at the store.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::name::LockName;

type Gate = Arc<tokio::sync::Mutex<()>>;

/// The local queues, by lock. First come, first served (tokio's mutex is fair).
#[derive(Debug, Default)]
pub(super) struct LocalQueues(Mutex<HashMap<LockName, Gate>>);

/// The right to contend at the store for a lock; dropping it lets the next one.
#[derive(Debug)]
pub(super) struct Turn {
    // In this order: the gate opens before the place is given up, so that the place counts nobody twice.
    _gate: OwnedMutexGuard<()>,
    _place: Place,
}

/// A place in the queue; keeps the queue in the table, and takes it out when it is the last.
#[derive(Debug)]
struct Place {
    queues: Arc<LocalQueues>,
    name: LockName,
    gate: Option<Gate>,
}

impl LocalQueues {
    /// Queues, and returns when it is this waiter's turn. Cancel safe: dropped, it leaves the queue.
    pub(super) async fn turn(self: &Arc<Self>, name: &LockName) -> Turn {
        let gate = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default().clone();
        let place = Place { queues: self.clone(), name: name.clone(), gate: Some(gate.clone()) };
        Turn { _gate: gate.lock_owned().await, _place: place }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queues = self.queues.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.gate.take());
        if queues.get(&self.name).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            queues.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn first_come_first_served_and_nothing_left_behind() {
        let (queues, name) = (Arc::<LocalQueues>::default(), LockName::new("x").unwrap());
        let first = queues.turn(&name).await;
        let mut cancelled = Box::pin(queues.turn(&name));
        let mut second = Box::pin(queues.turn(&name));
        let mut third = Box::pin(queues.turn(&name));
        assert!(cancelled.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(cancelled);
        drop(first);
        assert!(third.as_mut().now_or_never().is_none(), "it isn't the third's turn");
        let second = second.now_or_never().expect("it is the second's turn");
        drop(third);
        assert_eq!(queues.len(), 1);
        drop(second);
        assert_eq!(queues.len(), 0);
    }
}
