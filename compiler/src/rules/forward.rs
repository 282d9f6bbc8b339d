//! Marks outputs whose bytes leave as they came in.
//!
//! Then, and only then: no `map` or `topicSend` lies on the way, no value selector changes what is
//! sent, every function that sees the value only reads it, the event was no batch, and both codecs
//! are equal (see "Outputs" in `docs/semantics.md`).
//!
//! Forwarding saves encoding the value, and it keeps the bytes exactly as the producer wrote them: spaces, the order
//! of keys, digits. The input is decoded and so validated all the same.

use kaspr_ir::graph::{Graph, Kind, Sink, Source};
use kaspr_ir::plan::{Action, Codec, FunctionId, TopicOutput};
use petgraph::stable_graph::NodeIndex;

/// Applies the rule.
///
/// An agent behind a channel never forwards: what a channel passes on is a value.
pub fn apply(graph: &mut Graph) {
    let sources: Vec<NodeIndex> =
        graph.flow.node_indices().filter(|index| matches!(graph.flow[*index].kind, Kind::Source(_))).collect();
    for source in sources {
        let Kind::Source(Source { topics, value_codec, .. }) = graph.flow[source].kind.clone() else { continue };
        // The entry of an agent behind a channel: it has no bytes.
        if topics == kaspr_ir::plan::Topics::Names(Vec::new()) {
            continue;
        }
        if let Some(outputs) = unchanged(graph, source, &value_codec) {
            for index in outputs {
                if let Kind::Sink(Sink::Topic(output)) = &mut graph.flow[index].kind {
                    output.forwards = true;
                }
            }
        }
    }
}

/// The outputs of a source's agent that forward; `None` where the value may change on its way.
///
/// Walks the filters behind the source, then looks at all outputs together: a filter may drop a value, but nothing
/// else may stand between.
fn unchanged(graph: &Graph, source: NodeIndex, codec: &Codec) -> Option<Vec<NodeIndex>> {
    let only_reads = |function: FunctionId| graph.functions[function.index()].only_reads;
    let mut at = source;
    loop {
        let next = graph.next(at);
        let [(step, _)] = next.as_slice() else { break };
        match &graph.flow[*step].kind {
            Kind::Operator(operator) => match operator.action {
                Action::Filter(function) if only_reads(function) && operator.tables.is_empty() => at = *step,
                _ => return None,
            },
            Kind::BatchWindow(_) => return None,
            _ => break,
        }
    }
    let mut outputs = Vec::new();
    for (index, _) in graph.next(at) {
        match &graph.flow[index].kind {
            // A later output may change what all of them share: each must only read.
            Kind::Sink(Sink::Topic(output)) if selectors(output).all(only_reads) => {
                // An output that does not forward itself may stand beside ones that do: it only reads.
                if output.value_codec == *codec && output.value_selector.is_none() {
                    outputs.push(index);
                }
            }
            _ => return None,
        }
    }
    Some(outputs)
}

/// All functions that an output calls.
fn selectors(output: &TopicOutput) -> impl Iterator<Item = FunctionId> {
    let name = match output.topic {
        kaspr_ir::plan::TopicChoice::Selector(function) => Some(function),
        kaspr_ir::plan::TopicChoice::Name(_) => None,
    };
    [
        name,
        output.predicate,
        output.key_selector,
        output.value_selector,
        output.partition_selector,
        output.headers_selector,
    ]
    .into_iter()
    .flatten()
}
