//! Transactions that are not the guarded one any more, though one is open. SQLite ended it, and the driver began one within it:
//! by a savepoint, by which SQLite begins a transaction where there is none, and which the driver leaves open when it undoes it.

use futures_util::FutureExt;
use lock_core::{Applied, Lease, LockProvider, Locks, Pass, Transactions};
use lock_sqlite::sqlx::{self, Connection, Sqlite, SqliteConnection, Transaction};

use crate::{
    app::{append, entries, resource, store_error},
    common::{TTL, ask, give_back, take},
    guarded::{Guarded, end, is_usable},
};

/// What the work does after its first write.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// It ignores what ended its transaction, and so in the next ones.
    DroppedAfter,
    RolledBackAfter,
    KeptAfter,
    TwoAfter,
    /// It lets each item have a transaction of its own, and ignores which ended.
    EachForItself,
    /// It waits no longer for one to begin, which the driver undoes twice then.
    HalfBegun,
    BegunAnew,
}

const WAYS: [Way; 7] = [
    Way::DroppedAfter,
    Way::RolledBackAfter,
    Way::KeptAfter,
    Way::TwoAfter,
    Way::EachForItself,
    Way::HalfBegun,
    Way::BegunAnew,
];

impl Way {
    async fn go(self, transaction: &mut SqliteConnection) {
        append(transaction, "gone").await.unwrap();
        match self {
            Self::EachForItself => {
                for ends in [true, false] {
                    let mut item = transaction.begin().await.unwrap();
                    if ends {
                        end(&mut item).await;
                    }
                }
            }
            // Until one isn't begun at once.
            Self::HalfBegun => while transaction.begin().now_or_never().is_some() {},
            Self::BegunAnew => {
                sqlx::raw_sql("ROLLBACK; BEGIN IMMEDIATE").execute(transaction).await.unwrap();
            }
            _ => {
                end(transaction).await;
                let mut within = transaction.begin().await.unwrap();
                append(&mut within, "on its own").await.unwrap();
                match self {
                    Self::RolledBackAfter => within.rollback().await.unwrap(),
                    Self::KeptAfter => within.commit().await.unwrap(),
                    Self::TwoAfter => drop(within.begin().await.unwrap()),
                    _ => drop(within),
                }
            }
        }
    }
}

/// The file is free, the connection can be used on, and of what was guarded nothing is there.
async fn is_undone(guarded: &Guarded) {
    let request = ask("other", TTL);
    let grant = take(&guarded.locks, &request).await;
    guarded.locks.release(&give_back(&request, grant)).await.unwrap();
    is_usable(&guarded.pool).await;
    assert!(!entries(&guarded.pool).await.contains(&"gone".to_owned()));
}

#[tokio::test]
async fn another_transaction_than_the_guarded_one_is_not_committed_as_that() {
    let guarded = &Guarded::new().await;
    let locks = Locks::new(guarded.locks.clone());
    for (way, fails) in WAYS.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        println!("{way:?}, {fails}");
        let work = async |transaction: &mut Transaction<'static, Sqlite>, _: &Lease| {
            way.go(transaction).await;
            append(transaction, "unguarded").await.unwrap();
            if fails { Err("on purpose") } else { Ok(()) }
        };
        let done = locks.lock("y").ttl(TTL).run_in_transaction(&guarded.transactions, work).await;
        let error = done.unwrap_err();
        assert_eq!(error.applied(), Applied::Maybe, "{error}");
        assert!(error.to_string().contains("rolled it back"), "{error}");
        is_undone(guarded).await;
    }
}

#[tokio::test]
async fn a_check_in_another_transaction_tells_of_it() {
    let guarded = &Guarded::new().await;
    let Guarded { transactions, fences, fence, .. } = guarded;
    // One that was begun anew can be checked anew.
    let ways = || WAYS.into_iter().filter(|way| !matches!(way, Way::BegunAnew));
    for (way, by_guard) in ways().flat_map(|way| [(way, true), (way, false)]) {
        println!("{way:?}, {by_guard}");
        let mut transaction = transactions.begin(fence).await.unwrap();
        way.go(&mut transaction).await;
        let error = store_error(if by_guard {
            transactions.hold(&mut transaction, fence).await
        } else {
            fences.admit(&mut transaction, &resource("list"), fence, Pass::Again).await
        });
        assert_eq!(error.applied(), Applied::Maybe, "{error}");
        // Its end knows as well.
        let error = transactions.roll_back(transaction).await.unwrap_err();
        assert_eq!(error.applied(), Applied::Maybe, "{error}");
        is_undone(guarded).await;
    }
}

/// The writes of one that the driver takes for open would be undone when it is dropped.
#[tokio::test]
async fn a_transaction_with_one_left_open_in_it_is_not_committed() {
    let guarded = &Guarded::new().await;
    let Guarded { transactions, fence, .. } = guarded;
    let mut transaction = transactions.begin(fence).await.unwrap();
    append(&mut transaction, "gone").await.unwrap();
    std::mem::forget(transaction.begin().await.unwrap());
    let error = store_error(transactions.commit(transaction, fence).await);
    assert_eq!(error.applied(), Applied::No, "{error}");
    assert!(error.to_string().contains("left open"), "{error}");
    is_undone(guarded).await;
}
