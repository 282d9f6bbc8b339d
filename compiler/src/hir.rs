//! The app as it is meant: names resolved, defaults filled in, nothing optional that must be there.
//!
//! Some fields beside what the AST had for them:
//!
//! ```text
//! AST (what was written)                          HIR (what is true)
//! input.take: Some("5s" at 7:20)                  within_ms: 5000
//! tables: [{name: Some("totals"), …}]             tables: [TableParameter { table: TableId(1), … }]
//! onError: None                                   on_error: None (the app's setting, known at the start)
//! key_codec: None                                 key_codec: Codec::Raw
//! map: Code { text, entrypoint: None }            Action::Map(FunctionId(3)), named and checked
//! ```
//!
//! Made by `crate::check` and consumed by `crate::lower`. It is whole only if `check` found no error: otherwise
//! parts of it are missing, and it is dropped without being looked at. Ids (`TableId`, `FunctionId`, …) are places
//! in the lists of [`Hir`], and stay valid up to the plan: no later stage sorts or shortens these lists.

use kaspr_ir::graph::{AgentInfo, Source};
use kaspr_ir::plan::{
    App, BatchWindow, Block, Channel, ChannelId, ChannelOutput, Function, SinkOutput, Step, Table, Topic, TopicOutput,
};

/// A whole app.
///
/// Deterministic: lists are in the order of names or of first use, never of hashing or of files.
#[derive(Clone, Debug)]
pub struct Hir {
    /// The app as a whole.
    pub app: App,
    /// Files of the specs.
    /// A place names its file by its number here.
    pub files: Vec<String>,
    /// Code blocks, in the order in which they are used.
    /// An init block comes before the blocks that start with its globals.
    pub blocks: Vec<Block>,
    /// Functions that are called.
    /// One for each field that names a function, so the same function of a block is never listed for two fields.
    pub functions: Vec<Function>,
    /// Tables, in name order.
    pub tables: Vec<Table>,
    /// Channels, in name order.
    /// A channel that is read and never written is a fault (K0108), so each has a writer.
    pub channels: Vec<Channel>,
    /// Topics, in name order.
    /// All that a spec names, inputs and outputs alike, with what any of them says about its creation.
    pub topics: Vec<Topic>,
    /// Agents, in name order.
    pub agents: Vec<Agent>,
}

/// One agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// All but its way.
    pub info: AgentInfo,
    /// Source of its events.
    pub input: Input,
    /// Its operations, in the order defined.
    pub operations: Vec<Step>,
    /// Its pipeline: operations by number.
    /// They may repeat. An operation that stands in no pipeline is in `operations` all the same: a rule drops it.
    pub pipeline: Vec<usize>,
    /// Topic outputs, in order.
    pub outputs: Vec<TopicOutput>,
    /// Channel outputs, in order.
    pub channels: Vec<ChannelOutput>,
    /// Custom sinks, in order.
    pub sinks: Vec<SinkOutput>,
}

/// Source of an agent's events.
#[derive(Clone, Debug)]
pub enum Input {
    /// Kafka, in batches or one by one.
    Topic(Source, Option<BatchWindow>),
    /// A channel.
    Channel(ChannelId),
}
