//! Which stored objects complete readings lack, and since when.
//!
//! Owns: the rule that one complete reading is not enough. Never does: reading or storing.

use std::collections::HashMap;
use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::ids::MoRef;

/// What is stored and was not there when everything was read.
#[derive(Debug, Default)]
pub(super) struct Absent {
    since: HashMap<MoRef, Instant>,
}

impl Absent {
    /// Takes in a complete reading. True if all that it lacks was lacking in one at least `confirm` earlier and in all
    /// since then: only then has anything gone.
    pub(super) fn read(
        &mut self,
        stored: HashSet<MoRef>,
        there: &HashSet<&MoRef>,
        now: Instant,
        confirm: Duration,
    ) -> bool {
        let missing = stored.into_iter().filter(|moref| !there.contains(moref));
        self.since = missing
            .map(|moref| {
                let since = self.since.get(&moref).copied().unwrap_or(now);
                (moref, since)
            })
            .collect();
        self.since
            .values()
            .all(|since| now.duration_since(*since) >= confirm)
    }

    /// Whether the last complete reading lacked an object that may yet be there.
    pub(super) fn holds(&self, moref: &MoRef) -> bool {
        self.since.contains_key(moref)
    }

    pub(super) fn len(&self) -> usize {
        self.since.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.since.is_empty()
    }

    /// What was missing is stored as gone.
    pub(super) fn clear(&mut self) {
        self.since.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIRM: Duration = Duration::from_secs(60);

    fn morefs(names: &[&str]) -> HashSet<MoRef> {
        names.iter().map(|name| MoRef::new(*name)).collect()
    }

    struct Server {
        absent: Absent,
        start: Instant,
    }

    impl Server {
        fn new() -> Self {
            Self {
                absent: Absent::default(),
                start: Instant::now(),
            }
        }

        /// A complete reading of `shown`, with a, b and c in the database, `seconds` after the start.
        fn shows(&mut self, shown: &[&str], seconds: u64) -> bool {
            let there = morefs(shown);
            let now = self.start + Duration::from_secs(seconds);
            self.absent
                .read(morefs(&["a", "b", "c"]), &there.iter().collect(), now, CONFIRM)
        }
    }

    #[test]
    fn what_stays_missing_for_a_minute_is_gone_and_not_before() {
        let mut server = Server::new();
        assert!(server.shows(&["a", "b", "c"], 0), "nothing is missing");
        assert!(!server.shows(&["a", "b"], 10));
        assert!(server.absent.holds(&MoRef::new("c")));
        assert!(
            !server.shows(&["a", "b"], 69),
            "a session that was lost: too soon"
        );
        assert!(server.shows(&["a", "b"], 70));
        server.absent.clear();
        assert!(server.absent.is_empty());
    }

    #[test]
    fn who_was_back_in_between_is_missing_anew() {
        let mut server = Server::new();
        assert!(!server.shows(&["a", "b"], 0));
        assert!(server.shows(&["a", "b", "c"], 40));
        assert!(!server.shows(&["a", "b"], 70));
        assert!(server.shows(&["a", "b"], 130));
    }

    #[test]
    fn while_ever_more_goes_missing_nothing_is_gone() {
        let mut server = Server::new();
        assert!(!server.shows(&["a", "b"], 0));
        assert!(!server.shows(&["a"], 60), "it is still changing");
        assert!(server.shows(&["a"], 120));
    }
}
