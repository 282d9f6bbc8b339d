//! HIR to graph: total, whatever the HIR.
//!
//! The HIR says what an agent has; the graph says how a value flows. Every input, operation of a pipeline and output
//! becomes a node, and the order in which they are served becomes edges:
//!
//! ```text
//! pipeline: [a, b]      Source ─▶ BatchWindow ─▶ Operator a ─▶ Operator b ─┬─0▶ Sink topic
//! take, two outputs                  values   batches   values             └─1▶ Channel ─▶ the readers' nodes
//! ```
//!
//! Nothing is decided here. What needs the whole app (which batches may mix, what is decoded) is left to the rules,
//! and defaults stand in the nodes until they have run.

use std::collections::HashSet;

use kaspr_ir::graph::{Contract, Edge, Graph, Kind, Node, Sink};
use kaspr_ir::plan::{AgentId, ChannelId};
use petgraph::stable_graph::{NodeIndex, StableDiGraph};

use crate::hir::{Agent, Hir, Input};

/// The graph of an app, before any rule.
///
/// Nodes of an agent are made in the order in which its events meet them: `crate::schedule` relies on it. Channels
/// are made first, so that agents can be joined to them in any order.
pub fn lower(hir: Hir) -> Graph {
    let mut flow = StableDiGraph::new();
    let channels: Vec<NodeIndex> = (0..hir.channels.len())
        .map(|number| flow.add_node(Node { agent: None, kind: Kind::Channel(ChannelId(number_of(number))) }))
        .collect();
    for (number, agent) in hir.agents.iter().enumerate() {
        Lowering { flow: &mut flow, channels: &channels, id: AgentId(number_of(number)) }.agent(agent);
    }
    Graph {
        flow,
        app: hir.app,
        files: hir.files,
        blocks: hir.blocks,
        functions: hir.functions,
        tables: hir.tables,
        channels: hir.channels,
        topics: hir.topics,
        agents: hir.agents.into_iter().map(|agent| agent.info).collect(),
    }
}

/// The place in a list as the graph's ids have it.
fn number_of(number: usize) -> u32 {
    u32::try_from(number).expect("an app is counted in u32")
}

/// One agent on its way into the graph.
struct Lowering<'a> {
    flow: &'a mut StableDiGraph<Node, Edge>,
    channels: &'a [NodeIndex],
    id: AgentId,
}

impl Lowering<'_> {
    /// Makes the nodes of an agent, from its source to its last output.
    ///
    /// Only the first edge can carry a batch: the first function gets the list, and what it gives are values.
    fn agent(&mut self, agent: &Agent) {
        let (mut last, mut contract) = match &agent.input {
            Input::Channel(channel) => (self.channels[channel.index()], Contract::Value),
            Input::Topic(source, window) => {
                let source = self.node(Kind::Source(source.clone()));
                match window {
                    Some(window) => {
                        let window = self.node(Kind::BatchWindow(window.clone()));
                        self.edge(source, window, Contract::Value, 0);
                        (window, Contract::Batch)
                    }
                    None => (source, Contract::Value),
                }
            }
        };
        // An operation that the pipeline names twice becomes two nodes: the graph has no loops.
        for &number in &agent.pipeline {
            let step = self.node(Kind::Operator(agent.operations[number].clone()));
            self.edge(last, step, contract, 0);
            last = step;
            contract = Contract::Value;
        }
        let used: HashSet<usize> = agent.pipeline.iter().copied().collect();
        for (number, step) in agent.operations.iter().enumerate() {
            if !used.contains(&number) {
                // No edge leads to it: the rule `prune` takes it out.
                self.node(Kind::Operator(step.clone()));
            }
        }
        self.outputs(agent, last, contract);
    }

    /// Adds the edges and nodes of an agent's outputs behind its last node: topics, then channels, then sinks, each in
    /// list order (see "Outputs" in `docs/semantics.md`).
    fn outputs(&mut self, agent: &Agent, last: NodeIndex, contract: Contract) {
        // An agent without operations behind a channel has no node of its own to leave from.
        let last = match &self.flow[last].kind {
            Kind::Channel(_) => {
                let source = self.node(Kind::Source(kaspr_ir::graph::Source {
                    // A source without topics: `schedule` and the rules take it for an entry and not for a reader.
                    topics: kaspr_ir::plan::Topics::Names(Vec::new()),
                    key_codec: kaspr_ir::plan::Codec::Raw,
                    value_codec: kaspr_ir::plan::Codec::Json,
                    key_place: None,
                    value_place: None,
                    part: None,
                }));
                self.edge(last, source, contract, 0);
                source
            }
            _ => last,
        };
        let mut order = 0;
        for output in &agent.outputs {
            let sink = self.node(Kind::Sink(Sink::Topic(output.clone())));
            self.edge(last, sink, contract, order);
            order += 1;
        }
        // One counter for all three lists: edges from one node are served in one order.
        for output in &agent.channels {
            let channel = self.channels[output.channel.index()];
            // Selectors of a channel's output stand on the edge: the channel's node belongs to all of its writers.
            self.flow.add_edge(last, channel, Edge { contract, order, via: Some(output.clone()) });
            order += 1;
        }
        for sink in &agent.sinks {
            let sink = self.node(Kind::Sink(Sink::Custom(sink.clone())));
            self.edge(last, sink, contract, order);
            order += 1;
        }
    }

    /// Adds a node of this agent.
    fn node(&mut self, kind: Kind) -> NodeIndex {
        self.flow.add_node(Node { agent: Some(self.id), kind })
    }

    /// Adds an edge that no channel output stands on.
    fn edge(&mut self, from: NodeIndex, to: NodeIndex, contract: Contract, order: u32) {
        self.flow.add_edge(from, to, Edge { contract, order, via: None });
    }
}
