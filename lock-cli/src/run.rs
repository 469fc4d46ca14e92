//! `leasehold run`: the lock first, then the command under it, then the lock back.

use std::{ffi::OsString, time::Duration};

use leasehold::{Busy, Clock, LeaseGuard, Lock, LockError, LockName, Locks, LossReason, ReleaseOutcome, SystemClock};
use nix::errno::Errno;

use crate::{
    args::Run,
    channel::Ended,
    duration, exit,
    exit::Failure,
    signals::Signals,
    store,
    supervise::{Loss, Outcome, supervise},
    voice::Voice,
};

/// The command may be given at most this part of the ttl, or of at-most-for, between SIGTERM and SIGKILL.
const KILL_AFTER_PART: u32 = 4;
/// From SIGTERM to SIGKILL, unless another time is asked for or the ttl is short.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// SIGKILL is sent this long before the deadline, or a tenth of the ttl if that is less.
const MARGIN: Duration = Duration::from_millis(50);
/// How long a store that doesn't answer may hold up our end once the command is over. The ttl frees the lock then.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
/// How long what goes on behind a dropped acquire or a lost lease may: nobody waits for its outcome.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the command while holding the lock; returns the exit code.
///
/// # Errors
/// What kept the command from being run, or from being watched.
pub(crate) async fn run(task: &Run, voice: Voice) -> Result<u8, Failure> {
    let name = LockName::new(&task.name)?;
    let mut signals = Signals::take().map_err(|error| Failure::internal(format!("no signal handlers: {error}")))?;
    let url = store::url(&task.store)?;
    let connected = tokio::select! {
        locks = store::connect(&url) => locks?,
        number = signals.next() => return Ok(exit::of_signal(number)),
    };
    let mut acquiring = Box::pin(acquire(task, &url, &connected, voice));
    let acquired = tokio::select! {
        acquired = &mut acquiring => acquired,
        number = signals.next() => {
            drop(acquiring);
            settle(&connected).await;
            return Ok(exit::of_signal(number));
        }
    };
    drop(acquiring);
    let guard = match acquired {
        Ok(Ok(guard)) => guard,
        Ok(Err(busy)) => {
            settle(&connected).await;
            voice.note(&busy_line(&busy));
            return Ok(task.conflict_exit_code);
        }
        Err(failure) => {
            // The store may have granted it all the same, and may tell only now; who can't wait sends a signal.
            tokio::select! {
                () = settle_within(RELEASE_PATIENCE, &connected) => {}
                _ = signals.next() => {}
            }
            return Err(failure);
        }
    };

    let command = command(task);
    let limits = (kill_after(task, voice), MARGIN.min(shortest(task) / 10));
    let cap = task.at_most_for.map(|most| SystemClock.now() + most);
    let environment = environment(&guard, connected.provider().capabilities().store);
    let outcome = supervise(guard.lease(), &command, environment, limits, &mut signals).await;
    let capped = cap.is_some_and(|cap| guard.deadline() + MARGIN >= cap)
        || guard.check().is_err_and(|lost| lost.reason == LossReason::AtMostFor);
    let released = release(guard, voice).await;
    settle(&connected).await;

    let outcome = outcome.map_err(|error| Failure::internal(format!("the watchdog can't be started: {error}")))?;
    Ok(match outcome {
        Outcome::Ended(how) => {
            if let Some(ReleaseOutcome::AlreadyLost(reason)) = released {
                voice.warn(&format!(
                    "the command is over, but \"{name}\" was lost before it could be released: {reason}"
                ));
            }
            if how == Ended::Unknown {
                voice.fail("the command is over, but the system didn't tell how it ended");
            }
            exit::of_command(how)
        }
        Outcome::Lost(loss) => {
            voice.fail(&loss_line(&name, loss, capped, task.at_most_for));
            task.lost_exit_code
        }
        Outcome::NotStarted(errno) => not_started(command.first(), errno, voice),
        Outcome::Unguarded => {
            voice.fail("the watchdog died, so the command was ended: nothing would have ended it with its lease");
            exit::INTERNAL
        }
    })
}

/// Acquires as asked for. The first attempt is a contact with the store and has its time; who waits then goes on
/// through outages, and through a store that stumbles at that attempt: it was there a moment ago, when we connected.
async fn acquire(task: &Run, url: &str, locks: &Locks, voice: Voice) -> Result<Result<LeaseGuard, Busy>, Failure> {
    let begun = SystemClock.now();
    let lock = wish(task, locks);
    let left = || {
        let passed = SystemClock.now().since(begun);
        if task.no_wait { Some(Duration::ZERO) } else { task.wait.map(|wait| wait.saturating_sub(passed)) }
    };
    let may_wait = || left().is_none_or(|left| !left.is_zero());
    match store::within(url, lock.clone().no_wait().acquire()).await {
        Ok(Ok(guard)) => return Ok(Ok(guard)),
        Ok(Err(LockError::Busy(busy))) if may_wait() => voice.note(&waiting_line(&busy)),
        Ok(Err(LockError::Busy(busy))) => return Ok(Err(Busy { waited: Duration::ZERO, ..busy })),
        Ok(Err(LockError::Store(error))) if error.is_transient() && may_wait() => {
            voice.note(&format!("waiting for \"{}\": {error}", task.name));
        }
        Ok(Err(error)) => return Err(failure(task, error)),
        Err(silence) if may_wait() => voice.note(&format!("waiting for \"{}\": {}", task.name, silence.message)),
        Err(silence) => return Err(silence),
    }
    let waiting = match left() {
        Some(left) => lock.wait_at_most(left),
        None => lock,
    };
    match waiting.acquire().await {
        Ok(guard) => Ok(Ok(guard)),
        Err(LockError::Busy(busy)) => Ok(Err(busy)),
        Err(error) => Err(failure(task, error)),
    }
}

