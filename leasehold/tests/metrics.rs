//! What is counted, under which names.

#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test says what went wrong by failing")]

use std::time::Duration;

use leasehold::{Pass, Resource, prelude::*};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

#[test]
fn what_happens_to_locks_is_counted_by_store_and_class() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let locks = leasehold::connect("memory:").await.unwrap();
            let lock = || locks.lock("invoice-7").class("invoice").no_wait();
            lock().run(|_| async {}).await.unwrap();
            let guard = lock().acquire().await.unwrap();
            assert!(lock().acquire().await.is_err());
            guard.release().await.unwrap();
            let lost = lock().at_most_for(Duration::from_millis(20)).run(|_| std::future::pending::<()>()).await;
            assert!(lost.is_err());
            let tick = || locks.lock("invoice-7").tick(Tick(1)).run_or_skip(|_| async {});
            assert!(tick().await.unwrap().ran().is_some() && tick().await.unwrap().skipped().is_some());

            let fences = leasehold::connect_fences("memory:").await.unwrap();
            let accounts = Resource::new("accounts").unwrap();
            for (fence, passes) in [("5@accounts", true), ("4@accounts", false), ("9@other", false)] {
                let raised = fences.raise(&accounts, &fence.parse().unwrap(), Pass::Again).await;
                assert_eq!(raised.is_ok(), passes, "{fence}");
            }
        });
    });
    let mut seen: Vec<String> = snapshots
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let mut labels: Vec<_> =
                key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            labels.sort();
            let value = match value {
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Histogram(times) => format!("{} times", times.len()),
                DebugValue::Gauge(_) => panic!("there are no gauges"),
            };
            format!("{} {{{}}} {value}", key.key().name(), labels.join(","))
        })
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            "leasehold_acquire_seconds {class=,outcome=acquired,store=memory} 1 times",
            "leasehold_acquire_seconds {class=invoice,outcome=acquired,store=memory} 3 times",
            "leasehold_acquire_seconds {class=invoice,outcome=busy,store=memory} 1 times",
            "leasehold_acquires_total {class=,outcome=acquired,store=memory} 1",
            "leasehold_acquires_total {class=,outcome=finished,store=memory} 1",
            "leasehold_acquires_total {class=invoice,outcome=acquired,store=memory} 3",
            "leasehold_acquires_total {class=invoice,outcome=busy,store=memory} 1",
            "leasehold_fences_refused_total {class=,reason=other_lock,store=memory} 1",
            "leasehold_fences_refused_total {class=,reason=stale,store=memory} 1",
            "leasehold_hold_seconds {class=,outcome=released,store=memory} 1 times",
            "leasehold_hold_seconds {class=invoice,outcome=lost,store=memory} 1 times",
            "leasehold_hold_seconds {class=invoice,outcome=released,store=memory} 2 times",
            "leasehold_losses_total {class=invoice,reason=at_most_for,store=memory} 1",
        ]
    );
}
