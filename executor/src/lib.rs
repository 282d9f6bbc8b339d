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
//! - `web`: health, status, plan and metrics over HTTP
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
//!
//! Where is …?
//!
//! | question | file |
//! |---|---|
//! | an event refused, because it was taken before | `assignment/mod.rs`: `Assignment::take` |
//! | an event dropped after a failure (skip, dead letter, halt, retry) | `stage/failing.rs` |
//! | an event dropped because its partition leaves | `worker/rebalance.rs`: `give_up` |
//! | a dead letter written | staged in `stage/failing.rs`, sent like any record by `delivery/generation.rs` |
//! | a record sent, an offset committed | `delivery/mod.rs` |
//! | a transaction aborted, an unknown outcome settled | `delivery/outcome.rs` |
//! | the point from which a table write is durable | `delivery/mod.rs`: `end_transaction` |
//! | a table read or written by an event | `tables/mod.rs` |
//! | a table restored, or its copy distrusted | `tables/restore` |
//! | the order of a worker's turn | `worker/mod.rs`: `Worker::turn` |
//! | a worker put together | `run/assemble.rs` |
//! | an exit status chosen | `cli/stop.rs` |
//!
//! Where would a new … go?
//!
//! | new | place |
//! |---|---|
//! | operator (join, schedule) | a file in `dataflow`, beside `window.rs`; its kind in the plan is `ir`'s and the compiler's |
//! | step inside a reader | an instruction in `stage/program.rs`, run in `stage/walk.rs` |
//! | language of user code | the trait of `code`, in a folder beside `code/python` |
//! | connector | the traits of `broker`, in a folder beside `broker/kafka`; its ends in `run/assemble.rs` |
//! | store of tables | the trait of `tables/store` |
//! | check before the start | a file in `check` |
//! | diagnostic of a spec | not here: `compiler/src/check`, with a code in `compiler/src/diagnostics` |
//! | setting | `config/settings.rs`, and its flag in `cli/arguments.rs` |
//! | cause of a stall, counter | `status`, and its series in `web/metrics` |
//! | page | a file in `web`, its path in `web/paths.rs` |
//! | way to run | a file in `run`, its command in `cli` |

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
pub mod web;
pub mod worker;
