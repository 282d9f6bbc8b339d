//! Rules: graph in, graph out, one file each. The driver asserts what every rule must keep.
//!
//! A rule makes one decision that needs the whole app and writes it where the executor looks for it:
//!
//! ```text
//! rule             looks at                                     writes
//! prune            edges                                        fewer nodes
//! batch scope      policies, tables, isolatedPartitions         BatchWindow::scope
//! group assignor   tables and the topics behind them            App::assignor
//! context use      the text of blocks and their init            Function::reads_context
//! forward          proofs about functions, codecs               TopicOutput::forwards
//! project          proofs about functions, codecs, forwards     Source::part
//! ```
//!
//! Rules are total and idempotent, and never report: what could be a fault has been one in `crate::check`. To add one,
//! write its file, its line in [`RULES`] and its test in `tests.rs`, which compares printed plans.

mod assignor;
mod context;
mod forward;
mod project;
mod prune;
mod scope;
#[cfg(test)]
mod tests;

use kaspr_ir::graph::{Graph, Kind, Node};
use petgraph::visit::{EdgeRef, IntoEdgeReferences};

pub use assignor::{agents_behind, tables_behind};

/// A rule: a name, and what it does to the graph.
type Rule = (&'static str, fn(&mut Graph));

/// In the order in which they are applied.
///
/// `prune` is first, so that no other rule weighs nodes that nothing reaches; `project` comes after `forward`,
/// because an output that forwards needs no decoded value.
const RULES: [Rule; 6] = [
    ("prune", prune::apply),
    ("batch scope", scope::apply),
    ("group assignor", assignor::apply),
    ("context use", context::apply),
    ("forward", forward::apply),
    ("project", project::apply),
];

/// Applies all rules.
///
/// # Panics
/// A rule that changes the skeleton panics: that is a bug of the rule, whatever the specs.
pub fn apply(mut graph: Graph) -> Graph {
    for (name, rule) in RULES {
        let before = skeleton(&graph);
        rule(&mut graph);
        assert_eq!(before, skeleton(&graph), "the rule \"{name}\" keeps sources, sinks and the order on every path");
    }
    graph
}

/// The part of a graph that every rule keeps: nodes that something flows through, by name, and the edges between them.
///
/// Nodes that nothing reaches are not in it, so `prune` may drop them; what rules decide *in* a node
/// is not either. Edges are compared by the numbers of their nodes, which a stable graph keeps when others go.
fn skeleton(graph: &Graph) -> (Vec<String>, Vec<(usize, usize, u32)>) {
    let flows = |index: &petgraph::stable_graph::NodeIndex| {
        // Sources and channels have nothing before them and belong to the flow all the same.
        matches!(graph.flow[*index].kind, Kind::Source(_) | Kind::Channel(_))
            || graph.flow.neighbors_directed(*index, petgraph::Direction::Incoming).next().is_some()
    };
    let nodes = graph.flow.node_indices().filter(flows).map(|index| name(&graph.flow[index])).collect();
    let edges = (&graph.flow).edge_references();
    let edges = edges.map(|edge| (edge.source().index(), edge.target().index(), edge.weight().order)).collect();
    (nodes, edges)
}

/// A node's name for comparison: what it is, without what a rule decides.
fn name(node: &Node) -> String {
    match &node.kind {
        Kind::Source(source) => format!("source {:?}", source.topics),
        Kind::BatchWindow(window) => format!("window {} {}", window.max, window.within_ms),
        Kind::Operator(step) => format!("operator {}", step.operation),
        Kind::Channel(channel) => format!("channel {}", channel.0),
        Kind::Sink(kaspr_ir::graph::Sink::Topic(output)) => format!("topic {:?}", output.topic),
        Kind::Sink(kaspr_ir::graph::Sink::Custom(sink)) => format!("sink {}", sink.name),
    }
}
