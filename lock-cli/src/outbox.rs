//! What the watchdog has to tell a keeper that may not be reading: nothing here waits before the end.

use std::{io::Write, os::unix::net::UnixStream, time::Duration};

use leasehold::{Clock, Moment, SystemClock};
use rustix::{
    io::Errno,
    net::{SendFlags, send},
};

use crate::channel::Report;

/// How often the keeper is told at most that the command stopped: a command may do that all the time.
const BETWEEN_STOPS: Duration = Duration::from_millis(20);

/// The reports that are on their way to the keeper.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// `None` once the keeper is gone.
    channel: Option<UnixStream>,
    /// What the channel had no room for. A handful of reports at most: each is made once, except for `stopped`.
    waiting: Vec<u8>,
    /// The command is stopped by this signal, and the keeper doesn't know yet. Only the latest stop matters.
    stopped: Option<i32>,
    /// When the keeper may be told of a stop again.
    next_stop: Option<Moment>,
}

impl Outbox {
    pub(crate) fn new(channel: UnixStream) -> Self {
        Self { channel: Some(channel), waiting: Vec::new(), stopped: None, next_stop: None }
    }

    /// Tells the keeper, now or as soon as there is room.
    pub(crate) fn put(&mut self, report: Report) {
        if matches!(report, Report::Ended(_)) {
            self.stopped = None;
        }
        self.waiting.extend(report.to_frame());
        self.flush();
    }

    /// The command stopped, or goes on (`None`). A stop that is over before the keeper could be told is forgotten.
    pub(crate) fn note_stop(&mut self, signal: Option<i32>) {
        self.stopped = signal;
        self.flush();
    }

    /// Sends what there is room for.
    pub(crate) fn flush(&mut self) {
        self.send_waiting();
        let Some(signal) = self.stopped else { return };
        let now = SystemClock.now();
        if self.waiting.is_empty() && self.next_stop.is_none_or(|at| now >= at) {
            self.stopped = None;
            self.next_stop = Some(now + BETWEEN_STOPS);
            self.waiting.extend(Report::Stopped(signal).to_frame());
            self.send_waiting();
        }
    }

    /// Whether `flush` is to be called when the channel has room.
    pub(crate) fn needs_room(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When `flush` is to be called although nothing happened.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.next_stop.filter(|_| self.stopped.is_some() && self.waiting.is_empty())
    }

    /// The keeper is gone.
    pub(crate) fn close(&mut self) {
        self.channel = None;
        self.waiting.clear();
        self.stopped = None;
    }

    /// Sends the rest. Waits for a keeper that doesn't read: to be called when there is nothing else left to do.
    pub(crate) fn finish(mut self) {
        if let Some(mut channel) = self.channel.take() {
            // A keeper that is gone needs no news.
            let _ = channel.write_all(&self.waiting);
        }
    }

    fn send_waiting(&mut self) {
        while let Some(channel) = self.channel.as_ref().filter(|_| !self.waiting.is_empty()) {
            match send(channel, &self.waiting, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.waiting.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // That it is gone is noticed where orders are read.
                Err(_) => self.close(),
            }
        }
    }
}
