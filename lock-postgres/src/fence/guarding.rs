//! The statements of a guard, and what the server says to them.

use lock_core::Fence;
use sqlx::{
    AssertSqlSafe, PgConnection,
    postgres::{PgDatabaseError, PgRow},
};

use super::{Statement, elsewhere::Server, quoted, token};
use crate::{
    error::answered,
    statements::{Schema, fnv1a},
};

/// What the looks fail with if the grant doesn't hold the lock, in any language of the server's messages.
const REFUSED: &str = "refused by the fence of a lock";

/// What a beginning in one message fails with where that isn't enough, since a take-over is being committed.
const AGAIN: &str = "the fence of a lock looks again";

/// What those in one message fail with where the transaction sees only what was there at its first statement.
const ELSEWHERE: &str = "the fence of a lock looks elsewhere";

/// What `fence_marked.sql` fails with, and `fence_commit.sql`.
const ENDED: &str = "the transaction under a lock has ended before";

/// What `fence_same_server.sql` fails with.
const OTHER_SERVER: &str = "the fence of a lock was seen at another server";

const HOLD: &str = concat!(
    include_str!("../sql/fence_in_transaction.sql"),
    include_str!("../sql/fence_guard.sql"),
    include_str!("../sql/fence_look_held.sql")
);

const WAIT: &str = concat!(include_str!("../sql/fence_wait.sql"), include_str!("../sql/fence_look_held.sql"));

/// The guard comes before `BEGIN`, which takes what its message did so far into the transaction (PostgreSQL manual, 55.2.2.1):
/// so a refusal leaves no transaction behind. The driver doesn't roll one back whose beginning failed.
const BEGIN: &str = concat!(include_str!("../sql/fence_hold_at_once.sql"), "BEGIN");

/// Whether the guarded transaction is open still.
const OPEN: &str = concat!(include_str!("../sql/fence_in_transaction.sql"), include_str!("../sql/fence_marked.sql"));

/// After a look from elsewhere. Chained as in `fence_commit.sql`.
const COMMIT_MARKED: &str =
    concat!(include_str!("../sql/fence_marked.sql"), include_str!("../sql/fence_same_server.sql"), "COMMIT AND CHAIN");

/// The statements of one schema.
#[derive(Clone, Debug)]
pub(super) struct Statements {
    /// Guards a transaction; one row says whether that is enough, and one whether one look is, if the lock has a row. Guards none
    /// that sees only what was there at its first statement, and says so.
    pub(super) hold: Guarding,
    /// Guards any: after a look from elsewhere.
    pub(super) hold_after_look: Guarding,
    /// Goes on where that wasn't enough; its second row is the look's again.
    pub(super) wait: Guarding,
    pub(super) look_elsewhere: Guarding,
    pub(super) begin: Guarding,
    pub(super) commit: Guarding,
    pub(super) commit_marked: Guarding,
    /// With the mark of this grant.
    pub(super) open: Guarding,
    /// With the mark of whichever grant.
    pub(super) open_at_all: String,
}

impl Statements {
    pub(super) fn new(schema: &Schema) -> Self {
        let guarding = |template: &str| Guarding(Statement::new(schema, template));
        Self {
            hold: guarding(&HOLD.replace("{{looked}}", "false")),
            hold_after_look: guarding(&HOLD.replace("{{looked}}", "true")),
            wait: guarding(WAIT),
            look_elsewhere: guarding(include_str!("../sql/fence_look_elsewhere.sql")),
            begin: guarding(BEGIN),
            commit: guarding(include_str!("../sql/fence_commit.sql")),
            commit_marked: guarding(COMMIT_MARKED),
            open: guarding(OPEN),
            open_at_all: Statement::new(schema, OPEN).fill(&[("mark", "@")]),
        }
    }
}

/// A statement about a fence.
#[derive(Clone, Debug)]
pub(super) struct Guarding(Statement);

impl Guarding {
    pub(super) fn about(&self, fence: &Fence) -> String {
        self.fill(fence, "")
    }

    fn fill(&self, fence: &Fence, server: &str) -> String {
        let (lock, token) = (fence.lock().as_str(), token(fence));
        let mark = format!("{token}@{:016x};", fnv1a(lock));
        let place = place(lock).to_string();
        let values =
            [("lock", &*quoted(lock)), ("token", &token), ("mark", &mark), ("place", &place), ("server", server)];
        self.0.fill(&values)
    }

    pub(super) async fn run(&self, connection: &mut PgConnection, fence: &Fence) -> Result<Vec<PgRow>, sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(self.about(fence))).fetch_all(connection).await
    }

    /// After a look from elsewhere, which this server answered.
    pub(super) async fn run_at(
        &self,
        connection: &mut PgConnection,
        fence: &Fence,
        server: Server,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(self.fill(fence, &server.digits()))).fetch_all(connection).await
    }
}

/// Where a lock's take-overs are told, as `acquire.sql` computes it.
fn place(lock: &str) -> usize {
    let last = lock.chars().next_back().map_or(0, u32::from);
    (lock.len() + usize::try_from(last).unwrap_or(0)) & 31
}

/// Whether the server says that the grant doesn't hold its lock. Then it has failed the transaction as well.
pub(super) fn is_refusal(error: &sqlx::Error) -> bool {
    says(error, REFUSED)
}

/// Whether the server says that one message wasn't enough.
pub(super) fn must_look_again(error: &sqlx::Error) -> bool {
    says(error, AGAIN)
}

/// Whether the server says that the transaction sees only what was there at its first statement. Then nothing was done.
pub(super) fn must_look_elsewhere(error: &sqlx::Error) -> bool {
    says(error, ELSEWHERE)
}

/// Whether the server says that the guarded transaction isn't open any more, or that none is.
pub(super) fn has_ended(error: &sqlx::Error) -> bool {
    says(error, ENDED) || answered(error).is_some_and(|answer| answer.code() == "25P01")
}

/// Whether the server says that another one was asked from elsewhere.
pub(super) fn was_another_server(error: &sqlx::Error) -> bool {
    says(error, OTHER_SERVER)
}

/// Whether the server failed with these words of ours.
fn says(error: &sqlx::Error, words: &str) -> bool {
    let said = |answer: &PgDatabaseError| answer.code() == "22P02" && answer.message().contains(words);
    answered(error).is_some_and(said)
}
