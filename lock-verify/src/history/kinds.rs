//! The words of an event that come from short lists.

use std::{fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Whose event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Process {
    /// A client, by its number: one operating-system process, or one simulated one. Its tasks share the number and are told
    /// apart by the numbers of their calls.
    Client(u32),
    /// Who makes the faults.
    Nemesis,
}

/// What an event says about its call; Jepsen's `:type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It is about to be made.
    Invoke,
    /// It was applied; of what was seen unasked: it is so.
    Ok,
    /// It definitely changed nothing.
    Fail,
    /// It may have been applied, or may yet be.
    Info,
}

/// What was done or seen; Jepsen's `:f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum F {
    /// A lock is asked for, with or without waiting. `lock`, `mode`, `fair`, `ttl`, `wait`; known at the end: `owner`, `token`,
    /// `ttl` as granted, `deadline`.
    Acquire,
    /// Told once a waiter stands in the store's line (`Ok`, within the acquire's call). `lock`, `owner`.
    Queued,
    /// A grant is extended. `lock`, `owner`, `token`; at the end `ttl` as granted, and `deadline` where the client's is known.
    Renew,
    /// A grant is given back. `lock`, `owner`, `token` unless it was never learnt, `keep_for`. `Ok`: it was the owner's;
    /// `Fail` with [`Why::NotOurs`]: it was not, and nothing changed.
    Release,
    /// An operator takes the lock away. `lock`.
    ForceRelease,
    /// The client was told that its grant is lost. `lock`, `owner`, `token`, `why`. A single `Ok`.
    Lost,
    /// A holder looks whether its grant is valid. `lock`, `owner`, `token`; at the end `valid` and `deadline`.
    Look,
    /// A write at a resource. `resource`, `lock`, `token` (the holder's, even if the resource doesn't check it), `value`: a
    /// number that no other write of this resource has.
    Write,
    /// A resource's register is raised without a write. `resource`, `lock`, `token`.
    Raise,
    /// All that a resource accepted, in its own order. `resource`; at the end `entries`.
    Read,
    /// Somebody looks at a lock from outside. `lock`; at the end `held`, and `owner` and `token` of the holder where they are known.
    Inspect,
    /// What the store counted while `waiters` clients did nothing but wait. `count`, `waiters`, `ttl`, and `lock` if one.
    /// Two events: when the counting began and what it came to.
    Requests,
    /// A fault; two events, its beginning (`Invoke`) and its end (any other kind), or a single `Info` if it lasts no time.
    /// `fault`, `target`, `clients` (none: all of them), `effect`.
    Fault,
    /// The client's process has ended, by itself or killed: none of its calls goes on. A single `Info`, recorded by whoever
    /// saw it end.
    Exit,
}

/// With whom a lock is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// With nobody.
    #[default]
    Exclusive,
    /// With other readers.
    Shared,
    /// One of so many permits.
    Permits(NonZeroU32),
}

/// Why a call failed, or a grant was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Acquire: somebody else has it.
    Held,
    /// Acquire: the time to wait is over.
    TimedOut,
    /// Its caller gave up, and what it may have got was taken back. If nobody knows whether it was: [`Kind::Info`].
    Cancelled,
    /// Renew, release, lost: the store says that it isn't the owner's.
    NotOurs,
    /// Lost: the deadline passed.
    Expired,
    /// Lost: its at-most-for is over.
    AtMostFor,
    /// Write, raise: a higher token was seen.
    Stale,
    /// An error; see the text.
    Error,
}

/// What a fault may excuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Nothing: the laws hold all the same.
    #[default]
    Harmless,
    /// The store may have lost what it had acknowledged.
    DataLoss,
    /// A clock ran faster than the drift allows, or a server's stepped by more than the grace.
    ClockBeyondBounds,
    /// Leases may have been ended from outside: a session expired, a record deleted by hand.
    TakesLeases,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(number) => number.fmt(f),
            Self::Nemesis => f.write_str("nemesis"),
        }
    }
}

impl Serialize for Process {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Client(number) => to.serialize_u32(*number),
            Self::Nemesis => to.serialize_str("nemesis"),
        }
    }
}

impl<'de> Deserialize<'de> for Process {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Seen;
        impl de::Visitor<'_> for Seen {
            type Value = Process;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a client's number or \"nemesis\"")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Process, E> {
                let number =
                    u32::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))?;
                Ok(Process::Client(number))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Process, E> {
                if text == "nemesis" {
                    Ok(Process::Nemesis)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }
        }
        from.deserialize_any(Seen)
    }
}

impl From<lock_core::Mode> for Mode {
    fn from(mode: lock_core::Mode) -> Self {
        match mode {
            lock_core::Mode::Shared => Self::Shared,
            lock_core::Mode::Permits(of) => Self::Permits(of),
            _ => Self::Exclusive,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exclusive => f.write_str("exclusive"),
            Self::Shared => f.write_str("shared"),
            Self::Permits(of) => write!(f, "permit of {of}"),
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "exclusive" => Ok(Self::Exclusive),
            "shared" => Ok(Self::Shared),
            _ => text
                .strip_prefix("permit of ")
                .and_then(|of| of.parse().ok())
                .map(Self::Permits)
                .ok_or_else(|| format!("{text:?} is no mode: exclusive, shared or \"permit of N\"")),
        }
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}
