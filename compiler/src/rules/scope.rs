//! Chooses which events may share a batch (see "Batches" in `docs/semantics.md`).
//!
//! A batch mixes the partitions of its worker, unless partitions are isolated, an operation has
//! tables (their writes need a home) or a policy is `retry` (the batch must come again whole).
//! Agents behind the reader's channels see the batch too.

use kaspr_ir::graph::{Graph, Kind};
use kaspr_ir::plan::{BatchScope, OnError};
use petgraph::stable_graph::NodeIndex;

use super::agents_behind;

/// Applies the rule.
pub fn apply(graph: &mut Graph) {
    let members = graph.members();
    let windows: Vec<NodeIndex> =
        graph.flow.node_indices().filter(|index| matches!(graph.flow[*index].kind, Kind::BatchWindow(_))).collect();
    for window in windows {
        let scope = scope(graph, &members, window);
        if let Kind::BatchWindow(window) = &mut graph.flow[window].kind {
            window.scope = scope;
        }
    }
}

/// The batch goes through its agent and all agents behind its channels: each of them counts.
///
/// The strictest of its agents decides. `MixedUnlessRetry` leaves to the start what the app's `onError` decides.
fn scope(graph: &Graph, members: &[Vec<NodeIndex>], window: NodeIndex) -> BatchScope {
    let mut scope = BatchScope::Mixed;
    for agent in agents_behind(graph, window) {
        let info = &graph.agents[agent.index()];
        let steps = members[agent.index()].iter().filter_map(|index| match &graph.flow[*index].kind {
            Kind::Operator(step) => Some(step),
            _ => None,
        });
        let policies = steps.clone().filter_map(|step| step.on_error.as_ref()).chain(&info.on_error);
        let retries = policies.clone().any(|policy| matches!(policy, OnError::Retry { .. }));
        let has_tables = steps.clone().any(|step| !step.tables.is_empty());
        // Nothing is stricter: the other agents need no look.
        if info.isolated_partitions || has_tables || retries {
            return BatchScope::Partition;
        }
        // Steps without a policy of their own follow the agent's, and where it has none, the app's.
        if info.on_error.is_none() {
            scope = BatchScope::MixedUnlessRetry;
        }
    }
    scope
}
