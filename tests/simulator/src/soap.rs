//! The SOAP envelope in both directions.
//!
//! Owns: reading a request as strictly as a real server does (element order, required elements, one
//! method per body), without a tree; writing replies and faults. Never knows what a method does.

mod fault;
mod operations;
mod read;
mod request;
mod write;

pub(crate) use fault::Fault;
pub(crate) use operations::TaskFilter;
pub(crate) use request::{Call, Filter, MetricId, PropSet, QuerySpec, Ref, Request, Selection, parse};
pub(crate) use write::{begin, element, end, escape, moref};
