//! Marks functions that may read `context`: only for them the event is prepared.
//!
//! A block that does not mention `context` may still call a function of its init that does, so a
//! mention in init counts for every block that starts with its globals.

use kaspr_ir::graph::Graph;

/// Applies the rule.
pub fn apply(graph: &mut Graph) {
    let mentions: Vec<bool> = graph.blocks.iter().map(|block| mentions_context(&block.code)).collect();
    for function in &mut graph.functions {
        let init = graph.blocks[function.block.index()].init;
        function.reads_context |= init.is_some_and(|init| mentions[init.index()]);
    }
}

/// A word of the text is `context`, wherever it stands: a comment costs an event a little, a miss
/// would cost the user the event.
///
/// As a word: `my_context` does not count.
fn mentions_context(code: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "context")
}
