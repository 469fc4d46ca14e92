//! What the checks of one store come to, told to the caller and to whoever counts it.

use std::sync::Arc;

use super::error::FenceError;
use crate::{
    client::{Observer, Watched},
    error::Operation,
    name::LockName,
};

/// Tells what the checks of one register or guard come to: an error is given its store and lock, and a refusal is counted.
///
/// For those who write a register: one of these in it, and each outcome handed out through [`told`](Self::told), once.
///
/// ```
/// use lock_core::{Fence, FenceError, FenceReport, Pass, Resource, admit};
///
/// let report = FenceReport::new("files");
/// let (accounts, seen): (_, Fence) = (Resource::new("accounts")?, "6@accounts".parse()?);
/// let late: Fence = "5@accounts".parse()?;
/// let outcome = admit(Some(&seen), &accounts, &late, Pass::Again);
/// assert!(matches!(report.told(Some(late.lock()), outcome), Err(FenceError::Stale(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FenceReport(Watched);

impl FenceReport {
    /// For this store, by the name that its errors have.
    #[must_use]
    pub const fn new(store: &'static str) -> Self {
        Self(Watched { store, observer: None })
    }

    /// Refusals are told to this observer, as [`Event::FenceRefused`](crate::Event::FenceRefused).
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.0.observer = Some(observer);
        self
    }

    /// The outcome as the caller gets it. `lock`: whose fence it was, where there was one.
    ///
    /// # Errors
    /// The outcome's own.
    pub fn told<T, E: Into<FenceError>>(
        &self,
        lock: Option<&LockName>,
        outcome: Result<T, E>,
    ) -> Result<T, FenceError> {
        match outcome.map_err(Into::into) {
            Err(FenceError::Store(error)) => Err(error.at(self.0.store, Operation::Fence, lock).into()),
            outcome => {
                self.0.tell_of_refusal(None, &outcome);
                outcome
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{ErrorKind, Event, Fence, Pass, RefusalReason, Resource, StoreError, admit};

    #[derive(Debug, Default)]
    struct Seen(Mutex<Vec<(&'static str, Event)>>);

    impl Observer for Seen {
        fn observed(&self, store: &'static str, _: Option<&str>, event: &Event) {
            self.0.lock().unwrap().push((store, *event));
        }
    }

    #[test]
    fn refusals_are_counted_with_their_reason_and_nothing_else_is() {
        let seen = Arc::new(Seen::default());
        let report = FenceReport::new("here").observer(seen.clone());
        let resource = Resource::new("r").unwrap();
        let highest: Fence = "5@x".parse().unwrap();
        let check = |fence: &str, pass| {
            let fence: Fence = fence.parse().unwrap();
            let outcome = report.told(Some(fence.lock()), admit(Some(&highest), &resource, &fence, pass));
            outcome.is_ok()
        };
        assert!(check("5@x", Pass::Again) && check("6@x", Pass::Once));
        assert!(!check("4@x", Pass::Again) && !check("5@x", Pass::Once) && !check("9@y", Pass::Again));
        let failed: Result<(), _> = Err(StoreError::refused(ErrorKind::Unreachable, "gone"));
        let failed = report.told(Some(highest.lock()), failed).unwrap_err().to_string();
        assert!(failed.contains("here") && failed.contains("\"x\""), "{failed}");

        let reasons = [RefusalReason::Stale, RefusalReason::Used, RefusalReason::OtherLock];
        let told = reasons.map(|reason| ("here", Event::FenceRefused { reason }));
        assert_eq!(*seen.0.lock().unwrap(), told);
    }
}
