//! The graph as a drawing: boxes, shapes and arrows, whoever prints them.
//!
//! Agents are boxes around their operators, topics stand between them. A topic that one agent writes
//! and another reads is one shape, so that the app is one picture.
//!
//! A printer (`dot`, `mermaid`) only chooses how each role looks; what is there and what it is called is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use petgraph::stable_graph::NodeIndex;

use super::text::duration;
use crate::graph::{Contract, Graph, Kind, Node, Sink};
use crate::plan::{Action, AgentId, BatchScope, FunctionId, OnError, Step, TopicChoice, TopicOutput, Topics};

/// A whole app.
///
/// Ids of shapes are unique in it, and both ends of every arrow are ids of its shapes.
#[derive(Debug)]
pub struct Drawing {
    /// The app's name.
    pub name: String,
    /// One box an agent.
    pub agents: Vec<Frame>,
    /// Shapes that belong to no agent: channels, tables, topics.
    pub shapes: Vec<Shape>,
    /// Flows between the shapes.
    pub arrows: Vec<Arrow>,
}

impl Frame {
    /// The lines of its title: name, policy and concurrency.
    pub fn title(&self) -> Vec<String> {
        let policy = self.policy.iter().map(|policy| format!("on error: {policy}"));
        let concurrency = self.concurrency.iter().map(|units| format!("concurrency: {units}"));
        std::iter::once(self.name.clone()).chain(policy).chain(concurrency).collect()
    }
}

impl Drawing {
    /// Every shape, those in boxes first.
    pub fn all_shapes(&self) -> impl Iterator<Item = &Shape> {
        self.agents.iter().flat_map(|agent| &agent.shapes).chain(&self.shapes)
    }
}

/// An agent's box.
#[derive(Debug)]
pub struct Frame {
    /// The agent's name.
    pub name: String,
    /// Policy for its failures, where the spec names one.
    pub policy: Option<String>,
    /// The number of its events that may await at once, where the spec names one.
    pub concurrency: Option<NonZeroU32>,
    /// Shapes inside.
    pub shapes: Vec<Shape>,
}

/// One shape.
///
/// Made by the artist below; printers escape its lines.
#[derive(Debug)]
pub struct Shape {
    /// Unique in the drawing.
    /// Never shown. Topics, tables and channels have their names in it, operators the number of their node.
    pub id: String,
    /// Its role.
    pub role: Role,
    /// Its lines of text.
    pub lines: Vec<String>,
    /// A topic that the app creates.
    pub is_declared: bool,
}

/// Role of a shape.
///
/// It decides form and colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The point at which the ways of values part where an agent has no operators.
    Pass,
    /// A batch window.
    Window,
    /// An operation that makes values.
    Map,
    /// An operation that drops values.
    Filter,
    /// An operation that sends values.
    Send,
    /// A custom sink.
    Custom,
    /// A channel.
    Channel,
    /// A table.
    Table,
    /// A topic.
    Topic(TopicUse),
}

/// Use of a topic by the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicUse {
    /// Only read.
    Read,
    /// Only written.
    Written,
    /// Read and written: it joins agents.
    Both,
    /// Failed events go there.
    Letters,
}

/// One arrow.
///
/// From left to right, but for tables, which are read and written.
#[derive(Debug)]
pub struct Arrow {
    /// The shape it leaves.
    pub from: String,
    /// The shape it enters.
    pub to: String,
    /// Its role.
    pub flow: Flow,
    /// Its lines of text.
    pub label: Vec<String>,
}

/// Meaning of an arrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Values.
    Values,
    /// Reads and writes of a table.
    Table,
    /// Failed events.
    Letters,
}

