//! The property collector: from a filter to objects, and from objects to pages of properties.
//!
//! Owns: object references, traversal, the property paths of each type, paging. Never decides who
//! may ask: it is told whether the caller is authenticated.

mod collect;
mod details;
mod objects;
mod paths;
mod tasks;
mod track;

pub(crate) use collect::{Continuation, Scope, View, fetch, retrieve, write_page};
pub(crate) use objects::{Obj, exists, named, resolve};
pub(crate) use paths::MAX_COLLECTORS;
pub(crate) use tasks::info as task_info;
pub(crate) use track::Collector;
