//! A value that changes, and those who wait for it to become something.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What somebody tells and others wait for. Unlike tokio's `watch`, which wakes them in an order that it throws dice for,
/// it wakes them in the order in which they came: a run by a seed is the same each time.
#[derive(Debug)]
pub(crate) struct Told<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Told<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    /// Changes it, and lets those who wait look again.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.value());
        self.changed.notify_waiters();
    }

    /// Returns what `settled` makes of the value, as soon as it makes something of it. Cancel safe.
    pub(crate) async fn wait_for<A>(&self, settled: impl Fn(&T) -> Option<A>) -> A {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before the look: a change after it is not missed.
            changed.as_mut().enable();
            if let Some(settled) = settled(&self.value()) {
                return settled;
            }
            changed.await;
        }
    }

    fn value(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_came() {
        let (told, order) = (Arc::new(Told::new(false)), Arc::new(Mutex::new(Vec::new())));
        let mut waiting = tokio::task::JoinSet::new();
        for who in 0..20 {
            let (told, order) = (told.clone(), order.clone());
            waiting.spawn(async move {
                told.wait_for(|done| done.then_some(())).await;
                order.lock().unwrap().push(who);
            });
        }
        tokio::task::yield_now().await;
        told.change(|done| *done = true);
        waiting.join_all().await;
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    }
}