impl Graph {
    /// The graph as a drawing.
    ///
    /// Deterministic: agents, tables, channels and topics by name, nodes in the order of the graph.
    pub fn drawing(&self) -> Drawing {
        let name = self.app.name.as_deref().unwrap_or("app").to_owned();
        let members = self.members();
        let drawing = Drawing { name, agents: Vec::new(), shapes: Vec::new(), arrows: Vec::new() };
        let mut artist = Artist { graph: self, members, drawing, topics: BTreeMap::new() };
        for agent in self.agent_ids() {
            artist.agent(agent);
        }
        artist.channels();
        artist.tables();
        // Last: how a topic is used is known when all arrows are drawn.
        artist.topics();
        artist.drawing
    }
}

/// Use of a topic by the app, as far as it has been found. Three flags and no enum, because they are found one by one.
#[derive(Default)]
struct Use {
    read: bool,
    written: bool,
    letters: bool,
}

/// The drawing as far as it has got.
struct Artist<'a> {
    graph: &'a Graph,
    members: Vec<Vec<NodeIndex>>,
    drawing: Drawing,
    /// Topics that arrows lead to or from, which become shapes at the end.
    topics: BTreeMap<String, Use>,
}

impl Artist<'_> {
    /// Draws an agent: its box with the shapes inside, then the arrows of its nodes.
    fn agent(&mut self, id: AgentId) {
        let agent = &self.graph.agents[id.index()];
        let nodes = self.members[id.index()].clone();
        let mut shapes = Vec::new();
        // Values that have several ways from the start need a place at which these part.
        if self.entrance(id).is_none() {
            shapes.push(shape(pass(id), Role::Pass, Vec::new()));
        }
        shapes.extend(nodes.iter().filter_map(|index| inside(*index, &self.graph.flow[*index])));
        let policy = agent.on_error.as_ref().map(short_policy);
        self.drawing.agents.push(Frame { name: agent.name.clone(), policy, concurrency: agent.concurrency, shapes });
        for index in &nodes {
            self.around(id, *index);
        }
        if let Some(topic) = agent.on_error.as_ref().and_then(letters_topic) {
            // An agent's own policy is drawn at its last shape: any of them may have failed.
            let last = nodes.iter().rev().find(|index| self.is_inside(**index));
            let from = last.map_or_else(|| pass(id), |index| name(*index));
            self.letters(from, topic);
        }
    }

    /// Arrows of a node, and what it touches outside its agent's box.
    fn around(&mut self, agent: AgentId, index: NodeIndex) {
        let graph = self.graph;
        let node = &graph.flow[index];
        // A source is drawn as its agent's entry.
        let own = if self.is_inside(index) { name(index) } else { pass(agent) };
        match &node.kind {
            Kind::Source(source) => self.entry(agent, &source.topics),
            Kind::Operator(step) => self.beside(&own, step),
            _ => {}
        }
        for (target, edge) in graph.next(index) {
            match &graph.flow[target].kind {
                Kind::Sink(Sink::Topic(output)) => self.topic_arrow(&own, output),
                Kind::Channel(channel) => {
                    let via = edge.via.as_ref();
                    let label = via.map(|via| self.functions(&[("if", via.predicate), ("value", via.value_selector)]));
                    let channel = channel_name(&graph.channels[channel.index()].name);
                    self.arrow(&own, &channel, Flow::Values, label.unwrap_or_default());
                }
                // `entry` has drawn it, from the topics.
                _ if self.entrance(agent) == Some(target) && matches!(node.kind, Kind::Source(_)) => {}
                _ => {
                    // Single values are the usual case and need no label.
                    let batch = (edge.contract == Contract::Batch).then(|| "batch".to_owned());
                    self.arrow(&own, &name(target), Flow::Values, batch.into_iter().collect());
                }
            }
        }
    }

    /// From topics to the first operator of an agent.
    fn entry(&mut self, agent: AgentId, topics: &Topics) {
        let names = match topics {
            Topics::Names(names) => names.clone(),
            Topics::Pattern(pattern) => vec![format!("/{pattern}/")],
        };
        let to = self.entrance(agent).map_or_else(|| pass(agent), name);
        for topic in names {
            self.arrow(&topic_name(&topic), &to, Flow::Values, Vec::new());
            self.topics.entry(topic).or_default().read = true;
        }
    }

    /// Tables and topics that an operation touches on its way.
    fn beside(&mut self, own: &str, step: &Step) {
        for table in &step.tables {
            let table = table_name(&self.graph.tables[table.table.index()].name);
            self.arrow(own, &table, Flow::Table, Vec::new());
        }
        if let Action::TopicSend { output, .. } = &step.action {
            self.topic_arrow(own, output);
        }
        if let Some(topic) = step.on_error.as_ref().and_then(letters_topic) {
            self.letters(own.to_owned(), topic);
        }
    }

    /// The shape at which all values of an agent begin their way. `None`: there is no such shape, and a point takes
    /// its place.
    fn entrance(&self, agent: AgentId) -> Option<NodeIndex> {
        let members = &self.members[agent.index()];
        let is_source = |index: &&NodeIndex| matches!(self.graph.flow[**index].kind, Kind::Source(_));
        let Some(source) = members.iter().find(is_source) else {
            // Channels lead to the first step of an agent that has steps.
            return members.iter().copied().find(|index| self.is_inside(*index));
        };
        match self.graph.next(*source)[..] {
            [(first, _)] if self.is_inside(first) => Some(first),
            _ => None,
        }
    }

    /// True if the node has a shape in its agent's box.
    fn is_inside(&self, index: NodeIndex) -> bool {
        matches!(self.graph.flow[index].kind, Kind::BatchWindow(_) | Kind::Operator(_) | Kind::Sink(Sink::Custom(_)))
    }

    /// Draws an arrow to the topic of an output, with its functions for a label. A topic that a function names is drawn
    /// as that function.
    fn topic_arrow(&mut self, from: &str, output: &TopicOutput) {
        let label = self.functions(&[
            ("if", output.predicate),
            ("key", output.key_selector),
            ("value", output.value_selector),
            ("partition", output.partition_selector),
            ("headers", output.headers_selector),
        ]);
        let topic = match &output.topic {
            TopicChoice::Name(name) => name.clone(),
            TopicChoice::Selector(function) => format!("{}()", self.graph.functions[function.index()].name),
        };
        self.arrow(from, &topic_name(&topic), Flow::Values, label);
        self.topics.entry(topic).or_default().written = true;
    }

    /// Functions of an output as lines of a label: `key by_id`.
    fn functions(&self, selectors: &[(&str, Option<FunctionId>)]) -> Vec<String> {
        let labels = selectors.iter().filter_map(|(name, function)| {
            function.map(|function| format!("{name} {}", self.graph.functions[function.index()].name))
        });
        labels.collect()
    }

    /// One arrow to the topic that failed events go to.
    fn letters(&mut self, from: String, topic: &str) {
        self.topics.entry(topic.to_owned()).or_default().letters = true;
        self.arrow(&from, &topic_name(topic), Flow::Letters, vec!["failed events".to_owned()]);
    }

    /// Draws channels, each with arrows to its readers.
    fn channels(&mut self) {
        for channel in &self.graph.channels {
            let own = channel_name(&channel.name);
            let lines = vec!["channel".to_owned(), channel.name.clone()];
            self.drawing.shapes.push(shape(own.clone(), Role::Channel, lines));
            for reader in &channel.readers {
                let to = self.entrance(*reader).map_or_else(|| pass(*reader), name);
                self.arrow(&own, &to, Flow::Values, Vec::new());
            }
        }
    }

    /// Draws tables, those that no step uses included.
    fn tables(&mut self) {
        let mut used = BTreeSet::new();
        for node in self.graph.flow.node_weights() {
            if let Kind::Operator(step) = &node.kind {
                used.extend(step.tables.iter().map(|table| table.table.index()));
            }
        }
        for (number, table) in self.graph.tables.iter().enumerate() {
            let kind = if table.global { "global table" } else { "table" };
            let mut lines = vec![kind.to_owned(), table.name.clone()];
            // Drawn all the same: its author may have meant to use it.
            if !used.contains(&number) {
                lines.push("(unused)".to_owned());
            }
            self.drawing.shapes.push(shape(table_name(&table.name), Role::Table, lines));
        }
    }

    /// Draws the topics that have been named, each once.
    fn topics(&mut self) {
        let declared: BTreeSet<_> =
            self.graph.topics.iter().filter(|topic| topic.declare).map(|topic| topic.name.as_str()).collect();
        for (topic, used) in std::mem::take(&mut self.topics) {
            let role = Role::Topic(match used {
                Use { letters: true, read: false, .. } => TopicUse::Letters,
                Use { read: true, written: false, .. } => TopicUse::Read,
                Use { read: true, .. } => TopicUse::Both,
                _ => TopicUse::Written,
            });
            // No topic can begin with a slash, so this is a pattern.
            let kind = if topic.starts_with('/') { "topics matching" } else { "topic" };
            let is_declared = declared.contains(topic.as_str());
            let lines = vec![kind.to_owned(), topic.clone()];
            self.drawing.shapes.push(Shape { id: topic_name(&topic), role, lines, is_declared });
        }
    }

    fn arrow(&mut self, from: &str, to: &str, flow: Flow, label: Vec<String>) {
        self.drawing.arrows.push(Arrow { from: from.to_owned(), to: to.to_owned(), flow, label });
    }
}

