//! What the writers said, and whether the list agrees with it.

use std::collections::{HashMap, HashSet, hash_map};

use super::{
    faults::Fault,
    words::{Entry, Said},
};
use crate::{Failure, ensure};

/// Everything that happened in one run.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    attempts: HashMap<Entry, Attempt>,
    /// The holds of each writer, in their order.
    holds: HashMap<usize, Vec<Hold>>,
    freezes: Vec<Freeze>,
    ready: HashSet<usize>,
    /// What stores failed with; some of it.
    pub(super) errors: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    tried: u64,
    /// When its writer was told its fate, if it was.
    ended: Option<u64>,
    fate: Fate,
}

/// What became of an attempt, as far as its writer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acked,
    /// Refused by the check.
    Refused,
    /// Failed, and isn't there.
    NotDone,
    /// Failed, or was never heard of again: may be there or not.
    InDoubt,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    token: u64,
    from: u64,
    until: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Freeze {
    writer: usize,
    at: u64,
}

/// How many errors are kept for people to read.
const ERRORS: usize = 5;

impl History {
    /// A writer's next line.
    ///
    /// # Errors
    /// A line that doesn't fit to what was said before: the workload itself is wrong.
    pub(super) fn hear(&mut self, writer: usize, said: Said) -> Result<(), Failure> {
        match said {
            Said::Ready => _ = self.ready.insert(writer),
            Said::Holds(token, from) => {
                self.holds.entry(writer).or_default().push(Hold { token, from, until: None });
            }
            Said::Ends(at) => {
                if let Some(hold) = self.holds.get_mut(&writer).and_then(|holds| holds.last_mut()) {
                    hold.until = Some(at);
                }
            }
            Said::Tries(entry, tried) => {
                ensure!(entry.writer == writer, "writer {writer} attempts {entry}");
                match self.attempts.entry(entry) {
                    hash_map::Entry::Occupied(_) => {
                        return Err(Failure::new(format!("{entry} is attempted a second time")));
                    }
                    hash_map::Entry::Vacant(free) => {
                        _ = free.insert(Attempt { tried, ended: None, fate: Fate::InDoubt })
                    }
                }
            }
            Said::Acked(entry, at) => self.end(entry, at, Fate::Acked)?,
            Said::Refused(entry, at) => self.end(entry, at, Fate::Refused)?,
            Said::NotDone(entry, at, error) => {
                self.note(error);
                self.end(entry, at, Fate::NotDone)?;
            }
            Said::InDoubt(entry, at, error) => {
                self.note(error);
                self.end(entry, at, Fate::InDoubt)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, entry: Entry, at: u64, fate: Fate) -> Result<(), Failure> {
        let attempt = self.attempts.get_mut(&entry);
        let attempt = attempt.ok_or_else(|| Failure::new(format!("{entry} has an outcome and wasn't attempted")))?;
        (attempt.ended, attempt.fate) = (Some(at), fate);
        Ok(())
    }

    fn note(&mut self, error: String) {
        if self.errors.len() < ERRORS && !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// A writer was frozen.
    pub(super) fn freeze(&mut self, writer: usize, at: u64) {
        self.freezes.push(Freeze { writer, at });
    }

    /// How many writers are connected.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Who has said last that it holds the lock, and not yet that it ends.
    pub(super) fn holder(&self) -> Option<usize> {
        let last = |(writer, holds): (&usize, &Vec<Hold>)| holds.last().map(|hold| (hold.token, *writer, hold.until));
        let (_, writer, until) = self.holds.iter().filter_map(last).max()?;
        until.is_none().then_some(writer)
    }

    fn fates(&self, fate: impl Fn(Fate) -> bool) -> usize {
        self.attempts.values().filter(|attempt| fate(attempt.fate)).count()
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.fates(|fate| fate == Fate::Acked)
    }

    pub(super) fn refused(&self) -> usize {
        self.fates(|fate| fate == Fate::Refused)
    }

    pub(super) fn failed(&self) -> usize {
        self.fates(|fate| matches!(fate, Fate::InDoubt | Fate::NotDone))
    }

    /// How many writers wrote something.
    pub(super) fn writers(&self) -> usize {
        let wrote = self.attempts.iter().filter(|(_, attempt)| attempt.fate == Fate::Acked);
        wrote.map(|(entry, _)| entry.writer).collect::<HashSet<_>>().len()
    }

    pub(super) fn freezes(&self) -> usize {
        self.freezes.len()
    }

    /// How many freezes befell a writer that held the lock then.
    pub(super) fn holders_frozen(&self) -> usize {
        let held = |freeze: &&Freeze| {
            let mut holds = self.holds.get(&freeze.writer).into_iter().flatten();
            holds.any(|hold| hold.from <= freeze.at && hold.until.is_none_or(|until| freeze.at < until))
        };
        self.freezes.iter().filter(held).count()
    }

    /// How many freezes fell between an attempt and its outcome.
    pub(super) fn frozen_in_mid_write(&self) -> usize {
        let writes = |freeze: &&Freeze| {
            self.attempts.iter().any(|(entry, attempt)| {
                let begun = entry.writer == freeze.writer && attempt.tried <= freeze.at;
                begun && attempt.ended.is_some_and(|ended| freeze.at < ended)
            })
        };
        self.freezes.iter().filter(writes).count()
    }

    /// How many grants were made while the one before had not been let go by its holder.
    pub(super) fn takeovers(&self) -> usize {
        let mut holds: Vec<Hold> = self.holds.values().flatten().copied().collect();
        holds.sort_by_key(|hold| hold.token);
        holds.windows(2).filter(|pair| pair[0].until.is_none_or(|until| until > pair[1].from)).count()
    }

    /// All that is wrong with a list that was written like this.
    pub(super) fn faults(&self, list: &[String]) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut there = HashSet::new();
        let mut last: Option<Entry> = None;
        // Of what stands before: what was attempted last.
        let mut latest: Option<(u64, Entry)> = None;
        let mut writer_of: HashMap<u64, Entry> = HashMap::new();
        for text in list {
            let entry = text.parse().ok().and_then(|entry| Some((entry, self.attempts.get(&entry)?)));
            let Some((entry, attempt)) = entry else {
                faults.push(Fault::Strange(text.clone()));
                continue;
            };
            if !there.insert(entry) {
                faults.push(Fault::Twice(entry));
                continue;
            }
            match attempt.fate {
                Fate::Refused | Fate::NotDone => faults.push(Fault::Denied(entry)),
                Fate::Acked => {
                    let before = latest.filter(|(tried, _)| attempt.ended.is_some_and(|ended| ended < *tried));
                    faults.extend(before.map(|(_, one)| Fault::OutOfOrder(one, entry)));
                }
                Fate::InDoubt => {}
            }
            if latest.is_none_or(|(tried, _)| tried < attempt.tried) {
                latest = Some((attempt.tried, entry));
            }
            faults.extend(last.filter(|last| entry.token < last.token).map(|last| Fault::Falls(last, entry)));
            last = Some(entry);
            let first = *writer_of.entry(entry.token).or_insert(entry);
            if first.writer != entry.writer {
                faults.push(Fault::Shared(first, entry));
            }
        }
        let acked = self.attempts.iter().filter(|(_, attempt)| attempt.fate == Fate::Acked);
        faults.extend(acked.filter(|(entry, _)| !there.contains(entry)).map(|(entry, _)| Fault::Missing(*entry)));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        text.parse().unwrap()
    }

    /// A history of attempts in their order, each at the next moment: `5-0-1 ack`.
    fn history(attempts: &[&str]) -> History {
        let mut history = History::default();
        let mut moment = 0;
        for attempt in attempts {
            let (text, fate) = attempt.split_once(' ').unwrap();
            let entry = entry(text);
            moment += 1;
            history.hear(entry.writer, Said::Tries(entry, moment)).unwrap();
            moment += 1;
            let said = match fate {
                "ack" => Said::Acked(entry, moment),
                "refused" => Said::Refused(entry, moment),
                "not" => Said::NotDone(entry, moment, "down".to_owned()),
                "doubt" => Said::InDoubt(entry, moment, "no answer".to_owned()),
                "unheard" => continue,
                other => panic!("{other}"),
            };
            history.hear(entry.writer, said).unwrap();
        }
        history
    }

    fn faults(attempts: &[&str], list: &[&str]) -> Vec<Fault> {
        history(attempts).faults(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_good_list_has_no_fault() {
        let attempts = ["5-0-1 ack", "5-0-2 ack", "7-1-1 ack", "5-0-3 refused", "7-1-2 not", "8-0-4 ack"];
        assert_eq!(faults(&attempts, &["5-0-1", "5-0-2", "7-1-1", "8-0-4"]), []);
        assert_eq!(faults(&[], &[]), []);
    }

    #[test]
    fn what_is_in_doubt_or_was_never_heard_of_again_may_be_there_or_not() {
        for fate in ["doubt", "unheard"] {
            let attempts = ["5-0-1 ack".to_owned(), format!("5-0-2 {fate}"), "6-1-1 ack".to_owned()];
            let attempts = attempts.each_ref().map(String::as_str);
            assert_eq!(faults(&attempts, &["5-0-1", "5-0-2", "6-1-1"]), []);
            assert_eq!(faults(&attempts, &["5-0-1", "6-1-1"]), []);
            // It may take effect late, but not late enough to be stale.
            let stale = [Fault::Falls(entry("6-1-1"), entry("5-0-2"))];
            assert_eq!(faults(&attempts, &["5-0-1", "6-1-1", "5-0-2"]), stale);
            let twice = [Fault::Twice(entry("5-0-2"))];
            assert_eq!(faults(&attempts, &["5-0-1", "5-0-2", "5-0-2", "6-1-1"]), twice);
        }
    }

    #[test]
    fn a_token_that_falls_is_found() {
        let attempts = ["5-0-1 ack", "6-1-1 ack", "5-0-2 ack", "6-1-2 ack"];
        let found = faults(&attempts, &["5-0-1", "6-1-1", "5-0-2", "6-1-2"]);
        assert_eq!(found, [Fault::Falls(entry("6-1-1"), entry("5-0-2"))]);
    }

    #[test]
    fn an_acknowledged_entry_that_is_missing_is_found() {
        assert_eq!(faults(&["5-0-1 ack", "5-0-2 ack"], &["5-0-1"]), [Fault::Missing(entry("5-0-2"))]);
    }

    #[test]
    fn an_entry_that_is_there_twice_is_found() {
        assert_eq!(faults(&["5-0-1 ack"], &["5-0-1", "5-0-1"]), [Fault::Twice(entry("5-0-1"))]);
    }

    #[test]
    fn what_nobody_attempted_is_found() {
        for strange in ["5-0-2", "05-0-1", "", "x", "5-0", "5-0-1-1", "-5-0-1", "5-0-1 "] {
            let found = faults(&["5-0-1 ack"], &["5-0-1", strange]);
            assert_eq!(found, [Fault::Strange(strange.to_owned())], "{strange:?}");
        }
    }

    #[test]
    fn what_was_denied_and_is_there_is_found() {
        for fate in ["refused", "not"] {
            let attempts = ["5-0-1 ack".to_owned(), format!("5-0-2 {fate}")];
            let found = faults(&attempts.each_ref().map(String::as_str), &["5-0-1", "5-0-2"]);
            assert_eq!(found, [Fault::Denied(entry("5-0-2"))], "{fate}");
        }
    }

    #[test]
    fn a_list_in_another_order_than_it_was_written_in_is_found() {
        // As of a list that is sorted by token, in which nothing could ever fall.
        let found = faults(&["6-1-1 ack", "5-0-1 ack"], &["5-0-1", "6-1-1"]);
        assert_eq!(found, [Fault::OutOfOrder(entry("5-0-1"), entry("6-1-1"))]);
        // Also when others stand between.
        let found = faults(&["5-0-1 ack", "5-0-2 ack", "5-0-3 ack"], &["5-0-2", "5-0-3", "5-0-1"]);
        assert_eq!(found, [Fault::OutOfOrder(entry("5-0-3"), entry("5-0-1"))]);
    }

    #[test]
    fn two_writers_under_one_token_are_found() {
        let found = faults(&["5-0-1 ack", "5-1-1 ack"], &["5-0-1", "5-1-1"]);
        assert_eq!(found, [Fault::Shared(entry("5-0-1"), entry("5-1-1"))]);
    }

    #[test]
    fn what_happened_is_counted() {
        let mut history = history(&["5-0-1 ack", "6-1-1 ack", "5-0-2 refused", "6-1-2 doubt", "6-1-3 not"]);
        let seen = (history.acknowledged(), history.refused(), history.failed(), history.writers());
        assert_eq!(seen, (2, 1, 2, 2));
        assert_eq!(history.holder(), None);
        for (writer, said) in [(0, Said::Holds(5, 100)), (1, Said::Holds(6, 200)), (0, Said::Ends(210))] {
            history.hear(writer, said).unwrap();
        }
        assert_eq!((history.holder(), history.takeovers()), (Some(1), 1));
        for (writer, said) in [(1, Said::Ends(300)), (2, Said::Holds(7, 301))] {
            history.hear(writer, said).unwrap();
        }
        assert_eq!((history.holder(), history.takeovers()), (Some(2), 1));
        for (writer, at) in [(0, 99), (0, 150), (1, 250), (2, 310), (0, 220)] {
            history.freeze(writer, at);
        }
        assert_eq!((history.freezes(), history.holders_frozen()), (5, 3));
        assert_eq!(history.frozen_in_mid_write(), 0);
        // The second attempt is writer 1's, from 3 to 4.
        for (writer, at) in [(1, 2), (1, 3), (0, 3), (1, 4)] {
            history.freeze(writer, at);
        }
        assert_eq!(history.frozen_in_mid_write(), 1);
    }

    #[test]
    fn a_writer_that_contradicts_itself_is_found() {
        let mut history = history(&["5-0-1 ack"]);
        assert!(history.hear(0, Said::Tries(entry("5-0-1"), 9)).is_err());
        assert!(history.hear(1, Said::Tries(entry("5-0-2"), 9)).is_err());
        assert!(history.hear(0, Said::Acked(entry("5-0-3"), 9)).is_err());
    }
}
