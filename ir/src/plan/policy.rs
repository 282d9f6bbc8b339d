//! Failure policies.

use serde::{Deserialize, Serialize};

/// Policy for events that fail ("Failures" in `docs/semantics.md`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "action")]
pub enum OnError {
    /// Record the failure, count the event as complete, go on.
    Skip,
    /// Send the original event to a topic. `None`: the app's `deadLetterTopic`.
    DeadLetter {
        /// The topic.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        topic: Option<String>,
    },
    /// Commit what is complete before the event, then stop with exit status 1.
    Halt,
    /// Try again while the partition waits.
    Retry {
        /// All tries together.
        attempts: u32,
        /// The waits between them.
        backoff: Backoff,
        /// Policy after the last try: never `Retry`.
        then: Box<OnError>,
    },
}

/// Waits between tries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backoff {
    /// The first wait in ms.
    pub initial_ms: u64,
    /// The longest wait in ms.
    pub max_ms: u64,
    /// Each wait is the one before times this.
    pub factor: f64,
    /// Each wait is changed at random by up to this share of it.
    pub jitter: f64,
}
