//! Hostile behaviour, by rule.
//!
//! Owns: which rules exist, how often each matched, and what a call therefore suffers. A rule is
//! deterministic: it matches by method and object, leaves the first `skip` matching calls alone, acts
//! on the next `times`, and then rests. Never touches the log: what a rule hides or falsifies stays
//! in [`crate::Truth`] as it was.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::world::Told;

/// How often a task tells its progress.
pub(crate) const STEPS: u32 = 3;

/// When to do what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// SOAP method, for example `QueryPerf`; `None` = every method. The version document is
    /// `vimServiceVersions.xml`.
    #[serde(default)]
    pub method: Option<String>,
    /// MoRef that the call must name (as `_this`, entity, object...); `None` = any.
    #[serde(default)]
    pub object: Option<String>,
    /// So many matching calls are left alone first.
    #[serde(default)]
    pub skip: u32,
    /// So many matching calls are hit then; `None` = all.
    #[serde(default)]
    pub times: Option<u32>,
    /// What happens to them.
    #[serde(flatten)]
    pub action: Action,
}

/// What happens to a call. The actions from [`Action::Descending`] on change what QueryPerf says
/// about the rule's object only (about every entity if the rule has none), [`Action::Withhold`] what the
/// property collector says, and those from [`Action::TaskTime`] on how an operation on a VM or snapshot goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", rename_all_fields = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// The reply comes later.
    Delay {
        /// By so many milliseconds of real time.
        millis: u64,
    },
    /// A SOAP fault of this type, with the fields that the type needs.
    Fault {
        /// For example `ManagedObjectNotFound`.
        fault: String,
        /// The faultstring.
        #[serde(default)]
        message: String,
    },
    /// An HTTP status with an HTML body, as a proxy or a starting vpxd sends it.
    Status {
        /// For example 503.
        code: u16,
        /// The body; `None` = a short HTML page.
        #[serde(default)]
        body: Option<String>,
    },
    /// HTTP 302 to somewhere else.
    Redirect {
        /// The `Location`.
        location: String,
    },
    /// Every occurrence of a text in the body is another one: names, namespaces, prefixes.
    Replace {
        /// What to look for.
        find: String,
        /// What stands there instead, as it is: nothing is escaped.
        with: String,
    },
    /// Every time in the body has an offset in place of its `Z`, as a server that prints its own zone would: the same
    /// instants.
    Zone {
        /// Minutes ahead of UTC.
        minutes: i32,
        /// From this instant on (seconds since the epoch) the offset is another one: summer time begins or ends.
        #[serde(default)]
        change: Option<ZoneChange>,
    },
    /// A byte that is not UTF-8 after every occurrence of a text in the body.
    BreakUtf8 {
        /// What to look for.
        after: String,
    },
    /// The reply with so many blanks before its end, packed: a few KiB that unpack to as much as
    /// one wants.
    Bomb {
        /// Bytes when unpacked.
        bytes: usize,
    },
    /// The body comes byte by byte.
    Trickle {
        /// Milliseconds between two bytes.
        millis: u64,
    },
    /// Blanks follow the body without end.
    Endless,
    /// HTTP 200 with this body instead of the reply.
    Body {
        /// The body.
        text: String,
        /// Its content type.
        #[serde(default = "xml")]
        content_type: String,
    },
    /// The body ends after so many bytes, in a complete HTTP message.
    Truncate {
        /// Bytes.
        at: usize,
    },
    /// The connection is closed after so many bytes of a longer announced body.
    Cut {
        /// Bytes.
        at: usize,
    },
    /// The connection is reset (RST) after so many bytes of the body.
    Reset {
        /// Bytes; 0 = before the status line.
        at: usize,
    },
    /// Newest sample first.
    Descending,
    /// Every value is -1.
    MinusOne {
        /// Of this counter (`group.name.rollup`) only.
        #[serde(default)]
        counter: Option<String>,
    },
    /// Every value is missing, the samples are there.
    EmptyCells {
        /// Of this counter (`group.name.rollup`) only.
        #[serde(default)]
        counter: Option<String>,
    },
    /// The entity is not in the reply.
    OmitEntity,
    /// Every series ends so many cells before the samples do.
    Short {
        /// Cells.
        cells: usize,
    },
    /// Every stamp is later than the grid.
    OffGrid {
        /// By so many seconds.
        seconds: i64,
    },
    /// Series of nothing but zeros are left out.
    NoZeros,
    /// The entity is there a second time.
    Twice,
    /// Another entity is there with the same samples, which nobody asked for.
    Extra {
        /// Its MoRef.
        moref: String,
    },
    /// A wildcard comes back as it was sent, with one series for all instances.
    Unexpanded,
    /// Properties are kept back.
    Withhold {
        /// The path; `None` = every path.
        #[serde(default)]
        path: Option<String>,
        /// Of this object only.
        #[serde(default)]
        of: Option<String>,
        /// The fault in `missingSet`; `None` = unset, simply not there.
        #[serde(default)]
        fault: Option<String>,
    },
    /// The connection is reset, and the call has no effect.
    Lose,
    /// The call has its effect, the reply comes later.
    Hold {
        /// By so many milliseconds of real time.
        millis: u64,
    },
    /// The task takes its time, by the server's clock.
    TaskTime {
        /// Milliseconds in the queue.
        #[serde(default)]
        queued: u64,
        /// Milliseconds from its start to its end.
        #[serde(default)]
        millis: u64,
        /// Its progress is told so many times in between.
        #[serde(default = "steps")]
        steps: u32,
    },
    /// The task goes on for ever, unless it is cancelled.
    TaskStuck,
    /// The task ends in an error and has no effect.
    TaskFault {
        /// For example `SnapshotFault`; it has the fields that belong to the operation.
        fault: String,
        /// The text.
        #[serde(default)]
        message: String,
    },
    /// The task raises a question of the VM when it starts.
    TaskAsks,
    /// The task's object is gone early; the task goes on.
    TaskGone {
        /// Milliseconds of the server's clock from the call.
        millis: u64,
        /// The history does not have it either.
        #[serde(default)]
        forgotten: bool,
    },
    /// What stands in the way of an operation is told in this way; without a rule, another task of the VM by a fault and
    /// everything else by the task.
    Refuse {
        /// The way.
        by: Told,
    },
    /// The guest does as it is told, sooner or later.
    Guest {
        /// Milliseconds of the server's clock; `None` = never.
        millis: Option<u64>,
        /// A guest that restarts is away for so many milliseconds.
        #[serde(default)]
        away: u64,
    },
}

