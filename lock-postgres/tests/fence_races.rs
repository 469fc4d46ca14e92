//! Guarded transactions beside everything that can end a grant: no two holders are ever inside at once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use common::{Place, ask, fence_of, give_back, ledger::Ledger, name, pass, seconds};
use lock_core::{
    Acquired, Clock, ErrorKind, Fence, FenceError, FencingToken, Lease, LockProvider, Locks, SystemClock, Waiting,
};
use lock_postgres::{PostgresLocks, PostgresTransactions, sqlx};

/// Who is between a hold that succeeded and the end of its transaction.
#[derive(Default)]
struct Inside {
    now: Mutex<(Option<FencingToken>, u32)>,
    highest: Mutex<Option<FencingToken>>,
}

impl Inside {
    fn enter(&self, token: FencingToken) {
        let mut now = self.now.lock().unwrap();
        assert!(now.0.is_none_or(|other| other == token), "{token} came in beside {:?}", *now);
        *now = (Some(token), now.1 + 1);
        let mut highest = self.highest.lock().unwrap();
        assert!(highest.is_none_or(|highest| highest <= token), "{token} came in after {highest:?}");
        *highest = Some(token);
    }

    /// Before the transaction's end is sent: from there on the next may come in.
    fn leave(&self) {
        let mut now = self.now.lock().unwrap();
        now.1 -= 1;
        if now.1 == 0 {
            now.0 = None;
        }
    }
}

type Transaction = sqlx::Transaction<'static, sqlx::Postgres>;

#[derive(Clone, Copy)]
enum Begun {
    Guarded,
    AtLevel(&'static str),
}

struct Race {
    locks: PostgresLocks,
    ledger: Ledger,
    transactions: PostgresTransactions,
    inside: Inside,
    grants: AtomicU32,
    held: AtomicU32,
    refused: AtomicU32,
    again: AtomicU32,
}

impl Race {
    /// Guarded from its beginning, in one message, or after it, in another.
    async fn guarded(&self, fence: &Fence, begun: Begun) -> Result<Transaction, FenceError> {
        let Begun::AtLevel(isolation) = begun else { return self.transactions.begin(fence).await };
        let mut tx = self.ledger.begin(isolation).await;
        match self.transactions.hold(&mut tx, fence).await {
            Ok(()) => Ok(tx),
            Err(error) => {
                tx.rollback().await.unwrap();
                Err(error)
            }
        }
    }

