//! What is remembered to save a question. It is never relied upon.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// So many are remembered; then it begins anew.
const MOST: usize = 10_000;

pub(crate) struct Remembered<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Remembered<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.all().get(key).cloned()
    }

    pub(crate) fn keep(&self, key: K, value: V) {
        let mut all = self.all();
        if all.len() >= MOST && !all.contains_key(&key) {
            all.clear();
        }
        all.insert(key, value);
    }

    pub(crate) fn drop(&self, key: &K) {
        self.all().remove(key);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> fmt::Debug for Remembered<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded() {
        let remembered = Remembered::default();
        for key in 0..MOST * 3 {
            remembered.keep(key, key);
            assert_eq!(remembered.get(&key), Some(key));
            assert!(remembered.all().len() <= MOST);
        }
        remembered.drop(&(MOST * 3 - 1));
        assert_eq!(remembered.get(&(MOST * 3 - 1)), None);
    }
}
