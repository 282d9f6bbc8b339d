//! Decides which part of each value is decoded: projection pushdown, up to the decoder.
//!
//! Where every function that may see a reader's value provably uses a few fields of it, only those
//! are decoded. Where the value may leave encoded anew, the text of its other fields is kept, and
//! written as encoding them would write it. What a function returns in the value's place is whole.
//!
//! ```text
//! map: lambda v: v            output: {name: out, keySelector: lambda v: v["key"]}
//!     ⇒  Part { fields: [key], keeps_text: true }
//! {"a": 1, "key": "x"}        functions see `key`; `a` leaves as the text it came as
//! ```
//!
//! A wrong decision would hide data from user code, so there are two guards: the proof in `python::fields` that a
//! function uses nothing else of its value, and the search for anything by which code might look at the variables of
//! another function ([`PEEKS`], [`MODULES`]).

use std::collections::BTreeSet;

use kaspr_ir::graph::{Edge, Graph, Kind, Sink, Source};
use kaspr_ir::plan::{Action, Codec, FunctionId, Part, TopicChoice, TopicOutput, Topics};
use petgraph::stable_graph::NodeIndex;
use unicode_normalization::UnicodeNormalization;

/// Most fields: to decode many one by one is slower than to decode all.
const FIELDS_MAX: usize = 8;
/// Words by which code may look at the variables of a function from outside it, or change what runs.
const PEEKS: [&str; 29] = [
    "__builtins__",
    "__closure__",
    "__code__",
    "__dict__",
    "__globals__",
    "__import__",
    "__setattr__",
    "_getframe",
    "ag_frame",
    "breakpoint",
    "capture_locals",
    "cell_contents",
    "cr_frame",
    "currentframe",
    "eval",
    "exec",
    "f_back",
    "f_locals",
    "gi_frame",
    "globals",
    "import_module",
    "locals",
    "register_callback",
    "setprofile",
    "settrace",
    "show_locals",
    "tb_frame",
    "tb_locals",
    "vars",
];
/// Modules by which it may: CPython's own, and libraries that show variables when something fails.
const MODULES: [&str; 15] = [
    "IPython",
    "bdb",
    "builtins",
    "cgitb",
    "ctypes",
    "gc",
    "inspect",
    "loguru",
    "pdb",
    "pysnooper",
    "rich",
    "sentry_sdk",
    "stackprinter",
    "structlog",
    "traceback_with_variables",
];

/// Applies the rule.
///
/// All readers or none: user code of all agents runs in one interpreter.
pub fn apply(graph: &mut Graph) {
    // A hook that one block sets sees the functions of all.
    if graph.blocks.iter().any(|block| peeks(&block.code)) {
        return;
    }
    for index in graph.flow.node_indices().collect::<Vec<_>>() {
        let part = match &graph.flow[index].kind {
            Kind::Source(source) if is_read(source) => part(graph, index),
            _ => None,
        };
        if let (Some(part), Kind::Source(source)) = (part, &mut graph.flow[index].kind) {
            source.part = Some(part);
        }
    }
}

/// True for a source of JSON that reads a topic: other codecs give values without fields.
fn is_read(source: &Source) -> bool {
    source.value_codec == Codec::Json && source.topics != Topics::Names(Vec::new())
}

/// One of the words stands in the text, wherever, or one of the modules' names and an import: a
/// comment costs events a little, a miss would cost the user a part of a value.
fn peeks(code: &str) -> bool {
    // Names are the same to Python when their normal forms are.
    if code.is_ascii() { has_word(code) } else { has_word(&code.nfkc().collect::<String>()) }
}

/// True if a word of the text is one of `PEEKS`, or one of `MODULES` where the text imports something.
fn has_word(code: &str) -> bool {
    let words = || code.split(|c: char| !c.is_alphanumeric() && c != '_');
    let imports = words().any(|word| word == "import");
    words().any(|word| PEEKS.contains(&word) || imports && MODULES.contains(&word))
}

