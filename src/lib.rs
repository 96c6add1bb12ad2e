//! virt-collector: every 20-second sample of vSphere hosts and VMs, stored exactly once in TimescaleDB.
//!
//! # Bird's-eye view
//!
//! ESXi takes a sample of every host and VM each 20 seconds and keeps an hour of them. The daemon asks each platform
//! (a vCenter or an ESXi host) once a minute for everything behind the newest row that it has stored of each entity,
//! and COPYs the answer into wide hypertables. The source is the buffer: nothing is spooled or resent; after any
//! doubt the watermarks are read again from the rows, and the source is asked again.
//!
//! # One sample, from wire to row
//!
//! | step | what happens |
//! |---|---|
//! | [`collect::live`] | a tick per platform; the live set; requests side by side |
//! | [`collect::window`] | from each entity's own watermark, no end |
//! | [`vsphere::plan`] | entities become one QueryPerf request of bounded size |
//! | [`soap::pool`] | an authenticated session; one re-login for all callers |
//! | [`soap::transport`] | POST /sdk, size-capped, under a deadline |
//! | [`vsphere::perf`] | the reply becomes windows of rows: no tree, no text per value |
//! | [`ingest::queue`] | one queue per platform, inside the byte budget; when it is full the poller waits |
//! | [`ingest::chain`] | rows join the chain behind the watermark; every step becomes a gap row |
//! | [`ingest::flush`] | whole windows of one platform, one transaction at a time |
//! | [`store::copy`] | fence, binary COPY, gap rows, notes of what to roll up, COMMIT; then the watermarks move |
//! | [`ingest::rollups`] | what was noted is made anew by 5 minutes, hour and day |
//!
//! # Modules, bottom to top
//!
//! A module names only modules on lower lines; a test holds this table against the code.
//!
//! | line | module | one job |
//! |---|---|---|
//! | 0 | [`units`] [`error`] [`plain`] | stamps and vSphere's scaling; error chains and dispositions; text that steers nothing |
//! | 1 | [`clock`] [`model`] [`secret`] [`retry`] | ticks; plain values that modules pass; redacted text, seal, key ring; back-off |
//! | 2 | [`config`] | the file's form and the validated form |
//! | 3 | [`telemetry`] [`supervise`] | metrics and logs; named tasks that stop in order |
//! | 4 | [`budget`] [`listen`] [`soap`] [`store`] | the byte budget; connections of HTTP and their limits; bytes ⇄ typed calls; rows ⇄ TimescaleDB |
//! | 5 | [`vsphere`] [`ingest`] | a platform in domain terms; windows → committed rows → roll-ups |
//! | 6 | [`inventory`] [`collect`] [`operate`] | who there is; whom to poll when, and from where; actions on VMs |
//! | 7 | [`registrar`] | changes of the registry |
//! | 8 | [`admin`] [`api`] | `/metrics`, `/livez`, `/readyz`; what people and scripts may read and do |
//! | 9 | [`app`] | builds, wires, starts and stops |
//! | 10 | [`cli`] | one file per subcommand |
//!
//! # Invariants, and what is absent
//!
//! - For each entity, in order of stamp, neighbouring rows touch or exactly one gap row spans the step between them;
//!   the row and its gap row are one transaction ([`ingest::chain`]).
//! - A watermark moves only after COMMIT. There is no disk spool and no resend from memory.
//! - Every write of what a platform has told, or is told to do, starts with the fence of its lease ([`store::lease`]).
//! - Every queue is bounded, every wait for the outside has a deadline, every task is named and supervised, every
//!   sample that is not stored is counted.
//! - Data time is the source's. The collector's own clock reaches no row and no query.
//! - Secrets come from files and reach no log, error, metric, argument or environment.

pub mod admin;
pub mod api;
pub mod app;
pub mod budget;
pub mod cli;
pub mod clock;
pub mod collect;
pub mod config;
pub mod error;
pub mod ingest;
pub mod inventory;
pub mod listen;
pub mod model;
pub mod operate;
pub mod plain;
pub mod registrar;
pub mod retry;
pub mod secret;
pub mod soap;
pub mod store;
pub mod supervise;
pub mod telemetry;
pub mod units;
pub mod vsphere;
