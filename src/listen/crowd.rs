//! How many of each kind there are at a time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts those that are in, by a key. Clones share the counts; what has nobody in takes no memory.
#[derive(Debug)]
pub struct Crowd<K: Hash + Eq>(Arc<Mutex<HashMap<K, usize>>>);

impl<K: Hash + Eq> Clone for Crowd<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Hash + Eq> Default for Crowd<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Hash + Eq + Clone> Crowd<K> {
    /// One more of this key, until what is returned is dropped; `None` where there are `most`.
    #[must_use]
    pub fn enter(&self, key: K, most: usize) -> Option<Member<K>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let n = counts.get(&key).copied().unwrap_or_default();
        if n >= most {
            return None;
        }
        counts.insert(key.clone(), n + 1);
        drop(counts);
        Some(Member {
            key,
            crowd: self.clone(),
        })
    }
}

/// One of a crowd, until it is dropped.
#[derive(Debug)]
pub struct Member<K: Hash + Eq> {
    key: K,
    crowd: Crowd<K>,
}

impl<K: Hash + Eq> Drop for Member<K> {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = counts.get_mut(&self.key) {
            *n -= 1;
            if *n == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_places_and_who_leaves_makes_room() {
        let crowd = Crowd::default();
        let kept = [crowd.enter("one", 2), crowd.enter("one", 2)];
        assert!(kept.iter().all(Option::is_some));
        assert!(crowd.enter("one", 2).is_none());
        assert!(crowd.enter("other", 2).is_some());
        drop(kept);
        assert!(crowd.enter("one", 2).is_some());
        assert!(crowd.0.lock().unwrap().is_empty());
    }
}
