//! Drops operations that no pipeline names: nothing flows through them.
//!
//! They are checked like all others, and their blocks stay in the plan: the ids of blocks do not change.

use kaspr_ir::graph::{Graph, Kind};
use petgraph::Direction;

/// Applies the rule.
///
/// An operator that nothing leads to has no edges at all, because lowering makes them along pipelines only.
pub fn apply(graph: &mut Graph) {
    let unused: Vec<_> = graph
        .flow
        .node_indices()
        .filter(|index| matches!(graph.flow[*index].kind, Kind::Operator(_)))
        .filter(|index| graph.flow.neighbors_directed(*index, Direction::Incoming).next().is_none())
        .collect();
    for index in unused {
        graph.flow.remove_node(index);
    }
}
