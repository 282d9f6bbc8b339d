//! The program's own words on standard error, in the form that `--log-format` asks for.
//!
//! [`lines`](super::lines) forms what log calls of the executor write. This room is for the rest: the
//! final error, faults of a spec, the summary, and what the watchdog says of a worker that stands still.
//!
//! It is set once, before anything can be said, and holds for the whole process: a program that reads the log
//! must never meet a line of the other form.

use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tracing::Level;

use super::app_flags::LogFormat;
use super::last_words;
use super::lines::json_line;
use crate::run::local::summary;
use crate::status::counters::{Counters, StepCounters};

/// Begins the words that end a process.
const ERROR: &str = "error: ";

/// The form of a process's words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voice {
    /// The format of lines.
    pub format: LogFormat,
    /// The number of this process, where a supervisor runs several.
    pub worker: Option<u32>,
}

static VOICE: OnceLock<Voice> = OnceLock::new();

/// Sets the form of everything that this process says from here on. The first call counts.
///
/// `worker` is the number that every JSON line then has.
pub fn speak(format: LogFormat, worker: Option<u32>) {
    // A process speaks in one form to its end.
    let _ = VOICE.set(Voice { format, worker });
}

/// The form that was set; text before that.
pub(super) fn voice() -> Voice {
    VOICE.get().copied().unwrap_or(Voice { format: LogFormat::Text, worker: None })
}

/// True if lines are JSON objects.
pub fn speaks_json() -> bool {
    voice().format == LogFormat::Json
}

/// Says what ends the process, or what a program that reads the log need not tell apart. In JSON it becomes
/// the message of an error object. An empty text says nothing.
pub fn say(message: &str) {
    last_words::leave(message.trim_end().as_bytes());
    write(&form(message));
}

/// Says faults of a spec, which are one object each where lines are JSON.
///
/// `faults` are the drawn ones, or one JSON object per line, as the compiler gives either.
pub fn say_faults(faults: &str) {
    if !speaks_json() {
        return write(faults);
    }
    for line in faults.lines() {
        // The compiler writes nothing else; a line that is none would break the reader of the log.
        let Ok(Value::Object(fault)) = serde_json::from_str(line) else { continue };
        let level = if fault.get("severity") == Some(&json!("error")) { Level::ERROR } else { Level::WARN };
        write(&json_line(level, voice().worker, fault));
    }
}

/// Says the status of a worker, which is a JSON object in either form.
///
/// `{"status": …}`, without time and level: a question has been answered, nothing has happened.
pub fn say_status(status: &str) {
    write(status);
}

/// Says what passed where, and how fast. The text is a table; as JSON the rows are under `operations`.
pub fn say_summary(counters: &Counters, elapsed: Duration) {
    match speaks_json() {
        false => write(&summary(counters, elapsed)),
        true => write(&json_line(Level::INFO, voice().worker, summary_fields(counters, elapsed))),
    }
}

/// Says what is wrong and ends nothing.
pub(super) fn say_warning(message: &str) {
    write(&formed(message, "warning: ", Level::WARN));
}

/// The words of the watchdog as a line. An error is the last that the process says.
pub fn form_last(message: &str) -> String {
    if message.starts_with(ERROR) {
        last_words::leave(message.trim_end().as_bytes());
    }
    form(message)
}

/// The words as a line: an error as people read it, or a JSON object with its level.
fn form(message: &str) -> String {
    formed(message, ERROR, Level::ERROR)
}

/// `prefix` is dropped in JSON, where the level says the same.
fn formed(message: &str, prefix: &str, level: Level) -> String {
    if !speaks_json() || message.trim().is_empty() {
        return message.to_owned();
    }
    let message = message.trim_end();
    let fields = Map::from_iter([("message".to_owned(), json!(message.strip_prefix(prefix).unwrap_or(message)))]);
    json_line(level, voice().worker, fields) + "\n"
}

/// The names are part of the interface, as those of the status.
fn summary_fields(counters: &Counters, elapsed: Duration) -> Map<String, Value> {
    let operations: Vec<Value> = counters.steps.iter().map(StepCounters::to_json).collect();
    let fields = json!({
        "message": "summary",
        "events": counters.ended(),
        "records": counters.records,
        "failed": counters.failures,
        "retried": counters.retried(),
        "awaited": counters.awaited(),
        "deadLetters": counters.dead_letters,
        "commits": counters.commits,
        "seconds": elapsed.as_secs_f64(),
        "operations": operations,
    });
    if let Value::Object(fields) = fields { fields } else { Map::new() }
}

#[allow(clippy::print_stderr, reason = "this is where the program speaks")]
fn write(text: &str) {
    if !text.is_empty() {
        // One call per message: lines of several threads do not mix.
        eprintln!("{}", text.trim_end());
    }
}
