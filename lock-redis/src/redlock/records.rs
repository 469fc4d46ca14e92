//! Requests in the scripts' words: the keys of records, and what goes with them.

use std::time::Duration;

use lock_core::{
    AcquireRequest, ErrorKind, FencingToken, LockName, OwnerId, ReleaseRequest, RenewRequest, StoreError, Tick, Waiting,
};

use crate::keys::Keys;

/// What one call of a script works on, and with.
pub(crate) type Words = (Vec<Vec<u8>>, Vec<Vec<u8>>);

/// The longest that a waiter's wish to be woken is remembered.
const LONGEST_MARK: Duration = Duration::from_secs(24 * 3600);

/// How records are named and kept, the same at each master.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) keys: Keys,
    pub(crate) grace: Duration,
    pub(crate) retention: Duration,
}

impl Records {
    pub(crate) fn claim<'a>(
        &self,
        attempt: u64,
        requests: impl Iterator<Item = &'a AcquireRequest>,
    ) -> Result<Words, StoreError> {
        let (mut keys, mut arguments) = (Vec::new(), vec![micros(self.grace), micros(self.retention), number(attempt)]);
        for request in requests {
            let holder = serde_json::to_vec(&request.holder.clone().bounded()).map_err(|error| {
                StoreError::refused(ErrorKind::Other, "the holder can't be written").caused_by(error)
            })?;
            let wait = match request.waiting {
                Waiting::Wake(span) => span.min(LONGEST_MARK),
                // The check of the request has refused those who want to queue.
                _ => Duration::ZERO,
            };
            keys.push(self.keys.record(&request.name));
            let about = tick(request.tick);
            arguments.extend([owner(request.owner), micros(request.ttl), micros(wait), holder, about]);
        }
        Ok((keys, arguments))
    }

    pub(crate) fn accept<'a>(
        &self,
        attempt: u64,
        requests: impl Iterator<Item = (&'a AcquireRequest, FencingToken)>,
    ) -> Words {
        let (mut keys, mut arguments) = (Vec::new(), vec![number(attempt)]);
        for (request, token) in requests {
            keys.push(self.keys.record(&request.name));
            arguments.extend([owner(request.owner), number(token.get()), tick(request.used_by_grant())]);
        }
        (keys, arguments)
    }

    pub(crate) fn renew(&self, requests: &[&RenewRequest]) -> Words {
        let (mut keys, mut arguments) = (Vec::new(), vec![micros(self.grace), micros(self.retention)]);
        for request in requests {
            keys.push(self.keys.record(&request.name));
            arguments.extend([owner(request.owner), number(request.token.get()), micros(request.ttl)]);
        }
        (keys, arguments)
    }

    pub(crate) fn release(&self, requests: &[&ReleaseRequest]) -> Words {
        let (mut keys, mut arguments) = (Vec::new(), self.release_head(true, None));
        for request in requests {
            keys.push(self.keys.record(&request.name));
            let token = request.token.map(|token| number(token.get())).unwrap_or_default();
            let (keep, done) = (micros(request.keep_for), tick(request.done));
            arguments.extend([text(&request.name), owner(request.owner), token, keep, done]);
        }
        (keys, arguments)
    }

    /// A release of what one attempt claimed and nothing else.
    pub(crate) fn take_back<'a>(
        &self,
        attempt: u64,
        wake: bool,
        requests: impl Iterator<Item = &'a AcquireRequest>,
    ) -> Words {
        let (mut keys, mut arguments) = (Vec::new(), self.release_head(wake, Some(attempt)));
        for request in requests {
            keys.push(self.keys.record(&request.name));
            let (token, keep, done) = (Vec::new(), micros(Duration::ZERO), tick(None));
            arguments.extend([text(&request.name), owner(request.owner), token, keep, done]);
        }
        (keys, arguments)
    }

    fn release_head(&self, wake: bool, attempt: Option<u64>) -> Vec<Vec<u8>> {
        let channel = if wake { self.keys.channel() } else { String::new() };
        vec![channel.into_bytes(), micros(self.retention), attempt.map(number).unwrap_or_default()]
    }

    pub(crate) fn force_release(&self, name: &LockName) -> Words {
        (vec![self.keys.record(name)], vec![self.keys.channel().into_bytes(), micros(self.retention), text(name)])
    }

    pub(crate) fn inspect(&self, names: &[LockName]) -> Words {
        (names.iter().map(|name| self.keys.record(name)).collect(), Vec::new())
    }
}

/// What a master keeps of a ttl; it counts in whole microseconds.
pub(crate) fn whole_micros(ttl: Duration) -> Duration {
    Duration::from_micros(u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX))
}

fn micros(span: Duration) -> Vec<u8> {
    span.as_micros().to_string().into_bytes()
}

fn number(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// Nothing if there is none.
fn tick(tick: Option<Tick>) -> Vec<u8> {
    tick.map_or_else(Vec::new, |Tick(micros)| number(micros))
}

fn owner(owner: OwnerId) -> Vec<u8> {
    owner.to_string().into_bytes()
}

fn text(name: &LockName) -> Vec<u8> {
    name.as_str().as_bytes().to_vec()
}
