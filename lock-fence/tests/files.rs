//! Files of a directory, fenced by locks that are kept anywhere.
#![cfg(feature = "files")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use lock_core::{
    Applied, Clock, ErrorKind, Fence, FenceError, FenceRegister, FencingToken, LockName, Pass, Resource, SystemClock,
};
use lock_fence::files::FileFences;

fn fence(lock: &str, token: u64) -> Fence {
    Fence::new(LockName::new(lock).unwrap(), FencingToken::new(token)).unwrap()
}

fn list() -> Resource {
    Resource::new("list").unwrap()
}

/// One file, `list`, under the resource of that name.
async fn put(fences: &FileFences, fence: &Fence, pass: Pass, text: &str) -> Result<(), FenceError> {
    fences.write(&list(), fence, pass, "list", text).await
}

fn register_of(directory: &Path, resource: &str) -> PathBuf {
    directory.join(".leasehold-fences").join(format!("{resource}.fence"))
}

#[tokio::test]
async fn tokens_never_fall_and_what_is_refused_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let fences = FileFences::open(home.path()).await.unwrap();
    let is = |text: &str| assert_eq!(fs::read_to_string(home.path().join("list")).unwrap(), text);
    assert_eq!(fences.highest(&list()).await.unwrap(), None);
    for (token, text) in [(5, "a"), (5, "b"), (7, "c")] {
        put(&fences, &fence("x", token), Pass::Again, text).await.unwrap();
        is(text);
    }
    for (token, pass) in [(6, Pass::Again), (5, Pass::Again), (7, Pass::Once)] {
        let refused = put(&fences, &fence("x", token), pass, "bad").await;
        assert!(matches!(refused, Err(FenceError::Stale(_))), "{token}: {refused:?}");
    }
    for lock in ["y", "X", "x "] {
        let refused = put(&fences, &fence(lock, 9), Pass::Again, "bad").await;
        assert!(
            matches!(&refused, Err(FenceError::OtherLock(other)) if other.fenced_by.as_str() == "x"),
            "{refused:?}"
        );
    }
    is("c");
    assert_eq!(fences.highest(&list()).await.unwrap(), Some(fence("x", 7)));
    let max = i64::MAX as u64;
    put(&fences, &fence("x", max), Pass::Once, "d").await.unwrap();
    fences.raise(&list(), &fence("x", max - 1), Pass::Again).await.unwrap_err();
    assert!(fences.forget(&list()).await.unwrap() && !fences.forget(&list()).await.unwrap());
    put(&fences, &fence("y", 1), Pass::Again, "e").await.unwrap();
    is("e");
}

#[tokio::test]
async fn a_register_that_is_torn_or_foreign_is_corrupt_and_nothing_is_written() {
    let home = tempfile::tempdir().unwrap();
    let fences = FileFences::open(home.path()).await.unwrap();
    let whole = "5@x-and-more\n";
    let torn = (0..whole.len()).map(|cut| &whole[..cut]);
    let long = format!("5@{}\n", "x".repeat(5000));
    for text in
        torn.chain(["-5@x\n", "0@x\n", "05@x\n", "5@x\n\n", "5@x\n6@x\n", "9223372036854775808@x\n", "x\n", &long])
    {
        fs::write(register_of(home.path(), "list"), text).unwrap();
        for fence in [fence("x-and-more", 6), fence("x", 6), fence("x-and", 5)] {
            let Err(FenceError::Store(error)) = put(&fences, &fence, Pass::Again, "bad").await else {
                panic!("{text:?} was taken for a fence")
            };
            assert_eq!((error.kind(), error.applied()), (ErrorKind::Corrupt, Applied::No), "{text:?}: {error}");
        }
        assert!(fences.highest(&list()).await.is_err());
        assert_eq!(fs::read_to_string(register_of(home.path(), "list")).unwrap(), text, "left as it was");
    }
    assert!(!home.path().join("list").exists());
    fs::write(register_of(home.path(), "list"), [0xff, b'\n']).unwrap();
    put(&fences, &fence("x", 6), Pass::Again, "bad").await.unwrap_err();
    assert!(fences.forget(&list()).await.unwrap());
    put(&fences, &fence("x", 1), Pass::Again, "good").await.unwrap();
}

