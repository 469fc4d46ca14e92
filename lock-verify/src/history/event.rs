//! One event.

use std::{sync::Arc, time::Duration};

use lock_core::{FencingToken, Moment, OwnerId};
use serde::{Deserialize, Serialize};

use super::{
    kinds::{Effect, F, Kind, Mode, Process, Why},
    nanos,
};

/// One event: a line of a history. Which fields it has depends on [`F`].
///
/// ```
/// use lock_core::{FencingToken, Moment, OwnerId};
/// use lock_verify::history::{Event, F, Process};
///
/// let at = Moment::from_nanos(123);
/// let asked = Event::invoke(at, Process::Client(3), 1, F::Acquire).lock("mail").owner(OwnerId::from_u128(7));
/// let got = asked.ok(Moment::from_nanos(456)).token(FencingToken::new(9)).deadline(Moment::from_nanos(9_000));
/// assert_eq!(got.lock.as_deref(), Some("mail"));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When, in nanoseconds on the one clock of the run.
    #[serde(with = "nanos::moment")]
    pub time: Moment,
    /// Whose.
    pub process: Process,
    /// Which of the process's calls: an invoke and what ended it have the same number, and no two calls of a process do.
    pub call: u64,
    /// What it says about the call.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What was done.
    pub f: F,
    /// Of which lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Arc<str>>,
    /// Whose grant, or place in line.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "nanos::some_owner")]
    pub owner: Option<OwnerId>,
    /// Under which token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<FencingToken>,
    /// Until when the client believes.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "nanos::some_moment")]
    pub deadline: Option<Moment>,
    /// The ttl asked for; in the end of a call, the one that was granted.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "nanos::some_span")]
    pub ttl: Option<Duration>,
    /// Shared with whom; exclusive if it isn't said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Whether a place in line is asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fair: bool,
    /// How long it waits; not at all if it isn't said, for ever as [`Event::FOR_EVER`].
    #[serde(default, skip_serializing_if = "Option::is_none", with = "nanos::some_span")]
    pub wait: Option<Duration>,
    /// How long the lock is to stay taken after its release.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "nanos::some_span")]
    pub keep_for: Option<Duration>,
    /// Whether the look found the grant valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<bool>,
    /// Whether somebody has the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
    /// What was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Arc<str>>,
    /// What was written there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    /// What was read there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<Entry>>,
    /// How many requests were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// How many clients waited meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiters: Option<u32>,
    /// Which fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Arc<str>>,
    /// What it befell, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Arc<str>>,
    /// Which clients it befell; all of them if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<u32>,
    /// What it may excuse; nothing if it isn't said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Why the call failed or the grant was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// The error's text; never with credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
}

/// One accepted write, as a resource tells it: `[token, value]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry(pub FencingToken, pub u64);

impl Event {
    /// A wait without an end.
    pub const FOR_EVER: Duration = Duration::from_nanos(u64::MAX);

    /// An event that says nothing else yet.
    #[must_use]
    pub fn new(time: Moment, process: Process, call: u64, kind: Kind, f: F) -> Self {
        Self {
            time,
            process,
            call,
            kind,
            f,
            lock: None,
            owner: None,
            token: None,
            deadline: None,
            ttl: None,
            mode: None,
            fair: false,
            wait: None,
            keep_for: None,
            valid: None,
            held: None,
            resource: None,
            value: None,
            entries: None,
            count: None,
            waiters: None,
            fault: None,
            target: None,
            clients: Vec::new(),
            effect: None,
            why: None,
            error: None,
        }
    }

    /// The beginning of a call.
    #[must_use]
    pub fn invoke(time: Moment, process: Process, call: u64, f: F) -> Self {
        Self::new(time, process, call, Kind::Invoke, f)
    }

    /// The good end of the call that this event began, at `time`, with all that this one says.
    #[must_use]
    pub fn ok(&self, time: Moment) -> Self {
        Self { time, kind: Kind::Ok, ..self.clone() }
    }

    /// Its failing, without having changed anything.
    #[must_use]
    pub fn fail(&self, time: Moment, why: Why) -> Self {
        Self { time, kind: Kind::Fail, why: Some(why), ..self.clone() }
    }

    /// Its end with an unknown outcome.
    #[must_use]
    pub fn info(&self, time: Moment) -> Self {
        Self { time, kind: Kind::Info, ..self.clone() }
    }

    /// Whose belief or hold this event speaks of: of lock, owner and token, if it says all three.
    #[must_use]
    pub fn grant(&self) -> Option<(&Arc<str>, OwnerId, FencingToken)> {
        Some((self.lock.as_ref()?, self.owner?, self.token?))
    }
}

macro_rules! with {
    ($($(#[$doc:meta])+ $field:ident: $what:ty => $value:expr;)+) => {
        /// Saying more, one thing at a time.
        impl Event {
            $($(#[$doc])+ #[must_use]
            pub fn $field(mut self, $field: $what) -> Self {
                self.$field = $value;
                self
            })+
        }
    };
}

with! {
    /// Of this lock.
    lock: impl Into<Arc<str>> => Some(lock.into());
    /// Of this owner.
    owner: OwnerId => Some(owner);
    /// Under this token.
    token: FencingToken => Some(token);
    /// Believed until then.
    deadline: Moment => Some(deadline);
    /// With this ttl.
    ttl: Duration => Some(ttl);
    /// In this mode.
    mode: impl Into<Mode> => Some(mode.into());
    /// In line.
    fair: bool => fair;
    /// Waiting for so long.
    wait: Duration => Some(wait);
    /// Staying taken for so long.
    keep_for: Duration => Some(keep_for);
    /// Whether the grant is valid.
    valid: bool => Some(valid);
    /// Whether the lock is held.
    held: bool => Some(held);
    /// At this resource.
    resource: impl Into<Arc<str>> => Some(resource.into());
    /// With this value.
    value: u64 => Some(value);
    /// All that was read.
    entries: Vec<Entry> => Some(entries);
    /// So many requests.
    count: u64 => Some(count);
    /// So many waiters.
    waiters: u32 => Some(waiters);
    /// This fault.
    fault: impl Into<Arc<str>> => Some(fault.into());
    /// Which befell this.
    target: impl Into<Arc<str>> => Some(target.into());
    /// And these clients.
    clients: Vec<u32> => clients;
    /// Excusing this.
    effect: Effect => Some(effect);
    /// For this reason.
    why: Why => Some(why);
    /// With this error.
    error: impl Into<Arc<str>> => Some(error.into());
}
