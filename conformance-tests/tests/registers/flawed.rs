//! Registers that are wrong in one way at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use conformance_tests::{
    Failure,
    registers::{REGISTER_PROPERTIES, Registers},
};
use lock_core::{
    Event, Fence, FenceError, FenceRegister, FencingToken, LockName, Observer, Pass, RefusalReason, Resource, Stale,
    admit,
};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Nothing: the control.
    None,
    /// An update that finds no row, and is taken for done.
    ForgetsTheFirst,
    RefusesEqual,
    /// Tokens are text, and compared so.
    ComparesAsText,
    TakesLower,
    /// Writes first, and then looks.
    RefusesAndLowers,
    OnceIsAgain,
    /// Keeps the token alone.
    IgnoresTheLock,
    RefusesAndChangesTheLock,
    ForgetDoesNothing,
    ForgetsAll,
    IgnoresCase,
    CutsNames,
    TrimsNames,
    /// What is forgotten is a pattern.
    TakesAStarForAll,
    /// Tokens are numbers as JSON, Lua and JavaScript have them.
    Floats,
    /// In two steps.
    ChecksThenWrites,
    /// A cache that is taken for the truth.
    KeptByTheClient,
    /// Errors go past whoever counts them.
    TellsNobody,
    /// Where it refuses, and again where that is handed out.
    TellsTwice,
    TellsUsedAsStale,
    /// Also of what passes.
    TellsOfAll,
}

/// Which properties find it.
pub(crate) const CATCHES: &[(Flaw, &[&str])] = &[
    (Flaw::ForgetsTheFirst, &["the_first_fence_is_taken_and_seen"]),
    (Flaw::RefusesEqual, &["the_highest_passes_again"]),
    (Flaw::ComparesAsText, &["a_higher_token_is_taken_and_seen"]),
    (Flaw::TakesLower, &["a_lower_token_is_refused_and_changes_nothing", "of_many_at_once_the_highest_stays"]),
    (Flaw::RefusesAndLowers, &["a_lower_token_is_refused_and_changes_nothing"]),
    (Flaw::OnceIsAgain, &["once_each_token_passes_once", "of_many_with_one_token_one_passes_once"]),
    (Flaw::IgnoresTheLock, &["a_token_of_another_lock_is_refused_however_high"]),
    (Flaw::RefusesAndChangesTheLock, &["a_token_of_another_lock_is_refused_however_high"]),
    (Flaw::ForgetDoesNothing, &["forgotten_it_is_open_to_another_lock"]),
    (Flaw::ForgetsAll, &["forgotten_it_is_open_to_another_lock", "resources_are_told_apart"]),
    (Flaw::IgnoresCase, &["resources_are_told_apart", "locks_are_told_apart"]),
    (Flaw::CutsNames, &["resources_are_told_apart", "locks_are_told_apart"]),
    (Flaw::TrimsNames, &["resources_are_told_apart", "locks_are_told_apart"]),
    (Flaw::TakesAStarForAll, &["resources_are_told_apart"]),
    (Flaw::Floats, &["tokens_are_told_apart_to_the_last"]),
    (Flaw::ChecksThenWrites, &["of_many_at_once_the_highest_stays", "of_many_with_one_token_one_passes_once"]),
    (Flaw::KeptByTheClient, &["what_was_raised_outlives_its_client"]),
    (Flaw::TellsNobody, &["a_refusal_is_told_once_with_its_reason"]),
    (Flaw::TellsTwice, &["a_refusal_is_told_once_with_its_reason"]),
    (Flaw::TellsUsedAsStale, &["a_refusal_is_told_once_with_its_reason"]),
    (Flaw::TellsOfAll, &["a_refusal_is_told_once_with_its_reason"]),
];

/// The property passes without the flaw, and finds it.
pub(crate) async fn catches(name: &str, flaw: Flaw) -> Result<(), String> {
    let property =
        REGISTER_PROPERTIES.iter().find(|property| property.name == name).ok_or("there is no such property")?;
    let without = property.test(&Flawed::new(Flaw::None)).await;
    without.map_err(|failure| format!("it fails without a flaw: {failure}"))?;
    match property.test(&Flawed::new(flaw)).await {
        Err(Failure::Broken(_)) => Ok(()),
        other => Err(format!("it did not catch the flaw: {other:?}")),
    }
}

type Seen = Arc<Mutex<HashMap<Resource, Fence>>>;

#[derive(Clone, Debug)]
struct Flawed {
    flaw: Flaw,
    seen: Seen,
    observer: Option<Arc<dyn Observer>>,
}

impl Flawed {
    fn new(flaw: Flaw) -> Self {
        Self { flaw, seen: Seen::default(), observer: None }
    }

    fn tell(&self, raised: &Result<(), FenceError>) {
        let Some(observer) = &self.observer else { return };
        let reason = match (raised.as_ref().err().and_then(FenceError::reason), self.flaw) {
            (_, Flaw::TellsNobody) => return,
            (Some(RefusalReason::Used), Flaw::TellsUsedAsStale) | (None, Flaw::TellsOfAll) => RefusalReason::Stale,
            (None, _) => return,
            (Some(reason), _) => reason,
        };
        for _ in 0..if self.flaw == Flaw::TellsTwice { 2 } else { 1 } {
            observer.observed("flawed", None, &Event::FenceRefused { reason });
        }
    }

