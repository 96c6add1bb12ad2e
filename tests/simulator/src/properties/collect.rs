//! From a filter to pages.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;

use super::objects::{Obj, named};
use super::paths::{self, Outcome};
use crate::clock::Reading;
use crate::rules::Effects;
use crate::session::SessionInfo;
use crate::soap::{Fault, Filter, PropSet, Ref, Selection, element, moref};
use crate::world::State;

/// A container view.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) moref: String,
    pub(crate) container: Obj,
    pub(crate) kinds: Vec<String>,
    pub(crate) recursive: bool,
}

/// The objects of a result that are not sent yet, each with the paths that are wanted of it.
#[derive(Debug)]
pub(crate) struct Continuation {
    rest: VecDeque<(Obj, usize)>,
    paths: Arc<Vec<Vec<String>>>,
    page: usize,
}

impl Continuation {
    /// All objects of the result, each with its paths.
    pub(super) fn into_objects(self) -> impl Iterator<Item = (Obj, Vec<String>)> {
        let paths = self.paths;
        self.rest.into_iter().map(move |(object, number)| {
            let wanted = paths.get(number).cloned().unwrap_or_default();
            (object, wanted)
        })
    }
}

/// What properties are written from.
pub(crate) struct Scope<'a> {
    pub(crate) state: &'a State,
    pub(crate) reading: Reading,
    /// The caller's session; `None` = every path is missing with NotAuthenticated.
    pub(crate) session: Option<&'a SessionInfo>,
    /// What the rules keep back.
    pub(crate) effects: &'a Effects,
}

/// One page of a result.
pub(crate) struct Page {
    /// Inner XML: the `objects`.
    pub(crate) objects: String,
    pub(crate) count: usize,
    pub(crate) rest: Option<Continuation>,
}

/// What a view contains.
pub(super) fn contents(state: &State, view: &View) -> Vec<Obj> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut stack: Vec<Obj> = view.container.children(state);
    stack.reverse();
    while let Some(object) = stack.pop() {
        if !seen.insert(object.clone()) {
            continue;
        }
        if view.recursive {
            let mut children = object.children(state);
            children.reverse();
            stack.extend(children);
        }
        if view.kinds.is_empty() || view.kinds.iter().any(|kind| object.is_a(state, kind)) {
            found.push(object);
        }
    }
    found
}

/// Finds the objects of a filter set.
pub(crate) fn retrieve(
    scope: &Scope<'_>,
    filters: &[Filter<'_>],
    page: usize,
    view: impl Fn(&Ref<'_>) -> Option<Obj>,
) -> Result<Continuation, Fault> {
    let state = scope.state;
    let mut rest = VecDeque::new();
    let mut wanted: Vec<Vec<String>> = Vec::new();
    for filter in filters {
        for set in &filter.props {
            check(set)?;
        }
        let mut seen = HashSet::new();
        for set in &filter.objects {
            let object = named(state, &set.object).or_else(|| view(&set.object));
            let Some(object) = object else {
                if filter.report_missing {
                    continue;
                }
                return Err(Fault::not_found(&set.object.kind, &set.object.value));
            };
            let mut names = Vec::new();
            collect_names(&set.select, &mut names);
            let mut found = Vec::new();
            if !set.skip {
                found.push(object.clone());
            }
            let mut walked = HashSet::new();
            walk(state, &object, &set.select, &names, &mut walked, &mut found)?;
            for object in found {
                let matching: Vec<&PropSet<'_>> = filter
                    .props
                    .iter()
                    .filter(|set| object.is_a(state, &set.kind))
                    .collect();
                // An object that no property set is about is not reported.
                if matching.is_empty() || !seen.insert(object.clone()) {
                    continue;
                }
                let mut paths: Vec<String> = Vec::new();
                let named = matching
                    .iter()
                    .flat_map(|set| set.paths.iter().map(|path| &**path));
                let whole = matching.iter().filter(|set| set.all);
                let whole = whole.flat_map(|set| paths::whole(&set.kind).iter().copied());
                for path in named.chain(whole) {
                    if !paths.iter().any(|known| known == path) {
                        paths.push(path.to_owned());
                    }
                }
                let number = wanted.iter().position(|known| *known == paths);
                let number = number.unwrap_or_else(|| {
                    wanted.push(paths);
                    wanted.len() - 1
                });
                rest.push_back((object, number));
            }
        }
    }
    Ok(Continuation {
        rest,
        paths: Arc::new(wanted),
        page,
    })
}

/// A type or path that does not exist fails the whole call.
fn check(set: &PropSet<'_>) -> Result<(), Fault> {
    if set.all && paths::whole(&set.kind).is_empty() {
        return Err(Fault::new(
            "NotSupported",
            "This simulator has no all=true; name the paths.",
        ));
    }
    if paths::of_type(&set.kind).is_none() {
        return Err(Fault::new("InvalidType", "").with("argument", &set.kind));
    }
    for path in &set.paths {
        let known = paths::has(&set.kind, path).unwrap_or_default();
        if !known && !paths::is_composite(&set.kind, path) {
            return Err(Fault::invalid_property(path));
        }
    }
    Ok(())
}

fn collect_names<'a, 'b>(select: &'b [Selection<'a>], names: &mut Vec<&'b Selection<'a>>) {
    for selection in select {
        if let Selection::Traversal { select, .. } = selection {
            names.push(selection);
            collect_names(select, names);
        }
    }
}

fn walk<'b>(
    state: &State,
    object: &Obj,
    select: &'b [Selection<'_>],
    names: &[&'b Selection<'_>],
    walked: &mut HashSet<(Obj, usize)>,
    found: &mut Vec<Obj>,
) -> Result<(), Fault> {
    for selection in select {
        let selection = match selection {
            Selection::Traversal { .. } => selection,
            Selection::Named(wanted) => {
                let mut known = names.iter().copied();
                let target = known.find(|traversal| {
                    matches!(traversal, Selection::Traversal { name: Some(name), .. } if name == wanted)
                });
                target.ok_or_else(|| Fault::invalid_argument("selectSet"))?
            }
        };
        let Selection::Traversal {
            kind,
            path,
            skip,
            select,
            ..
        } = selection
        else {
            continue;
        };
        if !object.is_a(state, kind) {
            continue;
        }
        // A named traversal may lead back to itself; each object is walked by it once.
        let identity = names.iter().position(|known| std::ptr::eq(*known, selection));
        if !walked.insert((object.clone(), identity.unwrap_or(usize::MAX))) {
            continue;
        }
        let children = object
            .follow(state, path)
            .ok_or_else(|| Fault::invalid_property(path))?;
        for child in children {
            if !select.is_empty() {
                walk(state, &child, select, names, walked, found)?;
            }
            if !skip {
                found.push(child);
            }
        }
    }
    Ok(())
}