/// A change of a server's offset from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneChange {
    /// Seconds since the epoch.
    pub at: i64,
    /// Minutes ahead of UTC from then on.
    pub minutes: i32,
}

fn steps() -> u32 {
    STEPS
}

fn xml() -> String {
    "text/xml; charset=utf-8".to_owned()
}

impl Rule {
    /// A rule for every call of a method.
    #[must_use]
    pub fn on(method: &str, action: Action) -> Self {
        Self {
            method: Some(method.to_owned()),
            object: None,
            skip: 0,
            times: None,
            action,
        }
    }

    /// Reads the JSON form that the control port takes.
    ///
    /// # Errors
    /// Not JSON, no such action, or a key that means nothing: a misspelt `times` must not make a rule
    /// that acts for ever.
    pub fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        use serde::de::Error as _;
        let given: serde_json::Value = serde_json::from_slice(text)?;
        let rule = Self::deserialize(&given)?;
        // What was not understood is not there when the rule is written out again.
        let understood = serde_json::to_value(&rule)?;
        let keys = given.as_object().into_iter().flatten().map(|(key, _)| key);
        for key in keys {
            if understood.get(key).is_none() {
                return Err(serde_json::Error::custom(format!("unknown key {key:?}")));
            }
        }
        Ok(rule)
    }

    /// Only for calls that name this object.
    #[must_use]
    pub fn object(mut self, moref: &str) -> Self {
        self.object = Some(moref.to_owned());
        self
    }

    /// After so many matching calls.
    #[must_use]
    pub fn skip(mut self, calls: u32) -> Self {
        self.skip = calls;
        self
    }

    /// Only so many times.
    #[must_use]
    pub fn times(mut self, calls: u32) -> Self {
        self.times = Some(calls);
        self
    }
}

