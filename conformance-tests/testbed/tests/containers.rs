//! The testbed on itself, with real containers: shown as ignored, with the reason, where
//! Docker is missing, and failing there under CI.

// A test waits on real time, and says by a panic what it expected.
#![allow(clippy::disallowed_methods, clippy::expect_used)]

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use testbed::{Missing, Server};

const SOON: Duration = Duration::from_secs(30);

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let shared = if arguments.list { None } else { testbed::postgres().err() };
    let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    // Asked for only where the server runs elsewhere, when it is refused at once.
    let own = match std::env::var("LEASEHOLD_TEST_POSTGRES") {
        Ok(url) if !url.is_empty() => testbed::postgres_private().err(),
        _ => None,
    };

    let trial = |name: &str, test: fn() -> Outcome| match &shared {
        Some(missing) if in_ci => {
            let missing = missing.to_string();
            Trial::test(name, move || Err(missing.into()))
        }
        Some(missing) => ignored(name, missing),
        None => Trial::test(name, test),
    };
    let trial_of_own = |name: &str, test: fn() -> Outcome| match &own {
        Some(missing) => ignored(name, missing),
        None => trial(name, test),
    };
    let trials = vec![
        trial("many_may_ask_for_the_shared_server_at_once", many_at_once),
        trial("status_hides_the_password", status),
        trial_of_own("a_paused_server_is_not_ready_until_unpaused", pause),
        trial_of_own("a_killed_server_keeps_its_data", kill),
        trial_of_own("a_restarted_server_keeps_its_data_and_its_port", restart),
        trial_of_own("statements_are_counted", statements_are_counted),
        trial_of_own("a_private_server_is_gone_after_drop", gone_after_drop),
        trial_of_own("a_failed_command_says_what_it_was", failed_command),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn ignored(name: &str, missing: &Missing) -> Trial {
    Trial::test(format!("{name} ({missing})"), || Ok(())).with_ignored_flag(true)
}

fn sql(server: &Server, statement: &str) -> Result<String, testbed::Error> {
    server
        .exec(&[
            "psql",
            "--username=leasehold",
            "--dbname=leasehold",
            "--no-align",
            "--tuples-only",
            "--quiet",
            "--command",
            statement,
        ])
        .map(|answer| answer.trim().to_owned())
}

fn many_at_once() -> Outcome {
    let urls: Vec<String> = thread::scope(|scope| {
        let callers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| testbed::postgres().map(|server| server.url().to_owned()))).collect();
        callers.into_iter().map(|caller| caller.join().expect("no panic")).collect::<Result<_, _>>()
    })?;
    assert!(urls.iter().all(|url| *url == urls[0]));
    Ok(())
}

fn pause() -> Outcome {
    let server = testbed::postgres_private()?;
    server.pause()?;
    let began = Instant::now();
    assert!(server.await_ready(Duration::from_millis(400)).is_err());
    assert!(began.elapsed() < Duration::from_secs(5), "the wait is bounded");
    server.unpause()?;
    server.await_ready(SOON)?;
    Ok(())
}

fn kill() -> Outcome {
    let server = testbed::postgres_private()?;
    sql(&server, "create table kept as select 42 as n")?;
    server.kill()?;
    assert!(server.await_ready(Duration::from_millis(400)).is_err());
    server.start()?;
    server.await_ready(SOON)?;
    assert_eq!(sql(&server, "select n from kept")?, "42");
    Ok(())
}

fn restart() -> Outcome {
    let server = testbed::postgres_private()?;
    sql(&server, "create table kept as select 42 as n")?;
    server.restart()?;
    server.await_ready(SOON)?;
    assert_eq!(sql(&server, "select n from kept")?, "42");
    Ok(())
}

fn statements_are_counted() -> Outcome {
    let server = testbed::postgres_private()?;
    sql(&server, "select 'a statement to count'")?;
    let calls = sql(&server, "select sum(calls) from pg_stat_statements where query like 'select $1'")?;
    assert_eq!(calls, "1");
    assert_eq!(sql(&server, "show fsync")?, "on");
    assert_eq!(sql(&server, "show max_connections")?, "200");
    Ok(())
}

fn gone_after_drop() -> Outcome {
    let server = testbed::postgres_private()?;
    let address: std::net::SocketAddr = server.host_port().parse()?;
    drop(server);
    assert!(std::net::TcpStream::connect(address).is_err());
    Ok(())
}

fn failed_command() -> Outcome {
    let server = testbed::postgres_private()?;
    let error = server.unpause().expect_err("it is not paused").to_string();
    assert!(error.contains("docker unpause leasehold-testbed-postgres"), "{error}");
    assert!(error.contains("not paused"), "{error}");
    Ok(())
}

fn status() -> Outcome {
    let rows = testbed::status()?;
    let shared = rows.first().expect("a row for the shared server");
    assert!(shared.state.ends_with("ready"), "{shared:?}");
    assert!(shared.url.contains(":***@"), "{shared:?}");
    Ok(())
}
