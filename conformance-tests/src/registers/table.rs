//! The table of a register's properties.

use std::fmt;

use futures_util::future::BoxFuture;

use super::Registers;
use crate::asker::Outcome;

/// One property of a fence register.
pub struct RegisterProperty {
    /// Its name: `the_highest_passes_again`.
    pub name: &'static str,
    test: for<'a> fn(&'a dyn Registers) -> BoxFuture<'a, Outcome>,
}

impl RegisterProperty {
    /// Tests it, on a multi-threaded runtime.
    ///
    /// # Errors
    /// What was seen instead.
    pub async fn test(&self, registers: &dyn Registers) -> Outcome {
        (self.test)(registers).await
    }
}

impl fmt::Debug for RegisterProperty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! properties {
    ($($name:ident),+ $(,)?) => {
        /// All of them.
        pub const REGISTER_PROPERTIES: &[RegisterProperty] = &[$(RegisterProperty {
            name: stringify!($name),
            test: |registers| Box::pin(super::$name(registers)),
        }),+];
    };
}

properties!(
    the_first_fence_is_taken_and_seen,
    the_highest_passes_again,
    a_higher_token_is_taken_and_seen,
    a_lower_token_is_refused_and_changes_nothing,
    once_each_token_passes_once,
    a_token_of_another_lock_is_refused_however_high,
    forgotten_it_is_open_to_another_lock,
    tokens_are_told_apart_to_the_last,
    what_was_raised_outlives_its_client,
    resources_are_told_apart,
    locks_are_told_apart,
    of_many_at_once_the_highest_stays,
    of_many_with_one_token_one_passes_once,
    a_refusal_is_told_once_with_its_reason,
);
