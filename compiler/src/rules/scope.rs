//! Chooses which events may share a batch (semantics, section 5).
//!
//! A batch mixes the partitions of its worker, unless partitions are isolated, an operation has
//! tables (their writes need a home) or a policy is `retry` (the batch must come again whole).

use kaspr_ir::graph::{Graph, Kind};
use kaspr_ir::plan::{BatchScope, OnError};

/// Applies the rule.
pub fn apply(graph: &mut Graph) {
    for (agent, nodes) in graph.members().into_iter().enumerate() {
        let info = &graph.agents[agent];
        let steps: Vec<_> = nodes
            .iter()
            .filter_map(|index| match &graph.flow[*index].kind {
                Kind::Operator(step) => Some(step),
                _ => None,
            })
            .collect();
        let policies = steps.iter().filter_map(|step| step.on_error.as_ref()).chain(&info.on_error);
        let retries = policies.clone().any(|policy| matches!(policy, OnError::Retry { .. }));
        let has_tables = steps.iter().any(|step| !step.tables.is_empty());
        let scope = if info.isolated_partitions || has_tables || retries {
            BatchScope::Partition
        } else if info.on_error.is_none() {
            BatchScope::MixedUnlessRetry
        } else {
            BatchScope::Mixed
        };
        for index in nodes {
            if let Kind::BatchWindow(window) = &mut graph.flow[index].kind {
                window.scope = scope;
            }
        }
    }
}
