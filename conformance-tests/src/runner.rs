//! Runs the table over a harness, as a test program.

use std::{
    process::ExitCode,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::{Builder, Runtime};

use crate::{
    Failure, Harness, Lacking, Missing, PROPERTIES, Property,
    asker::{now, within},
    results::{Line, note},
    scripts,
};

/// How long one property may take: a thousand hand-offs by way of a majority take half a minute, and more on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);
/// How many run at once, whatever the cores: they mostly wait.
const AT_ONCE: usize = 8;

/// The `main` of a test program: every property is a test, under its own name and with cargo's own options.
///
/// What the harness or its store has no way to show is ignored with the reason. A store that isn't there ignores all of
/// them, with one line on stderr, and with `CI` set in the environment the run fails.
#[must_use]
pub fn run<H: Harness>() -> ExitCode {
    if let Some(code) = scripts::play::<H>() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let opened = runtime().and_then(|runtime| {
        let harness = runtime.block_on(H::open()).map_err(|Missing(line)| line)?;
        Ok((runtime, Arc::new(harness)))
    });
    match opened {
        Ok((runtime, harness)) => {
            let conclusion = libtest_mimic::run(&arguments, trials(&harness, &runtime, arguments.list));
            runtime.block_on(harness.close());
            conclusion.exit_code()
        }
        Err(line) => without_store(&arguments, &line),
    }
}

fn runtime() -> Result<Runtime, String> {
    // Two workers, so that a property that blocks one is seen by its time-out.
    Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|error| error.to_string())
}

/// A store that isn't there: nothing was shown, which nobody may take for a pass.
fn without_store(arguments: &Arguments, line: &str) -> ExitCode {
    let must_be_there = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    eprintln!("{line}");
    if must_be_there && !arguments.list {
        eprintln!("CI is set, so a store that isn't there fails the run");
        return ExitCode::FAILURE;
    }
    let trials = PROPERTIES.iter().map(|property| {
        let line = line.to_owned();
        Trial::ignorable_test(property.name, move || Ok(Completion::ignored_with(line)))
            .with_ignored_flag(arguments.list && !must_be_there)
    });
    libtest_mimic::run(arguments, trials.collect()).exit_code()
}

fn trials<H: Harness>(harness: &Arc<H>, runtime: &Runtime, list: bool) -> Vec<Trial> {
    // Of the capabilities only, which need no runtime that lives on.
    let provider = runtime.block_on(harness.provider());
    let alone = Arc::new(RwLock::new(()));
    // Those that run alone come last, so that nobody waits for them.
    let (exclusive, shared): (Vec<_>, Vec<_>) = PROPERTIES.iter().partition(|property| property.is_exclusive());
    let trial = |property: &'static Property| {
        let lacking = provider.as_ref().ok().and_then(|provider| property.lacks(&**harness, &**provider));
        // Programs that list first, as nextest does, learn here what will be ignored.
        let flagged = list && lacking.is_some();
        let (harness, alone) = (Arc::clone(harness), Arc::clone(&alone));
        Trial::ignorable_test(property.name, move || test(property, &harness, lacking, &alone))
            .with_ignored_flag(flagged)
    };
    shared.into_iter().chain(exclusive).map(trial).collect()
}

fn test<H: Harness>(
    property: &'static Property,
    harness: &Arc<H>,
    lacking: Option<Lacking>,
    alone: &RwLock<()>,
) -> Result<Completion, Failed> {
    let store = harness.store();
    let line = |outcome, reason: Option<&str>, seconds| {
        note(&Line { property: property.name, store, outcome, reason, seconds });
    };
    if let Some(lacking) = lacking {
        let reason = format!("{store}: {lacking}");
        line("ignored", Some(&reason), 0.0);
        return Ok(Completion::ignored_with(reason));
    }
    let _turn = Turn::take(property, alone);
    let started = now();
    let outcome = attempt(property, &**harness);
    let seconds = now().since(started).as_secs_f64();
    match outcome {
        Ok(()) => {
            line("passed", None, seconds);
            Ok(Completion::Completed)
        }
        Err(failure) => {
            let seen = failure.to_string();
            line("failed", Some(&seen), seconds);
            Err(seen.into())
        }
    }
}

/// The right to run: alone, or with others that don't mind.
enum Turn<'a> {
    Alone(#[expect(dead_code, reason = "held, not read")] RwLockWriteGuard<'a, ()>),
    Shared(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'a, ()>),
}

impl<'a> Turn<'a> {
    fn take(property: &Property, alone: &'a RwLock<()>) -> Self {
        if property.is_exclusive() {
            Self::Alone(alone.write().unwrap_or_else(PoisonError::into_inner))
        } else {
            Self::Shared(alone.read().unwrap_or_else(PoisonError::into_inner))
        }
    }
}

/// On a runtime of its own, so that what it leaves running ends with it.
fn attempt(property: &'static Property, harness: &dyn Harness) -> Result<(), Failure> {
    let runtime = runtime().map_err(Failure::new)?;
    let outcome = runtime.block_on(within(LIMIT, property.name, property.test(harness)));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome?
}
