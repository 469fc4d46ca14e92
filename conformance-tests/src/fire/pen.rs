//! Writes the events of one process into its file of the history.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lock_verify::history::{Event, F, Kind, Process, Recorder, Why};

use crate::asker::now;

/// One process's hand: it knows the clock, and numbers the calls.
#[derive(Clone, Debug)]
pub(super) struct Pen {
    recorder: Recorder,
    process: Process,
    calls: Arc<AtomicU64>,
}

impl Pen {
    pub(super) fn new(recorder: Recorder, process: Process) -> Self {
        Self { recorder, process, calls: Arc::default() }
    }

    fn call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Before a call begins.
    pub(super) fn invoke(&self, f: F, say: impl FnOnce(Event) -> Event) -> Event {
        let event = say(Event::invoke(now(), self.process, self.call(), f));
        self.recorder.record(event.clone());
        event
    }

    /// What is seen unasked.
    pub(super) fn once(&self, f: F, say: impl FnOnce(Event) -> Event) {
        self.recorder.record(say(Event::new(now(), self.process, self.call(), Kind::Ok, f)));
    }

    /// What is seen within a call that goes on.
    pub(super) fn within(&self, call: u64, f: F, say: impl FnOnce(Event) -> Event) {
        self.recorder.record(say(Event::new(now(), self.process, call, Kind::Ok, f)));
    }

    /// What is told of another process. Its call is none of that process's own.
    pub(super) fn note(&self, process: Process, f: F, say: impl FnOnce(Event) -> Event) {
        self.recorder.record(say(Event::new(now(), process, u64::MAX - self.call(), Kind::Info, f)));
    }

    /// After a call did what it was to do.
    pub(super) fn ok(&self, begun: &Event, say: impl FnOnce(Event) -> Event) {
        self.recorder.record(say(begun.ok(now())));
    }

    /// After a call that changed nothing.
    pub(super) fn fail(&self, begun: &Event, why: Why) {
        self.recorder.record(begun.fail(now(), why));
    }

    /// The same, with an error's text.
    pub(super) fn fail_with(&self, begun: &Event, why: Why, error: &dyn Display) {
        self.recorder.record(begun.fail(now(), why).error(error.to_string()));
    }

    /// After a call of which nobody knows.
    pub(super) fn info_with(&self, begun: &Event, error: &dyn Display) {
        self.recorder.record(begun.info(now()).error(error.to_string()));
    }

    /// After a call that was given up: what was under way just then may have had the lock, and gives it back behind it.
    pub(super) fn gave_up(&self, begun: &Event, why: Why) {
        self.recorder.record(begun.info(now()).why(why));
    }

    /// Whether all was written.
    pub(super) fn finish(&self) -> std::io::Result<()> {
        self.recorder.finish()
    }
}
