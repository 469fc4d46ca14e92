//! Something that is opened once for all who need it: one opens, the others wait, and take over what came of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lock_core::{Moment, StoreError};

use crate::ground::{Ground, Patience};

pub(crate) struct Opening<T> {
    gate: tokio::sync::Mutex<()>,
    state: Mutex<State<T>>,
}

struct State<T> {
    open: Option<T>,
    /// The last failure, and when that was.
    failed: Option<(Moment, StoreError)>,
}

impl<T> Opening<T> {
    pub(crate) fn new(open: Option<T>) -> Self {
        Self { gate: tokio::sync::Mutex::default(), state: Mutex::new(State { open, failed: None }) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of it if it is so.
    pub(crate) fn close_if(&self, is_so: impl FnOnce(&T) -> bool) {
        self.state().open.take_if(|open| is_so(open));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().open.is_none()
    }
}

impl<T: Clone> Opening<T> {
    /// What is open, if it is good.
    pub(crate) fn good(&self, is_good: impl FnOnce(&T) -> bool) -> Option<T> {
        self.state().open.as_ref().filter(|open| is_good(open)).cloned()
    }

    /// What is open and good, or opened now, within this time.
    pub(crate) async fn get(
        &self,
        ground: &Ground,
        patience: &Patience<'_>,
        is_good: impl Fn(&T) -> bool,
        open: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if let Some(good) = self.good(&is_good) {
            return Ok(good);
        }
        let asked = ground.now();
        let opened = async {
            let _gate = self.gate.lock().await;
            if let Some(good) = self.good(&is_good) {
                return Ok(good);
            }
            // Who waited for an attempt that failed has waited long enough.
            if let Some((_, error)) = self.state().failed.as_ref().filter(|(at, _)| *at >= asked) {
                return Err(error.clone());
            }
            let opened = open.await;
            let mut state = self.state();
            match &opened {
                Ok(opened) => state.open = Some(opened.clone()),
                Err(error) => state.failed = Some((ground.now(), error.clone())),
            }
            opened
        };
        patience.within(opened).await.unwrap_or_else(|trouble| Err(trouble.told("", lock_core::Applied::No)))
    }
}
