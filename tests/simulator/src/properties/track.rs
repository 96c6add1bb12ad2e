//! Change tracking: what a property collector has told its client, and what it has to tell now.
//!
//! Owns: [`Collector`]. A change is found by comparing: when the world has changed since the last look, the filters
//! are evaluated anew and every value is held against the one told last. That is exact, and costs nothing while
//! nothing happens.
//!
//! Strict: a version other than the one given last is `InvalidCollectorVersion`.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::collect::{Scope, retrieve, withheld};
use super::objects::Obj;
use super::paths::{self, Outcome};
use crate::soap::{Fault, Filter, Ref, element, moref};

/// Properties that change without being told, as documented for real servers.
const SILENT: &[&str] = &[
    "overallStatus",
    "summary.storage.committed",
    "summary.storage.uncommitted",
];

/// One property collector of one session.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    filters: Vec<Tracked>,
    made: usize,
    /// Given to the client last; 0 before the first result.
    version: u64,
    /// The world's version at the last look.
    looked_at: Option<u64>,
    /// Found and not told yet: filter and inner XML of an `objectSet`.
    pending: VecDeque<(String, String)>,
    /// A waiting call is to end.
    cancelled: bool,
}

#[derive(Debug)]
struct Tracked {
    moref: String,
    filter: Filter<'static>,
    /// Hashes of the values told last, in the order of the paths.
    known: HashMap<Obj, (usize, Vec<u64>)>,
}

impl Collector {
    /// Adds a filter; answers its reference.
    pub(crate) fn add(&mut self, mut filter: Filter<'static>, owner: &str) -> String {
        // Once the filter is there, an object of it that goes away leaves; it is no mistake any more.
        let named = filter
            .objects
            .iter()
            .all(|set| set.object.kind != "ContainerView");
        filter.report_missing |= named;
        self.made += 1;
        let moref = format!("{owner}f{}", self.made);
        self.filters.push(Tracked {
            moref: moref.clone(),
            filter,
            known: HashMap::new(),
        });
        self.looked_at = None;
        moref
    }

    /// Removes a filter; `false` = it is not here.
    pub(crate) fn remove(&mut self, moref: &str) -> bool {
        let before = self.filters.len();
        self.filters.retain(|tracked| tracked.moref != moref);
        self.pending.retain(|(filter, _)| filter != moref);
        before != self.filters.len()
    }

    /// Ends the call that waits, or the next one.
    pub(crate) fn cancel(&mut self) {
        self.cancelled = true;
    }

    /// A new wait begins: an older cancellation was for another one.
    pub(crate) fn begin(&mut self) {
        self.cancelled = false;
    }

    /// The inner XML of a result, or `None` while there is nothing to tell.
    pub(crate) fn poll(
        &mut self,
        scope: &Scope<'_>,
        version: &str,
        most: usize,
        view: impl Fn(&Ref<'_>) -> Option<Obj>,
    ) -> Result<Option<String>, Fault> {
        if std::mem::take(&mut self.cancelled) {
            return Err(Fault::new("RequestCanceled", "The request was canceled."));
        }
        if version.is_empty() {
            for tracked in &mut self.filters {
                tracked.known.clear();
            }
            self.pending.clear();
            self.looked_at = None;
        } else if version != self.version.to_string() {
            return Err(Fault::new("InvalidCollectorVersion", ""));
        }
        if self.pending.is_empty() && self.looked_at != Some(scope.state.version) {
            self.look(scope, view)?;
        }
        if self.pending.is_empty() {
            return Ok(None);
        }
        let page: Vec<(String, String)> = self.pending.drain(..most.min(self.pending.len())).collect();
        self.version += 1;
        let mut out = String::new();
        element(&mut out, "version", &self.version.to_string());
        for objects in page.chunk_by(|(one, _), (other, _)| one == other) {
            out.push_str("<filterSet>");
            if let Some((filter, _)) = objects.first() {
                moref(&mut out, "filter", "PropertyFilter", filter);
            }
            for (_, object) in objects {
                out.push_str(object);
            }
            out.push_str("</filterSet>\n");
        }
        let truncated = if self.pending.is_empty() { "false" } else { "true" };
        element(&mut out, "truncated", truncated);
        Ok(Some(out))
    }

    fn look(&mut self, scope: &Scope<'_>, view: impl Fn(&Ref<'_>) -> Option<Obj>) -> Result<(), Fault> {
        for tracked in &mut self.filters {
            let filters = std::slice::from_ref(&tracked.filter);
            let found = retrieve(scope, filters, usize::MAX, &view)?;
            let mut known = HashMap::with_capacity(tracked.known.len());
            for (object, paths) in found.into_objects() {
                let before = tracked.known.remove(&object);
                let (hashes, changes) = compare(scope, &object, &paths, before.as_ref().map(|b| &*b.1));
                let kind = match before {
                    None => Some("enter"),
                    Some(_) if !changes.is_empty() => Some("modify"),
                    Some(_) => None,
                };
                if let Some(kind) = kind {
                    let xml = update(scope, kind, &object, &changes);
                    self.pending.push_back((tracked.moref.clone(), xml));
                }
                let order = known.len();
                known.insert(object, (order, hashes));
            }
            // What was known and is no longer found has left.
            let mut left: Vec<(Obj, usize)> = tracked.known.drain().map(|(obj, (n, _))| (obj, n)).collect();
            left.sort_by_key(|(_, order)| *order);
            for (object, _) in left {
                let xml = update(scope, "leave", &object, "");
                self.pending.push_back((tracked.moref.clone(), xml));
            }
            tracked.known = known;
        }
        self.looked_at = Some(scope.state.version);
        Ok(())
    }
}

/// Hashes of an object's values now, and the `changeSet`s of those that are not as `before`.
fn compare(scope: &Scope<'_>, object: &Obj, paths: &[String], before: Option<&[u64]>) -> (Vec<u64>, String) {
    let mut hashes = Vec::with_capacity(paths.len());
    let (mut changes, mut missing) = (String::new(), String::new());
    let (kind, reference) = (object.kind(scope.state), object.moref(scope.state));
    for (number, path) in paths.iter().enumerate() {
        let mut value = String::new();
        let outcome = if withheld(&mut missing, scope, (kind, &reference), path) {
            Outcome::Unset
        } else {
            paths::write(&mut value, scope, object, path)
        };
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let mut hash = hasher.finish();
        let old = before.and_then(|before| before.get(number));
        if let (Some(old), true) = (old, SILENT.contains(&&**path)) {
            hash = *old;
        }
        hashes.push(hash);
        let is_set = outcome == Outcome::Written;
        if old == Some(&hash) || (old.is_none() && !is_set) {
            continue;
        }
        changes.push_str("<changeSet>");
        element(&mut changes, "name", path);
        element(&mut changes, "op", "assign");
        if is_set {
            changes.push_str(&value);
        }
        changes.push_str("</changeSet>");
    }
    changes.push_str(&missing);
    (hashes, changes)
}

fn update(scope: &Scope<'_>, kind: &str, object: &Obj, changes: &str) -> String {
    let mut out = String::from("<objectSet>");
    element(&mut out, "kind", kind);
    let state = scope.state;
    moref(&mut out, "obj", object.kind(state), &object.moref(state));
    out.push_str(changes);
    out.push_str("</objectSet>");
    out
}
