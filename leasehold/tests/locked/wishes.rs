//! What the arguments ask for.

use std::time::{Duration, SystemTime};

use leasehold::{LockState, prelude::*, testing::Stage, with_locks};

#[locked(name = "job", ttl = "20s", label = "nightly")]
async fn told(stage: Stage) -> (Duration, String) {
    let name = leasehold::LockName::new("job").unwrap();
    let status = leasehold::LockProvider::inspect(stage.store(), &name).await.unwrap().unwrap();
    let LockState::Held(holding) = status.state else { panic!("not held") };
    (holding.remaining, holding.holder.label)
}

#[locked(name = "job")]
async fn unlabelled(stage: Stage) -> (Duration, String) {
    let name = leasehold::LockName::new("job").unwrap();
    let status = leasehold::LockProvider::inspect(stage.store(), &name).await.unwrap().unwrap();
    let LockState::Held(holding) = status.state else { panic!("not held") };
    (holding.remaining, holding.holder.label)
}

#[tokio::test(start_paused = true)]
async fn people_see_the_ttl_and_the_label_or_the_functions_name() {
    let stage = Stage::new();
    let seen = with_locks(stage.locks(), told(stage.clone())).await.unwrap().ran().unwrap();
    assert_eq!(seen, (Duration::from_secs(20), "nightly".to_owned()));
    let seen = with_locks(stage.locks(), unlabelled(stage.clone())).await.unwrap().ran().unwrap();
    assert_eq!(seen, (Duration::from_secs(30), "unlabelled".to_owned()));
}

#[locked(name = "job")]
async fn at_once() {}

#[locked(name = "job", wait = "5s")]
async fn patient() {}

#[locked(name = "job", wait = "forever")]
async fn for_ever() {}

#[tokio::test(start_paused = true)]
async fn it_waits_as_long_as_it_is_told() {
    let stage = Stage::new();
    let other = stage.hold("job").await.unwrap();
    let begun = stage.clock().now();
    let waited = || stage.clock().now().since(begun).as_secs();
    use leasehold::Clock;
    let outcome = with_locks(stage.locks(), at_once()).await.unwrap();
    let Some(Skipped::Held(busy)) = outcome.skipped() else { panic!("{outcome:?}") };
    assert_eq!(busy.held.holder.as_ref().unwrap().label, "another node");
    assert_eq!(waited(), 0);
    assert!(with_locks(stage.locks(), patient()).await.unwrap().skipped().is_some());
    assert_eq!(waited(), 5);
    let (outcome, _) = tokio::join!(with_locks(stage.locks(), for_ever()), async {
        stage.pass(Duration::from_secs(3600)).await;
        other.release().await
    });
    assert_eq!(outcome.unwrap(), Outcome::Ran(()));
}

#[locked(name = "job", at_least_for = "30s")]
async fn short() {}

#[tokio::test(start_paused = true)]
async fn at_least_for_keeps_the_others_out_after_a_short_run() {
    let stage = Stage::new();
    assert!(with_locks(stage.locks(), short()).await.unwrap().ran().is_some());
    stage.pass(Duration::from_secs(29)).await;
    assert!(with_locks(stage.locks(), short()).await.unwrap().skipped().is_some());
    stage.pass(Duration::from_secs(2)).await;
    assert!(with_locks(stage.locks(), short()).await.unwrap().ran().is_some());
}

#[locked(name = "job", tick = fired_at)]
async fn once(fired_at: SystemTime) {
    let _ = fired_at;
}

#[locked(name = "job", tick = fired_at, retry)]
async fn until_it_worked(fired_at: Tick, works: bool) -> Result<(), &'static str> {
    let _ = fired_at;
    if works { Ok(()) } else { Err("it did not") }
}

#[locked(name = "job", tick = fired_at, retry)]
async fn until_it_gave_something(fired_at: Tick, works: bool) -> Result<impl std::fmt::Display + Send, &'static str> {
    let _ = fired_at;
    if works { Ok(7) } else { Err("it did not") }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_a_failed_run_also_where_the_type_has_no_name() {
    let stage = Stage::new();
    for (works, runs) in [(false, true), (true, true), (true, false)] {
        let outcome = with_locks(stage.locks(), until_it_gave_something(Tick(5), works)).await.unwrap();
        assert_eq!(outcome.ran().is_some(), runs);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tick_runs_once_or_until_it_worked() {
    let stage = Stage::new();
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(12 * 3600);
    for (tick, runs) in [(noon, true), (noon, false), (noon + Duration::from_secs(60), true), (noon, false)] {
        let outcome = with_locks(stage.locks(), once(tick)).await.unwrap();
        assert_eq!(outcome.ran().is_some(), runs, "{tick:?}");
    }
    let tick = Tick::from(noon + Duration::from_secs(120));
    for (works, runs) in [(false, true), (false, true), (true, true), (true, false)] {
        let outcome = with_locks(stage.locks(), until_it_worked(tick, works)).await.unwrap();
        assert_eq!(outcome.ran().is_some(), runs);
    }
}
