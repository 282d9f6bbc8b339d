//! The app as a graph: what the compiler's rules work on and what is drawn.
//!
//! Nodes are typed; every edge has a contract that says what travels on it. One graph holds the
//! whole app. Functions, blocks and tables stand beside it, named by number as in the plan.
//!
//! ```text
//! Source(orders) ─▶ BatchWindow ─▶ Operator(price) ─┬─0▶ Sink(priced)
//!                                                   └─1▶ Channel(checked) ─▶ Operator(audit) ─▶ Sink(audits)
//! └────────────────── agent shop ──────────────────┘                        └──── agent audit ────┘
//! ```
//!
//! Made by the compiler's `lower`, changed by its rules, and turned into a plan by `schedule`. Invariants: no loops;
//! a source has nothing before it but a channel; an edge into a channel has a `via`, every other has none; the nodes of
//! an agent were added in the order in which its events meet them, and indices stay when others are removed.

use std::num::NonZeroU32;

use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

use crate::plan::{
    AgentId, App, BatchWindow, Block, Channel, ChannelId, ChannelOutput, Codec, Function, Init, OnError, Part, Place,
    SinkOutput, Step, Table, Topic, TopicOutput, Topics,
};

/// Entry of events into an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Its topics.
    /// None at all for the entry of an agent behind a channel, which is made only where it has no operation.
    pub topics: Topics,
    /// Codec by which keys are read.
    pub key_codec: Codec,
    /// Codec by which values are read.
    pub value_codec: Codec,
    /// Place of the key's serializer, or of the topic where none is written.
    pub key_place: Option<Place>,
    /// Place of the value's serializer, likewise.
    pub value_place: Option<Place>,
    /// The part of each value that is decoded. `None`: all of it.
    /// Set by the rule `project`.
    pub part: Option<Part>,
}

/// Exit of values from an agent.
///
/// Channels are no sinks: values go on behind them, within the same event.
#[derive(Clone, Debug, PartialEq)]
pub enum Sink {
    /// Kafka.
    Topic(TopicOutput),
    /// The user's own code.
    Custom(SinkOutput),
}

/// Kind of a node.
///
/// Everything that events can meet, in the order in which they do.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Events enter.
    Source(Source),
    /// Events wait for company.
    BatchWindow(BatchWindow),
    /// A function of the pipeline.
    /// Once for each time that the pipeline names it.
    Operator(Step),
    /// A named stream between agents; it belongs to none of them.
    Channel(ChannelId),
    /// Values leave.
    Sink(Sink),
}

/// A node and the agent it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// `None` for channels.
    pub agent: Option<AgentId>,
    /// Its kind.
    pub kind: Kind,
}

/// Contract of an edge: the shape of what travels on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// Single values.
    Value,
    /// Lists of values.
    Batch,
}

/// From a node to one that comes after it.
///
/// Made once and never changed by a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// Shape of what travels.
    pub contract: Contract,
    /// The place among the edges that leave the same node: outputs are served in list order.
    pub order: u32,
    /// The channel output that picks what is passed on.
    /// Only on edges into channels: the channel's node belongs to all of its writers, the selectors to one.
    pub via: Option<ChannelOutput>,
}

/// An agent, apart from its nodes.
///
/// Its steps and outputs are nodes; what is true of it as a whole is here.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentInfo {
    /// Its name.
    pub name: String,
    /// Text for plans and drawings.
    pub description: Option<String>,
    /// Place of its document.
    pub place: Place,
    /// See the plan.
    pub isolated_partitions: bool,
    /// See the plan.
    pub concurrency: Option<NonZeroU32>,
    /// See the plan.
    pub init: Option<Init>,
    /// See the plan.
    pub on_error: Option<OnError>,
    /// See the plan.
    pub timeout_ms: Option<u64>,
}

/// A whole app as a graph.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Nodes and edges.
    /// Stable: a rule may remove a node, and the numbers of the others stay.
    pub flow: StableDiGraph<Node, Edge>,
    /// The app.
    pub app: App,
    /// Files of the specs.
    pub files: Vec<String>,
    /// Code blocks.
    pub blocks: Vec<Block>,
    /// Functions.
    pub functions: Vec<Function>,
    /// Tables, in name order.
    pub tables: Vec<Table>,
    /// Channels, in name order.
    pub channels: Vec<Channel>,
    /// Topics, in name order.
    pub topics: Vec<Topic>,
    /// Agents, in name order.
    pub agents: Vec<AgentInfo>,
}

impl Graph {
    /// Nodes that come after a node, in the order of their edges.
    ///
    /// A node may stand there twice, if two outputs lead to one channel.
    pub fn next(&self, from: NodeIndex) -> Vec<(NodeIndex, &Edge)> {
        let mut next: Vec<_> = self.flow.edges(from).map(|edge| (edge.target(), edge.weight())).collect();
        // petgraph promises no order of edges.
        next.sort_by_key(|(target, edge)| (edge.order, *target));
        next
    }

    /// The nodes of every agent, by its number, in the order in which they were made.
    ///
    /// Channels belong to no agent and are in none of the lists.
    pub fn members(&self) -> Vec<Vec<NodeIndex>> {
        let mut members = vec![Vec::new(); self.agents.len()];
        for index in self.flow.node_indices() {
            if let Some(agent) = self.flow[index].agent {
                members[agent.index()].push(index);
            }
        }
        members
    }

    /// The node of a channel.
    pub fn channel(&self, channel: ChannelId) -> Option<NodeIndex> {
        self.flow.node_indices().find(|index| self.flow[*index].kind == Kind::Channel(channel))
    }

    /// Agents by number.
    pub fn agent_ids(&self) -> impl Iterator<Item = AgentId> + use<> {
        (0..self.agents.len()).map(|number| AgentId(u32::try_from(number).expect("an app counts agents in u32")))
    }
}
