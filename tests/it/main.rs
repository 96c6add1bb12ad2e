//! Integration tests: one binary, the real database, the simulator and vcsim through their sockets.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests may fail loudly")]

mod architecture;
mod cli;
mod collection;
mod config;
mod life_of_a_sample;
mod oracle;
mod readme;
mod rig;
mod soap;
mod store;
mod systemd;
mod vcsim;
mod vsphere;
mod wait;
