//! Tables, and the parameters through which functions are given them.
//!
//! A table's state is in its changelog, a compacted topic; see "Tables" in `docs/delivery.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Codec, FunctionId, Place, TableId};

/// Keyed state, in one partition with the events that use it.
///
/// Used only by steps: init, selectors and sinks are given none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Table {
    /// `metadata.name`.
    pub name: String,
    /// Text for plans and drawings.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    /// Place of its document.
    pub place: Place,
    /// Whole on every worker, with one changelog partition.
    pub global: bool,
    /// Codec by which keys are written.
    pub key_codec: Codec,
    /// Codec by which values are written.
    pub value_codec: Codec,
    /// Gives the value of a missing key: a class or zero-argument factory, or the value itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub default: Option<FunctionId>,
    /// Partitions of the changelog, where the spec says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    // Else those of the topics that feed it, which the start counts.
    pub partitions: Option<u32>,
    /// Further settings of the changelog topic.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub topic_config: BTreeMap<String, String>,
    /// Keys live per window of time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    // Compiled and refused at the start: windows are not supported yet.
    pub window: Option<TableWindow>,
}

/// The windows of a windowed table; durations in ms.
///
/// ```text
/// tumbling, size 30s          size_ms 30000, step_ms 30000     [0, 30) [30, 60) …
/// hopping, size 30s, step 10s size_ms 30000, step_ms 10000     [0, 30) [10, 40) …
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableWindow {
    /// Length of a window.
    pub size_ms: u64,
    /// From one window's start to the next: `size_ms` when tumbling.
    pub step_ms: u64,
    /// Time for which a window is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_ms: Option<u64>,
    /// The time that decides.
    pub relative_to: RelativeTo,
}

/// The time that a window goes by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RelativeTo {
    /// The event's timestamp.
    Stream,
    /// The worker's clock.
    Now,
    /// The function's result.
    Custom(FunctionId),
}

/// A table given to a function by name.
///
/// No two of a step have the same parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableParameter {
    /// The keyword.
    pub parameter: String,
    /// The table.
    pub table: TableId,
}
