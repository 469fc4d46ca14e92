//! What the locks protect: fenced, and, to see what that is worth, not.

use lock_core::{Fence, FenceError, Pass, Resource, admit};

use super::{report::Counts, truth::Broken};

/// A resource that is written under one lock.
pub(super) struct Written {
    resource: Resource,
    /// What the fence remembers.
    highest: Option<Fence>,
    /// The highest token of all accepted writes, as the checker knows it.
    accepted: u64,
    /// Tokens and numbers of all accepted writes.
    writes: Vec<(u64, u64)>,
    /// The last token of a resource that checks nothing.
    unfenced: u64,
}

/// A write on its way.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) lock: usize,
    pub(super) fence: Fence,
    pub(super) pass: Pass,
    pub(super) number: usize,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    pub(super) applied: bool,
    pub(super) acknowledged: bool,
}

impl Written {
    pub(super) fn new(name: &str) -> Option<Self> {
        let resource = Resource::new(format!("under {name}")).ok()?;
        Some(Self { resource, highest: None, accepted: 0, writes: Vec::new(), unfenced: 0 })
    }

    /// Its name, and everything that was written.
    pub(super) fn accepted(&self) -> (String, Vec<(u64, u64)>) {
        (self.resource.as_str().to_owned(), self.writes.clone())
    }

    /// A write arrives; whether it is let through.
    pub(super) fn arrives(&mut self, write: &Write, counts: &mut Counts) -> Result<bool, Broken> {
        let token = write.fence.token().get();
        counts.unfenced += u64::from(token < self.unfenced);
        self.unfenced = token;
        let verdict = admit(self.highest.as_ref(), &self.resource, &write.fence, write.pass);
        let passes = if write.pass == Pass::Once { token > self.accepted } else { token >= self.accepted };
        let broken = |what: &str| {
            let (pass, accepted) = (write.pass, self.accepted);
            Err(("L4", format!("a write under {token} ({pass:?}) {what}; the highest accepted is {accepted}")))
        };
        match verdict {
            Ok(_) if !passes => broken("was let through"),
            Ok(raise) if raise != (token > self.accepted) => broken("raised the fence or didn't, wrongly"),
            Ok(raise) => {
                if raise {
                    self.highest = Some(write.fence.clone());
                }
                self.accepted = self.accepted.max(token);
                // One that arrives twice is the same write still: a fence lets its holder through as often as it likes.
                let entry = (token, write.number as u64);
                if !self.writes.contains(&entry) {
                    self.writes.push(entry);
                }
                counts.writes += 1;
                Ok(true)
            }
            Err(FenceError::Stale(_)) if !passes => {
                counts.refused += u64::from(token < self.accepted);
                Ok(false)
            }
            Err(error) => broken(&format!("was refused ({error})")),
        }
    }
}
