//! What the checks of one store come to, told to the caller and to whoever counts it.

use std::sync::Arc;

use super::error::{FenceError, RefusalReason};
use crate::{
    client::{Event, Observer, Watched},
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
        let outcome = self.placed(lock, outcome);
        self.0.tell_of_refusal(None, &outcome);
        outcome
    }

    /// The same for an outcome that somebody else counts, as that of [`Transactions`](crate::Transactions): an error is given
    /// its store and lock, and nobody is told of a refusal.
    ///
    /// # Errors
    /// The outcome's own.
    pub fn placed<T, E: Into<FenceError>>(
        &self,
        lock: Option<&LockName>,
        outcome: Result<T, E>,
    ) -> Result<T, FenceError> {
        outcome.map_err(|error| match error.into() {
            FenceError::Store(error) => error.at(self.0.store, Operation::Fence, lock).into(),
            refusal => refusal,
        })
    }

    /// Tells of a refusal that is no [`FenceError`], as of a request that carries no fence.
    pub fn refused(&self, reason: RefusalReason) {
        self.0.tell(None, || Event::FenceRefused { reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, Fence, Pass, Resource, StoreError, TestObserver, admit};

    #[test]
    fn refusals_are_counted_with_their_reason_and_nothing_else_is() {
        let seen = Arc::new(TestObserver::default());
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
        report.refused(RefusalReason::Invalid);

        let told = seen.take();
        assert!(told.iter().all(|told| (told.store, &told.class) == ("here", &None)), "{told:?}");
        let reasons = [RefusalReason::Stale, RefusalReason::Used, RefusalReason::OtherLock, RefusalReason::Invalid];
        let events = reasons.map(|reason| Event::FenceRefused { reason });
        assert!(told.iter().map(|told| told.event).eq(events), "{told:?}");
    }
}
