//! Grants: who gets a lock, and who doesn't.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use lock_core::{
    AcquireRequest, Applied, Entropy, ErrorKind, LockName, LockProvider, OsEntropy, OwnerId, RenewRequest, StoreError,
};

use crate::{
    Failure, Harness,
    asker::{Asker, Outcome, SOON, clients, fresh_name, sleep, ttl},
    child::Child,
    ensure,
};

/// L1: A lock that nobody holds is granted at once, for a time that isn't nothing.
pub async fn a_free_lock_is_granted(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let asker = Asker::new(&provider, &fresh_name("free")?, ttl(&provider, 5000));
    let got = asker.get().await?;
    ensure!(!got.ttl.is_zero(), "a grant for no time at all");
    asker.must_still_hold(got.token, "after the grant").await?;
    asker.must_release(got.token).await
}

/// L1: A held lock is refused, and the refusal says who holds it and for how long.
pub async fn a_held_lock_is_refused(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let holder = Asker::new(&provider, &fresh_name("held")?, ttl(&provider, 5000));
    let got = holder.get().await?;
    let other = Asker { owner: OwnerId::random(&OsEntropy), ..holder.clone() };
    let held = other.must_be_refused("a held lock was asked for").await?;
    let longest = got.ttl + provider.capabilities().grace + provider.capabilities().ttl.granularity;
    ensure!(
        held.remaining.is_some_and(|remaining| !remaining.is_zero() && remaining <= longest),
        "remaining of a lease of {:?}: {:?}",
        got.ttl,
        held.remaining
    );
    let info = held.holder.ok_or_else(|| Failure::new("the refusal names no holder"))?;
    ensure!(info.pid == std::process::id() && info.label == "conformance", "the holder was told as {info:?}");
    holder.must_still_hold(got.token, "after a refusal").await?;
    holder.must_release(got.token).await
}

/// L1: Holding one lock says nothing of another.
pub async fn names_are_independent(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let one = Asker::new(&provider, &fresh_name("one")?, ttl(&provider, 5000));
    let two = Asker::new(&provider, &fresh_name("two")?, ttl(&provider, 5000));
    let (got_one, got_two) = (one.get().await?, two.get().await?);
    one.must_release(got_one.token).await?;
    two.must_still_hold(got_two.token, "after the release of another lock").await?;
    two.must_release(got_two.token).await
}

/// L1: Names that differ in case are two locks.
pub async fn names_are_case_sensitive(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let name = fresh_name("case-Äé")?;
    all_apart(&provider, &[name.as_str().to_lowercase(), name.as_str().to_uppercase(), name.to_string()]).await
}

/// L1: Whatever is a name works, and no two names meet: paths, patterns, quotes, blanks, 512 bytes.
pub async fn hostile_names_work_and_stay_apart(h: &dyn Harness) -> Outcome {
    const HOSTILE: [&str; 34] = [
        "a",
        "a/",
        "/a",
        "a/b",
        "a//b",
        "/",
        "..",
        ".",
        "../a",
        "%",
        "%2F",
        "a%2Fb",
        "a%b",
        "a_b",
        "*",
        "a*",
        "?",
        " ",
        "a ",
        " a",
        "\t",
        "\n",
        "a\nb",
        "\\",
        "'",
        "\"",
        "'; drop table locks; --",
        "{a}",
        "$1",
        ":a",
        "🔒",
        "e\u{301}",
        "\u{e9}",
        "\u{1}",
    ];
    let provider = h.provider().await?;
    let run = fresh_name("")?;
    let mut names: Vec<String> = HOSTILE.iter().map(|&hostile| hostile.to_owned()).collect();
    names.extend(HOSTILE.iter().map(|hostile| format!("{run}{hostile}")));
    names.extend(HOSTILE.iter().map(|hostile| format!("{hostile}{run}")));
    let long = format!("{run}{}", "x".repeat(LockName::MAX_BYTES - run.as_str().len() - 1));
    names.extend(["x", "y"].map(|last| format!("{long}{last}")));
    names.push(long);
    all_apart(&provider, &names).await
}