#[tokio::test]
async fn files_stay_in_the_directory_and_keep_their_permissions() {
    let home = tempfile::tempdir().unwrap();
    let inner = home.path().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(home.path().join("outside"), "as it was").unwrap();
    let fences = FileFences::open(&inner).await.unwrap();
    let long = Resource::new("É".repeat(256)).unwrap();
    fences.raise(&long, &fence("x", 5), Pass::Again).await.unwrap();
    assert_eq!(fences.highest(&long).await.unwrap(), Some(fence("x", 5)));
    let admission = fences.admit(&long, &fence("x", 5), Pass::Again).await.unwrap();
    for bad in ["", ".", "..", "../outside", "/etc/passwd", ".leasehold-fences", "a\0b"] {
        let error = admission.write(bad, "bad").await.unwrap_err();
        assert_eq!((error.kind(), error.applied()), (ErrorKind::InvalidName, Applied::No), "{bad:?}: {error}");
        admission.read(bad).await.unwrap_err();
    }
    drop(admission);
    let error = fences.write(&long, &fence("x", 6), Pass::Once, "../outside", "bad").await.unwrap_err();
    assert!(matches!(&error, FenceError::Store(error) if error.kind() == ErrorKind::InvalidName), "{error}");
    assert_eq!(fences.highest(&long).await.unwrap(), Some(fence("x", 5)), "the token wasn't used up");
    let admission = fences.admit(&long, &fence("x", 5), Pass::Again).await.unwrap();
    assert_eq!(admission.read("data").await.unwrap(), None);
    admission.write("data", "one").await.unwrap();
    fs::set_permissions(inner.join("data"), fs::Permissions::from_mode(0o4640)).unwrap();
    admission.write("data", "two").await.unwrap();
    assert_eq!(admission.read("data").await.unwrap().unwrap(), b"two");
    assert_eq!(fs::metadata(inner.join("data")).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_to_string(home.path().join("outside")).unwrap(), "as it was");
    let error = FileFences::open(home.path().join("missing")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
    let error = FileFences::open(home.path().join("outside")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
}

/// Waits until no file is being made.
async fn settled(directory: &Path) {
    while directory.join(".leasehold-fences/next").exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_one_admission_at_once_are_done_one_after_the_other() {
    let home = tempfile::tempdir().unwrap();
    let fences = FileFences::open(home.path()).await.unwrap();
    let admission = fences.admit(&list(), &fence("x", 5), Pass::Again).await.unwrap();
    for round in 0..20 {
        let content = |letter: u8| vec![letter; (1 << 20) + round];
        let (one, other) = tokio::join!(admission.write("a", content(b'a')), admission.write("b", content(b'b')));
        one.unwrap();
        other.unwrap();
        for letter in [b'a', b'b'] {
            let found = fs::read(home.path().join(char::from(letter).to_string())).unwrap();
            assert!(found == content(letter), "round {round}: {}, {} bytes", char::from(letter), found.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_dropped_ends_before_the_next_one_begins() {
    let home = tempfile::tempdir().unwrap();
    let fences = FileFences::open(home.path()).await.unwrap();
    let admission = fences.admit(&list(), &fence("x", 5), Pass::Again).await.unwrap();
    for round in 0..20 {
        let mut dropped = Box::pin(admission.write("list", vec![b'x'; 4 << 20]));
        let _begun = tokio::time::timeout(Duration::from_millis(1), &mut dropped).await;
        drop(dropped);
        let text = format!("new {round}");
        admission.write("list", text.clone()).await.unwrap();
        settled(home.path()).await;
        let found = fs::read(home.path().join("list")).unwrap();
        assert!(found == text.as_bytes(), "round {round}: {} bytes", found.len());
    }
}

/// A dropped write goes on behind; it must not arrive when somebody else is inside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_nobody_waits_for_any_more_keeps_others_out_to_its_end() {
    let home = tempfile::tempdir().unwrap();
    let (old, new) = (FileFences::open(home.path()).await.unwrap(), FileFences::open(home.path()).await.unwrap());
    for round in 1..=20 {
        let (first, second) = (fence("x", 2 * round), fence("x", 2 * round + 1));
        let admission = old.admit(&list(), &first, Pass::Again).await.unwrap();
        let mut write = Box::pin(admission.write("list", vec![b'x'; 4 << 20]));
        let begun = tokio::time::timeout(Duration::from_millis(1), &mut write).await;
        drop(write);
        drop(admission);
        put(&new, &second, Pass::Again, "new").await.unwrap();
        settled(home.path()).await;
        let found = fs::read(home.path().join("list")).unwrap();
        assert!(found == b"new", "round {round}: a late write of {} bytes (done: {})", found.len(), begun.is_ok());
    }
}

const CHILD: &str = "LEASEHOLD_FILES_CHILD";
const APPENDS: usize = 25;

/// Not a test: what the children of the others do.
#[tokio::test]
async fn child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (script, directory) = order.split_once(' ').unwrap();
    let fences = FileFences::open(directory).await.unwrap().patience(Duration::from_secs(60));
    if script == "stay" {
        let _inside = fences.admit(&list(), &fence("x", 9), Pass::Again).await.unwrap();
        println!("\ninside");
        return std::future::pending().await;
    }
    // The next token comes from a file as well: each append is a grant of its own, some of which then come late.
    for turn in 0..APPENDS {
        let token = u64::try_from(turn * 10 + script.parse::<usize>().unwrap() + 1).unwrap();
        match append(&fences, token).await {
            Ok(()) => println!("\nappended {token}"),
            Err(FenceError::Stale(_)) => println!("\nrefused {token}"),
            Err(other) => panic!("{other}"),
        }
    }
}

async fn append(fences: &FileFences, token: u64) -> Result<(), FenceError> {
    let admission = fences.admit(&list(), &fence("x", token), Pass::Again).await?;
    let mut text = admission.read("list").await?.unwrap_or_default();
    text.extend_from_slice(format!("{token}\n").as_bytes());
    Ok(admission.write("list", text).await?)
}

fn start(script: &str, directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{script} {}", directory.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_append_one_at_a_time_and_no_token_falls() {
    let home = tempfile::tempdir().unwrap();
    let mut children: Vec<Child> = (0..4).map(|at| start(&at.to_string(), home.path())).collect();
    let mut said = Vec::new();
    for child in &mut children {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        said.extend(lines.filter(|line| line.starts_with("appended ") || line.starts_with("refused ")));
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(said.len(), 4 * APPENDS);
    let mut acknowledged: Vec<u64> =
        said.iter().filter_map(|line| line.strip_prefix("appended ")).map(|token| token.parse().unwrap()).collect();
    acknowledged.sort_unstable();
    let text = fs::read_to_string(home.path().join("list")).unwrap();
    let kept: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert!(kept.is_sorted(), "{kept:?}");
    assert_eq!(kept, acknowledged, "nothing is lost, and nothing is there that nobody was told of");
    println!("4 processes, {} appends: {} kept, {} refused as stale", 4 * APPENDS, kept.len(), said.len() - kept.len());
}

#[tokio::test]
async fn a_killed_process_lets_others_in_and_what_it_raised_stays() {
    let home = tempfile::tempdir().unwrap();
    let fences = FileFences::open(home.path()).await.unwrap().patience(Duration::from_millis(200));
    put(&fences, &fence("x", 5), Pass::Again, "before").await.unwrap();
    let mut child = start("stay", home.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "inside"), "the child ended early");
    // While it is inside nobody else is.
    let outcome = put(&fences, &fence("x", 10), Pass::Again, "bad").await;
    let Err(FenceError::Store(error)) = &outcome else { panic!("{outcome:?}") };
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Contention, Applied::No), "{error}");
    assert_eq!(fences.highest(&list()).await.unwrap(), Some(fence("x", 9)), "a look needs no turn");
    child.kill().unwrap();
    child.wait().unwrap();
    let stale = put(&fences, &fence("x", 8), Pass::Again, "bad").await;
    assert!(matches!(stale, Err(FenceError::Stale(_))), "{stale:?}");
    assert_eq!(fs::read_to_string(home.path().join("list")).unwrap(), "before");
    put(&fences, &fence("x", 9), Pass::Again, "after").await.unwrap();
    assert_eq!(fs::read_to_string(home.path().join("list")).unwrap(), "after");
}

/// What anybody does who wants a file to be whole after a power cut.
fn replace_plainly(directory: &Path, bytes: &[u8]) {
    let next = directory.join("plain.next");
    let mut file = fs::File::create(&next).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    fs::rename(next, directory.join("plain")).unwrap();
    fs::File::open(directory).unwrap().sync_all().unwrap();
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// One kind after the other in each round, so that all meet with the same machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_replacement_costs_a_flush_or_two_more_than_a_plain_one() {
    const ROUNDS: u64 = 100;
    // Beside the build, since /tmp may be memory.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let fences = FileFences::open(home.path()).await.unwrap();
    let rising = Resource::new("rising").unwrap();
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 1..=ROUNDS {
        for (kind, times) in times.iter_mut().enumerate() {
            let begun = SystemClock.now();
            match kind {
                0 => {
                    let directory = home.path().to_owned();
                    tokio::task::spawn_blocking(move || replace_plainly(&directory, &[b'x'; 1000])).await.unwrap();
                }
                1 => put(&fences, &fence("x", 5), Pass::Again, &"x".repeat(1000)).await.unwrap(),
                _ => {
                    let higher = fence("x", round);
                    let write = fences.write(&rising, &higher, Pass::Once, "rising", [b'x'; 1000]);
                    write.await.unwrap();
                }
            }
            times.push(SystemClock.now().since(begun));
        }
    }
    let [plain, fenced, raised] = times.map(median);
    let (more, most) = (fenced.as_secs_f64() / plain.as_secs_f64(), raised.as_secs_f64() / plain.as_secs_f64());
    println!(
        "durable replacement of a file, median of {ROUNDS}: plain {plain:?}; fenced {fenced:?} ({more:.2}x); fenced and \
         raised {raised:?} ({most:.2}x)"
    );
    if plain < Duration::from_millis(1) {
        // A disk that flushes at once shows what threads cost, and not what flushes do.
        println!("not judged: this disk is too fast to tell");
        return;
    }
    assert!(more < 2.0 && most < 4.0, "{plain:?}, {fenced:?}, {raised:?}");
}
