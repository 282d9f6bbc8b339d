//! The app as it is meant: names resolved, defaults filled in, nothing optional that must be there.

use kaspr_ir::graph::{AgentInfo, Source};
use kaspr_ir::plan::{
    App, BatchWindow, Block, Channel, ChannelId, ChannelOutput, Function, SinkOutput, Step, Table, Topic, TopicOutput,
};

/// A whole app.
#[derive(Clone, Debug)]
pub struct Hir {
    /// The app as a whole.
    pub app: App,
    /// Files of the specs.
    pub files: Vec<String>,
    /// Code blocks, in the order in which they are used.
    pub blocks: Vec<Block>,
    /// Functions that are called.
    pub functions: Vec<Function>,
    /// Tables, in name order.
    pub tables: Vec<Table>,
    /// Channels, in name order.
    pub channels: Vec<Channel>,
    /// Topics, in name order.
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