/// A rule and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Number to remove it by.
    pub id: u64,
    /// The rule.
    pub rule: Rule,
    /// Calls that matched.
    pub matched: u64,
    /// Calls that were hit.
    pub applied: u64,
}

/// A handle on the rules of a simulator.
#[derive(Clone, Debug, Default)]
pub struct Rules(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    rules: Vec<RuleStatus>,
}

impl Rules {
    /// Adds a rule; rules are tried in the order in which they were added, and all that match act.
    pub fn add(&self, rule: Rule) -> u64 {
        let mut table = self.table();
        table.next += 1;
        let id = table.next;
        table.rules.push(RuleStatus {
            id,
            rule,
            matched: 0,
            applied: 0,
        });
        id
    }

    /// Removes a rule.
    pub fn remove(&self, id: u64) {
        self.table().rules.retain(|status| status.id != id);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.table().rules.clear();
    }

    /// All rules and how often they matched and acted.
    #[must_use]
    pub fn status(&self) -> Vec<RuleStatus> {
        self.table().rules.clone()
    }

    /// How often a rule acted.
    #[must_use]
    pub fn applied(&self, id: u64) -> u64 {
        let table = self.table();
        let rule = table.rules.iter().find(|status| status.id == id);
        rule.map_or(0, |status| status.applied)
    }

