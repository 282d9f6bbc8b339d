//! Topics that user code may not write, whatever a payload names.
//!
//! A record's topic may come out of a payload. One for an internal topic of Kafka would take its whole transaction
//! with it when the broker refuses it; one in a changelog of the app would be read back as the state of a table.

use std::collections::BTreeSet;

use kaspr_ir::topics::{TOPIC_NAME_RULE, is_internal, is_topic_name};

use crate::event::shown;

/// Names that no record of user code may go to: those that Kafka cannot hold or keeps for itself, and
/// those that the app keeps for itself.
///
/// The default keeps only Kafka's rules, for runs without an app.
#[derive(Clone, Debug, Default)]
pub struct Reserved {
    names: BTreeSet<String>,
}

impl Reserved {
    /// The app keeps these for itself.
    pub fn new(names: impl IntoIterator<Item = String>) -> Reserved {
        Reserved { names: names.into_iter().collect() }
    }

    /// The reason for which no record may be sent to a topic of this name, if there is one.
    ///
    /// ```text
    /// "a b"                  → "a b" is not the name of a topic: Kafka takes …
    /// "__consumer_offsets"   → the topic … is Kafka's own: only Kafka writes it
    /// "shop-count-changelog" → the topic … is the app's own: only its tables and positions are kept there
    /// ```
    ///
    /// The name is shown with its control characters escaped and cut, since it may be any text.
    pub fn refuses(&self, name: &str) -> Option<String> {
        let shown = shown::name(name);
        // First: the other rules compare names, and this one is about texts that are none.
        if !is_topic_name(name) {
            return Some(format!("\"{shown}\" is not the name of a topic: Kafka takes {TOPIC_NAME_RULE}"));
        }
        if is_internal(name) {
            return Some(format!("the topic \"{shown}\" is Kafka's own: only Kafka writes it"));
        }
        let is_own = self.names.contains(name);
        is_own.then(|| format!("the topic \"{shown}\" is the app's own: only its tables and positions are kept there"))
    }
}
