//! What is to happen, in the order of true time.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use super::{faults::Mischief, network::Message};

/// Something that is to happen.
pub(super) enum Event {
    /// A timer of a node is due; without a waker nobody waits for it any more.
    Timer { node: usize, waker: Option<Waker> },
    /// Something arrives at the store, the resources, or a node.
    Message(Box<Message>),
    /// Something goes wrong.
    Mischief(Mischief),
    /// A look at whether anybody waits in vain.
    Look,
}

/// All that is to happen.
pub(super) struct Events(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slots: Vec<(u64, Option<Event>)>,
    free: Vec<u32>,
    entered: u64,
}

/// Which event.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    slot: u32,
    number: u64,
}

/// An event that is due, out of the queue.
pub(super) struct Due {
    pub(super) at: u64,
    pub(super) event: Event,
    number: u64,
}

impl Events {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Queue::default()))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an event; those of one moment happen in the order in which they were entered.
    pub(super) fn push(&self, at: u64, event: Event) -> Entry {
        let mut queue = self.queue();
        queue.entered += 1;
        let number = queue.entered;
        queue.place(at, number, event)
    }

    /// Puts off an event that its node can't take in yet. It keeps its place among those of the same moment.
    pub(super) fn put_off(&self, due: Due, until: u64) {
        // A timer is known by its slot, which was kept for it.
        let mut queue = self.queue();
        queue.place(until, due.number, due.event);
    }

    pub(super) fn pop(&self) -> Option<Due> {
        let mut queue = self.queue();
        let Reverse((at, number, slot)) = queue.heap.pop()?;
        let event = queue.slots[slot as usize].1.take()?;
        queue.free.push(slot);
        Some(Due { at, event, number })
    }

    /// Has this timer wake somebody else from now on; `false` if it isn't there any more.
    pub(super) fn rewake(&self, entry: Entry, waker: &Waker) -> bool {
        let before = {
            let mut queue = self.queue();
            match &mut queue.slots[entry.slot as usize] {
                (number, Some(Event::Timer { waker: present, .. })) if *number == entry.number => {
                    if present.as_ref().is_some_and(|present| present.will_wake(waker)) {
                        return true;
                    }
                    present.replace(waker.clone())
                }
                _ => return false,
            }
        };
        // Not under the lock: the last waker of a task drops the task.
        drop(before);
        true
    }

    /// Nobody waits for this timer any more.
    pub(super) fn cancel(&self, entry: Entry) {
        let before = match &mut self.queue().slots[entry.slot as usize] {
            (number, Some(Event::Timer { waker, .. })) if *number == entry.number => waker.take(),
            _ => None,
        };
        drop(before);
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.queue());
        drop(all);
    }
}

impl Queue {
    fn place(&mut self, at: u64, number: u64, event: Event) -> Entry {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = (number, Some(event));
        self.heap.push(Reverse((at, number, slot)));
        Entry { slot, number }
    }
}
