//! Events that could not be processed: what is recorded of them.

use serde::Serialize;

/// The line of `--failures` for one event. Payloads are not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailureRecord {
    /// The agent in which it failed.
    pub agent: String,
    /// The operation, or `output:{topic}`, `channel:{name}`, `sink:{name}`.
    pub operation: String,
    /// Where the event came from.
    pub topic: String,
    /// Where the event came from.
    pub partition: i32,
    /// Where the event came from.
    pub offset: i64,
    /// The exception's class, or one of the kinds of the formats page.
    pub kind: String,
    /// What the exception says, cut to [`MESSAGE_CHARACTERS_MAX`].
    pub message: String,
    /// `file:line` in the spec.
    pub at: String,
}

/// The longest message in logs and failure lines.
pub const MESSAGE_CHARACTERS_MAX: usize = 300;
