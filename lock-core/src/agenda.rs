//! Who is due when.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use crate::clock::Moment;

/// Things with a moment each, by key; whose moment comes first is found at once.
///
/// The client keeps its renewals in one, and a provider whose leases live off something shared (a session, a common
/// lease) keeps in one who has to go when nobody renews him.
#[derive(Debug)]
pub struct Agenda<K, V> {
    entries: HashMap<K, (Moment, V)>,
    by_moment: BTreeSet<(Moment, K)>,
}

impl<K, V> Default for Agenda<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), by_moment: BTreeSet::new() }
    }
}

impl<K: Copy + Eq + Hash + Ord, V> Agenda<K, V> {
    /// Enters it, or enters it anew; what was there under this key.
    pub fn insert(&mut self, key: K, due: Moment, value: V) -> Option<V> {
        let before = self.remove(key);
        self.by_moment.insert((due, key));
        self.entries.insert(key, (due, value));
        before
    }

    /// What is there under this key.
    #[must_use]
    pub fn get(&self, key: K) -> Option<&V> {
        self.entries.get(&key).map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.entries.get_mut(&key).map(|(_, value)| value)
    }

    /// When it is due.
    #[must_use]
    pub fn due(&self, key: K) -> Option<Moment> {
        self.entries.get(&key).map(|(due, _)| *due)
    }

    /// Gives it another moment; `false` if it isn't there.
    pub fn reschedule(&mut self, key: K, due: Moment) -> bool {
        let Some((before, _)) = self.entries.get_mut(&key) else { return false };
        self.by_moment.remove(&(std::mem::replace(before, due), key));
        self.by_moment.insert((due, key))
    }

    /// Takes it out.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let (due, value) = self.entries.remove(&key)?;
        self.by_moment.remove(&(due, key));
        Some(value)
    }

    /// The moment that comes first.
    #[must_use]
    pub fn first_due(&self) -> Option<Moment> {
        self.by_moment.first().map(|(due, _)| *due)
    }

    /// All, in the order of their moments.
    pub fn in_order(&self) -> impl Iterator<Item = (Moment, K, &V)> {
        self.by_moment.iter().filter_map(|(due, key)| Some((*due, *key, self.get(*key)?)))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_there_once_and_in_the_order_of_its_moment() {
        let at = Moment::from_nanos;
        let mut agenda = Agenda::default();
        assert_eq!(agenda.insert("b", at(2), 20), None);
        assert_eq!(agenda.insert("a", at(3), 30), None);
        assert_eq!(agenda.insert("b", at(4), 40), Some(20));
        assert_eq!(agenda.in_order().map(|(_, key, _)| key).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(agenda.first_due(), Some(at(3)));
        assert!(agenda.reschedule("b", at(1)));
        assert!(!agenda.reschedule("c", at(1)));
        assert_eq!((agenda.first_due(), agenda.due("b"), agenda.get("b")), (Some(at(1)), Some(at(1)), Some(&40)));
        assert_eq!(agenda.remove("b"), Some(40));
        assert_eq!((agenda.len(), agenda.first_due()), (1, Some(at(3))));
    }
}
