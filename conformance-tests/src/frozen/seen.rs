//! What a run showed.

use std::{fmt, time::Duration};

use super::history::History;

/// What happened in a run in which nothing was wrong that wasn't to be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Seen {
    /// How many appends were acknowledged.
    pub acknowledged: usize,
    /// How many were refused by the check: most of them late ones.
    pub refused: usize,
    /// How many failed for another reason, with an outcome that is known or not.
    pub failed: usize,
    /// How many of the writers wrote something.
    pub writers: usize,
    /// How often a writer was frozen.
    pub freezes: usize,
    /// How often it held the lock then.
    pub holders_frozen: usize,
    /// How often it was between an attempt and its outcome then.
    pub mid_write: usize,
    /// How many grants were made while the holder before hadn't let go.
    pub takeovers: usize,
    /// How many tokens fell from one entry to the next.
    pub falls: usize,
    /// How long the writers were at work.
    pub took: Duration,
    /// What the freezes were drawn from.
    pub seed: u64,
    /// What the stores failed with; some of it.
    pub errors: Vec<String>,
}

impl Seen {
    pub(super) fn of(history: &History, falls: usize, took: Duration, seed: u64) -> Self {
        Self {
            acknowledged: history.acknowledged(),
            refused: history.refused(),
            failed: history.failed(),
            writers: history.writers(),
            freezes: history.freezes(),
            holders_frozen: history.holders_frozen(),
            mid_write: history.frozen_in_mid_write(),
            takeovers: history.takeovers(),
            falls,
            took,
            seed,
            errors: history.errors.clone(),
        }
    }

    /// What is missing for the run to show anything of fenced writes, if something is.
    pub(super) fn too_tame(&self) -> Option<String> {
        let Self { acknowledged, refused, writers, holders_frozen, mid_write, takeovers, .. } = self;
        let least = [
            (*acknowledged, 50, "appends acknowledged"),
            (*writers, 3, "writers that wrote"),
            (*holders_frozen, 3, "freezes of a holder"),
            // Only there a check and a write that are two steps come apart.
            (*mid_write, 1, "freezes in mid-write"),
            (*takeovers, 2, "takeovers"),
            (*refused, 2, "late writes refused"),
        ];
        let short = least.iter().find(|(seen, least, _)| seen < least);
        short.map(|(seen, least, what)| format!("{seen} {what}, and {least} are the least that shows something"))
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} appends acknowledged by {} writers, {} refused, {} failed; {} freezes, {} of a holder, {} in mid-write; \
             {} takeovers, {} falling tokens; {:.1?}, seed {}",
            self.acknowledged,
            self.writers,
            self.refused,
            self.failed,
            self.freezes,
            self.holders_frozen,
            self.mid_write,
            self.takeovers,
            self.falls,
            self.took,
            self.seed
        )?;
        if !self.errors.is_empty() {
            write!(f, "; errors: {:?}", self.errors)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_which_too_little_happened_shows_nothing() {
        let enough = Seen {
            acknowledged: 50,
            refused: 2,
            writers: 3,
            holders_frozen: 3,
            mid_write: 1,
            takeovers: 2,
            ..Seen::of(&History::default(), 0, Duration::ZERO, 7)
        };
        assert_eq!(enough.too_tame(), None);
        let less = [
            Seen { acknowledged: 49, ..enough.clone() },
            Seen { refused: 1, ..enough.clone() },
            Seen { writers: 2, ..enough.clone() },
            Seen { holders_frozen: 2, ..enough.clone() },
            Seen { mid_write: 0, ..enough.clone() },
            Seen { takeovers: 1, ..enough.clone() },
        ];
        for seen in less {
            assert!(seen.too_tame().is_some(), "{seen}");
        }
    }
}
