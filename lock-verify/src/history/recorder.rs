//! Recording, so that a killed process loses only what it hadn't come to write.

use std::{
    fmt, fs,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::event::Event;

/// Takes events from any thread. Clones record to the same place.
#[derive(Clone)]
pub struct Recorder(Arc<Mutex<Sink>>);

enum Sink {
    Memory(Vec<Event>),
    File { file: fs::File, failed: Option<io::Error> },
}

impl Recorder {
    /// Keeps the events in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self(Arc::new(Mutex::new(Sink::Memory(Vec::new()))))
    }

    /// Writes a file of its own: one system call per event, so that what was recorded outlives a `kill -9`.
    ///
    /// # Errors
    /// The file can't be made, or is there already: one file is one process of one run.
    pub fn to_file(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = fs::OpenOptions::new().create_new(true).append(true).open(path)?;
        Ok(Self(Arc::new(Mutex::new(Sink::File { file, failed: None }))))
    }

    /// Records an event. What couldn't be written is told by [`Recorder::finish`]: a client has nobody to tell it to.
    pub fn record(&self, event: Event) {
        let sink = &mut *self.sink();
        match sink {
            Sink::Memory(events) => events.push(event),
            Sink::File { file, failed } => {
                // After a failure nothing more is written: a hole in a history is worse than its end.
                if failed.is_none() {
                    *failed = write_line(file, &event).err();
                }
            }
        }
    }

    /// What was recorded so far, if it is kept in memory; nothing of what went to a file.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        match &*self.sink() {
            Sink::Memory(events) => events.clone(),
            Sink::File { .. } => Vec::new(),
        }
    }

    /// Whether everything was written.
    ///
    /// # Errors
    /// The first failure to write; all events since then are missing.
    pub fn finish(&self) -> io::Result<()> {
        match &mut *self.sink() {
            Sink::File { failed, .. } => failed.take().map_or(Ok(()), Err),
            Sink::Memory(_) => Ok(()),
        }
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.sink() {
            Sink::Memory(events) => write!(f, "Recorder(in memory, {} events)", events.len()),
            Sink::File { failed, .. } => write!(f, "Recorder(to a file, failed: {failed:?})"),
        }
    }
}

fn write_line(file: &mut fs::File, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    file.write_all(&line)
}