/// Writes the next page of a result.
pub(crate) fn write_page(scope: &Scope<'_>, mut from: Continuation) -> Page {
    let mut objects = String::new();
    let mut count = 0;
    while count < from.page {
        let Some((object, number)) = from.rest.pop_front() else {
            break;
        };
        // Deleted since it was found: skipped.
        if !object.is_alive(scope.state) {
            continue;
        }
        let paths = from.paths.get(number).map_or(&[][..], Vec::as_slice);
        write_object(&mut objects, scope, &object, paths);
        count += 1;
    }
    Page {
        objects,
        count,
        rest: (!from.rest.is_empty()).then_some(from),
    }
}

/// Writes one property of an object as a call's result; nothing where it is unset.
pub(crate) fn fetch(out: &mut String, scope: &Scope<'_>, object: &Obj, path: &str) -> Result<(), Fault> {
    let kind = object.kind(scope.state);
    if !paths::has(kind, path).unwrap_or_default() && !paths::is_composite(kind, path) {
        return Err(Fault::invalid_property(path));
    }
    let mut value = String::new();
    paths::write(&mut value, scope, object, path);
    if let Some(rest) = value
        .strip_prefix("<val")
        .and_then(|rest| rest.strip_suffix("</val>"))
    {
        out.push_str("<returnval");
        out.push_str(rest);
        out.push_str("</returnval>");
    }
    Ok(())
}

/// Whether a rule keeps a property back; with its `missingSet`, where the rule gives a fault.
pub(super) fn withheld(out: &mut String, scope: &Scope<'_>, object: (&str, &str), path: &str) -> bool {
    let Some(fault) = scope.effects.withholds(object.1, path) else {
        return false;
    };
    if let Some(fault) = fault {
        out.push_str("<missingSet>");
        element(out, "path", path);
        out.push_str("<fault>");
        Fault::by_type(fault, "", Some(object)).localized(out);
        out.push_str("</fault></missingSet>");
    }
    true
}

fn write_object(out: &mut String, scope: &Scope<'_>, object: &Obj, paths: &[String]) {
    let kind = object.kind(scope.state);
    let value = object.moref(scope.state);
    out.push_str("<objects>");
    moref(out, "obj", kind, &value);
    let mut missing = String::new();
    for path in paths {
        // The session manager's own session is readable by anyone: it is how a client finds out.
        let anonymous = *object == Obj::SessionManager && path == "currentSession";
        if scope.session.is_none() && !anonymous {
            missing.push_str("<missingSet>");
            element(&mut missing, "path", path);
            missing.push_str("<fault>");
            Fault::not_authenticated(kind, &value).localized(&mut missing);
            missing.push_str("</fault></missingSet>");
            continue;
        }
        if withheld(&mut missing, scope, (kind, &value), path) {
            continue;
        }
        let before = out.len();
        out.push_str("<propSet><name>");
        out.push_str(path);
        out.push_str("</name>");
        match paths::write(out, scope, object, path) {
            Outcome::Written => out.push_str("</propSet>"),
            // Unset: simply not there.
            Outcome::Unset => out.truncate(before),
        }
    }
    out.push_str(&missing);
    out.push_str("</objects>\n");
}
