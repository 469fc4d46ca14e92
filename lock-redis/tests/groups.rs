//! Many requests in one script: each gets its own answer, whatever happens to the server's memory of scripts.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use common::{Place, again, ask, give_back, granted, seconds, take};
use futures_util::future::join_all;
use lock_core::{Acquired, LockProvider, OsEntropy, OwnerId, Released, Renewed};

async fn each_of_a_group_has_its_own_answer() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    let (theirs, held) = take(&locks, "held").await;
    let mut wishes: Vec<_> = (0..600).map(|n| ask(&format!("lock-{n}"), seconds(30))).collect();
    wishes.insert(100, ask("held", seconds(30)));
    // The same lock twice: the second finds it held by the first.
    wishes.insert(200, ask("lock-3", seconds(30)));
    let grants: Vec<_> = locks.acquire_many(&wishes).await.into_iter().map(Result::unwrap).collect();
    for (at, answer) in grants.iter().enumerate() {
        assert_eq!(matches!(answer, Acquired::Granted(_)), at != 100 && at != 200, "{at}: {answer:?}");
    }
    let mine: Vec<_> = wishes
        .iter()
        .zip(&grants)
        .filter_map(|(wish, answer)| match answer {
            Acquired::Granted(grant) => Some((wish, *grant)),
            _ => None,
        })
        .collect();
    let mut renewals: Vec<_> = mine.iter().map(|(wish, grant)| again(wish, *grant)).collect();
    renewals[7].owner = OwnerId::random(&OsEntropy);
    for (at, answer) in locks.renew_many(&renewals).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), if at == 7 { Renewed::Lost } else { Renewed::Held(seconds(30)) }, "{at}");
    }
    let mut releases: Vec<_> = mine.iter().map(|(wish, grant)| give_back(wish, *grant)).collect();
    releases[9].token = Some(lock_core::FencingToken::new(u64::MAX));
    releases[11].token = None;
    for (at, answer) in locks.release_many(&releases).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), if at == 9 { Released::NotHeld } else { Released::Released }, "{at}");
    }
    assert_eq!(locks.release(&give_back(&theirs, held)).await.unwrap(), Released::Released);
}

async fn forgotten_scripts_are_sent_again_amid_the_load() {
    let place = Place::alone().await;
    let locks = place.locks().await;
    let over = Arc::new(AtomicBool::new(false));
    let flushing = {
        let (url, over) = (place.url().to_owned(), Arc::clone(&over));
        tokio::spawn(async move {
            let mut operator = common::operator(&url).await;
            let mut flushed = 0;
            while !over.load(Ordering::Relaxed) {
                let () = lock_redis::redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut operator).await.unwrap();
                flushed += 1;
            }
            flushed
        })
    };
    let rounds = join_all((0..4).map(|task| {
        let locks = locks.clone();
        async move {
            for round in 0..50 {
                let wishes: Vec<_> = (0..20).map(|n| ask(&format!("{task}-{round}-{n}"), seconds(30))).collect();
                let grants: Vec<_> =
                    locks.acquire_many(&wishes).await.into_iter().map(|answer| granted(answer.unwrap())).collect();
                let pairs = || wishes.iter().zip(&grants);
                let renewals: Vec<_> = pairs().map(|(wish, grant)| again(wish, *grant)).collect();
                for answer in locks.renew_many(&renewals).await {
                    assert_eq!(answer.unwrap(), Renewed::Held(seconds(30)));
                }
                let releases: Vec<_> = pairs().map(|(wish, grant)| give_back(wish, *grant)).collect();
                for answer in locks.release_many(&releases).await {
                    assert_eq!(answer.unwrap(), Released::Released);
                }
            }
        }
    }));
    rounds.await;
    over.store(true, Ordering::Relaxed);
    let flushed = flushing.await.unwrap();
    println!("the scripts were forgotten {flushed} times");
    assert!(flushed > 10, "{flushed}");
}

async fn a_dropped_call_leaves_the_provider_usable() {
    let place = Place::shared().await;
    let locks = place.locks().await;
    for round in 0..200_u64 {
        let wish = ask("x", seconds(30));
        let micros = std::time::Duration::from_micros(round * 10);
        let _ = tokio::time::timeout(micros, locks.acquire(&wish)).await;
        // Whether it was granted or not, and whether it is still on its way: the same owner has it now.
        let grant = granted(locks.acquire(&wish).await.unwrap());
        assert_eq!(locks.release(&give_back(&wish, grant)).await.unwrap(), Released::Released);
    }
}

testbed::server_tests!(testbed::tests::private_redis_can_be_had =>
    each_of_a_group_has_its_own_answer,
    forgotten_scripts_are_sent_again_amid_the_load,
    a_dropped_call_leaves_the_provider_usable,
);
