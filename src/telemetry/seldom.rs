//! Lines that would come with every poll: told at once, then at most once a minute with how many were kept back.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Time between two lines about the same thing.
const INTERVAL: Duration = Duration::from_secs(60);

/// Things that are remembered; a flood of new ones is told as if it were new.
const MOST: usize = 4_096;

/// When what was told last. The callers say what time it is.
#[derive(Debug)]
pub struct Seldom<K>(HashMap<K, Told>);

#[derive(Debug)]
struct Told {
    at: Instant,
    kept_back: u64,
}

impl<K> Default for Seldom<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Seldom<K> {
    /// Whether a line about this is due, and how many were kept back since the last one.
    pub fn due(&mut self, about: K, now: Instant) -> Option<u64> {
        if self.0.len() >= MOST && !self.0.contains_key(&about) {
            self.0.clear();
        }
        match self.0.get_mut(&about) {
            Some(told) if now.saturating_duration_since(told.at) < INTERVAL => {
                told.kept_back += 1;
                None
            }
            Some(told) => {
                told.at = now;
                Some(std::mem::take(&mut told.kept_back))
            }
            None => {
                let told = Told {
                    at: now,
                    kept_back: 0,
                };
                self.0.insert(about, told);
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_comes_at_once_and_then_one_a_minute_with_the_number_of_the_others() {
        let mut seldom = Seldom::default();
        let start = Instant::now();
        let told: Vec<Option<u64>> = (0..5)
            .map(|n| seldom.due("vm-1", start + Duration::from_secs(n * 20)))
            .collect();
        assert_eq!(told, [Some(0), None, None, Some(2), None]);
        assert_eq!(seldom.due("vm-2", start), Some(0), "another thing");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seldom = Seldom::default();
        let now = Instant::now();
        for n in 0..MOST * 3 {
            seldom.due(n, now);
        }
        assert!(seldom.0.len() <= MOST);
    }
}
