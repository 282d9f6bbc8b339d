//! Agents: inputs, steps and outputs.
//!
//! What an event meets in an agent is written down in the order in which it happens: steps, then topics, then channels,
//! then sinks (see "Outputs" in `docs/semantics.md`).

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::{AgentId, BlockId, ChannelId, Codec, FunctionId, OnError, Place, ReaderId, TableParameter};

/// A named in-memory stream between agents of the app.
///
/// Every channel has a writer; one without a reader drops what it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Agents that read it, in name order.
    pub readers: Vec<AgentId>,
}

/// A topic as the specs describe it.
///
/// Everything that any place of the specs says of it, together; see [`Topic::add`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Create it at the start where it is missing.
    pub declare: bool,
    /// Partitions of a created topic.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub partitions: Option<u32>,
    /// Replicas of a created topic.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replicas: Option<u32>,
    /// Kafka's settings of a created topic, `retention`, `compacting` and `deleting` included.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub config: BTreeMap<String, String>,
}

/// One stream processor.
///
/// An agent behind a channel runs within the readers that reach it, so what it does counts for their events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agent {
    /// `metadata.name`.
    pub name: String,
    /// Text for plans and drawings.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    /// Place of its document.
    pub place: Place,
    /// Source of its events.
    pub input: Input,
    /// Batches never mix partitions and async work of one never waits for another.
    pub isolated_partitions: bool,
    /// The number of units of each partition that may be in flight at once, as written; what counts is the
    /// reader's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub concurrency: Option<NonZeroU32>,
    /// Run once per worker before the first event.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub init: Option<Init>,
    /// The pipeline, in order.
    pub steps: Vec<Step>,
    /// Topic outputs, in list order; they come before the channels.
    // Three lists and not one: their order among each other is fixed by the semantics.
    pub outputs: Vec<TopicOutput>,
    /// Channel outputs, in list order; they come before the sinks.
    pub channel_outputs: Vec<ChannelOutput>,
    /// Custom sinks, in list order.
    pub sinks: Vec<SinkOutput>,
    /// Policy for events that fail here. `None`: the app's setting.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_error: Option<OnError>,
    /// Longest time of one call in ms. `None`: the app's setting.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_ms: Option<u64>,
}

/// Source of an agent's events.
///
/// The other direction of `Reader::agents` and `Channel::readers`, so that neither has to be searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Input {
    /// Kafka: the agent is the first of the reader.
    Topic(ReaderId),
    /// A channel: the agent runs within every reader that reaches the channel.
    Channel(ChannelId),
}

/// Start-up code of an agent.
///
/// A worker runs those of all agents before its first event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Init {
    /// The code.
    pub block: BlockId,
    /// The function to call once after the code has run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub function: Option<FunctionId>,
}

/// An operation at its place in a pipeline.
///
/// `tables`, `on_error` and `timeout_ms` are the operation's; two steps of one operation have the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// The operation's name. It may stand in a pipeline more than once.
    pub operation: String,
    /// Place of the operation's definition.
    pub place: Place,
    /// Its action.
    // Exactly one of three in the spec, so one field here.
    pub action: Action,
    /// Tables given to the function, in the order written.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tables: Vec<TableParameter>,
    /// Policy for events that fail here. `None`: the agent's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_error: Option<OnError>,
    /// Longest time of one call in ms. `None`: the agent's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_ms: Option<u64>,
}

/// Action of a step on a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// The result goes on.
    Map(FunctionId),
    /// A truthy result lets the value go on.
    Filter(FunctionId),
    /// The value is sent from inside the pipeline.
    #[serde(rename_all = "camelCase")]
    TopicSend {
        /// The output: topic, codecs, selectors.
        // Boxed: it is far larger than the other actions.
        output: Box<TopicOutput>,
        /// The value goes on unchanged; else `None`, or with `ack` the record's metadata.
        pass_through: bool,
    },
}

/// Sends a value to a topic.
///
/// Its functions are called in this order: predicate, topic, key, value, partition, headers. All of them get the
/// value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopicOutput {
    /// Its place in the spec.
    pub place: Place,
    /// Its topic.
    pub topic: TopicChoice,
    /// Codec by which keys are written.
    pub key_codec: Codec,
    /// Codec by which values are written.
    pub value_codec: Codec,
    /// A falsy result vetoes the send.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub predicate: Option<FunctionId>,
    /// Gives the key; without it the key is null.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_selector: Option<FunctionId>,
    /// Gives what is sent; without it the value itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value_selector: Option<FunctionId>,
    /// Gives the partition; without it, or where it returns `None`, the key decides.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub partition_selector: Option<FunctionId>,
    /// Gives the headers; without it there are none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub headers_selector: Option<FunctionId>,
    /// The spec asked for acknowledgement (which is always so).
    // Kept for `topicSend`, where it decides what goes on.
    pub ack: bool,
    /// The bytes leave as they came in: nothing on the way changes the value and both codecs are
    /// equal. Set by the rule `forward`.
    pub forwards: bool,
}

/// Topic of an output.
///
/// The result of a selector must be the name of a topic that exists, else the event fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TopicChoice {
    /// Always this one.
    Name(String),
    /// The function's result for the value.
    Selector(FunctionId),
}

/// Gives a value to all readers of a channel.
///
/// The selectors change what is seen behind the channel, not the event itself: positions and dead letters are its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelOutput {
    /// Its place in the spec.
    pub place: Place,
    /// The channel.
    pub channel: ChannelId,
    /// A falsy result vetoes it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub predicate: Option<FunctionId>,
    /// Gives what `context["event"].key` shows behind the channel.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_selector: Option<FunctionId>,
    /// Gives what is passed on; without it the value itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value_selector: Option<FunctionId>,
    /// Gives what `context["event"].headers` shows behind the channel.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub headers_selector: Option<FunctionId>,
}

/// Calls a custom sink, outside any transaction.
///
/// It may run again for the same event after a crash or an abort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SinkOutput {
    /// Its name.
    pub name: String,
    /// Its place in the spec.
    pub place: Place,
    /// Called with the value.
    pub function: FunctionId,
    /// A falsy result vetoes the call.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub predicate: Option<FunctionId>,
    /// Gives what the sink is called with; without it the value itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value_selector: Option<FunctionId>,
}
