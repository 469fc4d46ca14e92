//! What this process has at the store: its holds, its places in queues, and what may have become one.
//!
//! A lease at the store is shared, and lives on while others use it. So each entry has an end of its own here, and is
//! deleted by its own process when it is reached.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lock_core::{Agenda, Held, LockName, Moment, OwnerId};
use tokio::sync::Notify;

/// Whose entry of which lock.
pub(crate) type Who = (LockName, OwnerId);

/// An entry of this process.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) who: Who,
    /// Of which class its lease is.
    pub(crate) seconds: u64,
    pub(crate) lease: i64,
    pub(crate) value: Vec<u8>,
    pub(crate) place: Place,
    /// Its end is over, and it is being deleted: nothing comes of it any more, whatever answer is under way.
    pub(crate) leaving: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// It may be at the store, or come there.
    Doubt,
    Line(Stand, Line),
    Held(Stand),
}

/// Which version of an entry it is: where that stands at the store, nobody else has touched it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) created: i64,
    pub(crate) modified: i64,
}

/// A place in a queue.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The entry before it.
    pub(crate) before: Vec<u8>,
    pub(crate) before_created: i64,
    /// What was known when it queued.
    pub(crate) held: Held,
}

#[derive(Default)]
pub(crate) struct Book {
    pages: Mutex<Pages>,
    /// Told when an entry came whose end may be the first.
    pub(crate) earlier: Notify,
    /// Told when somebody came who waits.
    pub(crate) queued: Notify,
}

#[derive(Default)]
struct Pages {
    ids: HashMap<Who, u64>,
    own: Agenda<u64, Own>,
    next: u64,
}

impl Own {
    pub(crate) fn stand(&self) -> Option<Stand> {
        match &self.place {
            Place::Doubt => None,
            Place::Line(stand, _) | Place::Held(stand) => Some(*stand),
        }
    }
}

impl Book {
    /// Enters it before its request is sent; `false` if it is there and being deleted.
    pub(crate) fn enter(&self, own: Own, until: Moment) -> bool {
        let mut pages = self.pages();
        let id = match pages.ids.get(&own.who).copied() {
            Some(id) if pages.own.get(id).is_some_and(|own| own.leaving) => return false,
            Some(id) => id,
            None => {
                pages.next += 1;
                let id = pages.next;
                pages.ids.insert(own.who.clone(), id);
                id
            }
        };
        pages.own.insert(id, until, own);
        drop(pages);
        self.earlier.notify_one();
        true
    }

    /// Enters what came of a request, with this end; `false`, and nothing, if it was given back or is being deleted
    /// meanwhile.
    #[must_use]
    pub(crate) fn settle(&self, own: Own, until: Moment) -> bool {
        let waits = matches!(own.place, Place::Line(..));
        let settled = self.change(&own.who.clone(), |_| until, |known| *known = own);
        if settled && waits {
            self.queued.notify_one();
        }
        settled
    }

    /// Changes an entry, and gives it an end that isn't earlier than the one it had; `false` as in [`settle`](Self::settle).
    #[must_use]
    pub(crate) fn extend(&self, who: &Who, until: Moment, change: impl FnOnce(&mut Own)) -> bool {
        self.change(who, |before| before.max(until), change)
    }

    fn change(&self, who: &Who, end: impl FnOnce(Moment) -> Moment, change: impl FnOnce(&mut Own)) -> bool {
        let mut pages = self.pages();
        let Some(id) = pages.ids.get(who).copied() else { return false };
        let Some(before) = pages.own.due(id) else { return false };
        let Some(own) = pages.own.get_mut(id).filter(|own| !own.leaving) else { return false };
        change(own);
        pages.own.reschedule(id, end(before));
        drop(pages);
        self.earlier.notify_one();
        true
    }

    /// Says that an entry is to be deleted, so that nothing comes of it any more.
    pub(crate) fn leave(&self, who: &Who) -> Option<Own> {
        let mut pages = self.pages();
        let id = *pages.ids.get(who)?;
        let own = pages.own.get_mut(id)?;
        own.leaving = true;
        Some(own.clone())
    }

    /// What is known of an entry, and its end.
    pub(crate) fn get(&self, who: &Who) -> Option<(Own, Moment)> {
        let pages = self.pages();
        let id = *pages.ids.get(who)?;
        Some((pages.own.get(id)?.clone(), pages.own.due(id)?))
    }

    pub(crate) fn remove(&self, who: &Who) -> Option<Own> {
        let mut pages = self.pages();
        let id = pages.ids.remove(who)?;
        pages.own.remove(id)
    }

    /// Those whose end is reached, at most so many, which are leaving from now on; they come again at `again` if they are
    /// still there.
    pub(crate) fn overdue(&self, now: Moment, again: Moment, most: usize) -> Vec<Own> {
        let mut pages = self.pages();
        let due: Vec<u64> =
            pages.own.in_order().take_while(|(due, ..)| *due <= now).map(|(_, id, _)| id).take(most).collect();
        let mut all = Vec::with_capacity(due.len());
        for id in due {
            if let Some(own) = pages.own.get_mut(id) {
                own.leaving = true;
                all.push(own.clone());
            }
            pages.own.reschedule(id, again);
        }
        all
    }

    pub(crate) fn first_end(&self) -> Option<Moment> {
        self.pages().own.first_due()
    }

    /// Those who wait.
    pub(crate) fn waiting(&self) -> Vec<Own> {
        let pages = self.pages();
        let waits = |own: &&Own| matches!(own.place, Place::Line(..)) && !own.leaving;
        pages.own.in_order().map(|(_, _, own)| own).filter(waits).cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pages().ids.is_empty()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
