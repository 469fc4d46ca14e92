//! Ends of transactions that nobody waits for to the last.

use std::{future::poll_fn, panic::AssertUnwindSafe, pin::pin, task::Poll, thread, time::Duration};

use lock_core::{Lease, Locks, Transactions};
use lock_sqlite::sqlx::{ConnectOptions, Connection, Sqlite, SqliteConnection, Transaction};
use tokio::{runtime::Builder, sync::Notify};

use crate::{
    app::{append, entries},
    common::{PATIENCE, TTL},
    guarded::{Guarded, end, is_usable},
};

/// What comes of a future that is looked at so many times and then dropped: before it has the last answer, or with it.
async fn cut_off<T>(future: impl Future<Output = T>, looks: usize, answered: bool) -> Option<T> {
    let (mut future, mut left) = (pin!(future), looks);
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 && !answered => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// As many as stand in the transaction when SQLite ends it, which the driver takes for open still.
async fn within(transaction: &mut SqliteConnection, depth: u32, ends: bool) {
    if depth > 0 {
        Box::pin(within(&mut transaction.begin().await.unwrap(), depth - 1, ends)).await;
    } else if ends {
        end(transaction).await;
    }
}

#[tokio::test]
async fn an_end_that_is_broken_off_leaves_its_connection_usable() {
    let Guarded { pool, transactions, fence, .. } = &Guarded::new().await;
    for (depth, ends) in [(0, false), (0, true), (1, true), (2, true)] {
        for (commits, answered) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut looks = 1;
            loop {
                let mut transaction = transactions.begin(fence).await.unwrap();
                within(&mut transaction, depth, ends).await;
                let over = if commits {
                    cut_off(transactions.commit(transaction, fence), looks, answered).await.is_some()
                } else {
                    cut_off(transactions.roll_back(transaction), looks, answered).await.is_some()
                };
                println!("within {depth}, ended {ends}, commits {commits}, answered {answered}: looked {looks} times");
                is_usable(pool).await;
                if over {
                    break;
                }
                looks += 1;
            }
        }
    }
}

/// The store's own thread does it.
#[test]
fn work_that_is_broken_off_is_undone_though_its_runtime_rests() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (guarded, locks) = runtime.block_on(async {
        let guarded = Guarded::new().await;
        let locks = Locks::new(guarded.locks.clone());
        (guarded, locks)
    });
    for depth in 0..3 {
        runtime.block_on(async {
            let has_written = Notify::new();
            let work = async |transaction: &mut Transaction<'static, Sqlite>, _: &Lease| {
                append(transaction, "undone").await.unwrap();
                hold_open(transaction, depth, &has_written).await
            };
            let run = locks.lock("y").ttl(TTL).run_in_transaction(&guarded.transactions, work);
            tokio::select! {
                _ = run => panic!("it came to an end"),
                () = has_written.notified() => {}
            }
        });
        // From here on nothing drives it.
        let options = guarded.pool.connect_options().as_ref().clone().busy_timeout(PATIENCE);
        let other = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut other = options.connect().await.unwrap();
                let free = other.begin_with("BEGIN IMMEDIATE").await.map(drop);
                other.close().await.unwrap();
                free
            })
        });
        other.join().unwrap().unwrap();
        runtime.block_on(is_usable(&guarded.pool));
    }
    assert!(!runtime.block_on(entries(&guarded.pool)).contains(&"undone".to_owned()));
}

async fn hold_open(transaction: &mut SqliteConnection, depth: u32, reached: &Notify) -> Result<(), ()> {
    if depth > 0 {
        return Box::pin(hold_open(&mut transaction.begin().await.unwrap(), depth - 1, reached)).await;
    }
    reached.notify_one();
    std::future::pending().await
}

#[test]
fn work_that_is_broken_off_outside_of_its_runtime_is_undone() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let guarded = runtime.block_on(Guarded::new());
    let locks = runtime.block_on(async { Locks::new(guarded.locks.clone()) });
    let has_written = Notify::new();
    let work = async |transaction: &mut Transaction<'static, Sqlite>, _: &Lease| {
        append(transaction, "undone").await.unwrap();
        hold_open(transaction, 0, &has_written).await
    };
    let mut run = Box::pin(locks.lock("y").ttl(TTL).run_in_transaction(&guarded.transactions, work));
    runtime.block_on(async {
        tokio::select! {
            _ = &mut run => panic!("it came to an end"),
            () = has_written.notified() => {}
        }
    });
    let dropped = std::panic::catch_unwind(AssertUnwindSafe(|| drop(run)));
    assert!(dropped.is_ok());
    runtime.block_on(is_usable(&guarded.pool));
    assert!(!runtime.block_on(entries(&guarded.pool)).contains(&"undone".to_owned()));
    drop(guarded);
    runtime.shutdown_timeout(Duration::from_secs(5));
}
