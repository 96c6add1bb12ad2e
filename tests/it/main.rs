//! Integration tests: one binary, the real database, the simulator and vcsim through their sockets.
#![expect(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::float_cmp,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "helpers of tests may fail loudly, and compare exactly"
)]

mod api;
mod architecture;
mod canary;
mod cli;
mod collection;
mod config;
mod day;
mod drill;
mod flush;
mod gate;
mod grafana;
mod hostile;
mod inventory;
mod lease;
mod life_of_a_sample;
mod listening;
mod logs;
mod operate;
mod oracle;
mod package;
mod prometheus;
mod readme;
mod registry;
mod reload;
mod rig;
mod rollup_lane;
mod rollups;
mod security;
mod soap;
mod store;
mod systemd;
mod thread_log;
mod vcsim;
mod vm_command;
mod vsphere;
mod wait;
