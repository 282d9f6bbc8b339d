//! The command line of `kaspr-exec`: what was typed, and what the terminal shows.

mod arguments;
mod terminal;

pub use arguments::{Arguments, Command, LogFormat, RunArguments};
pub use terminal::{Terminal, start_log};
