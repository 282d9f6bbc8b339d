//! The plan: everything the executor needs to run an app, flat, ordered and versioned.
//!
//! A plan is *what is true* of an app once every name is resolved and every default filled in. It
//! is listed in dependency order (blocks, functions, tables, channels, agents, readers), so that
//! rendering is one straight walk that never looks anything up by name. What can be derived from
//! the plan is not stored in it, and it holds nothing of a deployment: no brokers, no secrets.

mod seal;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use seal::PlanError;

/// The version of the plan's shape. The executor refuses every other.
pub const PLAN_VERSION: u32 = 1;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident => $field:ident: $of:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The place in the plan's list that this names.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl std::ops::Index<$name> for Plan {
            type Output = $of;
            fn index(&self, id: $name) -> &$of {
                &self.$field[id.index()]
            }
        }
    )*};
}

ids! {
    /// A file of the app, by its place in [`Plan::files`].
    FileId => files: String;
    /// A code block, by its place in [`Plan::blocks`].
    BlockId => blocks: Block;
    /// A function of a code block, by its place in [`Plan::functions`].
    FunctionId => functions: Function;
    /// A table, by its place in [`Plan::tables`].
    TableId => tables: Table;
    /// A channel, by its place in [`Plan::channels`].
    ChannelId => channels: Channel;
    /// An agent, by its place in [`Plan::agents`].
    AgentId => agents: Agent;
    /// A reader, by its place in [`Plan::readers`].
    ReaderId => readers: Reader;
}

/// A whole app, ready to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_VERSION`] of the compiler that made it.
    pub plan_version: u32,
    /// SHA-256, in hex, of the plan as compact JSON with this field empty.
    pub revision: String,
    /// What the specs say of the app as a whole.
    pub app: App,
    /// Files of the specs, named as they were given to the compiler.
    pub files: Vec<String>,
    /// Every code block, in the order in which the agents use them.
    pub blocks: Vec<Block>,
    /// Every function that the executor calls.
    pub functions: Vec<Function>,
    /// Tables in name order, whether an agent uses them or not.
    pub tables: Vec<Table>,
    /// Channels in name order.
    pub channels: Vec<Channel>,
    /// Topics that the specs name, in name order, with what they say of them.
    pub topics: Vec<Topic>,
    /// Agents in name order.
    pub agents: Vec<Agent>,
    /// One for every agent with a topic input, in name order.
    pub readers: Vec<Reader>,
}

/// What the specs say of the app as a whole. Flags and the environment come before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct App {
    /// The app's name as far as the specs give one: a `KasprApp`'s, the agents' common label, or
    /// the only agent's (see "App name" in the formats page). `None`: a flag must name it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// `spec.config` of the `KasprApp`, only settings that concern running.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub settings: BTreeMap<String, serde_json::Value>,
    /// How Kafka's group protocol may divide the partitions.
    pub assignor: Assignor,
}

/// How partitions are divided among the members of the group.
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

/// A place in a spec: line and column count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Place {
    /// The file.
    pub file: FileId,
    /// Line in the file.
    pub line: u32,
    /// Column in the line.
    pub column: u32,
}

/// A code block: Python text, executed once per worker in a namespace of its own that starts as a
/// copy of the globals of its agent's init block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Block {
    /// The agent or table whose block it is, in the user's words: `agent "echo-agent"`.
    pub owner: String,
    /// Its role there: `operation "echo"`, `init`, `output:demo-output keySelector`.
    pub role: String,
    /// The init block whose globals this one starts with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub init: Option<BlockId>,
    /// The file that it stands in.
    pub file: FileId,
    /// Where each line of the Python text stands in the file.
    pub lines: LineMap,
    /// The Python text, dedented as YAML does it.
    pub code: String,
}

/// Where the lines of a block's Python text stand in its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum LineMap {
    /// A literal (`|`) block: Python line `n` is file line `line + n - 1`, shifted right by
    /// `column - 1` characters.
    Literal {
        /// File line of Python line 1.
        line: u32,
        /// File column of Python column 1.
        column: u32,
    },
    /// A folded, quoted or plain scalar: file line and column of the start of each Python line.
    Each(Vec<(u32, u32)>),
}

