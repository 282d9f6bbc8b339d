//! The creation of topics that are missing: `declare`, and what a spec says beside it.
//!
//! Kafka's settings are text; fields of a spec that have a name of their own become such settings here, so that the
//! executor knows one form only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Topic;

/// The creation of a topic, as one place of a spec or a setting describes it.
///
/// It counts only for a topic that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Creation {
    /// Create it at the start where it is missing.
    pub declare: bool,
    /// Partitions of a created topic.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub partitions: Option<u32>,
    /// Replicas of a created topic.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replicas: Option<u32>,
    /// Kafka's settings of a created topic.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    // A map by name, so that equal specs give equal bytes.
    pub config: BTreeMap<String, String>,
}

impl Creation {
    /// Least and greatest number of partitions: Kafka counts them in 32 bits.
    pub const PARTITIONS: (i64, i64) = (1, i32::MAX as i64);
    /// Least and greatest number of replicas: Kafka counts them in 16 bits.
    pub const REPLICAS: (i64, i64) = (1, i16::MAX as i64);
    /// Least and greatest number of seconds that a topic keeps its records: Kafka takes milliseconds, in 64 bits.
    // Divided, so that its milliseconds fit too.
    pub const RETENTION: (i64, i64) = (0, i64::MAX / 1000);

    /// True if nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Creation::default()
    }
}

/// Kafka's settings of a topic behind `retention`, which is in seconds, `compacting` and `deleting`.
///
/// Without any of the three there are no settings, and the broker's own count.
///
/// ```
/// use kaspr_ir::plan::topic_config;
///
/// let config = topic_config(Some(60), true, false);
/// assert_eq!(config["retention.ms"], "60000");
/// assert_eq!(config["cleanup.policy"], "compact");
/// ```
pub fn topic_config(retention: Option<u64>, compacting: bool, deleting: bool) -> BTreeMap<String, String> {
    let retention = retention.map(|seconds| ("retention.ms", seconds.saturating_mul(1000).to_string()));
    let policy = match (compacting, deleting) {
        (true, true) => Some("compact,delete"),
        (true, false) => Some("compact"),
        (false, true) => Some("delete"),
        (false, false) => None,
    };
    let policy = policy.map(|policy| ("cleanup.policy", policy.to_owned()));
    retention.into_iter().chain(policy).map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Topic {
    /// A topic of which nothing is said but its name.
    pub fn named(name: &str) -> Topic {
        Topic { name: name.to_owned(), declare: false, partitions: None, replicas: None, config: BTreeMap::new() }
    }

    /// Adds what another place says of it; what was said first counts.
    ///
    /// Field by field: one place may give the partitions, another the retention. `declare` anywhere is enough.
    pub fn add(&mut self, creation: &Creation) {
        self.declare |= creation.declare;
        // Contradictions are no fault: the check of tables has compared the counts that matter.
        self.partitions = self.partitions.or(creation.partitions);
        self.replicas = self.replicas.or(creation.replicas);
        for (name, value) in &creation.config {
            self.config.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
}
