//! Who of this process holds a lock or waits for one, and until when it is kept if nobody asks again.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use lock_core::{Agenda, FencingToken, HolderInfo, LockName, Moment, OwnerId};
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinHandle},
};

use crate::session::Session;

/// One owner's claim to one lock. It is entered before anything is sent.
pub(crate) struct Claim {
    number: u64,
    pub(crate) name: LockName,
    pub(crate) owner: OwnerId,
    pub(crate) session: Arc<Session>,
    /// What is at the server, as far as it is known; one operation at a time.
    pub(crate) place: tokio::sync::Mutex<Place>,
    hold: Mutex<Hold>,
    ended: AtomicBool,
}

/// A claim's place in the lock's queue.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) node: Option<Node>,
    /// A node may be there that isn't known: the answer to its making was lost.
    pub(crate) doubt: bool,
    /// There was such a doubt once.
    pub(crate) was_cut: bool,
    /// Whom it waits for.
    pub(crate) before: Option<Predecessor>,
}

/// A node of one's own.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) token: FencingToken,
}

/// The node right before one's own, and what was known of the queue when it was found.
pub(crate) struct Predecessor {
    pub(crate) node: String,
    pub(crate) watch: Option<Background>,
    pub(crate) position: u32,
    pub(crate) holder: Option<HolderInfo>,
    pub(crate) remaining: Option<std::time::Duration>,
}

/// A task that ends with this.
pub(crate) struct Background(AbortHandle);

impl Background {
    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl From<JoinHandle<()>> for Background {
    fn from(task: JoinHandle<()>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a claim came to.
#[derive(Default)]
pub(crate) enum Hold {
    /// Nothing yet.
    #[default]
    None,
    /// The lock is its own. Watched from the first renewal on.
    Held { node: Node, watch: Option<Background> },
    /// It was its own, and its node is gone.
    Gone,
}

impl Claim {
    pub(crate) fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under which token it holds the lock.
    pub(crate) fn token(&self) -> Option<FencingToken> {
        match &*self.hold() {
            Hold::Held { node, .. } => Some(node.token),
            Hold::None | Hold::Gone => None,
        }
    }

    /// Its node isn't there any more: what it held is lost.
    pub(crate) fn lose(&self) {
        let mut hold = self.hold();
        if matches!(&*hold, Hold::Held { .. }) {
            *hold = Hold::Gone;
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        matches!(&*self.hold(), Hold::Gone)
    }

    /// From now on nothing is granted by it any more.
    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

/// All claims of this process.
#[derive(Default)]
pub(crate) struct Table {
    claims: Mutex<Claims>,
    next: AtomicU64,
    /// Told when the first moment became an earlier one.
    pub(crate) earlier: Notify,
}

#[derive(Default)]
struct Claims {
    numbers: HashMap<(LockName, OwnerId), u64>,
    due: Agenda<u64, Arc<Claim>>,
}

impl Table {
    pub(crate) fn find(&self, name: &LockName, owner: OwnerId) -> Option<Arc<Claim>> {
        let claims = self.claims();
        let number = claims.numbers.get(&(name.clone(), owner))?;
        claims.due.get(*number).cloned()
    }

    /// Enters a claim that nobody has made yet, or finds the one that was made meanwhile.
    pub(crate) fn enter(&self, name: &LockName, owner: OwnerId, session: Arc<Session>, due: Moment) -> Arc<Claim> {
        let mut claims = self.claims();
        if let Some(number) = claims.numbers.get(&(name.clone(), owner)).copied()
            && let Some(claim) = claims.due.get(number)
        {
            return Arc::clone(claim);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let claim = Arc::new(Claim {
            number,
            name: name.clone(),
            owner,
            session,
            place: tokio::sync::Mutex::default(),
            hold: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        claims.numbers.insert((name.clone(), owner), number);
        claims.due.insert(number, due, Arc::clone(&claim));
        drop(claims);
        self.earlier.notify_one();
        claim
    }

    /// Until when it is kept.
    pub(crate) fn due(&self, claim: &Claim) -> Option<Moment> {
        self.claims().due.due(claim.number)
    }

    /// Makes it the holder's until this moment, in one step: `false` if its end has begun, and it isn't.
    pub(crate) fn hold(&self, claim: &Claim, node: Node, until: Moment) -> bool {
        let mut claims = self.claims();
        let Some(before) = claims.due.due(claim.number).filter(|_| !claim.has_ended()) else { return false };
        let mut hold = claim.hold();
        let due = match &*hold {
            // A waiter's place was kept for another span than a holder's.
            Hold::None => {
                *hold = Hold::Held { node, watch: None };
                until
            }
            Hold::Held { .. } => before.max(until),
            Hold::Gone => return false,
        };
        drop(hold);
        let is_there = claims.due.reschedule(claim.number, due);
        drop(claims);
        self.earlier.notify_one();
        is_there
    }

    /// Keeps it until this moment and no longer; `false` if its end has begun, and nothing can be promised by it.
    pub(crate) fn keep_until(&self, claim: &Claim, due: Moment) -> bool {
        let mut claims = self.claims();
        if claim.has_ended() {
            return false;
        }
        let is_there = claims.due.reschedule(claim.number, due);
        drop(claims);
        self.earlier.notify_one();
        is_there
    }

    /// Keeps it until this moment at least; `false` as above.
    pub(crate) fn keep_longer(&self, claim: &Claim, due: Moment) -> bool {
        let mut claims = self.claims();
        match claims.due.due(claim.number) {
            Some(before) if !claim.has_ended() => before >= due || claims.due.reschedule(claim.number, due),
            _ => false,
        }
    }

    pub(crate) fn remove(&self, claim: &Claim) {
        let mut claims = self.claims();
        claims.due.remove(claim.number);
        let key = (claim.name.clone(), claim.owner);
        if claims.numbers.get(&key) == Some(&claim.number) {
            claims.numbers.remove(&key);
        }
    }

    /// Ends a claim: from now on nothing is promised by it.
    pub(crate) fn end(&self, claim: &Claim) {
        let _claims = self.claims();
        claim.end();
    }

    pub(crate) fn first_due(&self) -> Option<Moment> {
        self.claims().due.first_due()
    }

    /// Ends those whose moment has come, in the same breath as the look. Each is due again at `again`, should that fail at
    /// the server.
    pub(crate) fn take_due(&self, now: Moment, again: Moment) -> Vec<Arc<Claim>> {
        let mut claims = self.claims();
        let due: Vec<_> =
            claims.due.in_order().take_while(|(due, ..)| *due <= now).map(|(_, n, c)| (n, c.clone())).collect();
        due.into_iter()
            .map(|(number, claim)| {
                claim.end();
                claims.due.reschedule(number, again);
                claim
            })
            .collect()
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
