//! What is done about a failed flush, by the class of its error, and how loudly.
//!
//! Owns: the table [`POLICIES`], the waits ([`Troubles`]), and how often the same trouble is told. Never does: the
//! attempts; classes come from SQLSTATE and error types ([`Class`]), never from the text of a message.
//!
//! Whatever the class, the rows are thrown away and asked for again, on a new connection, which looks for the server
//! anew: the table only says when.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::retry::Backoff;
use crate::store::Class;

/// The same trouble is told again after this long, with the number of times it came in between.
const REMIND: Duration = Duration::from_secs(60);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What is done about one class of failure.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// The class.
    pub class: Class,
    /// When the next attempt comes; `None`: never, the lease is no good any more.
    pub wait: Option<Wait>,
    /// How loudly.
    pub tell: Tell,
    /// What a reader of the log should know or do.
    pub advice: &'static str,
}

/// A wait that grows: uniform in `(0, first × 2^n]`, but never below `least` nor above `longest`.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// At least this.
    pub least: Duration,
    /// The ceiling of the first wait.
    pub first: Duration,
    /// At most this.
    pub longest: Duration,
}

impl Wait {
    const fn growing(first: Duration, longest: Duration) -> Option<Self> {
        Some(Self {
            least: Duration::ZERO,
            first,
            longest,
        })
    }

    const fn fixed(wait: Duration) -> Option<Self> {
        Some(Self {
            least: wait,
            first: wait,
            longest: wait,
        })
    }
}

/// How loudly a class is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// As a warning, again every minute while it lasts.
    Warn,
    /// As an error, again every minute while it lasts.
    Error,
    /// As an error, once until it is over.
    ErrorOnce,
}

/// One row per class.
pub const POLICIES: [Policy; 12] = [
    Policy {
        class: Class::Connection,
        wait: Wait::growing(millis(500), seconds(30)),
        tell: Tell::Warn,
        advice: "its samples are asked for again once the database answers",
    },
    Policy {
        class: Class::Unknown,
        wait: Wait::growing(millis(500), seconds(30)),
        tell: Tell::Warn,
        advice: "the rows themselves tell what was stored; the rest is asked for again",
    },
    Policy {
        // The primary may be elsewhere now: with several hosts in the url, a new connection finds it.
        class: Class::NotWritable,
        wait: Wait::growing(millis(500), seconds(30)),
        tell: Tell::Warn,
        advice: "this server takes no writes; looking for one that does",
    },
    Policy {
        // A failed COPY leaves dead pages, so that eager attempts would fill the disk further.
        class: Class::Full,
        wait: Some(Wait {
            least: seconds(5),
            first: seconds(10),
            longest: seconds(60),
        }),
        tell: Tell::ErrorOnce,
        advice: "database disk full: free space or drop chunks; nothing is lost while the source keeps its hour",
    },
    Policy {
        class: Class::Retry,
        wait: Wait::growing(millis(200), seconds(30)),
        tell: Tell::Warn,
        advice: "passing trouble; its samples are asked for again",
    },
    Policy {
        class: Class::Auth,
        wait: Wait::fixed(seconds(60)),
        tell: Tell::Error,
        advice: "trying again every minute",
    },
    Policy {
        class: Class::Schema,
        wait: Wait::fixed(seconds(30)),
        tell: Tell::Error,
        advice: "trying again every 30 s",
    },
    Policy {
        class: Class::Fenced,
        wait: None,
        tell: Tell::Warn,
        advice: "another collector owns the platform now",
    },
    Policy {
        class: Class::Moved,
        wait: None,
        tell: Tell::Warn,
        advice: "the platform is taken anew, and everything is read anew",
    },
    // These two come here only where no single row is to blame: salvage deals with rows.
    Policy {
        class: Class::Duplicate,
        wait: Wait::growing(seconds(1), seconds(60)),
        tell: Tell::ErrorOnce,
        advice: "the database refuses more than single rows: look for a constraint or trigger that is not ours",
    },
    Policy {
        class: Class::Data,
        wait: Wait::growing(seconds(1), seconds(60)),
        tell: Tell::ErrorOnce,
        advice: "the database refuses more than single rows: look for a constraint or trigger that is not ours",
    },
    PERMANENT,
];

const PERMANENT: Policy = Policy {
    class: Class::Permanent,
    wait: Wait::growing(seconds(1), seconds(60)),
    tell: Tell::ErrorOnce,
    advice: "this lasts until someone mends it; nothing is lost while the source keeps its hour",
};

/// What is done about a class.
#[must_use]
pub fn policy(class: Class) -> &'static Policy {
    POLICIES
        .iter()
        .find(|policy| policy.class == class)
        .unwrap_or(&PERMANENT)
}

