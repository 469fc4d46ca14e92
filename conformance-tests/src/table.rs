//! The table of properties, with what each needs.

use std::fmt;

use futures_util::future::BoxFuture;
use lock_core::{Fairness, LockProvider, OsEntropy, OwnerId, Wake};

use crate::{
    Harness, Lacking, asker::Outcome, doubt, failure::Failure, fence, grants, guard, leases, people, strangers, ticks,
    waiting,
};

/// One property of the catalogue.
pub struct Property {
    /// Group and name: `grants::a_free_lock_is_granted`.
    pub name: &'static str,
    /// What it needs beyond a provider.
    pub needs: &'static [Need],
    test: for<'a> fn(&'a dyn Harness) -> BoxFuture<'a, Outcome>,
}

/// What a property needs beyond a provider: a capability of the store, or a hook of the harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Waiters that are woken by events.
    EventWake,
    /// Waiters that are granted in the order in which they queued.
    Order,
    /// A store that records finished ticks.
    Ticks,
    /// [`Harness::skewed_provider`].
    SkewedProvider,
    /// [`Harness::delete_record`].
    DeleteRecord,
    /// [`Harness::wipe`]. Nothing else runs meanwhile.
    Wipe,
    /// [`Harness::restartable`].
    Restart,
    /// [`Harness::faulty`].
    Faults,
    /// [`Harness::commands`]. Nothing else runs meanwhile.
    Commands,
    /// [`Harness::cut_subscriptions`]. Nothing else runs meanwhile.
    CutSubscriptions,
    /// [`Harness::child_spec`].
    ChildProcess,
}

impl Property {
    /// Tests it, without a look at what it needs.
    ///
    /// # Errors
    /// What was seen instead.
    pub async fn test(&self, harness: &dyn Harness) -> Result<(), Failure> {
        (self.test)(harness).await
    }

    /// Whether it disturbs, or would be disturbed by, properties that run at the same time.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.needs.iter().any(|need| matches!(need, Need::Wipe | Need::Commands | Need::CutSubscriptions))
    }

    /// What this harness, or its store, can't give it; the reason is the hook's or the capability's own.
    #[must_use]
    pub fn lacks(&self, harness: &dyn Harness, provider: &dyn LockProvider) -> Option<Lacking> {
        self.needs.iter().find_map(|need| need.lacking(harness, provider))
    }
}

impl Need {
    fn lacking(self, harness: &dyn Harness, provider: &dyn LockProvider) -> Option<Lacking> {
        match self {
            Self::EventWake => match provider.capabilities().wake {
                Wake::Event => None,
                Wake::Poll(every) => Some(Lacking::new(format!("waiters ask every {every:?}"))),
                _ => Some(Lacking::new("waiters are not woken by events")),
            },
            Self::Order => {
                let none = provider.capabilities().fairness == Fairness::None;
                none.then(|| Lacking::new("the store keeps no order among processes"))
            }
            Self::Ticks => (!provider.capabilities().ticks).then(|| Lacking::new("the store records no ticks")),
            Self::SkewedProvider => harness.skewed_provider(0).err(),
            Self::DeleteRecord => {
                let any = lock_core::LockName::new(OwnerId::random(&OsEntropy).to_string()).ok()?;
                harness.delete_record(&any).err()
            }
            Self::Wipe => harness.wipe().err(),
            Self::Restart => harness.restartable().err(),
            Self::Faults => harness.faulty().err(),
            Self::Commands => harness.commands().err(),
            Self::CutSubscriptions => harness.cut_subscriptions().err(),
            Self::ChildProcess => harness.child_spec().err(),
        }
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Property").field("name", &self.name).field("needs", &self.needs).finish_non_exhaustive()
    }
}

macro_rules! table {
    ($($group:ident :: $name:ident $([$($need:ident),+])?;)+) => {
        /// All properties, in the order of the catalogue.
        pub const PROPERTIES: &[Property] = &[$(Property {
            name: concat!(stringify!($group), "::", stringify!($name)),
            needs: &[$($(Need::$need),+)?],
            test: |harness| Box::pin($group::$name(harness)),
        }),+];
    };
}