    async fn transaction(&self, fence: &Fence, begun: Begun, stay: Duration) {
        match self.guarded(fence, begun).await {
            Ok(mut tx) => {
                self.inside.enter(fence.token());
                self.held.fetch_add(1, Ordering::Relaxed);
                self.ledger.write(&mut tx, &fence.token().to_string()).await;
                pass(stay).await;
                self.inside.leave();
                tx.commit().await.unwrap();
            }
            Err(FenceError::NotHeld(_)) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(FenceError::Store(error)) if error.kind() == ErrorKind::Contention => {
                self.again.fetch_add(1, Ordering::Relaxed);
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    async fn holder(&self, number: u32, until: lock_core::Moment) {
        let mut chance = u64::from(number) * 7919 + 1;
        let mut draw = |below: u64| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (chance >> 33) % below
        };
        while SystemClock.now() < until {
            let mut request = ask("x", Duration::from_millis(100));
            if draw(2) == 0 {
                request.waiting = Waiting::Wake(seconds(5));
            }
            let grant = match self.locks.acquire(&request).await {
                Ok(Acquired::Granted(grant)) => grant,
                Ok(_) => {
                    pass(Duration::from_millis(draw(15))).await;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Contention => continue,
                Err(error) => panic!("{error:?}"),
            };
            self.grants.fetch_add(1, Ordering::Relaxed);
            let fence = fence_of(&request, grant);
            let begun = [Begun::Guarded, Begun::AtLevel("READ COMMITTED"), Begun::AtLevel("REPEATABLE READ")]
                [usize::try_from(draw(3)).unwrap()];
            // Some come late, some stay too long, and some have two at once.
            pass(Duration::from_millis(draw(130))).await;
            let stay = Duration::from_millis(draw(120));
            let second = self.transaction(&fence, begun, stay / 2);
            if draw(3) == 0 {
                let releasing = async {
                    let _ = self.locks.release(&give_back(&request, grant)).await;
                };
                tokio::join!(self.transaction(&fence, begun, stay), second, releasing);
            } else {
                second.await;
            }
        }
    }
}

async fn two_holders_are_never_inside_at_once() {
    let place = Place::new().await;
    let locks = place.builder().grace(Duration::ZERO).build().await.unwrap();
    let ledger = Ledger::new(&place).await;
    let transactions = locks.transactions(ledger.pool.clone());
    let none = || AtomicU32::new(0);
    let race = Arc::new(Race {
        locks,
        ledger,
        transactions,
        inside: Inside::default(),
        grants: none(),
        held: none(),
        refused: none(),
        again: none(),
    });
    let until = SystemClock.now() + seconds(8);
    let holders: Vec<_> = (0..5)
        .map(|number| {
            let race = race.clone();
            tokio::spawn(async move { race.holder(number, until).await })
        })
        .collect();
    let delete = format!("SET LOCAL lock_timeout = 20; DELETE FROM \"{}\".locks", place.schema);
    let (mut forced, mut deleted) = (0, 0);
    while SystemClock.now() < until {
        pass(Duration::from_millis(70)).await;
        forced += u32::from(race.locks.force_release(&name("x")).await.is_ok_and(|held| held));
        pass(Duration::from_millis(90)).await;
        // By somebody who isn't one of us.
        let mut admin = place.admin.begin().await.unwrap();
        match sqlx::raw_sql(sqlx::AssertSqlSafe(delete.clone())).execute(&mut *admin).await {
            Ok(_) => {
                admin.commit().await.unwrap();
                deleted += 1;
            }
            Err(_) => admin.rollback().await.unwrap(),
        }
    }
    for holder in holders {
        holder.await.unwrap();
    }
    let seen = |count: &AtomicU32| count.load(Ordering::Relaxed);
    let (held, refused) = (seen(&race.held), seen(&race.refused));
    println!(
        "{} grants, {forced} taken away, {deleted} deletions; {held} guarded transactions, {refused} refused, {} to be done again",
        seen(&race.grants),
        seen(&race.again)
    );
    assert!(held > 20 && refused > 5, "it was no race");
    let entries = race.ledger.entries().await;
    assert_eq!(entries.len(), usize::try_from(held).unwrap());
    let tokens: Vec<u64> = entries.iter().map(|entry| entry.parse().unwrap()).collect();
    assert!(tokens.is_sorted(), "somebody wrote after a later one: {tokens:?}");
    race.ledger.pool.close().await;
    drop(race);
    place.clear().await;
}

/// Read, wait and write: any that come between make the sum too small.
async fn sums_in_transactions_come_out_right() {
    let place = Place::new().await;
    let locks = Locks::new(place.locks().await);
    place.sql("CREATE TABLE {s}.sums (sum bigint); INSERT INTO {s}.sums VALUES (0)").await;
    let pool = sqlx::PgPool::connect(&place.url).await.unwrap();
    let transactions = PostgresTransactions::new(pool.clone()).schema(&place.schema).unwrap();
    let (read, write) = (
        format!("SELECT sum FROM \"{}\".sums", place.schema),
        format!("UPDATE \"{}\".sums SET sum = $1", place.schema),
    );
    let adding = (0..6).map(|_| async {
        for _ in 0..10 {
            let done = locks.lock("sum").wait_at_most(seconds(30)).run_in_transaction(
                &transactions,
                async |tx: &mut sqlx::Transaction<'static, sqlx::Postgres>, _: &Lease| {
                    let sum: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(read.clone())).fetch_one(&mut **tx).await?;
                    tokio::task::yield_now().await;
                    sqlx::query(sqlx::AssertSqlSafe(write.clone())).bind(sum + 1).execute(&mut **tx).await
                },
            );
            done.await.unwrap();
        }
    });
    futures_util::future::join_all(adding).await;
    assert_eq!(place.number("SELECT sum FROM {s}.sums").await, 60);
    locks.settled().await;
    pool.close().await;
    place.clear().await;
}

testbed::server_tests!(testbed::postgres => two_holders_are_never_inside_at_once, sums_in_transactions_come_out_right);
