//! A history: events in order, and which of them belong to one call.

use std::collections::HashMap;

use super::{
    event::Event,
    kinds::{F, Kind, Process},
};

/// Events in the order of time, each with its place; and the calls that they make up.
#[derive(Clone, Debug, Default)]
pub struct History {
    events: Vec<Event>,
    calls: Vec<Call>,
    call_of: Vec<Option<usize>>,
}

/// One call: from its invoke to its end, if it came to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub f: F,
    /// Whose.
    pub process: Process,
    /// The place of its invoke.
    pub invoke: usize,
    /// The place of its end; `None` if it was still going on at the end of the history, or of its process.
    pub end: Option<usize>,
}

/// Events that can't be a history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {at}: {told}")]
pub struct Malformed {
    /// The event's place in the order of time.
    pub at: usize,
    /// What is wrong with it.
    pub told: String,
}

impl History {
    /// Puts events in the order of time; those of one moment stay in the order in which they are given.
    ///
    /// # Errors
    /// An event lacks what it needs, ends a call that nobody began, or begins or ends one twice.
    pub fn new(mut events: Vec<Event>) -> Result<Self, Malformed> {
        events.sort_by_key(|event| event.time);
        let mut history = Self { call_of: vec![None; events.len()], calls: Vec::new(), events };
        // The running calls, and those that ended: their numbers are used up.
        let mut calls: HashMap<(Process, u64), usize> = HashMap::new();
        for at in 0..history.events.len() {
            history.place(at, &mut calls).map_err(|told| Malformed { at, told })?;
        }
        Ok(history)
    }

    fn place(&mut self, at: usize, calls: &mut HashMap<(Process, u64), usize>) -> Result<(), String> {
        let event = &self.events[at];
        if let Some(lacks) = event.lacks() {
            return Err(format!("{:?} ({:?}) lacks {lacks}", event.f, event.kind));
        }
        let (process, key) = (event.process, (event.process, event.call));
        let told = |what: &str| format!("{:?} of call {} of process {process} {what}", event.f, event.call);
        if event.f.is_told() {
            if event.kind == Kind::Invoke || event.kind == Kind::Fail {
                return Err(told("is told by a single ok or info, and not by an invoke or a fail"));
            }
            // A place in line belongs to its acquire, if that was recorded by the same process.
            self.call_of[at] = calls.get(&key).copied().filter(|_| event.f == F::Queued);
            return Ok(());
        }
        if event.kind == Kind::Invoke {
            if calls.insert(key, self.calls.len()).is_some() {
                return Err(told("begins a second time"));
            }
            self.call_of[at] = Some(self.calls.len());
            self.calls.push(Call { f: event.f, process, invoke: at, end: None });
            return Ok(());
        }
        let Some(&number) = calls.get(&key) else {
            // A fault that lasts no time has no beginning of its own.
            return if event.f == F::Fault { Ok(()) } else { Err(told("ends without having begun")) };
        };
        let call = &mut self.calls[number];
        if call.f != event.f {
            return Err(told(&format!("ends a call of {:?}", call.f)));
        }
        if call.end.is_some() {
            return Err(told("ends a second time"));
        }
        call.end = Some(at);
        self.call_of[at] = Some(number);
        Ok(())
    }

    /// All events, in order: a place in a violation is an index of these.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// All calls, in the order in which they began.
    #[must_use]
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// The call that the event at this place belongs to.
    #[must_use]
    pub fn call_of(&self, at: usize) -> Option<&Call> {
        self.call_of.get(at).copied().flatten().map(|number| &self.calls[number])
    }
}
