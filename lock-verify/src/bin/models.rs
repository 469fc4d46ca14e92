//! Searches the models in full and prints what came of each: `models [words of the name] [--ways] [--minutes N]`.

use std::{process::ExitCode, time::Duration};

use lock_verify::models::{Expected, Size, cases};

const THREADS: usize = 2;

fn main() -> ExitCode {
    let (flags, words): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|word| word.starts_with("--"));
    let shows_ways = flags.iter().any(|flag| flag == "--ways");
    let limit = flags.iter().find_map(|flag| flag.strip_prefix("--minutes=")?.parse().ok());
    let limit = Duration::from_secs(60 * limit.unwrap_or(30));
    println!("{:<74} {:>9} {:>10} {:>5} {:>8}  result", "model", "states", "steps", "depth", "time");
    let mut all_right = true;
    for case in cases(Size::Full) {
        if !words.iter().all(|word| case.name.contains(word.as_str())) {
            continue;
        }
        let expected = case.expected;
        let (search, judged) = case.run(THREADS, limit);
        let result = match (&judged, expected) {
            (Err(why), _) => format!("WRONG: {why}"),
            (Ok(()), Expected::Clean { .. }) => "clean".into(),
            (Ok(()), Expected::Broken { law, .. }) => format!("found: {law} broken in {} steps", search.depth - 1),
        };
        let time = format!("{:.2} s", search.time.as_secs_f64());
        println!(
            "{:<74} {:>9} {:>10} {:>5} {time:>8}  {result}",
            search.model, search.states, search.steps, search.depth
        );
        let ways = search.broken.iter().chain(&search.seen).filter(|_| shows_ways);
        ways.for_each(|found| println!("    {}: {}", found.property, found.path.join(", ")));
        all_right &= judged.is_ok();
    }
    if let Some(peak) = peak_memory() {
        println!("most memory: {peak}");
    }
    if all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// As Linux tells it.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(|peak| peak.trim().to_owned())
}
