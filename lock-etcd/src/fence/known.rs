//! What this process saw last in the registers, so that a write need not ask first.
//!
//! Never trusted: a write is done only if the register still reads so.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lock_core::{Fence, Pass, Resource, admit};

/// So many resources are remembered. Who writes more of them asks more often.
const MOST: usize = 1024;

#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<Resource, Fence>>);

impl Known {
    pub(super) fn remember(&self, resource: &Resource, fence: &Fence) {
        let mut known = self.known();
        match known.get_mut(resource) {
            Some(known) => known.clone_from(fence),
            None => {
                if known.len() >= MOST {
                    known.clear();
                }
                known.insert(resource.clone(), fence.clone());
            }
        }
    }

    pub(super) fn forget(&self, resource: &Resource) {
        self.known().remove(resource);
    }

    /// What the register most likely reads, if this fence is to pass there.
    pub(super) fn guess(&self, resource: &Resource, fence: &Fence, pass: Pass) -> Option<Fence> {
        let known = self.known().get(resource).cloned();
        // Whatever would refuse it is asked for anew: only the store refuses.
        match known.filter(|known| admit(Some(known), resource, fence, pass).is_ok()) {
            Some(known) => Some(known),
            // The holder has raised it, or another process of his.
            None if pass == Pass::Again => Some(fence.clone()),
            None => None,
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Resource, Fence>> {
        // Each change is whole, so a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(text: &str) -> Fence {
        text.parse().unwrap()
    }

    #[test]
    fn it_guesses_what_lets_the_fence_pass_and_nothing_else() {
        let (known, resource) = (Known::default(), Resource::new("accounts").unwrap());
        let guess = |text: &str, pass| known.guess(&resource, &fence(text), pass);
        assert_eq!(guess("5@x", Pass::Again), Some(fence("5@x")));
        assert_eq!(guess("5@x", Pass::Once), None);
        known.remember(&resource, &fence("5@x"));
        assert_eq!(guess("6@x", Pass::Again), Some(fence("5@x")));
        assert_eq!(guess("6@x", Pass::Once), Some(fence("5@x")));
        // What is known would refuse these; the store may have forgotten it since.
        assert_eq!(guess("5@x", Pass::Once), None);
        assert_eq!(guess("4@x", Pass::Again), Some(fence("4@x")));
        assert_eq!(guess("6@y", Pass::Again), Some(fence("6@y")));
        known.forget(&resource);
        assert_eq!(guess("6@x", Pass::Once), None);
    }

    #[test]
    fn it_stays_small() {
        let known = Known::default();
        for number in 0..=MOST {
            known.remember(&Resource::new(number.to_string()).unwrap(), &fence("5@x"));
        }
        assert!(known.known().len() <= MOST);
        assert!(known.known().contains_key(&Resource::new(MOST.to_string()).unwrap()));
    }
}
