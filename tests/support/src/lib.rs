//! What the tests, the demo and the drills share.
//!
//! | module | one job |
//! |---|---|
//! | [`oracle`] | compares a database with what the source published; its own columns, its own chain rule |
//! | [`truth`] | fetches what the source published from a simulator in another process |
//! | [`loader`] | fills a database with the rows that the oracle expects, to be broken on purpose |
//! | [`day`] | a day of a whole site, for dashboards and figures |
//! | [`grafana`] | the queries of the dashboards, as Grafana sends them |
//! | [`database`] | a fresh database with the three roles, gone afterwards |
//! | [`cluster`] | starts and stops private TimescaleDB clusters |
//! | [`process`] | runs the real programs, waits for them, signals and kills them |
//! | [`program`] | how the programs of this package print and end |
//! | [`usage`] | what the kernel counts of a process: memory, descriptors, time |
//! | [`collector`] | a configured `virt-collector` on top of that |
//! | [`proxy`] | a fault proxy between two programs |
//! | [`fuzz`] | mutants of a corpus against what must stand them |
//! | [`drill`] | faults by the hundred against the real daemon, each followed by the oracle |
//! | [`soak`] | hours with a fault about every minute, and watches on what must not grow |
//!
//! The oracle knows the collector by its tables only: this package does not depend on `virt-collector`, so a
//! mistake there cannot hide here.
#![expect(
    clippy::disallowed_methods,
    reason = "test support has no supervisor: a connection's task ends with its connection"
)]

pub mod cluster;
pub mod collector;
pub mod database;
pub mod day;
pub mod drill;
pub mod fuzz;
pub mod grafana;
pub mod loader;
pub mod oracle;
pub mod process;
pub mod program;
pub mod proxy;
pub mod soak;
pub mod truth;
pub mod usage;

mod http;
