//! Plain values that modules pass to one another.
//!
//! Owns: identities, samples, gaps, inventory, filters, operations, and the tables of columns and of measures. Never
//! does: I/O, policy.

pub mod columns;
pub mod filter;
pub mod gap;
pub mod ids;
pub mod inventory;
pub mod operation;
pub mod rollup;
pub mod sample;
pub mod status;
