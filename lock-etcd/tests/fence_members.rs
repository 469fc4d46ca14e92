//! Fenced writes at a cluster that loses its leader: what was told of each is true.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{Row, accounts, fence, pass, seconds, start};
use lock_core::{Applied, Clock, FenceError, FenceRegister, Locks, Pass, SystemClock};
use lock_etcd::{
    EtcdFences, EtcdLocks,
    etcd_client::{Client, GetOptions, SortOrder, SortTarget, TxnOp},
};
use testbed::EtcdCluster;

async fn act<T: Send + 'static>(
    cluster: &Arc<EtcdCluster>,
    act: impl FnOnce(&EtcdCluster) -> Result<T, testbed::Error> + Send + 'static,
) -> T {
    let cluster = Arc::clone(cluster);
    tokio::task::spawn_blocking(move || act(&cluster)).await.unwrap().unwrap()
}

/// What a writer was told of each write, by its key.
type Told = HashMap<String, Result<(), FenceError>>;

/// Writes until it is stopped, with each token some times; tokens rise over all writers.
async fn keep_writing(fences: EtcdFences, writer: usize, next: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::new();
    while !stop.load(Ordering::SeqCst) {
        let token = next.fetch_add(1, Ordering::SeqCst);
        for number in 0..8 {
            let key = format!("data/{token:010}/{writer}/{number}");
            let put = TxnOp::put(key.as_str(), "", None);
            let done = fences.write(&accounts(), &fence("x", token), Pass::Again, [put]).await.map(drop);
            let refused = done.as_ref().is_err_and(FenceError::is_refusal);
            told.insert(key, done);
            if refused {
                break;
            }
        }
        pass(Duration::from_millis(5)).await;
    }
    told
}

async fn written(cluster: &EtcdCluster) -> Vec<Row> {
    let members: Vec<_> = (0..3).map(|at| cluster.member(at).host_port().to_owned()).collect();
    let mut client = Client::connect(members, None).await.unwrap();
    let options = GetOptions::new().with_prefix().with_sort(SortTarget::Mod, SortOrder::Ascend);
    let found = client.get("data/", Some(options)).await.unwrap().take_kvs();
    found
        .iter()
        .map(|kv| Row {
            key: kv.key_str().unwrap().to_owned(),
            value: kv.value().to_vec(),
            modified: kv.mod_revision(),
            version: kv.version(),
        })
        .collect()
}

async fn what_is_told_of_a_write_is_true_while_leaders_fall() {
    let cluster = Arc::new(start(testbed::etcd_cluster).await);
    let (next, stop) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
    let mut writers = Vec::new();
    for writer in 0..4 {
        let fences = EtcdFences::builder(cluster.url()).operation_timeout(seconds(3)).build().await.unwrap();
        writers.push(tokio::spawn(keep_writing(fences, writer, Arc::clone(&next), Arc::clone(&stop))));
    }
    for fault in ["kill", "freeze", "cut off"] {
        pass(seconds(1)).await;
        let leader = act(&cluster, |cluster| cluster.await_leader(seconds(20), |_| true)).await;
        let begun = SystemClock.now();
        act(&cluster, move |cluster| match fault {
            "kill" => cluster.kill(leader),
            "freeze" => cluster.freeze(leader),
            _ => cluster.cut_off(leader),
        })
        .await;
        pass(seconds(5)).await;
        act(&cluster, move |cluster| match fault {
            "kill" => cluster.restart(leader),
            "freeze" => cluster.thaw(leader),
            _ => cluster.heal(leader),
        })
        .await;
        act(&cluster, |cluster| cluster.await_all(seconds(30))).await;
        println!("{fault}: the leader was away for {:.1?}", SystemClock.now().since(begun));
    }
    pass(seconds(1)).await;
    stop.store(true, Ordering::SeqCst);
    let mut told = Told::new();
    for writer in writers {
        told.extend(writer.await.unwrap());
    }
    // What is on its way has arrived, or never will.
    pass(seconds(2)).await;
    let rows = written(&cluster).await;
    let there: HashMap<&str, &Row> = rows.iter().map(|row| (row.key.as_str(), row)).collect();
    let (mut done, mut refused, mut doubts, mut failed, mut doubts_done) = (0, 0, 0, 0, 0);
    for (key, outcome) in &told {
        let row = there.get(key.as_str());
        assert!(row.is_none_or(|row| row.version == 1), "{key} was written twice");
        match outcome {
            Ok(()) => {
                done += 1;
                assert!(row.is_some(), "{key} was told to be written and isn't");
            }
            Err(error) if error.applied() == Applied::Maybe => {
                doubts += 1;
                doubts_done += usize::from(row.is_some());
            }
            Err(error) => {
                assert!(row.is_none(), "{key} was told to be refused and is there: {error}");
                if error.is_refusal() { refused += 1 } else { failed += 1 }
            }
        }
    }
    println!(
        "{done} done, {refused} refused, {failed} failed for certain, {doubts} in doubt, of which {doubts_done} were done"
    );
    assert!(rows.iter().all(|row| told.contains_key(&row.key)), "nothing is there that nobody attempted");
    let tokens: Vec<&str> = rows.iter().map(|row| &row.key[..15]).collect();
    assert!(tokens.is_sorted(), "tokens never fall");
    assert!(done > 100 && refused > 0, "{done} {refused}");
    let register = EtcdFences::connect(cluster.url()).await.unwrap();
    let highest = register.highest(&accounts()).await.unwrap().unwrap();
    assert_eq!(tokens.last().copied(), Some(format!("data/{:010}", highest.token().get()).as_str()));
}

/// It has the lock's key still, and knows nothing of what the others have decided.
async fn a_member_that_is_cut_off_answers_no_check_even_of_nothing() {
    let cluster = Arc::new(start(testbed::etcd_cluster).await);
    let leads = act(&cluster, |cluster| cluster.await_leader(seconds(20), |_| true)).await;
    let cut = (leads + 1) % 3;
    let rest: Vec<_> = (0..3).filter(|at| *at != cut).map(|at| cluster.member(at).host_port().to_owned()).collect();
    let theirs = EtcdLocks::connect(cluster.member_url(cut)).await.unwrap();
    let others = EtcdLocks::connect(&format!("etcd://{}/", rest.join(","))).await.unwrap();
    let guard = Locks::new(theirs.clone()).lock("x").ttl(seconds(4)).acquire().await.unwrap();
    let lease = (*guard).clone();
    theirs.write(&lease, []).await.unwrap();
    act(&cluster, move |cluster| cluster.cut_off(cut)).await;
    let late = async {
        // As long as it hasn't noticed that it is alone, nothing but a majority can tell.
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(theirs.write(&lease, []).await.map(drop));
            answers.push(
                theirs.write(&lease, [TxnOp::get("data", Some(GetOptions::new().with_serializable()))]).await.map(drop),
            );
        }
        answers
    };
    let next = Locks::new(others).lock("x").ttl(seconds(4)).acquire();
    let (answers, next) = tokio::join!(late, next);
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    next.unwrap().release().await.unwrap();
}

testbed::server_tests!(testbed::tests::private_etcd_can_be_had =>
    what_is_told_of_a_write_is_true_while_leaders_fall,
    a_member_that_is_cut_off_answers_no_check_even_of_nothing,
);
