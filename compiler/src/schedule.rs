//! Graph to plan: flat, in dependency order. Total.
//!
//! The graph is right for rules, which ask about ways and neighbours; the plan is right for the executor, which
//! walks lists once. So every way through the graph is written down as lists in agents, and what starts at a topic
//! becomes a reader:
//!
//! ```text
//! Source(in) ─▶ a ─▶ Channel c ─▶ b ─▶ Sink(out)
//!     ⇒  agents:  a { input: reader 0, steps: [a], channel_outputs: [c] }   b { input: channel c, outputs: [out] }
//!        readers: { agents: [a, b], topics: [in], track: { group: 0, per_partition: false } }
//! ```
//!
//! The last stage: its plan is sealed with a revision, and every change after that is refused by the executor.

use std::collections::BTreeMap;

use kaspr_ir::graph::{Graph, Kind, Sink};
use kaspr_ir::plan::{
    Agent, AgentId, BatchWindow, ChannelId, Input, Overlap, PLAN_VERSION, Plan, Reader, ReaderId, TableId, Topics,
    Track,
};
use petgraph::stable_graph::NodeIndex;
use petgraph::unionfind::UnionFind;

use crate::rules::{agents_behind, tables_behind};

/// The plan of a graph to which the rules have been applied.
///
/// Readers are in the order of their agents' names, because agents are. The same graph gives the same plan, byte for
/// byte: the revision depends on it.
pub fn schedule(graph: &Graph) -> Plan {
    let members = graph.members();
    let source = |agent: AgentId| members[agent.index()].iter().find(|index| reads_topic(&graph.flow[**index]));
    let readers: Vec<(NodeIndex, AgentId)> =
        graph.agent_ids().filter_map(|agent| source(agent).map(|index| (*index, agent))).collect();
    let inputs = inputs(graph, &readers);
    let plan = Plan {
        plan_version: PLAN_VERSION,
        revision: String::new(),
        app: graph.app.clone(),
        files: graph.files.clone(),
        blocks: graph.blocks.clone(),
        functions: graph.functions.clone(),
        tables: graph.tables.clone(),
        channels: graph.channels.clone(),
        topics: graph.topics.clone(),
        agents: graph.agent_ids().map(|id| agent(graph, id, inputs[id.index()], &members[id.index()])).collect(),
        readers: readers.iter().map(|(source, agent)| reader(graph, *source, *agent)).collect(),
    };
    with_tracks(plan, graph, &readers).seal()
}

/// A node where events of topics enter (the entry of an agent behind a channel names none).
fn reads_topic(node: &kaspr_ir::graph::Node) -> bool {
    match &node.kind {
        Kind::Source(source) => source.topics != Topics::Names(Vec::new()),
        _ => false,
    }
}

/// Input of each agent, by the agent's number.
///
/// Every agent has one, because `check` refuses the others (K0101).
fn inputs(graph: &Graph, readers: &[(NodeIndex, AgentId)]) -> Vec<Input> {
    let mut inputs = vec![Input::Channel(ChannelId(0)); graph.agents.len()];
    for (number, channel) in graph.channels.iter().enumerate() {
        let input = Input::Channel(ChannelId(u32::try_from(number).expect("channels are counted in u32")));
        channel.readers.iter().for_each(|agent| inputs[agent.index()] = input);
    }
    for (number, (_, agent)) in readers.iter().enumerate() {
        inputs[agent.index()] = Input::Topic(ReaderId(u32::try_from(number).expect("readers are counted in u32")));
    }
    inputs
}

