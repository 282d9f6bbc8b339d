//! The specs as they were written: every field optional, every value with its place.
//!
//! Both forms of a spec become the same tree, so that nothing after this knows which was read.
//!
//! Made by `crate::read`, which never fails, and consumed by `crate::check`, which alone may reject. So an AST may
//! be of any senseless spec: an agent with two inputs, without a name, with an operation that is none. `None` means
//! that a field is absent, is null, or was of the wrong kind and has been reported; the sink knows which
//! (`Sink::is_marked`).
//!
//! Field names are the specs' in Rust's spelling; the doc of each names the field that it is. Meanings and defaults
//! stand in `docs/semantics.md` and are applied by `check`, not here: `ack: None` is not `ack: false`.

use std::num::NonZeroU32;

use crate::diagnostics::allow::Allowance;
use crate::source::{At, Spanned};

/// Text with its place.
pub type Text = Spanned<String>;

/// Everything that was written in all files.
///
/// Grows document by document, in the order of files. `kasprc compile --emit ast` prints it.
#[derive(Debug, Default)]
pub struct Ast {
    /// `KasprAgent`s, in the order written.
    pub agents: Vec<Agent>,
    /// `KasprTable`s.
    pub tables: Vec<Table>,
    /// `KasprApp`s.
    pub apps: Vec<App>,
    /// Some document could not be read as what it is.
    ///
    /// Then names that are declared nowhere may be declared there, and faults about them would be echoes.
    pub is_partial: bool,
    /// Findings that annotations accept.
    pub allowances: Vec<Allowance>,
}

/// A `KasprApp`, as far as running needs it.
///
/// The operator reads the rest of its spec (replicas, images), which means nothing to this compiler.
#[derive(Debug)]
pub struct App {
    /// Its name.
    pub name: Option<Text>,
    /// `spec.config`: names and scalar values.
    pub config: Vec<(Text, Text)>,
}

/// A `KasprAgent`.
#[derive(Debug)]
pub struct Agent {
    /// The name's place, or the document's.
    pub at: At,
    /// Its name.
    pub name: Option<Text>,
    /// The label `kaspr.io/app`.
    pub app: Option<Text>,
    /// Text for plans.
    pub description: Option<Text>,
    /// `isolatedPartitions`.
    pub isolated_partitions: Option<Spanned<bool>>,
    /// `concurrency`.
    pub concurrency: Option<Spanned<NonZeroU32>>,
    /// `input`.
    pub input: Option<Input>,
    /// `output.topics`.
    pub outputs: Vec<TopicOutput>,
    /// `output.channels`.
    pub channels: Vec<ChannelOutput>,
    /// `output.sinks`.
    pub sinks: Vec<SinkOutput>,
    /// `processors.pipeline`.
    pub pipeline: Vec<Text>,
    /// `processors.init`.
    pub init: Option<Code>,
    /// `processors.operations`.
    pub operations: Vec<Operation>,
    /// `onError`.
    pub on_error: Option<OnError>,
    /// `timeout`.
    pub timeout: Option<Text>,
}

/// `input`.
#[derive(Debug)]
pub struct Input {
    /// Its place.
    pub at: At,
    /// `topic`.
    pub topic: Option<InputTopic>,
    /// `channel.name`.
    pub channel: Option<Text>,
    /// `take`.
    pub take: Option<Take>,
    /// `declare` beside the topic.
    pub declare: Option<Spanned<bool>>,
}

/// `input.topic`.
#[derive(Debug)]
pub struct InputTopic {
    /// Its place.
    pub at: At,
    /// One name, or several separated by commas.
    pub name: Option<Text>,
    /// A regular expression.
    pub pattern: Option<Text>,
    /// Serializers and settings.
    pub settings: TopicSettings,
}

/// Settings of a topic that is read or written.
#[derive(Debug, Default)]
pub struct TopicSettings {
    /// `keySerializer`.
    pub key_codec: Option<Text>,
    /// `valueSerializer`.
    pub value_codec: Option<Text>,
    /// Fields of a topic that is created.
    pub creation: Creation,
}

/// The creation of a topic where it is missing.
#[derive(Debug, Default)]
pub struct Creation {
    /// `declare`.
    pub declare: Option<Spanned<bool>>,
    /// `partitions`.
    pub partitions: Option<Spanned<u32>>,
    /// `replicas`.
    pub replicas: Option<Spanned<u32>>,
    /// `retention`, in seconds.
    pub retention: Option<Spanned<u64>>,
    /// `compacting`.
    pub compacting: Option<Spanned<bool>>,
    /// `deleting`.
    pub deleting: Option<Spanned<bool>>,
    /// `config`.
    pub config: Vec<(Text, Text)>,
}

/// `input.take`.
#[derive(Debug)]
pub struct Take {
    /// Its place.
    pub at: At,
    /// `max`.
    pub max: Option<Spanned<u32>>,
    /// `within`.
    pub within: Option<Text>,
}

/// A code block.
///
/// Its text is what YAML makes of it, dedented; `crate::block` finds the file's line and column for a byte of it.
#[derive(Clone, Debug)]
pub struct Code {
    /// Place of the Python.
    pub at: At,
    /// The Python text.
    pub text: String,
    /// It is a literal (`|`) block: its lines are lines of the file.
    pub literal: bool,
    /// The function to run.
    pub entrypoint: Option<Text>,
}

