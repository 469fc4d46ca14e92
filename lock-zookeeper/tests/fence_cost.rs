//! What fenced writes cost, by the server's own count and against plain ones.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{
    OPEN,
    fences::{fence, fences, resource},
    fresh_path, locks, operator, packets, start,
};
use futures_util::future::{join_all, try_join_all};
use lock_core::{Clock, FenceRegister, Locks, Pass, SystemClock};

/// As long as can be had, for few heartbeats.
const TTL: Duration = Duration::from_secs(30);

/// In steady state each fenced write is one message: no look before it, none after it.
async fn a_fenced_write_is_one_message() {
    const WRITES: u64 = 500;
    let server = start(testbed::zookeeper_private).await;
    let (operator, path, accounts) = (operator(&server).await, fresh_path(), resource("accounts"));
    operator.mkdir(&path, &OPEN).await.unwrap();
    let (ours, other) = (Arc::new(locks(&server, &path).await), locks(&server, &path).await);
    let client = Locks::builder_shared(Arc::clone(&ours) as _).build();
    let guard = client.lock("x").ttl(TTL).acquire().await.unwrap();
    let register = fences(&server, &path).await;
    for kind in ["plain", "guard", "guard, another client's lease", "register", "register, many at once"] {
        let write = async || match kind {
            "plain" => _ = operator.set_data(&path, b"x", None).await.unwrap(),
            "guard" => _ = ours.write(&guard, |multi| multi.add_set_data(&path, b"x", None)).await.unwrap(),
            "guard, another client's lease" => {
                _ = other.write(&guard, |multi| multi.add_set_data(&path, b"x", None)).await.unwrap();
            }
            _ => {
                let set = |multi: &mut lock_zookeeper::zookeeper_client::CheckWriter<'_>| {
                    multi.add_set_data(&path, b"x", None)
                };
                _ = register.write(&accounts, &guard, Pass::Again, set).await.unwrap();
            }
        };
        let first = packets(server.host_port()).await;
        write().await;
        let (before, begun) = (packets(server.host_port()).await, SystemClock.now());
        if kind.ends_with("at once") {
            join_all((0..WRITES).map(|_| write())).await;
        } else {
            for _ in 0..WRITES {
                write().await;
            }
        }
        let took = SystemClock.now().since(begun);
        let sent = packets(server.host_port()).await - before - 1;
        println!("{kind}: {sent} packets for {WRITES} writes in {took:.2?}, {} for the first", before - first - 1);
        // Heartbeats of the sessions come on top, a few a second.
        let heartbeats = 10 + 5 * took.as_secs() + WRITES / 50;
        assert!((WRITES..=WRITES + heartbeats).contains(&sent), "{kind}: {sent}");
    }
}

/// The middle one.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn a_fenced_write_takes_about_as_long_as_a_plain_one() {
    const ROUNDS: usize = 400;
    let server = start(testbed::zookeeper_private).await;
    let (operator, path, accounts) = (operator(&server).await, fresh_path(), resource("accounts"));
    operator.mkdir(&path, &OPEN).await.unwrap();
    let ours = Arc::new(locks(&server, &path).await);
    let client = Locks::builder_shared(Arc::clone(&ours) as _).build();
    let guard = client.lock("x").ttl(TTL).acquire().await.unwrap();
    let register = fences(&server, &path).await;
    let five = fence("x", 5);
    register.raise(&accounts, &five, Pass::Again).await.unwrap();
    let (mut plain, mut guarded, mut registered) = (Vec::new(), Vec::new(), Vec::new());
    let data = [7; 100];
    // In turns, so that whatever else the machine does slows all of them.
    for _ in 0..ROUNDS {
        let begun = SystemClock.now();
        operator.set_data(&path, &data, None).await.unwrap();
        plain.push(SystemClock.now().since(begun));
        let begun = SystemClock.now();
        ours.write(&guard, |multi| multi.add_set_data(&path, &data, None)).await.unwrap();
        guarded.push(SystemClock.now().since(begun));
        let begun = SystemClock.now();
        register.write(&accounts, &five, Pass::Again, |multi| multi.add_set_data(&path, &data, None)).await.unwrap();
        registered.push(SystemClock.now().since(begun));
    }
    let [plain, guarded, registered] = [plain, guarded, registered].map(median);
    let ratio = |time: Duration| time.as_secs_f64() / plain.as_secs_f64();
    println!(
        "one at a time, p50 of {ROUNDS}: plain {plain:.2?}; guard {guarded:.2?}, {:.2} times that; register {registered:.2?}, {:.2} times",
        ratio(guarded),
        ratio(registered)
    );
    assert!(ratio(guarded) < 1.5 && ratio(registered) < 1.5);

    const AT_ONCE: usize = 200;
    let (mut plain, mut registered) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let begun = SystemClock.now();
        try_join_all((0..AT_ONCE).map(|_| operator.set_data(&path, &data, None))).await.unwrap();
        plain.push(SystemClock.now().since(begun));
        let begun = SystemClock.now();
        let write = |_| register.write(&accounts, &five, Pass::Again, |multi| multi.add_set_data(&path, &data, None));
        try_join_all((0..AT_ONCE).map(write)).await.unwrap();
        registered.push(SystemClock.now().since(begun));
    }
    let [plain, registered] = [plain, registered].map(median);
    let ratio = registered.as_secs_f64() / plain.as_secs_f64();
    println!("{AT_ONCE} at once, p50 of 20: plain {plain:.2?}; register {registered:.2?}, {ratio:.2} times that");
    assert!(ratio < 3.0);
}

testbed::server_tests!(testbed::tests::private_zookeeper_can_be_had =>
    a_fenced_write_is_one_message,
    a_fenced_write_takes_about_as_long_as_a_plain_one,
);
