//! Readers: topics, batch windows and tracks.

use serde::{Deserialize, Serialize};

use super::{AgentId, Codec, Place};

/// Division of partitions among the members of the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assignor {
    /// Partitions stay where they are when members come and go.
    #[default]
    CooperativeSticky,
    /// Equal partition numbers of all topics go to one member, because topics share a table.
    /// All partitions stop during a rebalance.
    Range,
}

/// The part of an object that is decoded, because nothing on its way uses more of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    /// These fields, in order.
    pub fields: Vec<String>,
    /// The object may be encoded again: the text of its other fields is kept for that.
    pub keeps_text: bool,
}

/// An agent with a topic input and every agent that its channels reach: one stage, one unit of
/// failure, one ledger per partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reader {
    /// The agent with the topic input, then the others in name order.
    pub agents: Vec<AgentId>,
    /// Its topics.
    pub topics: Topics,
    /// Codec by which keys are read.
    pub key_codec: Codec,
    /// Codec by which values are read.
    pub value_codec: Codec,
    /// Place of the key's serializer, or of the topic where none is written. `None`: a plan of before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_place: Option<Place>,
    /// Place of the value's serializer, likewise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value_place: Option<Place>,
    /// The part of each value that is decoded. `None`: all of it. Set by the rule `project`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub part: Option<Part>,
    /// Events are handed over in batches.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub window: Option<BatchWindow>,
    /// The track: it runs one event at a time.
    pub track: Track,
}

/// The topics of a reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Topics {
    /// These.
    Names(Vec<String>),
    /// All whose whole name matches the regular expression, new ones too.
    Pattern(String),
}

/// `take`: what a batch holds at most, and how long it may wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchWindow {
    /// Values in a batch, at most.
    pub max: u32,
    /// Time from the first event of a batch to its hand-over, at most, in ms.
    pub within_ms: u64,
    /// Events that may share a batch.
    pub scope: BatchScope,
}

/// Events that may share a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BatchScope {
    /// All of the worker's.
    Mixed,
    /// All of the worker's, but those of one partition if the app's `onError` is `retry`.
    MixedUnlessRetry,
    /// Those of one partition.
    Partition,
}

/// A track: it runs at most one event at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Track {
    /// Readers with the same number are one track, because they write a common table.
    pub group: u32,
    /// One track per partition rather than one in all.
    pub per_partition: bool,
}
