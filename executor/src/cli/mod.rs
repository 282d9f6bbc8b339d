//! The command line of `kaspr-exec`: what was typed, what the terminal shows, and the ways to run.
//!
//! | file | answers |
//! |---|---|
//! | `arguments.rs` | which flags there are |
//! | `given.rs`, `variables.rs`, `scrub.rs` | what came in, and which secrets of it must be hidden |
//! | `kafka.rs`, `supervisor.rs` | `run` on Kafka: one worker, or a process for each of several |
//! | `served.rs` | which port is served |
//! | `local.rs`, `test.rs`, `check.rs`, `shell.rs` | the other commands |
//! | `definitions.rs` | which specs are loaded where none are named |
//! | `stored.rs` | where tables are kept |
//! | `terminal.rs`, `lines.rs`, `voice.rs`, `colour.rs` | what is written to the terminal, and in which form |
//! | `stop.rs`, `last_words.rs` | exit statuses and signals, and the last error where a pod shows it |
//!
//! Only the program uses this room; everything below it takes settings as values and returns errors. What the
//! compiler must say (the nearest name, a place in a file) comes as a function from `main.rs`.

mod app_flags;
mod arguments;
mod check;
mod colour;
mod definitions;
mod given;
mod kafka;
mod last_words;
mod lines;
mod local;
mod scrub;
mod served;
mod shell;
mod stop;
mod stored;
mod supervisor;
mod terminal;
mod test;
mod variables;
mod voice;

pub use app_flags::{AppArguments, KafkaFlag, LogFormat, log_level};
pub use arguments::{Arguments, CheckArguments, Command, ResultFormat, RunArguments, TestArguments};
pub use check::check_on_kafka;
pub use colour::{choose as choose_colours, in_stream as has_colours};
pub use definitions::{Waited, definitions_dir, wait_for_definitions};
pub use given::{Given, KafkaSettings};
pub use kafka::run_on_kafka;
pub use last_words::{leave as leave_last_words, open as open_last_words};
pub use local::run_locally;
pub use shell::{completions, man};
pub use stop::{FAULT, FINE, FORCED, REFUSED, Signals, Stop};
pub use terminal::{Terminal, start_log};
pub use test::{Save, TESTS, Tested, run_tests, tested_folders};
pub use voice::{say, say_faults, speak, speaks_json};
