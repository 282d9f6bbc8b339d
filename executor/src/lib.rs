//! Runs the plan of an app on timely-dataflow workers that are mapped to Kafka partitions.
//!
//! Architecture invariant: nothing here parses or judges a spec. The plan is trusted; only the
//! program's `main.rs` knows the compiler.
//!
//! The rooms, in the order in which an event meets them:
//!
//! - `cli`: what was typed, and what the terminal shows
//! - `run`: ways to run a worker: on Kafka, over files, in tests
//! - `worker`: the loop: poll, give, step, commit, epoch after epoch
//! - `dataflow`: plan to timely: one straight walk over the readers
//! - `stage`: one event through all agents of its reader
//! - `code`: user code, whatever its language
//! - `delivery`: staged effects become committed ones, all of them or none
//! - `tables`: keyed state: what an event sees, where it lives, how it comes back
//! - `assignment`: the worker's partitions, and how far each reader has come
//! - `check`: what is looked at before the first event, and at times after it
//! - `broker`: the outside world behind traits, and its two connectors: Kafka and the in-memory log
//! - `guard`: which event runs, for the next process and for the threads that watch
//! - `status`: counters, stalls and the status that they make
//! - `config`: settings and bounds
//! - `event`: ground words: events, records, effects, failures
//! - `clock`: the only place that asks the time
//! - `wake`: what wakes a thread that sleeps

#![deny(missing_docs)]

pub mod assignment;
pub mod broker;
pub mod check;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod code;
pub mod config;
pub mod dataflow;
pub mod delivery;
pub mod event;
pub mod guard;
pub mod run;
pub mod stage;
pub mod status;
pub mod tables;
pub mod wake;
pub mod worker;
