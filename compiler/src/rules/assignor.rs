//! Chooses how partitions are divided: together where topics share a table.
//!
//! If two topics feed one table, partition 5 of both must be on the same worker, since the table's partition 5 is
//! there. Kafka's `range` assignor does that for topics with equal partition counts; it stops all partitions during
//! a rebalance, so it is chosen only where it is needed.
//!
//! ```text
//! reader a: topic orders, table totals  ┐
//! reader b: topic prices, table totals  ┘  ⇒  Range
//! the same with a global table             ⇒  CooperativeSticky: every worker has the whole table
//! ```

use std::collections::{BTreeMap, BTreeSet};

use kaspr_ir::graph::{Graph, Kind};
use kaspr_ir::plan::{AgentId, Assignor, TableId, Topics};
use petgraph::Direction;
use petgraph::visit::Bfs;

/// Applies the rule.
///
/// A pattern counts as several topics: what it matches is known only at the start, and may grow while it runs.
pub fn apply(graph: &mut Graph) {
    let mut topics: BTreeMap<TableId, Vec<Topics>> = BTreeMap::new();
    for (source, read) in sources(graph) {
        for table in tables_behind(graph, source) {
            let known = topics.entry(table).or_default();
            if !known.contains(&read) {
                known.push(read.clone());
            }
        }
    }
    // Two readers of one topic share a table without sharing topics: their partitions are together in any case.
    let shares = |(table, topics): (&TableId, &Vec<Topics>)| {
        let is_several = |topics: &Topics| match topics {
            Topics::Names(names) => names.len() > 1,
            Topics::Pattern(_) => true,
        };
        (topics.len() > 1 || topics.iter().any(is_several)) && !graph.tables[table.index()].global
    };
    graph.app.assignor = if topics.iter().any(shares) { Assignor::Range } else { Assignor::CooperativeSticky };
}

/// Source nodes, and what they read.
/// The entries of agents behind channels are among them; they read no topics.
fn sources(graph: &Graph) -> Vec<(petgraph::stable_graph::NodeIndex, Topics)> {
    let nodes = graph.flow.node_indices();
    nodes
        .filter_map(|index| match &graph.flow[index].kind {
            Kind::Source(source) => Some((index, source.topics.clone())),
            _ => None,
        })
        .collect()
}

/// Tables that an event of this source may touch.
///
/// Its own agent's and those of agents behind its channels. Each once, in the order of ids.
pub fn tables_behind(graph: &Graph, source: petgraph::stable_graph::NodeIndex) -> Vec<TableId> {
    let mut tables = Vec::new();
    let mut search = Bfs::new(&graph.flow, source);
    while let Some(index) = search.next(&graph.flow) {
        if let Kind::Operator(step) = &graph.flow[index].kind {
            tables.extend(step.tables.iter().map(|table| table.table));
        }
    }
    tables.sort();
    tables.dedup();
    tables
}

/// Agents that an event of this source may reach, each behind those that feed it; the source's own
/// is first, and agents that could stand in either order stand by name.
///
/// ```text
/// a ─▶ c, a ─▶ b, b ─▶ c   ⇒   [a, b, c]: c after b, which feeds it
/// ```
pub fn agents_behind(graph: &Graph, source: petgraph::stable_graph::NodeIndex) -> Vec<AgentId> {
    let own = graph.flow[source].agent.expect("a source belongs to an agent");
    let mut feeds: BTreeMap<AgentId, BTreeSet<AgentId>> = BTreeMap::from([(own, BTreeSet::new())]);
    let mut search = Bfs::new(&graph.flow, source);
    while let Some(index) = search.next(&graph.flow) {
        let Kind::Channel(channel) = graph.flow[index].kind else { continue };
        let writers = graph.flow.neighbors_directed(index, Direction::Incoming);
        let writers: BTreeSet<AgentId> = writers.filter_map(|writer| graph.flow[writer].agent).collect();
        for reader in &graph.channels[channel.index()].readers {
            feeds.entry(*reader).or_default().extend(&writers);
        }
    }
    // A writer that no event of this source reaches is not waited for.
    let reached: BTreeSet<AgentId> = feeds.keys().copied().collect();
    let mut agents = Vec::new();
    while agents.len() < reached.len() {
        let waits = |feeders: &BTreeSet<AgentId>| {
            feeders.iter().any(|agent| reached.contains(agent) && !agents.contains(agent))
        };
        let next = feeds.iter().find(|(agent, feeders)| !agents.contains(agent) && !waits(feeders));
        // Channels form no loop (K0206), so some agent is always ready.
        let Some((&next, _)) = next else { break };
        agents.push(next);
    }
    agents
}