/// Makes the shape inside the agent's box; `None` for a source and for shapes outside.
fn inside(index: NodeIndex, node: &Node) -> Option<Shape> {
    let (role, lines) = match &node.kind {
        Kind::BatchWindow(window) => {
            let mut lines = vec![format!("take {}", window.max), format!("within {}", duration(window.within_ms))];
            if window.scope == BatchScope::Partition {
                lines.push("per partition".to_owned());
            }
            (Role::Window, lines)
        }
        Kind::Operator(step) => {
            let (role, verb) = match &step.action {
                Action::Map(_) => (Role::Map, "map"),
                Action::Filter(_) => (Role::Filter, "filter"),
                Action::TopicSend { .. } => (Role::Send, "send"),
            };
            (role, vec![verb.to_owned(), step.operation.clone()])
        }
        Kind::Sink(Sink::Custom(sink)) => (Role::Custom, vec!["sink".to_owned(), sink.name.clone()]),
        Kind::Source(_) | Kind::Sink(Sink::Topic(_)) | Kind::Channel(_) => return None,
    };
    Some(shape(name(index), role, lines))
}

/// A shape of something that the app does not create.
fn shape(id: String, role: Role, lines: Vec<String>) -> Shape {
    Shape { id, role, lines, is_declared: false }
}

