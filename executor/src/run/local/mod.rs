//! Runs without Kafka: files and standard input in, standard output or files out, the in-memory
//! log between. Agents mean here what they mean on Kafka, exactly-once included.

pub mod feed;
pub mod print;
mod run;
mod summary;

pub use run::{Ended, Local, LocalError, Output, table_lines};
pub use summary::{summary, thousands};