/// An agent of the plan, from its nodes and the edges that leave them.
fn agent(graph: &Graph, id: AgentId, input: Input, nodes: &[NodeIndex]) -> Agent {
    let info = &graph.agents[id.index()];
    let mut agent = Agent {
        name: info.name.clone(),
        description: info.description.clone(),
        place: info.place,
        input,
        isolated_partitions: info.isolated_partitions,
        concurrency: info.concurrency,
        init: info.init.clone(),
        steps: Vec::new(),
        outputs: Vec::new(),
        channel_outputs: Vec::new(),
        sinks: Vec::new(),
        on_error: info.on_error.clone(),
        timeout_ms: info.timeout_ms,
    };
    // Nodes of an agent were made in the order of its pipeline and outputs.
    for &index in nodes {
        match &graph.flow[index].kind {
            Kind::Operator(step) => agent.steps.push(step.clone()),
            Kind::Sink(Sink::Topic(output)) => agent.outputs.push(output.clone()),
            Kind::Sink(Sink::Custom(sink)) => agent.sinks.push(sink.clone()),
            _ => {}
        }
        let channels = graph.next(index).into_iter().filter_map(|(_, edge)| edge.via.clone());
        agent.channel_outputs.extend(channels);
    }
    agent
}

/// The reader that starts at a source. Its track is set when all readers are known.
fn reader(graph: &Graph, index: NodeIndex, _agent: AgentId) -> Reader {
    let Kind::Source(source) = &graph.flow[index].kind else { unreachable!("readers are found by their sources") };
    let agents = agents_behind(graph, index);
    debug_assert!(!agents.is_empty(), "a reader has at least the agent of its source");
    Reader {
        agents,
        topics: source.topics.clone(),
        key_codec: source.key_codec.clone(),
        value_codec: source.value_codec.clone(),
        key_place: source.key_place,
        value_place: source.value_place,
        part: source.part.clone(),
        // A window is always the first node behind its source.
        window: graph.next(index).first().and_then(|(next, _)| window(graph, *next)),
        track: Track { group: 0, per_partition: false },
        overlap: Overlap::default(),
    }
}

/// The batch window that a node is.
fn window(graph: &Graph, index: NodeIndex) -> Option<BatchWindow> {
    match &graph.flow[index].kind {
        Kind::BatchWindow(window) => Some(window.clone()),
        _ => None,
    }
}

/// Sets the tracks: readers that use a common table are one track together ("Tracks" in `docs/semantics.md`). It is
/// one per partition where all of them isolate theirs and none of the tables is global.
///
/// Two events that write one table must not run at a time, even if they come from different topics. Sharing is
/// transitive: readers of tables `t` and `u` join those of `t` with those of `u`.
///
/// ```text
/// reader 0: t     reader 1: u     reader 2: t, u     reader 3: –      ⇒  groups 0, 0, 0, 3
/// ```
///
/// The agents of a track have as many events in flight as the one that allows the fewest.
fn with_tracks(mut plan: Plan, graph: &Graph, readers: &[(NodeIndex, AgentId)]) -> Plan {
    let mut groups = UnionFind::new(readers.len());
    let mut first_user: BTreeMap<TableId, usize> = BTreeMap::new();
    let mut shares_global = vec![false; readers.len()];
    for (number, (source, _)) in readers.iter().enumerate() {
        for table in tables_behind(graph, *source) {
            shares_global[number] |= graph.tables[table.index()].global;
            groups.union(number, *first_user.entry(table).or_insert(number));
        }
    }
    // A group is named by its first reader.
    // Not by the union's own representative: which one that is depends on the order of unions.
    let mut first_of: BTreeMap<usize, usize> = BTreeMap::new();
    let mut all_isolated: BTreeMap<usize, bool> = BTreeMap::new();
    let mut least: BTreeMap<usize, Overlap> = BTreeMap::new();
    for (number, reader) in plan.readers.iter().enumerate() {
        // A global table is one for all partitions, so its writers cannot run side by side.
        let isolated = !shares_global[number] && reader.agents.iter().all(|agent| plan[*agent].isolated_partitions);
        first_of.entry(groups.find(number)).or_insert(number);
        *all_isolated.entry(groups.find(number)).or_insert(true) &= isolated;
        for agent in &reader.agents {
            let overlap = Overlap::from(plan[*agent].concurrency);
            least.entry(groups.find(number)).and_modify(|least| *least = least.and(overlap)).or_insert(overlap);
        }
    }
    for (number, reader) in plan.readers.iter_mut().enumerate() {
        let group = groups.find(number);
        reader.track = Track {
            group: u32::try_from(first_of[&group]).expect("readers are counted in u32"),
            per_partition: all_isolated[&group],
        };
        reader.overlap = least[&group];
    }
    plan
}
