//! Judges recorded histories by the laws: `lock-verify judge FILE.. [--svg OUT]`.
//!
//! Exits with 0 if no law was broken but where that was to be expected, with 1 if one was, and with 2 if the files can't be read
//! as a history or the picture can't be written. What it prints tells which laws had nothing to check.

use std::{fs, io::Write, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use lock_verify::{
    history::{Recorded, read, to_edn},
    laws::{
        Facts, Report, Terms, judge,
        timeline::{Shown, draw},
    },
};

#[derive(Debug, Parser)]
#[command(about = "Judges recorded histories by the laws of the locks")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Judges the history that these files make up together.
    Judge(Judge),
    /// Writes the history that these files make up together as Jepsen's tools read it, to the standard output.
    Edn {
        /// One file per process, as they recorded them.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct Judge {
    /// One file per process, as they recorded them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Draws the first violation there, or the beginning of the history if there is none.
    #[arg(long, value_name = "OUT")]
    svg: Option<PathBuf>,
    /// How long after an expiry the store lets others wait.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// How often waiters ask where nothing tells them, or in case they weren't told.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    poll: Duration,
    /// How long a message may have been under way, faults aside.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// The store claims that waiters are served in the order in which they queued.
    #[arg(long)]
    fair: bool,
    /// The store claims that waiting costs it nothing.
    #[arg(long)]
    silent: bool,
    /// How many requests a count may hold beyond what waiting costs.
    #[arg(long, default_value_t = 0)]
    spare_requests: u64,
}

/// How many events of a history without violations are drawn.
const BEGINNING: usize = 400;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Judge(wanted) => wanted.run(),
        Command::Edn { files } => edn(&files),
    };
    done.unwrap_or_else(|told| {
        eprintln!("lock-verify: {told}");
        ExitCode::from(2)
    })
}

impl Judge {
    fn run(self) -> Result<ExitCode, String> {
        let recorded = read_all(&self.files)?;
        let terms = Terms {
            grace: self.grace,
            poll: self.poll,
            settle: self.settle,
            fair: self.fair,
            silent: self.silent,
            spare_requests: self.spare_requests,
            ..Terms::default()
        };
        let report = judge(&recorded.history, &terms);
        print(&report.to_string())?;
        if let Some(to) = self.svg {
            let picture = picture(&recorded, &terms, &report);
            fs::write(&to, picture).map_err(|error| format!("{}: {error}", to.display()))?;
        }
        Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn picture(recorded: &Recorded, terms: &Terms, report: &Report) -> String {
    let facts = Facts::new(&recorded.history, terms);
    let first = report.violations().next();
    let shown = first.map_or_else(|| Shown::beginning(&facts, BEGINNING), |first| Shown::violation(&facts, first));
    draw(&facts, &shown)
}

fn edn(files: &[PathBuf]) -> Result<ExitCode, String> {
    let recorded = read_all(files)?;
    for event in recorded.history.events() {
        print(&(to_edn(event) + "\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read_all(files: &[PathBuf]) -> Result<Recorded, String> {
    let recorded = read(files).map_err(|error| error.to_string())?;
    for file in &recorded.torn {
        eprintln!("lock-verify: {}: the last line is cut off, and left out", file.display());
    }
    Ok(recorded)
}

fn print(text: &str) -> Result<(), String> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
}
