//! What `#[locked]` and `lease!` are made of. Not for use by hand, and not stable.

use std::future::Future;

use lock_core::{Lease, Lock, LockError, Outcome};

pub use crate::installed::installed;

/// Runs the body of a locked function.
pub async fn run<T, W>(lock: Lock, failed: fn(&T) -> bool, work: W) -> Result<Outcome<T>, LockError>
where
    W: Future<Output = T>,
{
    // In a box, so that locked functions within locked functions don't grow into each other.
    let work = Box::pin(work);
    Box::pin(lock.run_judged(|_| work, failed)).await
}

/// The lease of the running work.
#[track_caller]
#[expect(clippy::panic, reason = "a mistake in the program: see lease!")]
pub fn lease() -> Lease {
    lock_core::current().unwrap_or_else(|| panic!("lease!() is for code that runs under a lock, and this doesn't"))
}

/// Gives the compiler the type of what a body gives; never called.
#[expect(clippy::unreachable, reason = "it stands behind `if false`")]
pub fn never<T>() -> T {
    unreachable!("a locked function's type is never made")
}

/// Whether work failed whose result can't be written down but is a `Result`.
pub fn is_err<T, E>(value: &Result<T, E>) -> bool {
    value.is_err()
}

/// Whether work failed, by what it gave.
pub mod judge {
    /// A value that may say that the work failed: a `Result` does, by being an `Err`; nothing else does. Which of the two
    /// traits is meant is found by the compiler, which tries the one for the value itself first.
    #[derive(Debug)]
    pub struct Judged<'a, T>(pub &'a T);

    /// See [`Judged`].
    pub trait ByResult {
        /// Whether the work failed.
        fn failed(&self) -> bool;
    }

    impl<T, E> ByResult for Judged<'_, Result<T, E>> {
        fn failed(&self) -> bool {
            self.0.is_err()
        }
    }

    /// See [`Judged`].
    pub trait ByDefault {
        /// Whether the work failed.
        fn failed(&self) -> bool;
    }

    impl<T> ByDefault for &Judged<'_, T> {
        fn failed(&self) -> bool {
            false
        }
    }
}