fn wish(task: &Run, locks: &Locks) -> Lock {
    // For people who look at the lock: what runs under it.
    let label = match (&task.shell, task.command.first()) {
        (Some(_), _) | (_, None) => "sh".to_owned(),
        (None, Some(program)) => {
            std::path::Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
        }
    };
    let mut lock = locks.lock(&task.name).ttl(task.ttl).label(label);
    if task.fair {
        lock = lock.fair();
    }
    if let Some(most) = task.at_most_for {
        lock = lock.at_most_for(most);
    }
    if let Some(least) = task.at_least_for {
        lock = lock.at_least_for(least);
    }
    lock
}

fn failure(task: &Run, error: LockError) -> Failure {
    match error {
        LockError::Store(error) => error.into(),
        LockError::Lost(lost) => Failure {
            code: task.lost_exit_code,
            message: match (lost.reason, task.at_most_for) {
                (LossReason::AtMostFor, Some(most)) => format!(
                    "the command was not started: --at-most-for {} was over for \"{}\" when the store had answered",
                    duration::show(most),
                    task.name
                ),
                (reason, _) => format!("lost the lock \"{}\": {reason}; the command was not started", task.name),
            },
        },
        other => Failure::internal(other.to_string()),
    }
}

fn waiting_line(busy: &Busy) -> String {
    match holder(busy) {
        Some(holder) => format!("waiting for \"{}\", held by {holder}", busy.name),
        None => format!("waiting for \"{}\"", busy.name),
    }
}

fn busy_line(busy: &Busy) -> String {
    let mut line = match holder(busy) {
        Some(holder) => format!("\"{}\" is held by {holder}", busy.name),
        None => format!("\"{}\" can't be had now", busy.name),
    };
    if !busy.waited.is_zero() {
        line += &format!("; gave up after {}", duration::show(busy.waited));
    }
    line
}

/// Who holds it, and for how long, as far as the store knows.
fn holder(busy: &Busy) -> Option<String> {
    let holder = busy.held.holder.as_ref()?;
    let micros = SystemClock.wall_micros().saturating_sub(holder.since_micros);
    Some(format!("{holder} for {}", duration::show(Duration::from_micros(micros))))
}

fn command(task: &Run) -> Vec<OsString> {
    match &task.shell {
        Some(line) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
        None => task.command.clone(),
    }
}

/// What the command is told of the lease it runs under.
fn environment(guard: &LeaseGuard, store: &str) -> Vec<(&'static str, String)> {
    vec![
        ("LEASEHOLD_LOCK", guard.name().as_str().to_owned()),
        ("LEASEHOLD_TOKEN", guard.token().to_string()),
        ("LEASEHOLD_FENCE", guard.fence().map(|fence| fence.to_string()).unwrap_or_default()),
        ("LEASEHOLD_OWNER", guard.owner().to_string()),
        ("LEASEHOLD_STORE_KIND", store.to_owned()),
    ]
}

/// The shortest time after which the lease may be over.
fn shortest(task: &Run) -> Duration {
    task.at_most_for.map_or(task.ttl, |most| most.min(task.ttl))
}

fn kill_after(task: &Run, voice: Voice) -> Duration {
    let most = shortest(task) / KILL_AFTER_PART;
    match task.kill_after {
        Some(asked) if asked > most => {
            let most_shown = duration::show(most);
            voice
                .note(&format!("--kill-after is {most_shown}, a quarter of the lease: it must be over before that is"));
            most
        }
        Some(asked) => asked,
        None => KILL_AFTER.min(most),
    }
}

fn loss_line(name: &LockName, loss: Loss, capped: bool, at_most_for: Option<Duration>) -> String {
    match (loss, at_most_for) {
        (Loss::Told(LossReason::AtMostFor), Some(most)) | (Loss::Overdue, Some(most)) if capped => {
            format!("the command was ended: --at-most-for {} is over for \"{name}\"", duration::show(most))
        }
        (Loss::Told(reason), _) => format!("lost the lock \"{name}\": {reason}; the command was ended"),
        (Loss::Overdue, _) => {
            format!(
                "lost the lock \"{name}\": it wasn't renewed in time; the command was ended before the lease was over"
            )
        }
    }
}

fn not_started(program: Option<&OsString>, errno: i32, voice: Voice) -> u8 {
    let program = program.map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
    match Errno::from_raw(errno) {
        Errno::ENOENT => {
            voice.fail(&format!("{program}: not found"));
            exit::NOT_FOUND
        }
        other => {
            voice.fail(&format!("{program}: can't be run: {}", other.desc()));
            exit::NOT_EXECUTABLE
        }
    }
}

/// Lets releases that go on behind us come to their end.
async fn settle(locks: &Locks) {
    settle_within(SETTLE_PATIENCE, locks).await;
}

async fn settle_within(patience: Duration, locks: &Locks) {
    if tokio::time::timeout(patience, locks.settled()).await.is_err() {
        tracing::debug!("a release still goes on; the ttl frees the lock");
    }
}

/// Gives the lock back. That it failed changes nothing for the command, which is over.
async fn release(guard: LeaseGuard, voice: Voice) -> Option<ReleaseOutcome> {
    let name = guard.name().clone();
    match tokio::time::timeout(RELEASE_PATIENCE, guard.release()).await {
        Ok(Ok(outcome)) => return Some(outcome),
        Ok(Err(error)) => voice.warn(&format!("the lock could not be released, its ttl frees it: {error}")),
        Err(_) => voice.warn(&format!("\"{name}\" could not be released in time, its ttl frees it")),
    }
    None
}
