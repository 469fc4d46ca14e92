//! The layout is Curator's: its clients and ours exclude each other.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::Duration;

use common::{OPEN, ask, fresh_path, give_back, in_line, locks, operator, refused, start, take};
use lock_core::{HolderInfo, LockProvider, LockState, OwnerId};
use testbed::ZooKeeper;

const TTL: Duration = Duration::from_secs(20);

/// Curator's `InterProcessMutex` on the path of a lock of ours, by ZooKeeper's own client.
fn create(path: &str, lock: &str, owner: &str) -> String {
    format!("create -s -e {path}/locks/{lock}/_c_{owner}-lock- 10.0.0.7")
}

/// As `LockInternals.getSortableName` and `Collections.sort` do.
fn sorted_as_curator(children: &[String]) -> Vec<String> {
    let mut sorted = children.to_vec();
    sorted.sort_by_key(|child| child[child.rfind("lock-").unwrap() + "lock-".len()..].to_owned());
    sorted
}

async fn who_came_first_by_either_has_it() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let ours = locks(&server, &path).await;
    operator.mkdir(&format!("{path}/locks/x"), &OPEN).await.unwrap();
    let id = "0a1b2c3d-0000-4000-8000-00000000abcd";
    let theirs = {
        let (path, id) = (path.clone(), id);
        start(move || {
            let mut session = ZooKeeper::of(&server).session(Duration::from_secs(30)).unwrap();
            let said = session.run(&create(&path, "x", id)).unwrap();
            assert!(said.contains("Created"), "{said}");
            Ok(session)
        })
        .await
    };
    // Theirs blocks ours, whether ours waits or not, and is shown as somebody of whom nothing is known but the id.
    let held = refused(&ours, &ask("x", TTL)).await;
    assert_eq!((held.holder, held.remaining), (Some(HolderInfo::default()), None));
    let waiting = in_line("x", TTL);
    assert_eq!(refused(&ours, &waiting).await.position, Some(0));
    let name = waiting.name.clone();
    let status = ours.inspect(&name).await.unwrap().unwrap();
    let LockState::Held(holding) = status.state else { panic!("{status:?}") };
    assert_eq!(holding.owner, id.replace('-', "").parse::<OwnerId>().unwrap());
    assert_eq!(status.waiters, Some(1));
    let mut woken = ours.watch(&name, waiting.owner).await.unwrap();

    // A second one of theirs comes after ours, by their own sort.
    let second = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || {
            let mut theirs = theirs;
            let said = theirs.run(&create(&path, "x", &id.replace("abcd", "beef"))).unwrap();
            assert!(said.contains("Created"), "{said}");
            theirs
        })
        .await
        .unwrap()
    };
    let children = operator.list_children(&format!("{path}/locks/x")).await.unwrap();
    let sorted = sorted_as_curator(&children);
    assert!(sorted[0].contains("abcd") && sorted[2].contains("beef"), "{sorted:?}");
    let digits = sorted[1].strip_prefix("_c_").unwrap()[..36].replace('-', "");
    assert_eq!(digits.parse::<OwnerId>().unwrap(), waiting.owner);

    // Their release is a delete, and wakes ours.
    operator.delete(&format!("{path}/locks/x/{}", sorted[0]), None).await.unwrap();
    tokio::time::timeout(common::LONG, woken.woken()).await.unwrap();
    let grant = take(&ours, &waiting).await;
    // Theirs would see itself behind ours until that is gone.
    give_back(&ours, &waiting, grant).await;
    let children = operator.list_children(&format!("{path}/locks/x")).await.unwrap();
    assert_eq!(children, [sorted[2].clone()]);
    refused(&ours, &ask("x", TTL)).await;
    // And their session's end frees what it had.
    tokio::task::spawn_blocking(move || drop(second)).await.unwrap();
    common::until("the end of their session", || async {
        operator.list_children(&format!("{path}/locks/x")).await.is_ok_and(|children| children.is_empty())
    })
    .await;
    take(&ours, &ask("x", TTL)).await;
}

async fn what_is_no_place_in_the_queue_is_left_alone() {
    let server = start(testbed::zookeeper).await;
    let (path, operator) = (fresh_path(), operator(&server).await);
    let ours = locks(&server, &path).await;
    operator.mkdir(&format!("{path}/locks/x/leases"), &OPEN).await.unwrap();
    let request = ask("x", TTL);
    let grant = take(&ours, &request).await;
    give_back(&ours, &request, grant).await;
    assert_eq!(operator.list_children(&format!("{path}/locks/x")).await.unwrap(), ["leases"]);
}

testbed::server_tests!(testbed::zookeeper =>
    who_came_first_by_either_has_it,
    what_is_no_place_in_the_queue_is_left_alone,
);