/// The id of a node's shape.
fn name(index: NodeIndex) -> String {
    format!("n{}", index.index())
}

/// The id of a topic. The word before the name keeps topics, tables and channels of one name apart.
fn topic_name(topic: &str) -> String {
    format!("topic {topic}")
}

/// The id of a table.
fn table_name(table: &str) -> String {
    format!("table {table}")
}

/// The id of a channel.
fn channel_name(channel: &str) -> String {
    format!("channel {channel}")
}

/// The id of the point that stands for an agent without operators.
fn pass(agent: AgentId) -> String {
    format!("pass {}", agent.0)
}

/// The topic that a policy sends dead letters to, if it names one itself.
fn letters_topic(policy: &OnError) -> Option<&str> {
    match policy {
        OnError::DeadLetter { topic, .. } => topic.as_deref(),
        OnError::Retry { then, .. } => letters_topic(then),
        OnError::Skip | OnError::Halt => None,
    }
}

/// A policy in a few words, for the title of a box.
fn short_policy(policy: &OnError) -> String {
    match policy {
        OnError::Skip => "skip".to_owned(),
        OnError::Halt => "halt".to_owned(),
        OnError::DeadLetter { .. } => "dead letter".to_owned(),
        OnError::Retry { attempts, then, .. } => {
            format!("{attempts} tries, then {}", short_policy(then))
        }
    }
}