/// Each can be had while all others are held; each is held under its own name; each release frees only its own.
async fn all_apart(provider: &Arc<dyn LockProvider>, names: &[String]) -> Outcome {
    // A hundred names and more take a slow machine a while, and nothing renews them.
    let lease = ttl(provider, 120_000);
    let mut holds = Vec::new();
    for name in names {
        let asker = Asker::new(provider, &LockName::new(name)?, lease);
        let got = asker.get().await?;
        holds.push((asker, got));
    }
    for (asker, got) in &holds {
        asker.must_still_hold(got.token, "with all names held").await?;
    }
    while let Some((asker, got)) = holds.pop() {
        asker.must_release(got.token).await?;
        if let Some((last, got)) = holds.last() {
            last.must_still_hold(got.token, "after the release of another name").await?;
        }
    }
    Ok(())
}

/// L1: Names and times that can't be kept are refused with what is wrong with them, and nothing reaches the store.
pub async fn bad_names_and_ttls_are_refused_unsent(h: &dyn Harness) -> Outcome {
    for bad in [String::new(), "x".repeat(LockName::MAX_BYTES + 1), "a\0b".to_owned()] {
        refused_as(ErrorKind::InvalidName, LockName::new(&bad))?;
    }
    let provider = h.provider().await?;
    let range = provider.capabilities().ttl;
    let name = fresh_name("bad-ttl")?;
    let owner = OwnerId::random(&OsEntropy);
    let (early, late) = (range.min.saturating_sub(Duration::from_nanos(1)), range.max + Duration::from_nanos(1));
    for bad in [Duration::ZERO, Duration::from_nanos(1), early, late, Duration::MAX] {
        refused_as(ErrorKind::InvalidTtl, provider.acquire(&AcquireRequest::new(name.clone(), owner, bad)).await)?;
        let request = RenewRequest::new(name.clone(), owner, lock_core::FencingToken::new(1), bad);
        refused_as(ErrorKind::InvalidTtl, provider.renew(&request).await)?;
    }
    let status = provider.inspect(&name).await?;
    ensure!(status.is_none(), "refused requests left a record: {status:?}");
    Ok(())
}

fn refused_as<T: std::fmt::Debug>(kind: ErrorKind, answer: Result<T, StoreError>) -> Outcome {
    match answer {
        Err(error) if error.kind() == kind && error.applied() == Applied::No => Ok(()),
        other => Err(Failure::new(format!("expected a definite {kind:?}, and the answer was {other:?}"))),
    }
}

/// L3: The same owner asking again has one grant: the same token, and one release frees the lock.
pub async fn acquire_twice_with_one_owner_is_one_grant(h: &dyn Harness) -> Outcome {
    let provider = h.provider().await?;
    let asker = Asker::new(&provider, &fresh_name("twice")?, ttl(&provider, 5000));
    let (first, second) = (asker.get().await?, asker.get().await?);
    ensure!(first.token == second.token, "re-entry changed the token from {} to {}", first.token, second.token);
    let other = Asker { owner: OwnerId::random(&OsEntropy), ..asker.clone() };
    other.must_be_refused("a lock acquired twice by one owner").await?;
    asker.must_release(first.token).await?;
    let next = other.get().await?;
    other.must_release(next.token).await
}

/// L1: Two owners exclude each other, in one client as in two of one process (an owner is not a host).
pub async fn two_owners_in_one_process_exclude_each_other(h: &dyn Harness) -> Outcome {
    let (here, there) = (h.provider().await?, h.provider().await?);
    let name = fresh_name("owners")?;
    for other in [&here, &there] {
        let lease = ttl(&here, 5000);
        let (one, two) = (Asker::new(&here, &name, lease), Asker::new(other, &name, lease));
        let got = one.get().await?;
        two.must_be_refused("held by another owner of this process").await?;
        one.must_release(got.token).await?;
        let got = two.get().await?;
        one.must_be_refused("held by another owner of this process").await?;
        two.must_release(got.token).await?;
    }
    Ok(())
}