impl LineMap {
    /// File line and column of a Python position, all counted from 1. Positions past the end of
    /// the text belong to its last line.
    pub fn at(&self, line: u32, column: u32) -> (u32, u32) {
        match self {
            LineMap::Literal { line: first, column: left } => {
                (first + line.saturating_sub(1), left + column.saturating_sub(1))
            }
            LineMap::Each(lines) => {
                let row = (line.max(1) as usize - 1).min(lines.len().saturating_sub(1));
                let (line, left) = lines.get(row).copied().unwrap_or((1, 1));
                (line, left + column.saturating_sub(1))
            }
        }
    }
}

/// A function that the executor calls, found by name in its block's namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Function {
    /// The block in whose namespace it is found.
    pub block: BlockId,
    /// Its name there.
    pub name: String,
    /// Where it is defined, or the block's place if it comes from somewhere else.
    pub place: Place,
    /// What calling it gives, as far as the compiler can see.
    pub shape: Shape,
    /// It, its block or its init mentions `context`: only then is `context["event"]` prepared.
    pub reads_context: bool,
    /// It only reads the value it is given (the compiler's check, conservative).
    pub only_reads: bool,
    /// The fields of its value that it uses, where it uses nothing else of it (conservative too).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uses: Option<FieldUse>,
}

/// What a function uses of an object that it is given: it reads these fields, sets them or asks
/// whether they are there, and neither removes one nor shows the object to other code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldUse {
    /// Their names, in order.
    pub fields: Vec<String>,
    /// It may return the object itself.
    pub gives_it: bool,
}

/// What calling a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Shape {
    /// A value.
    Plain,
    /// A generator: each yielded value goes on by itself.
    Generator,
    /// A coroutine.
    Async,
    /// An async generator.
    AsyncGenerator,
    /// Not a function of this block (imported, assigned): seen when it is called.
    Unknown,
}

/// How bytes become values and values bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Codec {
    /// Bytes as they are.
    Raw,
    /// JSON as CPython reads and writes it.
    Json,
    /// Base64.
    Binary,
    /// Base64 of pickle.
    Pickle,
    /// YAML.
    Yaml,
    /// Several in turn, `a|b`: encoded left to right.
    Chain(Vec<Codec>),
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Codec::Raw => f.write_str("raw"),
            Codec::Json => f.write_str("json"),
            Codec::Binary => f.write_str("binary"),
            Codec::Pickle => f.write_str("pickle"),
            Codec::Yaml => f.write_str("yaml"),
            Codec::Chain(codecs) => {
                for (i, codec) in codecs.iter().enumerate() {
                    write!(f, "{}{codec}", if i == 0 { "" } else { "|" })?;
                }
                Ok(())
            }
        }
    }
}

impl From<Codec> for String {
    fn from(codec: Codec) -> String {
        codec.to_string()
    }
}

/// The text names no codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCodec(pub String);

impl std::fmt::Display for UnknownCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\" is not a serializer", self.0)
    }
}

impl std::error::Error for UnknownCodec {}

impl std::str::FromStr for Codec {
    type Err = UnknownCodec;
    fn from_str(text: &str) -> Result<Codec, UnknownCodec> {
        if text.contains('|') {
            let codecs: Result<_, _> = text.split('|').map(|one| one.trim().parse()).collect();
            return codecs.map(Codec::Chain);
        }
        Ok(match text {
            "raw" => Codec::Raw,
            "json" => Codec::Json,
            "binary" => Codec::Binary,
            "pickle" => Codec::Pickle,
            "yaml" => Codec::Yaml,
            _ => return Err(UnknownCodec(text.to_owned())),
        })
    }
}

impl TryFrom<String> for Codec {
    type Error = UnknownCodec;
    fn try_from(text: String) -> Result<Codec, UnknownCodec> {
        text.parse()
    }
}

/// Keyed state, in one partition with the events that use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Table {
    /// `metadata.name`.
    pub name: String,
    /// Text for plans and drawings.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    /// Where its document stands.
    pub place: Place,
    /// Whole on every worker, with one changelog partition.
    pub global: bool,
    /// How keys are written.
    pub key_codec: Codec,
    /// How values are written.
    pub value_codec: Codec,
    /// Gives the value of a missing key: a class or zero-argument factory, or the value itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub default: Option<FunctionId>,
    /// Partitions of the changelog, where the spec says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub partitions: Option<u32>,
    /// Further settings of the changelog topic.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub topic_config: BTreeMap<String, String>,
    /// Keys live per window of time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub window: Option<TableWindow>,
}

