//! What is said to people, on stderr: stdout belongs to the command.

use std::io::Write;

use serde_json::json;

/// How to speak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice {
    /// Only of failures, not of how things go.
    pub(crate) quiet: bool,
    /// In JSON lines instead of plain ones.
    pub(crate) json: bool,
}

impl Voice {
    /// How things go: whom we wait for, that the lock is busy. Silenced by `-q`.
    pub(crate) fn note(self, message: &str) {
        if !self.quiet {
            self.say("info", message);
        }
    }

    /// Something went wrong, and the command goes on or its exit code is passed on all the same.
    pub(crate) fn warn(self, message: &str) {
        self.say("warn", message);
    }

    /// Why it failed.
    pub(crate) fn fail(self, message: &str) {
        self.say("error", message);
    }

    fn say(self, level: &str, message: &str) {
        let message = message.replace(['\n', '\r'], " ");
        let line = if self.json {
            format!("{}\n", json!({ "level": level, "target": "leasehold", "message": message }))
        } else {
            format!("leasehold: {message}\n")
        };
        // One write, so that lines of several processes don't mix. Nobody to tell when stderr is gone.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}