    async fn raised(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        let (key, fence) = (self.resource(resource), self.kept(fence));
        if self.flaw == Flaw::ChecksThenWrites {
            let highest = self.seen.lock().unwrap().get(&key).cloned();
            let keep = self.judge(highest.as_ref(), resource, &fence, pass)?;
            // As long as an answer of a server takes.
            tokio::time::sleep(Duration::from_millis(1)).await;
            if keep {
                self.seen.lock().unwrap().insert(key, fence);
            }
            return Ok(());
        }
        let mut seen = self.seen.lock().unwrap();
        let judged = self.judge(seen.get(&key), resource, &fence, pass);
        let writes_all_the_same = matches!(
            (&judged, self.flaw),
            (Err(FenceError::Stale(_)), Flaw::RefusesAndLowers)
                | (Err(FenceError::OtherLock(_)), Flaw::RefusesAndChangesTheLock)
        );
        if writes_all_the_same || matches!(judged, Ok(true)) {
            seen.insert(key, fence);
        }
        judged.map(drop)
    }

    fn name(&self, name: &str) -> String {
        match self.flaw {
            Flaw::IgnoresCase => name.to_lowercase(),
            Flaw::CutsNames => name.chars().take(255).collect(),
            Flaw::TrimsNames => name.trim_end().to_owned(),
            _ => name.to_owned(),
        }
    }

    fn resource(&self, resource: &Resource) -> Resource {
        Resource::new(self.name(resource.as_str())).unwrap()
    }

    /// As it is kept.
    fn kept(&self, fence: &Fence) -> Fence {
        let lock = LockName::new(self.name(fence.lock().as_str())).unwrap();
        let token = match self.flaw {
            Flaw::Floats => ((fence.token().get() as f64) as u64).min(FencingToken::MAX.get()),
            _ => fence.token().get(),
        };
        Fence::new(lock, FencingToken::new(token)).unwrap()
    }

    /// Whether it is to be kept.
    fn judge(&self, seen: Option<&Fence>, resource: &Resource, fence: &Fence, pass: Pass) -> Result<bool, FenceError> {
        let pass = if self.flaw == Flaw::OnceIsAgain { Pass::Again } else { pass };
        let Some(highest) = seen else { return Ok(self.flaw != Flaw::ForgetsTheFirst) };
        let stale = || {
            let (lock, token, highest) = (fence.lock().clone(), fence.token(), highest.token());
            Err(Stale { resource: resource.clone(), lock, token, highest }.into())
        };
        let text = |fence: &Fence| fence.token().to_string();
        match self.flaw {
            Flaw::RefusesEqual if fence == highest => stale(),
            Flaw::ComparesAsText if text(fence) < text(highest) => stale(),
            Flaw::TakesLower if fence.lock() == highest.lock() && fence.token() < highest.token() => Ok(true),
            Flaw::IgnoresTheLock => {
                let highest = Fence::new(fence.lock().clone(), highest.token()).unwrap();
                admit(Some(&highest), resource, fence, pass)
            }
            _ => admit(Some(highest), resource, fence, pass),
        }
    }
}

#[async_trait]
impl Registers for Flawed {
    async fn register(&self) -> Result<Arc<dyn FenceRegister>, Failure> {
        let seen = if self.flaw == Flaw::KeptByTheClient { Seen::default() } else { self.seen.clone() };
        Ok(Arc::new(Self { flaw: self.flaw, seen, observer: None }))
    }

    async fn observed(&self, observer: Arc<dyn Observer>) -> Result<Arc<dyn FenceRegister>, Failure> {
        Ok(Arc::new(Self { observer: Some(observer), ..self.clone() }))
    }

    fn is_shared(&self) -> bool {
        false
    }
}

#[async_trait]
impl FenceRegister for Flawed {
    async fn raise(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Result<(), FenceError> {
        let raised = self.raised(resource, fence, pass).await;
        self.tell(&raised);
        raised
    }

    async fn highest(&self, resource: &Resource) -> Result<Option<Fence>, FenceError> {
        Ok(self.seen.lock().unwrap().get(&self.resource(resource)).cloned())
    }

    async fn forget(&self, resource: &Resource) -> Result<bool, FenceError> {
        let (mut seen, key) = (self.seen.lock().unwrap(), self.resource(resource));
        match self.flaw {
            Flaw::ForgetDoesNothing => Ok(seen.contains_key(&key)),
            Flaw::TakesAStarForAll if resource.as_str() != "*" => Ok(seen.remove(&key).is_some()),
            Flaw::ForgetsAll | Flaw::TakesAStarForAll => {
                let there = seen.contains_key(&key);
                seen.clear();
                Ok(there)
            }
            _ => Ok(seen.remove(&key).is_some()),
        }
    }
}
