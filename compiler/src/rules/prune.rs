//! Drops operations that no pipeline names: nothing flows through them.

use kaspr_ir::graph::{Graph, Kind};
use petgraph::Direction;

/// Applies the rule.
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
