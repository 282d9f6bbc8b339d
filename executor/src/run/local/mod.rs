//! Runs without Kafka: files and standard input in, standard output or files out, the in-memory log between.
//! Agents mean here what they mean on Kafka, exactly-once included.
//!
//! ```text
//! files, stdin ─ feed.rs ─▶ log ─▶ worker ─▶ log ─ print.rs ─▶ stdout, files, failures
//!                                    │
//!                                 run.rs turns it; summary.rs shows its counters at the end
//! ```
//!
//! The worker is the same as on Kafka. Its consumer reads a log that the inputs fill, and the run ends when
//! all inputs have ended, everything is committed, and the open windows are handed over.

pub mod feed;
pub mod print;
mod run;
mod summary;

pub use run::{Ended, Local, LocalError, Output, table_lines};
pub use summary::{summary, thousands};
