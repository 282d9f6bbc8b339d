//! Failures: the records of events that could not be processed.

use serde::{Deserialize, Serialize};

/// The line of `--failures` for one event. Payloads are not in it, but for the first
/// bytes of a key or value that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// The agent in which it failed.
    pub agent: String,
    /// The operation, or `output:{topic}`, `channel:{name}`, `sink:{name}`.
    pub operation: String,
    /// The topic of the event.
    pub topic: String,
    /// The partition of the event.
    pub partition: i32,
    /// The offset of the event.
    pub offset: i64,
    /// The exception's class, or one of the kinds of the formats page.
    pub kind: String,
    /// The exception's message, cut to [`MESSAGE_CHARACTERS_MAX`].
    pub message: String,
    /// `file:line` in the spec; for Python in quotes with the line of its block behind it:
    /// `agent.yaml:14 (orders/count line 3)`.
    pub at: String,
}

/// The longest message in logs and failure lines.
pub const MESSAGE_CHARACTERS_MAX: usize = 300;