/// Whether an occurrence is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Tell it.
    Aloud {
        /// How often it came since it was last told.
        untold: u32,
    },
    /// It was told not long ago.
    Quietly,
}

/// What has gone wrong lately in one flush loop.
#[derive(Debug)]
pub struct Troubles {
    seed: u64,
    of: HashMap<Class, Trouble>,
}

#[derive(Debug)]
struct Trouble {
    backoff: Backoff,
    told_at: Option<Instant>,
    untold: u32,
    /// A flush has succeeded since it came last.
    over: bool,
}

impl Troubles {
    /// None yet. `seed` picks the jitter's sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            of: HashMap::new(),
        }
    }

    /// Notes a failure: how long to wait (`None`: for ever), and whether to tell.
    pub fn came(&mut self, policy: &Policy) -> (Option<Duration>, Told) {
        let Some(wait) = policy.wait else {
            return (None, Told::Aloud { untold: 0 });
        };
        let trouble = self.of.entry(policy.class).or_insert_with(|| Trouble {
            backoff: Backoff::new(wait.first, wait.longest, self.seed),
            told_at: None,
            untold: 0,
            over: true,
        });
        let remind = trouble.over || policy.tell != Tell::ErrorOnce;
        let aloud = trouble.told_at.is_none_or(|at| remind && at.elapsed() >= REMIND);
        trouble.over = false;
        let told = if aloud {
            trouble.told_at = Some(Instant::now());
            Told::Aloud {
                untold: std::mem::take(&mut trouble.untold),
            }
        } else {
            trouble.untold = trouble.untold.saturating_add(1);
            Told::Quietly
        };
        (Some(trouble.backoff.next_wait().max(wait.least)), told)
    }

    /// A flush was committed: waits start over. True when it ends a trouble.
    pub fn over(&mut self) -> bool {
        let mut ended = false;
        for trouble in self.of.values_mut().filter(|trouble| !trouble.over) {
            trouble.over = true;
            trouble.backoff.reset();
            ended = true;
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_one_policy() {
        for class in Class::ALL {
            let rows = POLICIES.iter().filter(|policy| policy.class == class).count();
            assert_eq!(rows, 1, "{class}");
            assert_eq!(policy(class).class, class);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_class_waits_as_long_as_it_should() {
        for (class, least, longest) in [
            (Class::Connection, millis(1), seconds(30)),
            (Class::Unknown, millis(1), seconds(30)),
            (Class::NotWritable, millis(1), seconds(30)),
            (Class::Full, seconds(5), seconds(60)),
            (Class::Retry, millis(1), seconds(30)),
            (Class::Auth, seconds(60), seconds(60)),
            (Class::Schema, seconds(30), seconds(30)),
            (Class::Permanent, millis(1), seconds(60)),
        ] {
            let mut troubles = Troubles::new(7);
            let mut waits = Vec::new();
            for _ in 0..200 {
                waits.extend(troubles.came(policy(class)).0);
            }
            assert!(
                waits.iter().all(|wait| (least..=longest).contains(wait)),
                "{class}: {waits:?}"
            );
            assert!(
                waits.iter().max().is_some_and(|wait| *wait > longest / 2),
                "{class} grows: {waits:?}"
            );
        }
        assert_eq!(Troubles::new(1).came(policy(Class::Fenced)).0, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_trouble_is_told_once_a_minute_with_its_count() {
        let mut troubles = Troubles::new(1);
        let retry = policy(Class::Retry);
        assert_eq!(troubles.came(retry).1, Told::Aloud { untold: 0 });
        for _ in 0..3 {
            assert_eq!(troubles.came(retry).1, Told::Quietly);
        }
        // A success in between does not make it news.
        assert!(troubles.over() && !troubles.over());
        assert_eq!(troubles.came(retry).1, Told::Quietly);
        assert_eq!(
            troubles.came(policy(Class::Connection)).1,
            Told::Aloud { untold: 0 },
            "another class"
        );
        tokio::time::advance(REMIND).await;
        assert_eq!(troubles.came(retry).1, Told::Aloud { untold: 4 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_disk_is_told_once_until_it_was_over() {
        let mut troubles = Troubles::new(1);
        let full = policy(Class::Full);
        assert_eq!(troubles.came(full).1, Told::Aloud { untold: 0 });
        tokio::time::advance(3 * REMIND).await;
        assert_eq!(troubles.came(full).1, Told::Quietly);
        troubles.over();
        assert_eq!(troubles.came(full).1, Told::Aloud { untold: 1 });
    }
}
