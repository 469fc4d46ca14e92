//! What a process that stands still does to data, and how the check at the resource refuses it.
//!
//!     cargo run --example unfenced-vs-fenced
//!
//! Two processes change one balance under one lock. The first reads it, and is frozen (SIGSTOP) for longer than its lease,
//! as a long garbage collection, a suspended machine or a full disk would do it. The second is granted the lock, and
//! writes. Then the first goes on where it stood, and writes what it had worked out from what it had read.
//!
//! `-- --svg FILE` draws what was seen: docs/fencing.svg was made by it.

#![allow(clippy::disallowed_methods, reason = "a program of its own: it reads its clock where it needs it")]

mod timeline;

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use leasehold::{
    FenceError, LeaseGuard, Pass, Resource, connect,
    sqlite::{
        SqliteFences, SqliteTransactions,
        sqlx::{self, Sqlite, SqlitePool, Transaction},
    },
};
use rustix::process::{Pid, Signal, kill_process};
use timeline::{Lane, Scene};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How the resource is guarded.
const WAYS: [(&str, &str); 3] = [
    ("unfenced", "Nobody checks"),
    (
        "hold",
        "Lock and data in one database: the grant is checked in the write's transaction (SqliteTransactions::hold)",
    ),
    ("admit", "The lock elsewhere: the highest token is kept beside the data (SqliteFences::admit)"),
];

const TTL: Duration = Duration::from_secs(1);
/// So that a person sees one after the other.
const A_WHILE: Duration = Duration::from_millis(300);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &*arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        ["write", way, directory, change] => write(way, Path::new(directory), change.parse()?).await,
        [] => show(None).await,
        ["--svg", file] => show(Some(Path::new(file))).await,
        _ => Err("usage: unfenced-vs-fenced [--svg FILE]".into()),
    }
}

/// Runs each scene, tells what was seen, and checks it.
async fn show(picture: Option<&Path>) -> Outcome<()> {
    let mut scenes = Vec::new();
    for (way, told) in WAYS {
        let (scene, balance) = play(way, told).await?;
        println!("{told}\n{}", scene.as_text());
        match (way, balance) {
            ("unfenced", 70) => println!("  => 70: what B put in is gone, and nobody was told\n"),
            ("hold" | "admit", 150) => println!("  => 150: A was refused, and knows it\n"),
            (_, other) => return Err(format!("{way}: the balance is {other}, which this example can't explain").into()),
        }
        scenes.push(scene);
    }
    if let Some(file) = picture {
        std::fs::write(file, timeline::draw(&scenes[..2]))?;
        println!("drawn: {}", file.display());
    }
    Ok(())
}

/// One scene: what happened, and what the balance is in the end.
async fn play(way: &str, told: &str) -> Outcome<(Scene, i64)> {
    let directory = tempfile::tempdir()?;
    let pool = data(directory.path(), way).await?;
    sqlx::raw_sql("CREATE TABLE account (cents INTEGER NOT NULL); INSERT INTO account VALUES (100)")
        .execute(&pool)
        .await?;

    let begun = Instant::now();
    let mut scene = Scene::new(told);
    let mut a = Writer::start(way, directory.path(), -30)?;
    let said = a.line()?;
    scene.note(Lane::A, begun.elapsed(), &said);
    let said = a.line()?;
    scene.note(Lane::A, begun.elapsed(), &said);
    a.signal(Signal::STOP)?;
    scene.note(Lane::A, begun.elapsed(), "frozen");

    // Waits for the lock, which is free when A's lease is over.
    let mut b = Writer::start(way, directory.path(), 50)?;
    scene.note(Lane::B, begun.elapsed(), "asks for the lock");
    let said = b.line()?;
    scene.note(Lane::B, begun.elapsed(), &said);
    let said = b.line()?;
    scene.note(Lane::B, begun.elapsed(), &said);
    tokio::time::sleep(A_WHILE).await;
    b.go_on()?;
    let said = b.line()?;
    scene.note(Lane::B, begun.elapsed(), &said);
    b.end()?;

    tokio::time::sleep(A_WHILE).await;
    a.signal(Signal::CONT)?;
    scene.note(Lane::A, begun.elapsed(), "goes on");
    a.go_on()?;
    let said = a.line()?;
    scene.note(Lane::A, begun.elapsed(), &said);
    a.end()?;
    let balance = sqlx::query_scalar("SELECT cents FROM account").fetch_one(&pool).await?;
    scene.note(Lane::Data, begun.elapsed(), &format!("balance {balance}"));
    Ok((scene, balance))
}

/// The file of the data; that of the locks, too, where the grant is checked in the transaction.
async fn data(directory: &Path, way: &str) -> Outcome<SqlitePool> {
    let file = directory.join(if way == "hold" { "locks.db" } else { "data.db" });
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).create_if_missing(true);
    Ok(SqlitePool::connect_with(options).await?)
}

/// A writer, in a process of its own: lock, read, think, write.
async fn write(way: &str, directory: &Path, change: i64) -> Outcome<()> {
    let locks = connect(&format!("sqlite:{}", directory.join("locks.db").display())).await?;
    let pool = data(directory, way).await?;
    let lease = locks.lock("account").ttl(TTL).acquire().await?;
    say(&format!("granted the lock, token {}", lease.token()))?;
    let balance: i64 = sqlx::query_scalar("SELECT cents FROM account").fetch_one(&pool).await?;
    // A careful program looks at its lease: it is valid here.
    lease.check()?;
    let new = balance + change;
    say(&format!("reads {balance}, works out {new}"))?;
    // Here it is frozen. What it looked at before tells it nothing afterwards.
    std::io::stdin().read_line(&mut String::new())?;
    match store(way, &pool, &lease, new).await {
        Ok(()) => say(&format!("writes {new}"))?,
        Err(error) => match error.downcast_ref::<FenceError>() {
            Some(refused) if refused.is_refusal() => say(&format!("{refused}"))?,
            _ => return Err(error),
        },
    }
    lease.release().await?;
    locks.settled().await;
    Ok(())
}

/// The write, with the check that belongs to it.
async fn store(way: &str, pool: &SqlitePool, lease: &LeaseGuard, new: i64) -> Outcome<()> {
    let fences = SqliteFences::new(pool.clone()).await?;
    let mut transaction: Transaction<'_, Sqlite> = pool.begin_with("BEGIN IMMEDIATE").await?;
    match way {
        "hold" => SqliteTransactions::new(pool.clone()).hold(&mut transaction, lease).await?,
        "admit" => fences.admit(&mut transaction, &Resource::new("account")?, lease, Pass::Again).await?,
        _ => {}
    }
    sqlx::query("UPDATE account SET cents = ?").bind(new).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

fn say(line: &str) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// A writer, seen from outside.
struct Writer {
    process: Child,
    told: BufReader<ChildStdout>,
    go: ChildStdin,
}

impl Writer {
    fn start(way: &str, directory: &Path, change: i64) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["write", way]).arg(directory).arg(change.to_string());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (told, go) = process.stdout.take().zip(process.stdin.take()).ok_or("no pipes")?;
        Ok(Self { process, told: BufReader::new(told), go })
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        match self.told.read_line(&mut line)? {
            0 => Err("a writer ended early; what went wrong stands above".into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    fn go_on(&mut self) -> Outcome<()> {
        Ok(writeln!(self.go)?)
    }

    fn signal(&self, signal: Signal) -> Outcome<()> {
        let process = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).ok_or("no such process")?;
        Ok(kill_process(process, signal)?)
    }

    fn end(&mut self) -> Outcome<()> {
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(format!("a writer failed: {status}").into()) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
