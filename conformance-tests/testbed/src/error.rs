//! What can go wrong, each with what to do about it.

use std::time::Duration;

/// Why there is no server: one line that says what is missing and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {remedy}")]
pub struct Missing {
    what: String,
    remedy: String,
}

impl Missing {
    pub(crate) fn new(what: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self { what: one_line(what.as_ref()), remedy: one_line(remedy.as_ref()) }
    }
}

/// Why a server could not be commanded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server runs outside the testbed, which therefore can't touch it. Nothing happened.
    #[error(
        "can't {action} the {server} server: {variable} points at one outside the testbed; \
         unset it to use a container"
    )]
    Unsupported {
        /// What was asked for, such as `pause`.
        action: String,
        /// The kind of server, such as `postgres`.
        server: &'static str,
        /// The environment variable that points elsewhere.
        variable: String,
    },
    /// The command ended with a failure.
    #[error("`{command}` failed: {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// What it wrote to stderr.
        stderr: String,
    },
    /// The command was ended because it took too long. It may have had its effect.
    #[error("`{command}` gave no answer within {limit:?}; it wrote: {stderr}")]
    Hung {
        /// The command line.
        command: String,
        /// How long it was given.
        limit: Duration,
        /// What it had written to stdout until then.
        stdout: String,
        /// What it had written to stderr until then.
        stderr: String,
    },
    /// The command could not be started.
    #[error("can't run `{command}`: {source}")]
    NotRun {
        /// The command line.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// The server didn't answer in time.
    #[error("{server} at {address} was not ready within {limit:?}: {last}")]
    NotReady {
        /// The kind of server, such as `postgres`.
        server: &'static str,
        /// Where it was asked.
        address: String,
        /// How long it was given.
        limit: Duration,
        /// What the last attempt ran into.
        last: String,
    },
}

impl Error {
    /// The last line the command wrote to stderr, which is where commands say what was wrong.
    pub(crate) fn last_line(&self) -> String {
        match self {
            Self::Failed { stderr, .. } => last_line(stderr).unwrap_or_else(|| self.to_string()),
            _ => self.to_string(),
        }
    }
}

fn last_line(text: &str) -> Option<String> {
    // Docker ends some complaints with a hint at its own help.
    let says_something =
        |line: &&str| !(line.is_empty() || line.starts_with("Run 'docker") || line.starts_with("See 'docker"));
    text.lines().rev().map(str::trim).find(says_something).map(str::to_owned)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_is_one_line() {
        let missing = Missing::new("no image\n  of postgres", "build it\n");
        assert_eq!(missing.to_string(), "no image of postgres: build it");
    }

    #[test]
    fn last_line_of_stderr_is_the_complaint() {
        let error = Error::Failed {
            command: "docker build .".into(),
            stderr: "Step 1/9\nno space left on device\n\nRun 'docker build --help' for more information\n".into(),
        };
        assert_eq!(error.last_line(), "no space left on device");
    }
}
