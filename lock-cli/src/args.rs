//! The command line: what can be asked for, and how it is explained.

use std::{ffi::OsString, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::{duration, exit};

/// Run a command while holding a distributed lock, and look after the locks.
#[derive(Debug, Parser)]
#[command(
    name = "leasehold",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "\
Examples:
  leasehold run nightly-report -n -- ./report.sh     on every host's cron: one of them runs it
  leasehold run deploy -w 5m -- make deploy          wait for up to five minutes
  leasehold status deploy                            who holds it, since when
  leasehold list                                     all locks

`leasehold run --help` says how a command is run, and what the exit codes mean."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    // No doc comment here: it would take the place of the long text below.
    Run(Run),
    /// Show who holds a lock
    Status(Status),
    /// Show all locks, or those whose names begin with PREFIX
    List(List),
    /// Take a lock away from whoever holds it
    Release(Release),
    /// Refuse what comes late: check a fencing token at the resource it is to write
    #[command(subcommand)]
    Fence(Fence),
    /// Print the statements that set a store up, for its administrator
    Schema(Schema),
}

#[derive(Debug, Args)]
#[command(
    override_usage = "leasehold run [OPTIONS] NAME -- COMMAND [ARG]...\n       leasehold run [OPTIONS] NAME -c 'SHELL LINE'",
    about = "Run a command while holding a lock",
    long_about = "\
Run a command while holding a lock.

The lock is a lease: it is renewed while the command runs, and others may have it one TTL after this host vanishes. \
A command never outlives its lease: when the store is out of reach for too long, and when `leasehold` itself is \
frozen or killed, the command's whole process group is ended before anybody else can have the lock. (The one exception: \
when both processes of `leasehold` are killed in the same instant, only the command itself is, and not what it started.) \
When somebody takes the lock away by force, it is ended as soon as the next renewal tells.

The command's stdin, stdout and stderr are passed through. It runs in a process group of its own; INT, TERM, HUP, \
QUIT, USR1 and USR2 are passed on to that group. What is left of the group when the command ends is ended too. \
It sees LEASEHOLD_LOCK, LEASEHOLD_TOKEN (a fencing token: a number that rises with each grant; hand it to what the \
command writes to, so that late writes can be refused: see `leasehold fence --help`), LEASEHOLD_FENCE (both in one word, for \
the header Fencing-Token), LEASEHOLD_OWNER and LEASEHOLD_STORE_KIND.",
    after_help = "\
Exit codes:
  the command's own, or 128+n if signal n ended it
    1  somebody else holds the lock (-E)
   64  wrong usage, name, time or store URL
   69  the store can't be reached or used
   70  the watchdog died, and the command was ended; or the system lacks something
   75  the lease was lost and the command was ended (--lost-exit-code)
  126  the command can't be run       127  the command was not found

Examples:
  leasehold run -n nightly-report -- ./report.sh
  leasehold run -w 10 --ttl 15s deploy -- make deploy
  leasehold run --at-least-for 30s hourly-mail -- ./send    no second run by a host whose clock is late
  leasehold run --at-most-for 1h backup -c 'pg_dump prod | gzip > prod.gz'
  leasehold run --store postgres://app@db/prod migrate -- ./migrate.sh"
)]
pub(crate) struct Run {
    /// The lock's name: 1 to 512 bytes of UTF-8
    pub(crate) name: String,

    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "shell", conflicts_with = "shell")]
    pub(crate) command: Vec<OsString>,

    /// Run this line with /bin/sh instead of a command
    #[arg(short = 'c', long = "command", value_name = "SHELL LINE")]
    pub(crate) shell: Option<OsString>,

    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// How soon others may take over when this host vanishes; renewed meanwhile
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub(crate) ttl: Duration,

    /// Don't wait if somebody holds the lock
    #[arg(short, long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,

    /// Wait at most so long (30s, 5m, 1h30m; a plain number is seconds) [default: for ever]
    #[arg(short, long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) wait: Option<Duration>,

    /// Be granted in the order of asking, over all hosts; fails where the store doesn't keep it (etcd and ZooKeeper do)
    #[arg(long)]
    pub(crate) fair: bool,

    /// End the command after this time, counted from the grant
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) at_most_for: Option<Duration>,

    /// Keep the lock taken for this long, even when the command ends sooner
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) at_least_for: Option<Duration>,

    /// Exit code when somebody else holds the lock, at once or after the wait
    #[arg(short = 'E', long, value_name = "N", default_value_t = exit::BUSY)]
    pub(crate) conflict_exit_code: u8,

    /// Exit code when the lease was lost
    #[arg(long, value_name = "N", default_value_t = exit::LOST)]
    pub(crate) lost_exit_code: u8,

    /// From SIGTERM to SIGKILL; at most a quarter of the lease, for it is over before the lease ends [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) kill_after: Option<Duration>,

    #[command(flatten)]
    pub(crate) speech: Speech,
}

#[derive(Debug, Args)]
#[command(after_help = "Exits 0 whether the lock is held or free; --json says which.")]
pub(crate) struct Status {
    /// The lock's name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    #[command(flatten)]
    pub(crate) speech: Speech,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only names that begin so
    #[arg(default_value = "")]
    pub(crate) prefix: String,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    #[command(flatten)]
    pub(crate) speech: Speech,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The holder learns of it only at its next renewal, a third of its ttl later at most: until then two may believe that \
they hold the lock. What is fenced with LEASEHOLD_TOKEN stays safe; the rest doesn't.")]
pub(crate) struct Release {
    /// The lock's name
    pub(crate) name: String,
    /// Yes, take it away from a holder that may still be at work
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    #[command(flatten)]
    pub(crate) speech: Speech,
}

/// What is to be done with the fence of a resource.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A process that stood still for longer than its lease doesn't know it, and may write when somebody else holds the lock. \
So each write says under which grant it is made, and the resource refuses a lower token than it has seen. The highest token \
of each resource is kept in the store that --store names.

The check and what a shell script does after it are two steps: what is written in the moment between is not refused. \
Programs that write to a database do both in one (docs/fencing.md).

Examples, in a script under `leasehold run nightly -- ./report.sh`:
  leasehold fence run report -- cp new.csv /srv/report.csv      not done if a later run has written
  leasehold fence check report \"$LEASEHOLD_TOKEN\" || exit 1
  curl -H \"Fencing-Token: $LEASEHOLD_FENCE\" -T new.csv https://ledger/report")]
