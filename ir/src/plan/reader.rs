//! Readers: topics, batch windows and tracks.
//!
//! A reader is what the executor runs: one stage, one timely operator. Everything about *when* its events run is here;
//! what happens to them is in its agents.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::{AgentId, Codec, Place};

/// Division of partitions among the members of the group.
///
/// All members of a group must use the same one; Kafka refuses a member that brings another.
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
    // In order of names: equal apps give equal plans.
    pub fields: Vec<String>,
    /// The object may be encoded again: the text of its other fields is kept for that.
    pub keeps_text: bool,
}

/// An agent with a topic input and every agent that its channels reach: one stage, one unit of
/// failure, one ledger per partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reader {
    /// The agent with the topic input, then the others, each behind those that feed it.
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
    /// The track: it runs one event at a time, unless awaits overlap.
    // Beside the topics, because readers of different topics may be one track.
    pub track: Track,
    /// The number of its events that may await at once.
    #[serde(skip_serializing_if = "Overlap::is_unwritten", default)]
    pub overlap: Overlap,
}

/// The topics of a reader.
///
/// Either of a spec's `name`, cut at its commas, or its `pattern`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Topics {
    /// These.
    Names(Vec<String>),
    /// All whose whole name matches the regular expression, new ones too.
    Pattern(String),
}

/// `take`: what a batch holds at most, and how long it may wait.
///
/// A batch is handed over when one of the two bounds is met, when the input ends, and when open batches exceed the
/// worker's bound on their memory.
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
///
/// From the loosest to the strictest; chosen by the rule `scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BatchScope {
    /// All of the worker's.
    Mixed,
    /// All of the worker's, but those of one partition if the app's `onError` is `retry`.
    // The only decision that is left to the start: the setting is not known before.
    MixedUnlessRetry,
    /// Those of one partition.
    Partition,
}

/// The number of units (events, or batches) of each partition that may be in flight at once, as far as the specs
/// say: the least that any agent of the track writes, for they are run as if one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Overlap {
    /// The least `concurrency` that an agent of the track writes. `None`: none writes any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub written: Option<NonZeroU32>,
    /// Every agent of the track writes one, so that the app's setting does not count.
    #[serde(default)]
    pub is_whole: bool,
}

impl Overlap {
    /// The most units that a spec or the app's setting may ask for.
    pub const MAX: u32 = 1000;

    /// True if the app's setting alone counts.
    pub fn is_unwritten(&self) -> bool {
        *self == Overlap::default()
    }

    /// The overlap of both together.
    #[must_use]
    pub fn and(self, other: Overlap) -> Overlap {
        Overlap {
            written: self.written.into_iter().chain(other.written).min(),
            is_whole: self.is_whole && other.is_whole,
        }
    }

    /// Units in flight, where the app's setting is `setting`.
    pub fn units(self, setting: NonZeroU32) -> NonZeroU32 {
        match self.written {
            Some(written) if self.is_whole => written,
            Some(written) => written.min(setting),
            None => setting,
        }
    }
}

impl From<Option<NonZeroU32>> for Overlap {
    /// The overlap of an agent that writes this.
    fn from(written: Option<NonZeroU32>) -> Overlap {
        Overlap { written, is_whole: written.is_some() }
    }
}

/// A track: it runs at most one event at a time, unless awaits overlap.
///
/// ```text
/// group 0, per_partition false    one event at a time over all readers of group 0
/// group 0, per_partition true     one event at a time in each partition, over all readers of group 0
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Track {
    /// Readers with the same number are one track, because they write a common table.
    pub group: u32,
    /// One track per partition rather than one in all.
    pub per_partition: bool,
}
