//! The simulation: the same seed is the same run, some thousand seeds break no law, and the faults that it promises fall.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::time::Duration;

use lock_verify::{
    history::History,
    laws::{Terms, judge},
    simulation::{Counts, Told, simulate},
};

/// Runs these seeds; panics at the first that breaks a law.
fn run(seeds: std::ops::Range<u64>) -> Counts {
    let mut counts = Counts::default();
    for seed in seeds {
        let outcome = simulate(seed, Told::Nothing).unwrap();
        if let Some(violation) = outcome.violation {
            panic!("seed {seed} breaks {violation}\nreplay: cargo xtask simulate --replay {seed}");
        }
        counts += outcome.counts;
    }
    counts
}

#[test]
fn one_seed_is_one_run_to_the_byte() {
    for seed in 0..60 {
        let [first, second] = [(); 2].map(|()| simulate(seed, Told::Trace).unwrap());
        let (first, second) = (first.trace.unwrap(), second.trace.unwrap());
        if first != second {
            let differ = first.lines().zip(second.lines()).find(|(one, other)| one != other);
            panic!("seed {seed} ran in two ways, which part at {differ:?}");
        }
        assert!(first.lines().count() > 50, "seed {seed} did nothing");
    }
}

#[test]
fn whether_it_is_written_down_changes_nothing() {
    for seed in 60..70 {
        let (told, untold) = (simulate(seed, Told::Trace).unwrap(), simulate(seed, Told::Nothing).unwrap());
        assert_eq!((told.counts, told.lasted), (untold.counts, untold.lasted), "seed {seed}");
    }
}

/// The short form: it covers each kind of fault and each kind of work many times, and rare meetings of several of them
/// only by luck. The long form is `cargo xtask simulate --seeds 1000000`.
#[test]
fn no_law_is_broken_in_some_thousand_seeds() {
    let parts = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let counts = std::thread::scope(|scope| {
        let part = |part| scope.spawn(move || run(part * SEEDS / parts..(part + 1) * SEEDS / parts));
        let jobs: Vec<_> = (0..parts).map(part).collect();
        let mut counts = Counts::default();
        for job in jobs {
            counts += job.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        counts
    });
    for (label, count) in counts.table() {
        println!("{count:>10}  {label}");
        assert!(count > 0, "not one of: {label}");
    }
    // A resource without a fence is the control: it must have come to harm.
    assert!(counts.unfenced > 50 && counts.refused > 50, "{counts:?}");
    assert!(counts.grants > SEEDS * 50, "{counts:?}");
}

const SEEDS: u64 = 1500;

/// The checkers of histories know nothing of what the simulation knows, and come to the same.
#[test]
fn what_the_clients_saw_keeps_the_laws() {
    let mut checked = std::collections::BTreeMap::new();
    for seed in 0..60 {
        let events = simulate(seed, Told::History).unwrap().history.unwrap();
        let history = History::new(events).unwrap();
        // What a run may take beyond the laws' own bounds: a reply that never comes, and a pause after it.
        let terms = Terms { settle: Duration::from_secs(20), repeats: true, ..Terms::default() };
        let report = judge(&history, &terms);
        assert!(report.is_clean(), "seed {seed}:\n{report}");
        for finding in report.findings() {
            *checked.entry(finding.law.to_string()).or_insert(0) += finding.checked;
        }
    }
    println!("{checked:#?}");
    let told: Vec<&str> = checked.iter().filter(|(_, count)| **count > 0).map(|(law, _)| law.as_str()).collect();
    for law in ["L1", "L2", "L4", "L5", "L6", "L7", "L10"] {
        assert!(told.iter().any(|told| told.split(' ').next() == Some(law)), "{law} was not checked: {told:?}");
    }
}