/// The windows of a windowed table; durations in ms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableWindow {
    /// Length of a window.
    pub size_ms: u64,
    /// From one window's start to the next: `size_ms` when tumbling.
    pub step_ms: u64,
    /// How long a window is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_ms: Option<u64>,
    /// Whose time decides.
    pub relative_to: RelativeTo,
}

/// Whose time a window goes by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RelativeTo {
    /// The event's timestamp.
    Stream,
    /// The worker's clock.
    Now,
    /// What the function returns.
    Custom(FunctionId),
}

/// A named in-memory stream between agents of the app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Agents that read it, in name order.
    pub readers: Vec<AgentId>,
}

/// What the specs say of a topic.
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agent {
    /// `metadata.name`.
    pub name: String,
    /// Text for plans and drawings.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    /// Where its document stands.
    pub place: Place,
    /// Where its events come from.
    pub input: Input,
    /// Batches never mix partitions and async work of one never waits for another.
    pub isolated_partitions: bool,
    /// Run once per worker before the first event.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub init: Option<Init>,
    /// The pipeline, in order.
    pub steps: Vec<Step>,
    /// Topic outputs, in list order; they come before the channels.
    pub outputs: Vec<TopicOutput>,
    /// Channel outputs, in list order; they come before the sinks.
    pub channel_outputs: Vec<ChannelOutput>,
    /// Custom sinks, in list order.
    pub sinks: Vec<SinkOutput>,
    /// What happens to an event that fails here. `None`: the app's setting.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_error: Option<OnError>,
    /// Longest time of one call in ms. `None`: the app's setting.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_ms: Option<u64>,
}

/// Where an agent's events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Input {
    /// Kafka: the agent is the first of the reader.
    Topic(ReaderId),
    /// A channel: the agent runs within every reader that reaches the channel.
    Channel(ChannelId),
}

/// Start-up code of an agent.
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// The operation's name. It may stand in a pipeline more than once.
    pub operation: String,
    /// Where the operation is defined.
    pub place: Place,
    /// What it does.
    pub action: Action,
    /// Tables given to the function, in the order written.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tables: Vec<TableParameter>,
    /// What happens to an event that fails here. `None`: the agent's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_error: Option<OnError>,
    /// Longest time of one call in ms. `None`: the agent's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_ms: Option<u64>,
}

/// What a step does with a value.
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
        /// Where and how.
        output: Box<TopicOutput>,
        /// The value goes on unchanged; else `None`, or with `ack` the record's metadata.
        pass_through: bool,
    },
}

/// A table given to a function by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableParameter {
    /// The keyword.
    pub parameter: String,
    /// The table.
    pub table: TableId,
}

/// Sends a value to a topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopicOutput {
    /// Where it is written in the spec.
    pub place: Place,
    /// Which topic.
    pub topic: TopicChoice,
    /// How keys are written.
    pub key_codec: Codec,
    /// How values are written.
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
    pub ack: bool,
    /// The bytes leave as they came in: nothing on the way changes the value and both codecs are
    /// equal. Set by the rule `forward`.
    pub forwards: bool,
}

/// Which topic an output sends to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TopicChoice {
    /// Always this one.
    Name(String),
    /// What the function returns for the value.
    Selector(FunctionId),
}

/// Gives a value to all readers of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelOutput {
    /// Where it is written in the spec.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SinkOutput {
    /// Its name.
    pub name: String,
    /// Where it is written in the spec.
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

/// What happens to an event that fails ("Processing Failures" of the guide).
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
        /// What happens after the last: never `Retry`.
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
    /// Which topics.
    pub topics: Topics,
    /// How keys are read.
    pub key_codec: Codec,
    /// How values are read.
    pub value_codec: Codec,
    /// The part of each value that is decoded. `None`: all of it. Set by the rule `project`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub part: Option<Part>,
    /// Events are handed over in batches.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub window: Option<BatchWindow>,
    /// What runs one event at a time.
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
    /// Which events may share a batch.
    pub scope: BatchScope,
}

/// Which events may share a batch.
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

/// What runs at most one event at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Track {
    /// Readers with the same number are one track, because they write a common table.
    pub group: u32,
    /// One track per partition rather than one in all.
    pub per_partition: bool,
}
