//! Names and records that nobody nice would write.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]

mod common;

use std::time::Duration;

use common::{Home, TTL, ask, give_back, granted, is_held, name, take};
use lock_core::{Acquired, ErrorKind, HolderInfo, ListRequest, LockName, LockProvider, LockState, Released};
use lock_sqlite::{SqliteLocks, sqlx};

const HOSTILE: [&str; 14] = [
    "a",
    "A",
    "a ",
    "a/b",
    "..",
    "%",
    "_",
    "'; DROP TABLE leasehold_locks; --",
    "\"",
    "\\",
    "🔒",
    "é",
    "e\u{301}",
    "a\nb",
];

async fn page(locks: &SqliteLocks, prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
    let request = ListRequest { prefix: prefix.to_owned(), after: after.map(name), limit };
    locks.list(&request).await.unwrap().into_iter().map(|status| status.name.as_str().to_owned()).collect()
}

#[tokio::test]
async fn hostile_names_work_and_stay_apart() {
    let home = Home::new();
    let locks = home.locks().await;
    let long = ["x".repeat(512), "x".repeat(511), "é".repeat(256)];
    let names: Vec<&str> = HOSTILE.iter().copied().chain(long.iter().map(String::as_str)).collect();
    let requests: Vec<_> = names.iter().map(|lock| ask(lock, TTL)).collect();
    for (request, answer) in requests.iter().zip(locks.acquire_many(&requests).await) {
        let grant = granted(answer.unwrap());
        assert!(is_held(&locks, request.name.as_str()).await);
        assert_eq!(locks.release(&give_back(request, grant)).await.unwrap(), Released::Released);
    }
    let mut sorted: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    sorted.sort();
    assert_eq!(page(&locks, "", None, 1000).await, sorted, "byte order, as Rust sorts text");
}

#[tokio::test]
async fn a_prefix_has_no_wildcards_and_pages_follow_each_other() {
    let home = Home::new();
    let locks = home.locks().await;
    let names = ["%", "%a", "_", "a", "a%", "aa", "ab", "b", "\u{10ffff}", "\u{10ffff}z"];
    for answer in locks.acquire_many(&names.map(|lock| ask(lock, TTL))).await {
        granted(answer.unwrap());
    }
    assert_eq!(page(&locks, "%", None, 10).await, ["%", "%a"]);
    assert_eq!(page(&locks, "_", None, 10).await, ["_"]);
    assert_eq!(page(&locks, "\u{10ffff}", None, 10).await, ["\u{10ffff}", "\u{10ffff}z"]);
    assert_eq!(page(&locks, "a", None, 2).await, ["a", "a%"]);
    assert_eq!(page(&locks, "a", Some("a%"), 2).await, ["aa", "ab"]);
    assert_eq!(page(&locks, "a", Some("ab"), 2).await, [""; 0]);
    assert_eq!(page(&locks, "", None, 0).await.len(), 1, "a page has room for one at least");
    assert_eq!(page(&locks, "", None, u32::MAX).await.len(), names.len());
}

#[tokio::test]
async fn records_that_nobody_understands_are_errors_until_forced() {
    let home = Home::new();
    let locks = home.locks().await;
    for change in ["token = -1", "token = 9223372036854775807", "until_ns = -5", "owner = 'nobody'"] {
        take(&locks, &ask("x", TTL)).await;
        let spoil = format!("PRAGMA ignore_check_constraints = ON; UPDATE leasehold_locks SET {change};");
        sqlx::raw_sql(sqlx::AssertSqlSafe(spoil)).execute(&mut home.sql().await).await.unwrap();
        let error = locks.acquire(&ask("x", TTL)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{change}: {error}");
        assert_eq!(locks.inspect(&name("x")).await.unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(locks.force_release(&name("x")).await.unwrap());
        let request = ask("x", TTL);
        let grant = take(&locks, &request).await;
        assert!(grant.token.get() > 1_700_000_000_000_000);
        locks.release(&give_back(&request, grant)).await.unwrap();
    }
    take(&locks, &ask("x", TTL)).await;
    sqlx::query("UPDATE leasehold_locks SET holder = '{'").execute(&mut home.sql().await).await.unwrap();
    let Some(LockState::Held(holding)) = locks.inspect(&name("x")).await.unwrap().map(|status| status.state) else {
        panic!("held")
    };
    assert_eq!(holding.holder, HolderInfo::default());
}

#[tokio::test]
async fn a_holder_is_told_to_others() {
    let home = Home::new();
    let (one, two) = (home.locks().await, home.locks().await);
    let holder = HolderInfo { host: "h'ost\"".into(), pid: 7, label: "l🔒".repeat(100), since_micros: 3 };
    let request = lock_core::AcquireRequest { holder: holder.clone(), ..ask("x", TTL) };
    take(&one, &request).await;
    let Acquired::Held(held) = two.acquire(&ask("x", TTL)).await.unwrap() else { panic!("held") };
    assert_eq!(held.holder, Some(holder.bounded()));
    assert!(held.remaining.unwrap() <= TTL && held.remaining.unwrap() > TTL - Duration::from_secs(10));
    assert_eq!(two.inspect(&LockName::new("y").unwrap()).await.unwrap(), None);
}
