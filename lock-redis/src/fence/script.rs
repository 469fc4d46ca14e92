//! A script of the caller's behind a judgement, and what it is called with.

use std::{fmt, sync::Arc, time::Duration};

use lock_core::{ErrorKind, FenceReport, OsEntropy, OwnerId, StoreError};
use redis::{FromRedisValue, ToRedisArgs, Value, cluster_routing::Slot, from_redis_value};

use super::refusal::Failure;
use crate::{
    keys::{self, Keys},
    operation::Runner,
    replies::micros,
    scripts::{ADMIT, Call, HOLD, Script},
};

/// How much longer than the call the mark of one is kept.
const MARK_STAYS: Duration = Duration::from_secs(5);

/// Puts the caller's script before what judges it.
///
/// It comes first and as a function, so that it sees none of our names, and on the first line, so that its errors name the
/// lines that its author knows. What a script may say in a line before all (`#!lua flags=…`) stays there.
pub(super) fn behind(judge: Judge, work: &str) -> Arc<Script> {
    let (before, work) = match work.find('\n') {
        Some(end) if work.starts_with("#!") => work.split_at(end + 1),
        _ => ("", work),
    };
    Script::new(format!("{before}local work = function(KEYS, ARGV) {work}\nend\n{}", judge.text()))
}

/// What the caller's script is given.
#[derive(Clone, Default)]
pub(super) struct Words {
    keys: Vec<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
}

impl Words {
    pub(super) fn key(&mut self, key: impl ToRedisArgs) {
        key.write_redis_args(&mut self.keys);
    }

    pub(super) fn arg(&mut self, arg: impl ToRedisArgs) {
        arg.write_redis_args(&mut self.arguments);
    }
}

impl fmt::Debug for Words {
    /// Not what they are: it may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Words").field("keys", &self.keys.len()).field("arguments", &self.arguments.len()).finish()
    }
}

/// What decides whether the caller's script works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judge {
    /// A register, which is written before the work.
    Register,
    /// The record of the lock, which is only looked at.
    Record,
}

impl Judge {
    fn text(self) -> &'static str {
        match self {
            Self::Register => ADMIT,
            Self::Record => HOLD,
        }
    }
}

/// A script that was put together, and where it is sent.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) runner: Runner,
    pub(super) keys: Keys,
    pub(super) script: Arc<Script>,
    pub(super) judge: Judge,
    pub(super) report: FenceReport,
}

impl Judged {
    /// Sends it, and not again once it may have run.
    pub(super) async fn once<const N: usize>(
        &self,
        words: Words,
        judged_by: Vec<u8>,
        judgement: [&str; N],
    ) -> Result<Value, Failure> {
        let call = self.call(words, judged_by, judgement).map_err(Failure::Store)?;
        self.runner.once(call).await.map_err(|error| Failure::told(error, self.judge))
    }

    /// Sends it, and again where it is safe to run twice.
    pub(super) async fn repeatedly<const N: usize>(
        &self,
        words: Words,
        judged_by: Vec<u8>,
        judgement: [&str; N],
    ) -> Result<Value, Failure> {
        let call = self.call(words, judged_by, judgement).map_err(Failure::Store)?;
        let done = self.runner.run(call).await.map_err(|error| Failure::told(error, self.judge))?;
        Ok(done.reply)
    }

    /// The order is that of `lua/fence_call.lua`: what is ours comes last.
    fn call<const N: usize>(
        &self,
        Words { mut keys, mut arguments }: Words,
        judged_by: Vec<u8>,
        judgement: [&str; N],
    ) -> Result<Call, StoreError> {
        arguments.extend(judgement.map(|word| word.as_bytes().to_vec()));
        if self.runner.link.is_cluster() {
            let mark = keys::mark(&judged_by, &OwnerId::random(&OsEntropy).to_string());
            of_one_slot(&keys, &judged_by, &mark)?;
            keys.extend([judged_by, mark]);
            let kept = micros(self.runner.timeout + MARK_STAYS) / 1000;
            arguments.push(kept.to_string().into_bytes());
        } else {
            keys.push(judged_by);
            arguments.push(Vec::new());
        }
        Ok(Call::new(&self.script, keys, arguments))
    }
}

/// Said here, where the key that is elsewhere can be named.
fn of_one_slot(keys: &[Vec<u8>], judged_by: &[u8], mark: &[u8]) -> Result<(), StoreError> {
    let slot = Slot::for_key(judged_by);
    if Slot::for_key(mark) != slot {
        let message = "in a cluster no script can be fenced by a lock whose name begins with a closing brace: nothing else \
                       can be in the slot of its record; give the lock another name";
        return Err(StoreError::refused(ErrorKind::InvalidConfig, message));
    }
    match keys.iter().find(|key| Slot::for_key(key) != slot) {
        None => Ok(()),
        Some(elsewhere) => {
            let message = format!(
                "in a cluster the keys of one script must be of one slot, and {:?} isn't in that of {:?}: begin its name with \
                 the tag that `tag` gives",
                String::from_utf8_lossy(elsewhere),
                String::from_utf8_lossy(judged_by)
            );
            Err(StoreError::refused(ErrorKind::InvalidConfig, message))
        }
    }
}

/// The reply of the caller's script as what the caller wants.
pub(super) fn reply<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    from_redis_value(value).map_err(|error| {
        let message = format!("the script ran, and its reply is of another type: {error}");
        StoreError::unknown(ErrorKind::Other, message).caused_by(error)
    })
}
