//! Exit codes that aren't the command's own. Those of sysexits(3) keep their meaning there.

use leasehold::{ErrorKind, StoreError};

use crate::channel::Ended;

/// All is well.
pub(crate) const OK: u8 = 0;
/// Wrong usage: options, names, times, the store's URL (`EX_USAGE`).
pub(crate) const USAGE: u8 = 64;
/// The store can't be reached or used (`EX_UNAVAILABLE`).
pub(crate) const STORE: u8 = 69;
/// Something that must not happen, did (`EX_SOFTWARE`).
pub(crate) const INTERNAL: u8 = 70;
/// The lease was lost; trying again may succeed (`EX_TEMPFAIL`). Can be chosen.
pub(crate) const LOST: u8 = 75;
/// Somebody else holds the lock, as in flock(1). Can be chosen.
pub(crate) const BUSY: u8 = 1;
/// The command was found and can't be run, as in a shell.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// The command was not found, as in a shell.
pub(crate) const NOT_FOUND: u8 = 127;

/// A way to end early: an exit code and a sentence that says why.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// One line.
    pub(crate) message: String,
}

impl Failure {
    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    /// A failure of the system's or of our own.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { code: INTERNAL, message: message.into() }
    }
}

impl From<StoreError> for Failure {
    /// What a person has to correct is wrong usage; the rest is the store's.
    fn from(error: StoreError) -> Self {
        let code = match error.kind() {
            ErrorKind::InvalidName | ErrorKind::InvalidTtl | ErrorKind::InvalidConfig | ErrorKind::Unsupported => USAGE,
            _ => STORE,
        };
        Self { code, message: error.to_string() }
    }
}

/// The exit code that a shell would give for it.
pub(crate) fn of_command(ended: Ended) -> u8 {
    match ended {
        Ended::Exited(code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
        Ended::Signalled(signal) => of_signal(signal),
        Ended::Unknown => INTERNAL,
    }
}

/// 128 + n.
pub(crate) fn of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_a_shell() {
        assert_eq!(of_command(Ended::Exited(0)), 0);
        assert_eq!(of_command(Ended::Exited(255)), 255);
        assert_eq!(of_command(Ended::Signalled(15)), 143);
    }

    #[test]
    fn what_a_person_must_correct_is_usage() {
        assert_eq!(Failure::from(StoreError::refused(ErrorKind::InvalidTtl, "")).code, USAGE);
        assert_eq!(Failure::from(StoreError::refused(ErrorKind::Denied, "")).code, STORE);
    }
}