table! {
    grants::a_free_lock_is_granted;
    grants::a_held_lock_is_refused;
    grants::names_are_independent;
    grants::names_are_case_sensitive;
    grants::hostile_names_work_and_stay_apart;
    grants::bad_names_and_ttls_are_refused_unsent;
    grants::acquire_twice_with_one_owner_is_one_grant;
    grants::two_owners_in_one_process_exclude_each_other;
    grants::eight_tasks_over_two_locks_count_exactly;
    grants::a_hundred_at_once_are_never_two_inside;
    grants::two_processes_exclude_each_other [ChildProcess];

    leases::a_lease_expires_after_its_ttl_and_not_before;
    leases::renewed_it_outlives_its_ttl;
    leases::renewed_three_times;
    leases::a_stale_renew_after_take_over_fails;
    leases::a_renew_after_expiry_without_take_over_fails;
    leases::a_renew_after_release_fails;
    leases::a_delayed_duplicate_renewal_does_not_shorten;
    leases::at_least_for_keeps_the_lock_after_an_early_release;
    leases::a_client_whose_wall_clock_is_an_hour_off_changes_nothing [SkewedProvider];

    strangers::a_stale_release_leaves_the_successor;
    strangers::releasing_twice_is_harmless;
    strangers::after_forced_release_and_take_over_the_old_holder_is_a_stranger;

    fence::tokens_rise_over_release;
    fence::tokens_rise_over_expiry;
    fence::tokens_rise_over_forced_release;
    fence::tokens_rise_over_a_restart [Restart];
    fence::tokens_rise_over_deletion_of_the_record [DeleteRecord];
    fence::tokens_rise_over_a_wiped_store [Wipe];
    fence::renewal_keeps_the_token;
    fence::a_thousand_contended_grants_have_rising_tokens;

    waiting::a_waiter_gets_a_released_lock_by_event [EventWake];
    waiting::a_waiter_that_waits_costs_no_commands [EventWake, Commands];
    waiting::a_waiter_gets_an_expired_lock;
    waiting::a_time_out_is_honoured;
    waiting::a_cancelled_wait_leaves_nothing_behind_in_the_store;
    waiting::a_dropped_acquire_leaves_nothing_held [Faults];
    waiting::a_thousand_hand_offs_lose_no_wake_up;
    waiting::fifty_waiters_of_five_processes_are_granted_in_order [Order, ChildProcess];
    waiting::wake_ups_lost_by_a_cut_subscription_are_made_good [EventWake, CutSubscriptions];

    doubt::acquire_applied_but_reply_lost_is_granted_to_the_retry [Faults];
    doubt::an_acquire_in_doubt_leaves_the_lock_free_within_its_ttl [Faults];
    doubt::an_acquire_in_doubt_can_be_released_without_its_token [Faults];
    doubt::renew_applied_but_reply_lost_is_still_held [Faults];
    doubt::release_applied_but_reply_lost_is_released [Faults];
    doubt::a_stalled_store_loses_the_guard_at_its_deadline [Faults];
    doubt::a_store_back_before_the_deadline_is_still_held [Faults];

    guard::lost_before_the_store_gives_the_lock_away [Faults];
    guard::lost_when_the_record_is_deleted [DeleteRecord];
    guard::not_lost_on_a_normal_release;
    guard::invalid_at_the_first_look_after_a_stop_longer_than_the_ttl [ChildProcess];
    guard::drop_releases;
    guard::work_under_run_is_dropped_on_loss;
    guard::the_lock_of_a_killed_process_is_free_within_its_ttl [ChildProcess];

    ticks::a_finished_tick_is_not_granted_again [Ticks];
    ticks::a_tick_is_used_up_by_its_grant [Ticks];
    ticks::a_used_up_tick_outlives_its_holder [Ticks];
    ticks::a_tick_whose_grant_went_unanswered_is_that_calls [Ticks, Faults];
    ticks::of_many_at_once_one_runs_each_tick [Ticks];

    people::inspect_and_list_tell_the_truth;
    people::forced_release_is_seen_by_the_holder;
}
