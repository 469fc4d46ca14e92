//! What came of a fenced call that gave no reply.

use lock_core::{ErrorKind, Fence, FenceError, NotHeld, Pass, Resource, StoreError, admit};

use super::script::Judge;
use crate::{error, replies::corrupt};

/// The code of our own refusals; see `lua/fence_call.lua`.
const CODE: &str = "LEASEHOLD";

/// A call that gave no reply of the caller's script.
#[derive(Debug)]
pub(super) enum Failure {
    /// The register has seen this, and it doesn't let the fence pass.
    Seen(String),
    /// The grant doesn't hold its lock.
    NotHeld,
    /// This very call was let through before: the driver sent it again.
    Again,
    /// The store's, or an error that the caller's script ended with.
    Store(StoreError),
}

impl Failure {
    /// Of an answer to a call that this judged.
    pub(super) fn told(error: StoreError, judge: Judge) -> Self {
        let refusal = error::driver_error(&error).filter(|cause| cause.code() == Some(CODE));
        let Some(said) = refusal.map(|cause| cause.detail().unwrap_or_default()) else {
            return Self::Store(error::of_script(error, judge == Judge::Register));
        };
        match said.split_once(' ').unwrap_or((said, "")) {
            ("seen", fence) => Self::Seen(fence.to_owned()),
            ("not-held", _) => Self::NotHeld,
            ("again", _) => Self::Again,
            ("corrupt", why) => Self::Store(corrupt(why)),
            _ => Self::Store(corrupt("a refusal can't be read")),
        }
    }

    /// Of a call that a register judged.
    pub(super) fn at(self, resource: &Resource, fence: &Fence, pass: Pass) -> FenceError {
        match self {
            // The rule is the core's: it says again, and in words, what the script found.
            Self::Seen(seen) => match seen.parse::<Fence>() {
                Ok(seen) => match admit(Some(&seen), resource, fence, pass) {
                    Err(refused) => refused,
                    Ok(_) => corrupt("a fence was refused that passes").into(),
                },
                Err(invalid) => corrupt(format!("the register holds something else than a fence: {invalid}")).into(),
            },
            other => other.of(fence),
        }
    }

    /// Of a call that the record of the lock judged.
    pub(super) fn of(self, fence: &Fence) -> FenceError {
        match self {
            Self::NotHeld => NotHeld { lock: fence.lock().clone(), token: fence.token() }.into(),
            Self::Again => {
                let message = "the connection broke after the script had been let through, and its reply is lost";
                StoreError::unknown(ErrorKind::Unreachable, message).into()
            }
            Self::Seen(_) => corrupt("a register's refusal came where none was asked").into(),
            Self::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lock_core::Applied;

    fn failure(line: &str) -> Failure {
        let told = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap().extract_error().unwrap_err();
        // As it comes out of a cluster, too.
        Failure::told(error::after_unseen_attempts(error::of_answer(told)), Judge::Register)
    }

    fn told(line: &str) -> FenceError {
        let fence: Fence = "5@x".parse().unwrap();
        failure(line).at(&Resource::new("accounts").unwrap(), &fence, Pass::Again)
    }

    #[test]
    fn each_refusal_is_the_error_it_stands_for() {
        assert!(matches!(told("LEASEHOLD seen 6@x"), FenceError::Stale(stale) if stale.highest.get() == 6));
        assert!(matches!(told("LEASEHOLD seen 4@y"), FenceError::OtherLock(other) if other.fenced_by.as_str() == "y"));
        assert!(matches!(told("LEASEHOLD not-held"), FenceError::NotHeld(_)));
        for odd in ["seen 5@x", "seen 4@x", "seen 6@%zz", "seen", "corrupt so it is", "", "else"] {
            let FenceError::Store(error) = told(&format!("LEASEHOLD {odd}")) else { panic!("{odd}") };
            assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{odd}");
        }
        assert_eq!(told("LEASEHOLD again").applied(), Applied::Maybe);
    }

    #[test]
    fn what_a_script_met_half_way_may_have_been_applied() {
        // By a register, whose write comes before the caller's, and by a record.
        for (line, applied) in [
            ("WRONGTYPE Operation against a key", Applied::Maybe),
            ("ERR user_script:1: bad script: f_0f, on @user_script:1.", Applied::Maybe),
            (
                "NOPERM this user has no permissions to run the 'set' command script: f_0f, on @user_script:1.",
                Applied::Maybe,
            ),
            ("MINE of my own", Applied::Maybe),
            ("NOPERM this user has no permissions to run the 'evalsha' command", Applied::No),
            ("CROSSSLOT Keys in request don't hash to the same slot", Applied::No),
            ("ERR Error compiling script (new function): user_script:1: '=' expected", Applied::No),
        ] {
            let told =
                redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap().extract_error().unwrap_err();
            let code = told.code().map(str::to_owned);
            for judge in [Judge::Register, Judge::Record] {
                let told = Failure::told(error::of_answer(told.clone()), judge);
                let Failure::Store(error) = told else { panic!("{line}") };
                assert_eq!(error.applied(), applied, "{line}: {error}");
                assert_eq!(error::driver_error(&error).unwrap().code(), code.as_deref(), "{line}");
            }
        }
    }

    #[test]
    fn full_memory_is_definite_only_where_a_write_of_ours_comes_first() {
        for line in [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "OOM command not allowed when used memory > 'maxmemory'. script: 0f, on @user_script:1.",
            "ERR Error running script (call to f_0f): @user_script:9: @user_script: 9: -OOM command not allowed",
        ] {
            for (judge, applied) in [(Judge::Register, Applied::No), (Judge::Record, Applied::Maybe)] {
                let told =
                    redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap().extract_error().unwrap_err();
                let told = Failure::told(error::of_answer(told), judge);
                let Failure::Store(error) = told else { panic!("{line}") };
                assert_eq!(
                    (error.kind(), error.applied()),
                    (ErrorKind::NotReady, applied),
                    "{judge:?}, {line}: {error}"
                );
            }
        }
    }
}