    /// What a call suffers.
    pub(crate) fn judge<'a, I>(&self, method: &str, objects: I) -> Effects
    where
        I: Iterator<Item = &'a str>,
    {
        let mut effects = Effects::default();
        let mut table = self.table();
        if table.rules.is_empty() {
            return effects;
        }
        let wanted: BTreeSet<String> = table
            .rules
            .iter()
            .filter_map(|status| status.rule.object.clone())
            .collect();
        let named: BTreeSet<&str> = if wanted.is_empty() {
            BTreeSet::new()
        } else {
            objects.filter(|object| wanted.contains(*object)).collect()
        };
        for status in &mut table.rules {
            let rule = &status.rule;
            let method_fits = rule.method.as_deref().is_none_or(|m| m == method);
            let object_fits = rule.object.as_deref().is_none_or(|o| named.contains(o));
            if !method_fits || !object_fits {
                continue;
            }
            status.matched += 1;
            let skip = u64::from(rule.skip);
            let times = rule.times.map_or(u64::MAX, u64::from);
            if status.matched > skip && status.matched - skip <= times {
                status.applied += 1;
                effects.add(rule);
            }
        }
        effects
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all matching rules together do to one call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects {
    pub(crate) delay_millis: u64,
    pub(crate) fault: Option<(String, String, Option<String>)>,
    pub(crate) status: Option<(u16, Option<String>)>,
    pub(crate) redirect: Option<String>,
    /// In the order of the rules: what to find, and what to put there.
    pub(crate) replace: Vec<(String, Vec<u8>)>,
    /// Offset in minutes, and its change.
    pub(crate) zone: Option<(i32, Option<ZoneChange>)>,
    pub(crate) bomb: Option<usize>,
    pub(crate) trickle: Option<u64>,
    pub(crate) endless: bool,
    pub(crate) body: Option<(String, String)>,
    pub(crate) truncate: Option<usize>,
    pub(crate) cut: Option<usize>,
    pub(crate) reset: Option<usize>,
    /// Actions on QueryPerf data with the entity they are about.
    pub(crate) data: Vec<(Option<String>, Action)>,
    /// How an operation goes.
    pub(crate) operation: Vec<Action>,
    /// The connection is reset before anything happens.
    pub(crate) lose: bool,
    pub(crate) hold_millis: u64,
    /// Of properties: path, object, fault.
    pub(crate) withheld: Vec<(Option<String>, Option<String>, Option<String>)>,
}

impl Effects {
    fn add(&mut self, rule: &Rule) {
        match &rule.action {
            Action::Delay { millis } => self.delay_millis += millis,
            Action::Fault { fault, message } => {
                self.fault = Some((fault.clone(), message.clone(), rule.object.clone()));
            }
            Action::Status { code, body } => self.status = Some((*code, body.clone())),
            Action::Body { text, content_type } => {
                self.body = Some((text.clone(), content_type.clone()));
            }
            Action::Redirect { location } => self.redirect = Some(location.clone()),
            Action::Replace { find, with } => self.replace.push((find.clone(), with.clone().into())),
            Action::Zone { minutes, change } => self.zone = Some((*minutes, *change)),
            Action::BreakUtf8 { after } => {
                self.replace
                    .push((after.clone(), [after.as_bytes(), &[0xFF]].concat()));
            }
            Action::Bomb { bytes } => self.bomb = Some(*bytes),
            Action::Trickle { millis } => self.trickle = Some(*millis),
            Action::Endless => self.endless = true,
            Action::Withhold { path, of, fault } => {
                self.withheld.push((path.clone(), of.clone(), fault.clone()));
            }
            Action::Truncate { at } => self.truncate = Some(*at),
            Action::Cut { at } => self.cut = Some(*at),
            Action::Reset { at } => self.reset = Some(*at),
            Action::Lose => self.lose = true,
            Action::Hold { millis } => self.hold_millis += millis,
            action @ (Action::TaskTime { .. }
            | Action::TaskStuck
            | Action::TaskFault { .. }
            | Action::TaskAsks
            | Action::TaskGone { .. }
            | Action::Refuse { .. }
            | Action::Guest { .. }) => self.operation.push(action.clone()),
            action @ (Action::Descending
            | Action::MinusOne { .. }
            | Action::EmptyCells { .. }
            | Action::OmitEntity
            | Action::Short { .. }
            | Action::OffGrid { .. }
            | Action::NoZeros
            | Action::Twice
            | Action::Extra { .. }
            | Action::Unexpanded) => self.data.push((rule.object.clone(), action.clone())),
        }
    }

    /// Whether a property is kept back, and with which fault.
    pub(crate) fn withholds(&self, moref: &str, path: &str) -> Option<Option<&str>> {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        self.withheld
            .iter()
            .find(|(of_path, of, _)| fits(of_path, path) && fits(of, moref))
            .map(|(_, _, fault)| fault.as_deref())
    }

    /// The data actions that are about an entity.
    pub(crate) fn on<'a>(&'a self, moref: &'a str) -> impl Iterator<Item = &'a Action> {
        self.data
            .iter()
            .filter(move |(object, _)| object.as_deref().is_none_or(|o| o == moref))
            .map(|(_, action)| action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_skips_then_acts_then_rests() {
        let rules = Rules::default();
        let id = rules.add(
            Rule::on("QueryPerf", Action::Delay { millis: 5 })
                .object("vm-1")
                .skip(1)
                .times(2),
        );
        let mut hits = Vec::new();
        for _ in 0..4 {
            let none = rules.judge("QueryPerf", ["vm-2"].into_iter());
            assert_eq!(none.delay_millis, 0);
            assert_eq!(rules.judge("Login", ["vm-1"].into_iter()).delay_millis, 0);
            let effects = rules.judge("QueryPerf", ["vm-1", "vm-2"].into_iter());
            hits.push(effects.delay_millis);
        }
        assert_eq!(hits, [0, 5, 5, 0]);
        assert_eq!(rules.applied(id), 2);
    }

    #[test]
    fn rules_have_a_flat_json_form() {
        let text = r#"{"method":"QueryPerf","times":1,"action":"fault","fault":"SystemError"}"#;
        assert!(Rule::from_json(text.as_bytes()).is_ok(), "{text}");
        // A misspelt key is not silently a rule for ever.
        for text in [
            r#"{"method":"QueryPerf","time":1,"action":"fault","fault":"SystemError"}"#,
            r#"{"method":"QueryPerf","action":"delay","seconds":1}"#,
            r#"{"method":"QueryPerf","action":"descending","time":1}"#,
        ] {
            assert!(Rule::from_json(text.as_bytes()).is_err(), "{text}");
        }
    }
}
