//! What an observer is told.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test says what went wrong by failing")]

mod support;

use std::{sync::Arc, time::Duration};

use lock_core::*;
use support::{Mishap, Stage};

const TTL: Duration = Duration::from_secs(9);

fn watched(stage: &Stage, observer: Arc<dyn Observer>) -> Locks {
    Locks::builder(stage.clone()).clock(stage.clock().clone()).observer(observer).build()
}

#[tokio::test(start_paused = true)]
async fn it_is_told_what_happens_and_of_which_class() {
    let (stage, told) = (Stage::new(), Arc::new(TestObserver::default()));
    let locks = watched(&stage, told.clone());
    let lock = || locks.lock("invoice-7").class("invoice").ttl(TTL).no_wait();
    stage.next(Operation::Renew, Mishap::Refused);
    lock().run(|_| stage.pass(Duration::from_secs(5))).await.unwrap();
    let other = stage.hold("invoice-7").await.unwrap();
    assert!(lock().run(|_| async {}).await.is_err());
    other.release().await.unwrap();
    let lost = lock().at_most_for(Duration::from_secs(1)).run(|_| std::future::pending::<()>()).await;
    assert!(lost.is_err());
    locks.lock("invoice-7").tick(Tick(1)).run(|_| async {}).await.unwrap();
    assert!(locks.lock("invoice-7").tick(Tick(1)).run(|_| async {}).await.is_err());
    stage.set_down(true);
    assert!(lock().acquire().await.is_err());

    let told = told.take();
    assert!(told.iter().all(|told| told.store == "memory"), "{told:?}");
    let kinds: Vec<_> = told
        .iter()
        .map(|told| {
            let kind = match told.event {
                Event::Acquired { .. } => "acquired",
                Event::Busy { .. } => "busy",
                Event::Finished => "finished",
                Event::AcquireFailed { kind: Some(ErrorKind::Unreachable) } => "failed",
                Event::Renewed => "renewed",
                Event::RenewalFailed { kind: ErrorKind::Unreachable } => "renewal failed",
                Event::Lost { reason: LossReason::AtMostFor, held } if held.as_secs() == 1 => "lost",
                Event::Released { held } if held.as_secs() <= 5 => "released",
                other => panic!("{other:?}"),
            };
            (told.class.as_deref().unwrap_or(""), kind)
        })
        .collect();
    assert_eq!(
        kinds,
        [
            ("invoice", "acquired"),
            ("invoice", "renewal failed"),
            ("invoice", "renewed"),
            ("invoice", "released"),
            ("invoice", "busy"),
            ("invoice", "acquired"),
            ("invoice", "lost"),
            ("", "acquired"),
            ("", "released"),
            ("", "finished"),
            ("invoice", "failed"),
        ]
    );
}

#[derive(Debug)]
struct Clumsy;

impl Observer for Clumsy {
    fn observed(&self, _: &'static str, _: Option<&str>, _: &Event) {
        panic!("on purpose");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_panics_costs_no_lease() {
    let stage = Stage::new();
    let locks = watched(&stage, Arc::new(Clumsy));
    let guard = locks.lock("x").ttl(TTL).acquire().await.unwrap();
    stage.pass(TTL * 5).await;
    assert!(guard.is_valid());
    assert_eq!(guard.release().await.unwrap(), ReleaseOutcome::Released);
}