/// One of `output.topics`, or `topicSend`.
#[derive(Debug)]
pub struct TopicOutput {
    /// Its place.
    pub at: At,
    /// A fixed topic.
    pub name: Option<Text>,
    /// A topic by function.
    pub name_selector: Option<Code>,
    /// Serializers and settings.
    pub settings: TopicSettings,
    /// `keySelector`.
    pub key_selector: Option<Code>,
    /// `valueSelector`.
    pub value_selector: Option<Code>,
    /// `partitionSelector`.
    pub partition_selector: Option<Code>,
    /// `headersSelector`.
    pub headers_selector: Option<Code>,
    /// `predicate`.
    pub predicate: Option<Code>,
    /// `ack`.
    pub ack: Option<Spanned<bool>>,
    /// `passThrough`, of a `topicSend`.
    pub pass_through: Option<Spanned<bool>>,
}

/// One of `output.channels`.
#[derive(Debug)]
pub struct ChannelOutput {
    /// Its place.
    pub at: At,
    /// The channel.
    pub name: Option<Text>,
    /// `predicate`.
    pub predicate: Option<Code>,
    /// `keySelector`.
    pub key_selector: Option<Code>,
    /// `valueSelector`.
    pub value_selector: Option<Code>,
    /// `headersSelector`.
    pub headers_selector: Option<Code>,
}

/// One of `output.sinks`.
#[derive(Debug)]
pub struct SinkOutput {
    /// Its place.
    pub at: At,
    /// Its name.
    pub name: Option<Text>,
    /// The code that is called.
    pub code: Option<Code>,
    /// `predicate`.
    pub predicate: Option<Code>,
    /// `valueSelector`.
    pub value_selector: Option<Code>,
}

/// One of `processors.operations`.
#[derive(Debug)]
pub struct Operation {
    /// Its place.
    pub at: At,
    /// Its name.
    pub name: Option<Text>,
    /// `map`.
    pub map: Option<Code>,
    /// `filter`.
    pub filter: Option<Code>,
    /// `topicSend`.
    pub send: Option<TopicOutput>,
    /// `tables`.
    pub tables: Vec<TableParameter>,
    /// `onError`.
    pub on_error: Option<OnError>,
    /// `timeout`.
    pub timeout: Option<Text>,
}

/// One of an operation's `tables`.
#[derive(Debug)]
pub struct TableParameter {
    /// Its place.
    pub at: At,
    /// The table.
    pub name: Option<Text>,
    /// The keyword.
    pub parameter: Option<Text>,
}

/// `onError`.
///
/// Flat, although `backoff` is a mapping in the spec: nothing depends on its having been written.
#[derive(Debug)]
pub struct OnError {
    /// Its place.
    pub at: At,
    /// `action`.
    pub action: Option<Text>,
    /// `topic`.
    pub topic: Option<Text>,
    /// `declare` and what goes with it: how the topic is created.
    pub creation: Creation,
    /// `attempts`.
    pub attempts: Option<Spanned<u32>>,
    /// `then`.
    pub then: Option<Text>,
    /// `backoff.initial`.
    pub initial: Option<Text>,
    /// `backoff.max`.
    pub max: Option<Text>,
    /// `backoff.factor`.
    pub factor: Option<Spanned<f64>>,
    /// `backoff.jitter`.
    pub jitter: Option<Spanned<f64>>,
}

/// A `KasprTable`.
#[derive(Debug)]
pub struct Table {
    /// The name's place, or the document's.
    pub at: At,
    /// Its name.
    pub name: Option<Text>,
    /// Text for plans.
    pub description: Option<Text>,
    /// `global`.
    pub global: Option<Spanned<bool>>,
    /// `keySerializer`.
    pub key_codec: Option<Text>,
    /// `valueSerializer`.
    pub value_codec: Option<Text>,
    /// `defaultSelector`.
    pub default: Option<Code>,
    /// `partitions`.
    pub partitions: Option<Spanned<u32>>,
    /// `extraTopicConfigs`.
    pub config: Vec<(Text, Text)>,
    /// Place of the first key of `options`, which have no effect.
    pub options: Option<At>,
    /// `window`.
    pub window: Option<Window>,
}

/// A table's `window`.
#[derive(Debug)]
pub struct Window {
    /// Its place.
    pub at: At,
    /// `tumbling`.
    pub tumbling: Option<Frame>,
    /// `hopping`.
    pub hopping: Option<Frame>,
    /// `relativeTo`.
    pub relative_to: Option<Text>,
    /// `relativeToSelector`.
    pub selector: Option<Code>,
}

/// `tumbling` or `hopping`: durations as text with a unit, or as a number of seconds.
///
/// The unit is judged in `check`: `5` is five seconds, `"5m"` five minutes.
#[derive(Debug)]
pub struct Frame {
    /// Its place.
    pub at: At,
    /// `size`.
    pub size: Option<Text>,
    /// `step`, of hopping windows.
    pub step: Option<Text>,
    /// `expires`.
    pub expires: Option<Text>,
}
