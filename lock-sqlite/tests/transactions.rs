//! Groups, dropped futures, and a file that others keep locked.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]

mod common;

use std::time::Duration;

use common::{Home, TTL, ask, extend, give_back, granted, is_held, take};
use futures_util::FutureExt;
use lock_core::{Acquired, Applied, ErrorKind, LockProvider, ReleaseRequest, Released, Renewed};
use lock_sqlite::{SqliteLocks, sqlx::Connection};

#[tokio::test]
async fn a_group_answers_in_order_and_one_name_goes_to_one_owner() {
    let home = Home::new();
    let locks = home.locks().await;
    let held = ask("held", TTL);
    take(&locks, &held).await;
    let (first, second, short) = (ask("x", TTL), ask("x", TTL), ask("y", Duration::from_millis(1)));
    let group = [first.clone(), ask("held", TTL), short, second.clone(), first.clone(), held.clone()];
    let answers = locks.acquire_many(&group).await;
    let grant = granted(answers[0].clone().unwrap());
    assert!(matches!(answers[1], Ok(Acquired::Held(_))));
    assert_eq!(answers[2].as_ref().unwrap_err().kind(), ErrorKind::InvalidTtl);
    assert!(matches!(answers[3], Ok(Acquired::Held(_))));
    assert_eq!(granted(answers[4].clone().unwrap()).token, grant.token);
    granted(answers[5].clone().unwrap());

    let stranger = extend(&second, grant);
    let renewed = locks.renew_many(&[extend(&first, grant), stranger, extend(&first, grant)]).await;
    let renewed: Vec<_> = renewed.into_iter().map(Result::unwrap).collect();
    assert_eq!(renewed, [Renewed::Held(TTL), Renewed::Lost, Renewed::Held(TTL)]);

    let strangers = ReleaseRequest::new(second.name.clone(), second.owner, None);
    let mine = give_back(&first, grant);
    let released = locks.release_many(&[strangers, mine.clone(), mine]).await;
    let released: Vec<_> = released.into_iter().map(Result::unwrap).collect();
    assert_eq!(released, [Released::NotHeld, Released::Released, Released::NotHeld]);
    assert!(locks.acquire_many(&[]).await.is_empty());
}

#[tokio::test]
async fn a_release_by_owner_alone_undoes_an_acquire_in_doubt() {
    let home = Home::new();
    let locks = home.locks().await;
    let request = ask("x", TTL);
    take(&locks, &request).await;
    let release = ReleaseRequest::new(request.name.clone(), request.owner, None);
    assert_eq!(locks.release(&release).await.unwrap(), Released::Released);
    assert_eq!(locks.release(&release).await.unwrap(), Released::NotHeld);
    assert!(!is_held(&locks, "x").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_futures_leave_the_store_usable_and_nothing_half_done() {
    let home = Home::new();
    let locks = home.locks().await;
    for spins in 0..200 {
        let request = ask("x", TTL);
        let mut acquire = Box::pin(locks.acquire(&request));
        // Cut off at another place each time.
        for _ in 0..spins % 40 {
            if acquire.as_mut().now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(acquire);
        // The writer's queue is fair: this comes after whatever was begun.
        let release = ReleaseRequest::new(request.name.clone(), request.owner, None);
        locks.release(&release).await.unwrap();
        let next = ask("x", TTL);
        let grant = take(&locks, &next).await;
        assert_eq!(locks.release(&give_back(&next, grant)).await.unwrap(), Released::Released);
    }
}

#[tokio::test]
async fn a_file_that_others_keep_locked_is_contention_and_nothing_happened() {
    let home = Home::new();
    let locks = SqliteLocks::builder(home.path()).busy_timeout(Duration::from_millis(100)).build().await.unwrap();
    let mut other = home.sql().await;
    let writing = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let requests = [ask("x", TTL), ask("y", TTL)];
    for answer in locks.acquire_many(&requests).await {
        let error = answer.unwrap_err();
        assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
    }
    writing.rollback().await.unwrap();
    take(&locks, &requests[0]).await;
}