pub(crate) enum Fence {
    /// Take a token in, or refuse it: exits 0 if it passes, and then lower ones are refused from now on
    Check(FenceCheck),
    // No doc comment here: it would take the place of the long text below.
    Run(FenceRun),
    /// Show the highest token that a resource has seen
    Show(FenceShow),
    /// Forget what a resource has seen, so that another lock can fence it
    Forget(FenceForget),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
    0  it passes
    1  refused: a later grant was seen, or the resource is fenced by another lock (-E)
   64  wrong usage, token, name or store URL
   69  the store can't be reached or used: whether the token was taken in, the message says")]
pub(crate) struct FenceCheck {
    /// What is to be written: 1 to 512 bytes of UTF-8
    pub(crate) resource: String,
    /// Under which grant: a number with --lock, or TOKEN@LOCK
    #[arg(allow_hyphen_values = true)]
    pub(crate) token: String,
    #[command(flatten)]
    pub(crate) rules: FenceRules,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    #[command(flatten)]
    pub(crate) speech: Speech,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "leasehold fence run [OPTIONS] RESOURCE -- COMMAND [ARG]...",
    about = "Run a command only if its token passes",
    long_about = "\
Run a command only if its token passes.

The token and its lock are those that `leasehold run` has put into LEASEHOLD_TOKEN and LEASEHOLD_LOCK, unless --token (and \
--lock) say otherwise. From the check on lower tokens are refused. The command takes the place of this process.",
    after_help = "\
Exit codes:
  the command's own
    1  refused: a later grant has written, or the resource is fenced by another lock (-E)
   64  wrong usage, token, name or store URL
   69  the store can't be reached or used: nothing was run; whether the token was taken in, the message says
  126  the command can't be run       127  the command was not found"
)]
pub(crate) struct FenceRun {
    /// What is to be written: 1 to 512 bytes of UTF-8
    pub(crate) resource: String,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", required = true)]
    pub(crate) command: Vec<OsString>,
    /// Under which grant: a number with --lock, or TOKEN@LOCK [default: LEASEHOLD_TOKEN of LEASEHOLD_LOCK]
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) rules: FenceRules,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    #[command(flatten)]
    pub(crate) speech: Speech,
}

#[derive(Debug, Args)]
pub(crate) struct FenceRules {
    /// Of which lock the token is [default: LEASEHOLD_LOCK]
    #[arg(long, value_name = "NAME")]
    pub(crate) lock: Option<String>,
    /// Let each token pass once, for what must not happen twice under one grant; one that passed is used up, also if what
    /// comes after it fails
    #[arg(long)]
    pub(crate) once: bool,
    /// Exit code when the token is refused, 1 to 255
    #[arg(short = 'E', long, value_name = "N", default_value_t = exit::BUSY, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) refused_exit_code: u8,
}

#[derive(Debug, Args)]
pub(crate) struct FenceShow {
    /// The resource's name
    pub(crate) resource: String,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    #[command(flatten)]
    pub(crate) speech: Speech,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Do this when no holder of the lock before can be at work any more: a late write of such a one would pass.")]
pub(crate) struct FenceForget {
    /// The resource's name
    pub(crate) resource: String,
    /// Yes, let whoever comes next fence it
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) store: StoreArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    #[command(flatten)]
    pub(crate) speech: Speech,
}

#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Which kind of store: postgres, sqlite or mongo
    #[arg(value_name = "STORE")]
    pub(crate) kind: String,
    /// The schema that is to hold the table, on MongoDB the collection [default: the store's own]
    #[arg(long, value_name = "NAME")]
    pub(crate) schema: Option<String>,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    #[command(flatten)]
    pub(crate) speech: Speech,
}

#[derive(Debug, Args)]
pub(crate) struct StoreArg {
    /// Which store, e.g. sqlite:/var/lib/app/locks.db, postgres://app@db/prod, redis://host, mongodb://host/db,
    /// etcd://a:2379,b:2379, zookeeper://a:2181,b:2181
    /// [default: a SQLite file in your state directory]
    ///
    /// A password in it is hidden from `ps`; better still, keep it in LEASEHOLD_STORE or in the store's own password file.
    #[arg(id = "store", long = "store", value_name = "URL", env = "LEASEHOLD_STORE", hide_env_values = true)]
    pub(crate) url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct JsonArg {
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Speech {
    /// Say nothing but failures
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say what the locks do (twice: what the stores' drivers do, too)
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// How messages on stderr are written
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One object a line
    Json,
}

impl Task {
    /// How to speak while doing it.
    pub(crate) fn speech(&self) -> &Speech {
        match self {
            Self::Run(Run { speech, .. })
            | Self::Status(Status { speech, .. })
            | Self::List(List { speech, .. })
            | Self::Release(Release { speech, .. })
            | Self::Fence(
                Fence::Check(FenceCheck { speech, .. })
                | Fence::Run(FenceRun { speech, .. })
                | Fence::Show(FenceShow { speech, .. })
                | Fence::Forget(FenceForget { speech, .. }),
            )
            | Self::Schema(Schema { speech, .. }) => speech,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
