//! Runs the plan of an app on timely-dataflow workers that are mapped to Kafka partitions.
//!
//! Architecture invariant: nothing here parses or judges a spec. The plan is trusted; only the
//! program's `main.rs` knows the compiler.

#![deny(missing_docs)]

pub mod assignment;
pub mod broker;
pub mod changelogs;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod code;
pub mod condemned;
pub mod config;
pub mod counters;
pub mod dataflow;
pub mod delivery;
pub mod directory;
pub mod effects;
pub mod failpoint;
pub mod failure;
pub mod frame;
pub mod guard;
pub mod kafka;
pub mod ledger;
pub mod local;
pub mod log;
pub mod member;
pub mod message;
pub mod partitioner;
pub mod position;
pub mod program;
pub mod python;
pub mod record;
pub mod restore;
pub mod settings;
pub mod shared;
pub mod stage;
pub mod stall;
pub mod status;
pub mod store;
pub mod tables;
pub mod testing;
pub mod topics;
pub mod unsupported;
pub mod walk;
pub mod window;
pub mod worker;
