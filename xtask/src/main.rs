//! The project's own tasks: `cargo xtask --help`.

#![forbid(unsafe_code)]
// Tasks measure how long real programs take.
#![allow(clippy::disallowed_methods)]

mod bench;
mod features;
mod fire;
mod packages;
mod programs;
mod results;
mod seeded_bugs;
mod simulate;
mod table;
mod test;
mod testbed;

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

/// Tasks of this project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Set up what the tests need, run them all, and print the properties by store
    ///
    /// Works on a fresh Debian or Ubuntu machine with Rust and Docker: installs missing
    /// packages (as root, or by sudo that asks for no password), makes images, and starts
    /// the servers, which keep running afterwards. Without Docker it says so in one line
    /// and runs the rest; where CI is set, it fails.
    #[command(after_help = "Examples:\n  \
        cargo xtask test                       everything\n  \
        cargo xtask test -- grants::           the tests whose name contains grants::\n  \
        LEASEHOLD_TEST_POSTGRES=postgres://me:pw@host/db cargo xtask test\n  \
        LEASEHOLD_TEST_POSTGRES_IMAGE=postgres:18 cargo xtask test")]
    Test {
        /// Passed on to the test programs: a filter (one), and options such as --nocapture
        #[arg(last = true)]
        filters: Vec<String>,
    },
    /// Measure how quick each store is here: the shared servers of the testbed, in an optimised build
    Bench {
        /// Only these servers, by the names of `cargo xtask testbed status`, `memory` or `sqlite`
        only: Vec<String>,
    },
    /// Run the core in a simulated world, one run per seed, and judge it by the laws
    ///
    /// Nodes with the real guard, keeper, waiter and grouping, over a network that delays, loses,
    /// doubles and reorders, to one store in memory; clocks that drift and jump; nodes that are
    /// stopped for longer than their leases, suspended, cut off and killed. No real time passes in
    /// it, and one seed is one run, to the byte. Builds with optimisation first.
    ///
    /// Ends with a table of what happened, or at the first seed that breaks a law: with the law, the
    /// last events, and the command that shows the whole run.
    #[command(after_help = "Examples:\n  \
        cargo xtask simulate                        10,000 seeds: about half a minute on two cores\n  \
        cargo xtask simulate --seeds 1000000        the long form\n  \
        cargo xtask simulate --from 1000000 --seeds 1000000000 --minutes 30\n  \
        cargo xtask simulate --replay 73            every event of seed 73\n  \
        cargo xtask simulate --replay 73 --history 73.jsonl")]
    Simulate(simulate::Arguments),
    /// Put real mistakes back into the sources, one at a time, and show that each is caught
    ///
    /// The mistakes are the patches in seeded-bugs/. Each says which mistake it is, who made it, and
    /// the command that is to go red. It works on a copy in target/seeded-bugs.
    #[command(after_help = seeded_bugs::AFTER_HELP)]
    SeededBugs {
        /// Only those whose name contains one of these
        only: Vec<String>,
    },
    /// Break servers and clients at random for minutes, and judge by the laws what clients saw
    #[command(after_help = fire::AFTER_HELP)]
    Fire(fire::Options),
    /// Install the Debian packages that building and testing need, where they are missing
    ///
    /// As root, or by sudo that asks for no password. `cargo xtask test` does it by itself.
    Packages,
    /// Check that each feature of the facade brings its own store and no other store's driver
    Features,
    /// Start, list and remove the servers that the tests run against
    Testbed {
        #[command(subcommand)]
        action: testbed::Action,
    },
}

/// The cargo that runs us, and with it the same toolchain.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The stand-in of .cargo/config.toml reaches us as a variable. Handed on, it would count as a change, and etcd's
    // driver with all that stands on it be built anew.
    if std::env::var("PROTOC").is_ok_and(|protoc| protoc.ends_with("xtask/protoc.sh")) {
        cargo.env_remove("PROTOC");
    }
    cargo
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Test { filters } => test::run(&filters),
        Task::Bench { only } => bench::run(&only),
        Task::Simulate(arguments) => simulate::run(&arguments),
        Task::SeededBugs { only } => seeded_bugs::run(&only),
        Task::Fire(options) => fire::run(&options),
        Task::Packages => packages::install_missing().map(|()| ExitCode::SUCCESS),
        Task::Features => features::check().map(|()| ExitCode::SUCCESS),
        Task::Testbed { action } => testbed::run(action),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("error: {message}");
        ExitCode::FAILURE
    })
}