/// The part that is used of a source's values; `None`: it may be all, or none is ever looked at.
///
/// The fields are in the order of their names, so that equal apps give equal plans.
fn part(graph: &Graph, source: NodeIndex) -> Option<Part> {
    let mut flow = Flow { graph, fields: BTreeSet::new(), is_called: false, is_encoded: false };
    flow.behind(source)?;
    // Where nothing looks at the value and nothing encodes it, there is nothing to decide.
    let is_needed = flow.is_called || flow.is_encoded;
    let Flow { fields, is_encoded, .. } = flow;
    let is_few = fields.len() <= FIELDS_MAX;
    (is_needed && is_few)
        .then(|| Part { fields: fields.into_iter().map(str::to_owned).collect(), keeps_text: is_encoded })
}

/// The ways of a value through the graph. Each step is `None` where it may use the value whole.
/// `?` on them ends the whole search: one function that may use all of the value is enough.
struct Flow<'a> {
    graph: &'a Graph,
    fields: BTreeSet<&'a str>,
    /// Some function sees the value.
    is_called: bool,
    /// Some output may write the value itself, so the text of its other fields must be kept.
    is_encoded: bool,
}

impl<'a> Flow<'a> {
    /// Follows the value to every node behind one.
    fn behind(&mut self, from: NodeIndex) -> Option<()> {
        let graph = self.graph;
        graph.next(from).into_iter().try_for_each(|(index, edge)| self.to(index, edge))
    }

    /// Follows the value over an edge into a node.
    fn to(&mut self, index: NodeIndex, edge: &'a Edge) -> Option<()> {
        if let Some(channel) = &edge.via {
            self.calls([channel.predicate, channel.key_selector, channel.headers_selector])?;
            if let Some(selector) = channel.value_selector
                && !self.gives(selector)?
            {
                return Some(());
            }
        }
        match &self.graph.flow[index].kind {
            Kind::Source(_) | Kind::Channel(_) => self.behind(index),
            // A function of a batch gets a list of values, about which nothing is proven.
            Kind::BatchWindow(_) => None,
            Kind::Operator(step) => match &step.action {
                Action::Filter(function) => {
                    self.calls([Some(*function)])?;
                    self.behind(index)
                }
                Action::Map(function) if self.gives(*function)? => self.behind(index),
                // What a map returns in the value's place is a new value, and whole.
                Action::Map(_) => Some(()),
                Action::TopicSend { output, pass_through } => {
                    self.output(output)?;
                    if *pass_through { self.behind(index) } else { Some(()) }
                }
            },
            Kind::Sink(Sink::Topic(output)) => self.output(output),
            Kind::Sink(Sink::Custom(sink)) => {
                self.calls([sink.predicate])?;
                match sink.value_selector {
                    Some(selector) if !self.gives(selector)? => Some(()),
                    _ => self.calls([Some(sink.function)]),
                }
            }
        }
    }

    /// Looks at an output: its selectors see the value, and it is encoded unless it forwards or sends another.
    fn output(&mut self, output: &TopicOutput) -> Option<()> {
        let name = match output.topic {
            TopicChoice::Selector(function) => Some(function),
            TopicChoice::Name(_) => None,
        };
        self.calls([output.predicate, name, output.key_selector, output.partition_selector, output.headers_selector])?;
        let is_sent = match output.value_selector {
            Some(selector) => self.gives(selector)?,
            // Bytes that are forwarded need no decoded value.
            None => !output.forwards,
        };
        self.is_encoded |= is_sent;
        (!is_sent || output.value_codec == Codec::Json).then_some(())
    }

    /// Functions of which something else than the value is wanted.
    fn calls<const N: usize>(&mut self, functions: [Option<FunctionId>; N]) -> Option<()> {
        functions.into_iter().flatten().try_for_each(|function| (!self.gives(function)?).then_some(()))
    }

    /// Tells functions that may return the value itself.
    ///
    /// Notes the fields that it uses, too. `None`: it may use all of the value.
    fn gives(&mut self, function: FunctionId) -> Option<bool> {
        let function = &self.graph.functions[function.index()];
        let uses = function.uses.as_ref()?;
        self.fields.extend(uses.fields.iter().map(String::as_str));
        self.is_called = true;
        Some(uses.gives_it)
    }
}
