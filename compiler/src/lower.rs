//! HIR to graph: total, whatever the HIR.

use std::collections::HashSet;

use kaspr_ir::graph::{Contract, Edge, Graph, Kind, Node, Sink};
use kaspr_ir::plan::{AgentId, ChannelId};
use petgraph::stable_graph::{NodeIndex, StableDiGraph};

use crate::hir::{Agent, Hir, Input};

/// The graph of an app, before any rule.
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

fn number_of(number: usize) -> u32 {
    u32::try_from(number).expect("an app is counted in u32")
}

struct Lowering<'a> {
    flow: &'a mut StableDiGraph<Node, Edge>,
    channels: &'a [NodeIndex],
    id: AgentId,
}

impl Lowering<'_> {
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

    fn outputs(&mut self, agent: &Agent, last: NodeIndex, contract: Contract) {
        // An agent without operations behind a channel has no node of its own to leave from.
        let last = match &self.flow[last].kind {
            Kind::Channel(_) => {
                let source = self.node(Kind::Source(kaspr_ir::graph::Source {
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
        for output in &agent.channels {
            let channel = self.channels[output.channel.index()];
            self.flow.add_edge(last, channel, Edge { contract, order, via: Some(output.clone()) });
            order += 1;
        }
        for sink in &agent.sinks {
            let sink = self.node(Kind::Sink(Sink::Custom(sink.clone())));
            self.edge(last, sink, contract, order);
            order += 1;
        }
    }

    fn node(&mut self, kind: Kind) -> NodeIndex {
        self.flow.add_node(Node { agent: Some(self.id), kind })
    }

    fn edge(&mut self, from: NodeIndex, to: NodeIndex, contract: Contract, order: u32) {
        self.flow.add_edge(from, to, Edge { contract, order, via: None });
    }
}
