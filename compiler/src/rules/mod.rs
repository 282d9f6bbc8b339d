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

use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};

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
    let before = skeleton(&graph);
    for (name, rule) in RULES {
        rule(&mut graph);
        assert!(before == skeleton(&graph), "the rule \"{name}\" keeps sources, sinks and the order on every path");
    }
    graph
}

/// The part of a graph that every rule keeps: nodes that something flows through, by the hash of their names, and the
/// edges between them.
///
/// Nodes that nothing reaches are not in it, so `prune` may drop them; what rules decide *in* a node
/// is not either. Edges are compared by the numbers of their nodes, which a stable graph keeps when others go.
fn skeleton(graph: &Graph) -> (Vec<u64>, Vec<(usize, usize, u32)>) {
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

/// The hash of a node's name: what it is, without what a rule decides. A hash, because all nodes are asked after each
/// rule, and to write their names would be a tenth of a large compile.
fn name(node: &Node) -> u64 {
    let mut name = Hashed::default();
    let written = match &node.kind {
        Kind::Source(source) => write!(name, "source {:?}", source.topics),
        Kind::BatchWindow(window) => write!(name, "window {} {}", window.max, window.within_ms),
        Kind::Operator(step) => write!(name, "operator {}", step.operation),
        Kind::Channel(channel) => write!(name, "channel {}", channel.0),
        Kind::Sink(kaspr_ir::graph::Sink::Topic(output)) => write!(name, "topic {:?}", output.topic),
        Kind::Sink(kaspr_ir::graph::Sink::Custom(sink)) => write!(name, "sink {}", sink.name),
    };
    debug_assert!(written.is_ok(), "to hash never fails");
    name.0.finish()
}

/// Text that is hashed instead of being written.
#[derive(Default)]
struct Hashed(DefaultHasher);

impl std::fmt::Write for Hashed {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
