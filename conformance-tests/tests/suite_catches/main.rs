//! The suite can fail: each property below fails over a store with the flaw that it is there for, and passes without.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod flawed;

use std::process::ExitCode;

use conformance_tests::{Failure, PROPERTIES, Property};
use flawed::{Flaw, FlawedHarness};
use libtest_mimic::{Arguments, Failed, Trial};

const CATCHES: &[(Flaw, &[&str])] = &[
    (
        Flaw::ReleasesByNameOnly,
        &["strangers::a_stale_release_leaves_the_successor", "strangers::releasing_twice_is_harmless"],
    ),
    (Flaw::OwnerIsTheHost, &["grants::two_owners_in_one_process_exclude_each_other"]),
    (Flaw::CountsTokensInTheRecord, &["fence::tokens_rise_over_deletion_of_the_record"]),
    (
        Flaw::ReentryRaisesTheToken,
        &["grants::acquire_twice_with_one_owner_is_one_grant", "fence::renewal_keeps_the_token"],
    ),
    (Flaw::EvictsOnDoubt, &["doubt::renew_applied_but_reply_lost_is_still_held"]),
    (Flaw::DeniesDoubt, &["doubt::acquire_applied_but_reply_lost_is_granted_to_the_retry"]),
    (Flaw::DisownsItsRelease, &["doubt::release_applied_but_reply_lost_is_released"]),
    (
        Flaw::RenewsWhatExpired,
        &["leases::a_renew_after_expiry_without_take_over_fails", "leases::a_renew_after_release_fails"],
    ),
    (Flaw::RenewalShortens, &["leases::a_delayed_duplicate_renewal_does_not_shorten"]),
    (Flaw::RenewalDoesNothing, &["leases::renewed_it_outlives_its_ttl", "leases::renewed_three_times"]),
    (
        Flaw::ExpiresEarly,
        &["leases::a_lease_expires_after_its_ttl_and_not_before", "guard::lost_before_the_store_gives_the_lock_away"],
    ),
    (Flaw::NeverExpires, &["waiting::a_waiter_gets_an_expired_lock"]),
    (
        Flaw::GrantsWhatIsHeld,
        &[
            "grants::a_held_lock_is_refused",
            "grants::a_hundred_at_once_are_never_two_inside",
            "grants::eight_tasks_over_two_locks_count_exactly",
        ],
    ),
    (
        Flaw::NeverWakes,
        &["waiting::a_waiter_gets_a_released_lock_by_event", "waiting::a_thousand_hand_offs_lose_no_wake_up"],
    ),
    (Flaw::IgnoresCase, &["grants::names_are_case_sensitive"]),
    (Flaw::ForgetsAtLeastFor, &["leases::at_least_for_keeps_the_lock_after_an_early_release"]),
    (Flaw::HidesTheHolder, &["grants::a_held_lock_is_refused", "waiting::a_time_out_is_honoured"]),
    (Flaw::SaysNoTimeRemains, &["grants::a_held_lock_is_refused"]),
    (Flaw::WakesForNothing, &["waiting::a_waiter_that_waits_costs_no_commands"]),
    (Flaw::ListsEverything, &["people::inspect_and_list_tell_the_truth"]),
    (Flaw::ForcedReleaseDoesNothing, &["people::forced_release_is_seen_by_the_holder"]),
    (
        Flaw::ForgetsTicks,
        &[
            "ticks::a_tick_is_used_up_by_its_grant",
            "ticks::a_used_up_tick_outlives_its_holder",
            "ticks::of_many_at_once_one_runs_each_tick",
        ],
    ),
    (Flaw::TicksEndWithTheLease, &["ticks::a_used_up_tick_outlives_its_holder"]),
    (Flaw::ForgetsFinishedTicks, &["ticks::a_finished_tick_is_not_granted_again"]),
    (Flaw::TakesItsOwnTickForAnothers, &["ticks::a_tick_whose_grant_went_unanswered_is_that_calls"]),
    (Flaw::AcceptsAnyTtl, &["grants::bad_names_and_ttls_are_refused_unsent"]),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They mostly wait for what never comes.
    arguments.test_threads.get_or_insert(8);
    let trials = CATCHES.iter().flat_map(|&(flaw, properties)| {
        properties.iter().map(move |&name| Trial::test(format!("{name}::{flaw:?}"), move || catches(name, flaw)))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn catches(name: &str, flaw: Flaw) -> Result<(), Failed> {
    let property = PROPERTIES.iter().find(|property| property.name == name).ok_or("there is no such property")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (without, with) = runtime.block_on(async { tokio::join!(test(property, Flaw::None), test(property, flaw)) });
    runtime.shutdown_background();
    without.map_err(|failure| format!("it fails without a flaw: {failure}"))?;
    match with {
        Err(Failure::Broken(_)) => Ok(()),
        other => Err(format!("it did not catch the flaw: {other:?}").into()),
    }
}

async fn test(property: &Property, flaw: Flaw) -> Result<(), Failure> {
    property.test(&FlawedHarness::new(flaw)).await
}