/// L1: Eight tasks that read, sleep and write two unguarded counters under two locks lose no count.
pub async fn eight_tasks_over_two_locks_count_exactly(h: &dyn Harness) -> Outcome {
    const TASKS: u32 = 8;
    const ROUNDS: u32 = 12;
    let clients = clients(h, 2).await?;
    let names = [fresh_name("count-0")?, fresh_name("count-1")?];
    let counters: Arc<[AtomicU32; 2]> = Arc::default();
    let tasks = (0..TASKS).map(|task| {
        let (locks, names, counters) = (clients[task as usize % 2].clone(), names.clone(), Arc::clone(&counters));
        async move {
            for round in 0..ROUNDS * 2 {
                let which = (task + round) as usize % 2;
                let guard = locks.lock(names[which].as_str()).ttl(Duration::from_secs(20)).acquire().await?;
                let seen = counters[which].load(Ordering::SeqCst);
                sleep(Duration::from_millis(1)).await;
                counters[which].store(seen + 1, Ordering::SeqCst);
                guard.release().await?;
            }
            Ok::<_, Failure>(())
        }
    });
    try_join_all(tasks.map(tokio::spawn)).await?.into_iter().collect::<Result<(), _>>()?;
    let counted = [0, 1].map(|which: usize| counters[which].load(Ordering::SeqCst));
    ensure!(counted == [TASKS * ROUNDS; 2], "counted {counted:?} instead of {} each", TASKS * ROUNDS);
    Ok(())
}

/// L1: Of a hundred tasks of four clients that want in at once, never two are inside.
pub async fn a_hundred_at_once_are_never_two_inside(h: &dyn Harness) -> Outcome {
    let clients = clients(h, 4).await?;
    let name = fresh_name("hundred")?;
    let inside = Arc::new(AtomicU32::new(0));
    let tasks = (0..100_usize).map(|task| {
        let (locks, name, inside) = (clients[task % 4].clone(), name.clone(), Arc::clone(&inside));
        async move {
            let guard = locks.lock(name.as_str()).ttl(Duration::from_secs(20)).acquire().await?;
            let before = inside.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            ensure!(before == 0, "{} were inside when one more came in", before);
            inside.fetch_sub(1, Ordering::SeqCst);
            guard.release().await?;
            Ok::<_, Failure>(())
        }
    });
    try_join_all(tasks.map(tokio::spawn)).await?.into_iter().collect()
}

/// L1: Two processes that read, sleep and write one file under one lock lose no count.
pub async fn two_processes_exclude_each_other(h: &dyn Harness) -> Outcome {
    const ROUNDS: u32 = 40;
    let name = fresh_name("processes")?;
    let file = std::env::temp_dir().join(format!("leasehold-count-{:016x}", OsEntropy.next_u64()));
    std::fs::write(&file, "0")?;
    let (path, rounds) = (file.display().to_string(), ROUNDS.to_string());
    let mut children = Vec::new();
    for _ in 0..2 {
        children.push(Child::start(h, "count", &[name.as_str(), &path, &rounds])?);
    }
    // Both are there before either begins, so that they do meet.
    for child in &mut children {
        child.expect("ready", SOON).await?;
    }
    for child in &mut children {
        child.say("go").await?;
    }
    for child in &mut children {
        child.expect("done", SOON * 3).await?;
    }
    let counted = std::fs::read_to_string(&file)?;
    std::fs::remove_file(&file)?;
    ensure!(counted == (2 * ROUNDS).to_string(), "two processes counted to {counted} instead of {}", 2 * ROUNDS);
    Ok(())
}
