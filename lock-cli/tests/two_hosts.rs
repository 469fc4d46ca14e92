//! The main job, told as it happens: two hosts' cron fire the same command and one runs it; the one that runs it is
//! killed and the other takes over; that one is frozen, wakes up, and finds its command ended and its late write refused.
//!
//! A host is a container of its own with `leasehold` in it; the resource is a table that compares tokens.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::{process::Command, time::Duration};

use leasehold::{Clock, SystemClock};

/// A container that ends with this value.
struct Host {
    name: String,
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Host {
    /// Boots a host on which this is run as its only job.
    fn running(name: &str, server: &testbed::Server, run: &str, job: &str) -> Self {
        let name = format!("leasehold-host-{name}-{}", std::process::id());
        // Of the server's image we use its psql.
        let image = docker(&["inspect", "--format", "{{.Config.Image}}", "leasehold-testbed-postgres"]);
        let binary = format!("{}:/usr/local/bin/leasehold:ro", env!("CARGO_BIN_EXE_leasehold"));
        let store = format!("LEASEHOLD_STORE={}", server.url());
        let lock = format!("nightly-report-{}", std::process::id());
        let script = format!("exec leasehold run {run} {lock} -- sh -c '{job}'");
        docker(&[
            "run",
            "--detach",
            "--init",
            "--name",
            &name,
            "--network",
            "host",
            "--volume",
            &binary,
            "--env",
            &store,
            "--entrypoint",
            "sh",
            &image,
            "-c",
            &script,
        ]);
        Self { name }
    }

    fn exit_code(&self) -> i32 {
        docker(&["wait", &self.name]).parse().unwrap()
    }

    fn is_running(&self) -> bool {
        docker(&["inspect", "--format", "{{.State.Running}}", &self.name]) == "true"
    }

    fn log(&self) -> String {
        let output = Command::new("docker").args(["logs", &self.name]).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", &self.name]).output();
    }
}

/// The resource: one row with the highest token seen, and a list of the writes that it accepted.
struct Resource<'a>(&'a testbed::Server);

impl Resource<'_> {
    const TABLES: &'static str = "drop table if exists report, written;
        create table report (fence bigint not null); insert into report values (0);
        create table written (id bigint generated always as identity, host text, token bigint)";

    fn sql(&self, statement: &str) -> String {
        let options = ["psql", "--username=leasehold", "--dbname=leasehold", "-XAtqc", statement];
        self.0.exec(&options).unwrap().trim().to_owned()
    }

    /// A write under a token: refused by the statement that would do it if a higher one was seen.
    fn write(host: &str, token: &str) -> String {
        format!(
            "with fence as (update report set fence = {token} where fence <= {token} returning fence)
             insert into written (host, token) select $${host}$$, fence from fence returning id"
        )
    }

    /// The shell lines of a job that writes for ever.
    fn job(&self, host: &str) -> String {
        let statement = Self::write(host, "$LEASEHOLD_TOKEN").replace("$$", "\\$\\$").replace('\n', " ");
        format!(
            "echo \"token $LEASEHOLD_TOKEN\"; trap \"\" TERM; \
             while :; do psql -XAtq \"$LEASEHOLD_STORE\" -c \"{statement}\" >/dev/null; sleep 0.05; done"
        )
    }

    /// The token of this host's first accepted write, once there is one.
    fn first_write_of(&self, host: &str) -> u64 {
        let begun = SystemClock.now();
        loop {
            let token = self.sql(&format!("select token from written where host = '{host}' limit 1"));
            if let Ok(token) = token.parse() {
                return token;
            }
            assert!(SystemClock.now().since(begun) < Duration::from_secs(30), "{host} never wrote");
        }
    }

    fn writes_of(&self, host: &str) -> u64 {
        self.sql(&format!("select count(*) from written where host = '{host}'")).parse().unwrap()
    }
}

async fn one_runs_the_other_takes_over_and_the_frozen_one_is_refused() {
    let server = testbed::postgres().unwrap();
    let resource = Resource(&server);
    resource.sql(Resource::TABLES);

    // Cron fires on both.
    let job = |host| resource.job(host);
    let (a, b) = std::thread::scope(|scope| {
        let a = scope.spawn(|| Host::running("a", &server, "-n --ttl 3s", &job("a")));
        let b = scope.spawn(|| Host::running("b", &server, "-n --ttl 3s", &job("b")));
        (a.join().unwrap(), b.join().unwrap())
    });
    let begun = SystemClock.now();
    while a.is_running() && b.is_running() {
        assert!(SystemClock.now().since(begun) < Duration::from_secs(30), "both run:\n{}\n{}", a.log(), b.log());
    }
    let (runs, stays_out, first) = if a.is_running() { (a, b, "a") } else { (b, a, "b") };
    assert_eq!(stays_out.exit_code(), 1, "{}", stays_out.log());
    let token_first = resource.first_write_of(first);
    println!("both fired; {first} runs under {token_first}, the other said: {}", stays_out.log().trim());

    // The one that runs it is killed, as when the power fails; a host that waits takes over.
    let second = Host::running("second", &server, "--ttl 3s", &job("second"));
    let begun = SystemClock.now();
    while !second.log().contains("waiting for") {
        assert!(SystemClock.now().since(begun) < Duration::from_secs(30), "{}", second.log());
    }
    docker(&["kill", "--signal", "KILL", &runs.name]);
    let killed = SystemClock.now();
    let token_second = resource.first_write_of("second");
    println!("killed; the second took over after {:.1?} under {token_second}", SystemClock.now().since(killed));
    assert!(token_second > token_first);

    // That one is frozen with all that is on it, its watchdog too; a third host takes over.
    let third = Host::running("third", &server, "--ttl 3s", &job("third"));
    docker(&["pause", &second.name]);
    let token_third = resource.first_write_of("third");
    assert!(token_third > token_second);
    let written_while_frozen = resource.writes_of("second");

    // It wakes up. What it still had in its hands is refused, and its command is ended.
    docker(&["unpause", &second.name]);
    let woken = SystemClock.now();
    let late = resource.sql(&Resource::write("second", &token_second.to_string()));
    assert_eq!(late, "", "a late write under {token_second} was accepted after {token_third}");
    assert_eq!(second.exit_code(), 75, "{}", second.log());
    println!("woken; its late write was refused, and it exited 75 after {:.1?}", SystemClock.now().since(woken));
    assert_eq!(resource.writes_of("second"), written_while_frozen, "nothing of it was accepted after the thaw");
    assert!(third.is_running());

    // Law 4, over the whole story.
    let falls = resource.sql(
        "select count(*) from (select token, lag(token) over (order by id) as before from written) w where token < before",
    );
    assert_eq!(falls, "0", "the accepted tokens never fall");
    println!("{} writes accepted, their tokens never fell", resource.sql("select count(*) from written"));
}

testbed::server_tests!(testbed::tests::private_postgres_can_be_had =>
    one_runs_the_other_takes_over_and_the_frozen_one_is_refused,
);
