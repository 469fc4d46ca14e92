//! Three nodes, a job of a millisecond on each, sixty ticks: each tick runs at most once on every store, and none is lost
//! while a node lives that can run it, though the nodes' clocks differ and nodes are killed.
//!
//! How slow the machine is changes when things happen, and not what is right: nodes take every tick in order and wait for
//! the lock, however late they are.
//!
//! `LEASEHOLD_FLEET_TICKS=10` makes it shorter.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a step that fails is a test that fails")]

mod account;
mod node;
mod nodes;

use std::{process::ExitCode, sync::Arc, time::Duration};

use account::Account;
use leasehold::{Entropy, OsEntropy};
use libtest_mimic::{Arguments, Failed, Trial};
use node::Plan;
use nodes::{InThreads, Nodes, Processes};
use testbed::{Missing, PrivateServer, Server};

/// How often a node is killed.
const KILL_EVERY: Duration = Duration::from_secs(10);

/// How far each node's clock is from the one before.
const APART: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    if let Some(plan) = Plan::of_this_process() {
        return node::play(plan);
    }
    let mut arguments = Arguments::from_args();
    // They wait for the seconds to pass, so all may wait at once.
    arguments.test_threads.get_or_insert(16);
    let trials = vec![
        Trial::test("memory", || on(InThreads::new())),
        Trial::test("sqlite", || {
            let folder = tempfile::tempdir()?;
            on(Processes::on(format!("sqlite:{}", folder.path().join("locks.db").display())))
        }),
        of_server("postgres", testbed::postgres),
        of_server("redis", testbed::redis),
        of_server("mongo", testbed::mongo),
        of_server("etcd", testbed::etcd),
        of_server("zookeeper", testbed::zookeeper),
        redlock(),
        Trial::test("without_ticks_a_short_job_runs_on_every_node", || {
            let account = fleet(&InThreads::new(), &Plan::new(5).without_ticks(), KILL_EVERY)?;
            // The negative control: what is looked for below is found where it is.
            if account.ran_twice().is_empty() { Err("no tick ran twice".into()) } else { Ok(()) }
        }),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn of_server(name: &'static str, server: fn() -> Result<Server, Missing>) -> Trial {
    match server() {
        Ok(server) => Trial::test(name, move || on(Processes::on(server.url().to_owned()))),
        Err(missing) => without(name, missing),
    }
}

fn redlock() -> Trial {
    let masters = || -> Result<Vec<PrivateServer>, Missing> { (0..3).map(|_| testbed::redis_private()).collect() };
    match testbed::tests::private_redis_can_be_had() {
        Ok(()) => Trial::test("redlock", move || {
            let masters = masters().map_err(|missing| missing.to_string())?;
            let places: Vec<&str> = masters.iter().map(|master| master.host_port()).collect();
            on(Processes::on(format!("redlock://:leasehold@{}", places.join(","))))
        }),
        Err(missing) => without("redlock", missing),
    }
}

/// Ignored with the reason; a failure where CI is set.
fn without(name: &'static str, missing: Missing) -> Trial {
    let in_ci = std::env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
    eprintln!("{name}: {missing}");
    Trial::test(name, move || Err(missing.to_string().into())).with_ignored_flag(!in_ci)
}

fn on<N: Nodes>(nodes: N) -> Result<(), Failed> {
    let ticks = std::env::var("LEASEHOLD_FLEET_TICKS").ok().map_or(Ok(60), |ticks| ticks.parse())?;
    let account = fleet(&nodes, &Plan::new(ticks), KILL_EVERY)?;
    println!("{account}");
    account.verdict().map_err(Failed::from)
}

/// Lets a fleet run, and kills one of its nodes now and then, each of which is started again at once.
fn fleet<N: Nodes>(nodes: &N, plan: &Plan, kill_every: Duration) -> Result<Account, Failed> {
    let account = Arc::new(Account::new(plan.ticks));
    let mut clock_of = [0, 1, 2].map(|place: u32| nodes.start(&plan.on_node(APART * place), account.clone()));
    let kills = (plan.length().as_secs() / kill_every.as_secs()) as usize;
    for _ in 0..kills {
        // Anywhere within the time between two kills, so that it meets a node at any point of its work.
        let micros = u64::try_from(kill_every.as_micros())?;
        let pause = Duration::from_micros(micros / 2 + OsEntropy.next_u64() % micros);
        std::thread::sleep(pause.min(kill_every));
        let place = (OsEntropy.next_u64() % 3) as usize;
        nodes.kill(&mut clock_of[place]);
        account.killed(place);
        clock_of[place] = nodes.start(&plan.on_node(APART * place as u32).starting_anew(), account.clone());
    }
    for node in clock_of {
        nodes.wait(node);
    }
    Arc::into_inner(account).ok_or_else(|| "a node still reports".into())
}
