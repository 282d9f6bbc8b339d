//! The plan as a drawing: boxes, shapes and arrows, whoever prints them.
//!
//! Agents are boxes around their operators, topics stand between them. A topic that one agent writes
//! and another reads is one shape, so that the app is one picture.
//!
//! A printer (`dot`, `mermaid`) only chooses how each role looks; what is there and what it is called is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use super::text::duration;
use crate::plan::{
    Action, Agent, BatchScope, BatchWindow, FunctionId, Input, OnError, Plan, Step, TopicChoice, TopicOutput, Topics,
};

/// The label of an arrow on which lists of values travel.
const BATCH: &str = "batch";

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
    /// Never shown. Topics, tables and channels have their names in it, steps and sinks a number.
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

impl Plan {
    /// The plan as a drawing.
    ///
    /// Deterministic: agents, tables, channels and topics by name, shapes of an agent in the order in which its events
    /// meet them.
    pub fn drawing(&self) -> Drawing {
        let name = self.app.name.as_deref().unwrap_or("app").to_owned();
        let drawing = Drawing { name, agents: Vec::new(), shapes: Vec::new(), arrows: Vec::new() };
        let ways = ways(self);
        let mut artist = Artist { plan: self, ways: &ways, drawing, topics: BTreeMap::new() };
        self.agents.iter().zip(&ways).for_each(|(agent, way)| artist.agent(agent, way));
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

/// The ids of an agent's shapes.
struct Way<'a> {
    /// Its batch window.
    window: Option<(String, &'a BatchWindow)>,
    /// Its steps, in order.
    steps: Vec<String>,
    /// Its custom sinks, in order.
    sinks: Vec<String>,
    /// The shape at which all values begin their way.
    entrance: String,
    /// No shape is met by all values first, so that a point takes its place.
    begins_at_point: bool,
}

impl Way<'_> {
    /// The shape that outputs leave from.
    fn last(&self) -> &str {
        let window = self.window.as_ref().map(|(window, _)| window);
        self.steps.last().or(window).unwrap_or(&self.entrance)
    }

    /// True if an arrow would lead from a sink to itself: it is the only shape of its agent.
    fn begins_at_sink(&self) -> bool {
        self.window.is_none() && self.steps.is_empty() && !self.begins_at_point
    }
}

/// The way of every agent's values. Shapes are numbered over the whole app.
fn ways(plan: &Plan) -> Vec<Way<'_>> {
    let mut numbers = (plan.channels.len()..).map(|number| format!("n{number}"));
    let mut next = || numbers.next().expect("there is no end to numbers");
    let way = |(number, agent): (usize, &Agent)| {
        let reader = match agent.input {
            Input::Topic(reader) => Some(&plan[reader]),
            Input::Channel(_) => None,
        };
        // Where events enter is no shape of its own, nor is a topic output; both are counted all the same.
        if reader.is_some() || agent.steps.is_empty() {
            next();
        }
        let window = reader.and_then(|reader| reader.window.as_ref()).map(|window| (next(), window));
        let steps: Vec<String> = agent.steps.iter().map(|_| next()).collect();
        agent.outputs.iter().for_each(|_| drop(next()));
        let sinks: Vec<String> = agent.sinks.iter().map(|_| next()).collect();
        let outputs = agent.outputs.len() + agent.channel_outputs.len() + agent.sinks.len();
        let only_sink = sinks.first().filter(|_| outputs == 1);
        let first = window.as_ref().map(|(window, _)| window).or(steps.first()).or(only_sink).cloned();
        let begins_at_point = first.is_none();
        // Values that have several ways from the start need a place at which these part.
        let entrance = first.unwrap_or_else(|| format!("pass {number}"));
        Way { window, steps, sinks, entrance, begins_at_point }
    };
    plan.agents.iter().enumerate().map(way).collect()
}

/// The drawing as far as it has got.
struct Artist<'a> {
    plan: &'a Plan,
    ways: &'a [Way<'a>],
    drawing: Drawing,
    /// Topics that arrows lead to or from, which become shapes at the end.
    topics: BTreeMap<String, Use>,
}

impl Artist<'_> {
    /// Draws an agent: its box with the shapes inside, then their arrows.
    fn agent(&mut self, agent: &Agent, way: &Way<'_>) {
        let mut shapes = Vec::new();
        if way.begins_at_point {
            shapes.push(shape(way.entrance.clone(), Role::Pass, Vec::new()));
        }
        shapes.extend(way.window.iter().map(|(id, window)| window_shape(id, window)));
        shapes.extend(way.steps.iter().zip(&agent.steps).map(|(id, step)| step_shape(id, step)));
        shapes.extend(way.sinks.iter().zip(&agent.sinks).map(|(id, sink)| {
            let lines = vec!["sink".to_owned(), sink.name.clone()];
            shape(id.clone(), Role::Custom, lines)
        }));
        let policy = agent.on_error.as_ref().map(short_policy);
        let last = shapes.last().map_or_else(|| way.entrance.clone(), |shape| shape.id.clone());
        self.drawing.agents.push(Frame { name: agent.name.clone(), policy, concurrency: agent.concurrency, shapes });
        if let Input::Topic(reader) = agent.input {
            self.entry(&self.plan[reader].topics, way);
        }
        self.steps(agent, way);
        self.outputs(agent, way);
        if let Some(topic) = agent.on_error.as_ref().and_then(letters_topic) {
            // An agent's own policy is drawn at its last shape: any of them may have failed.
            self.letters(last, topic);
        }
    }

    /// From topics to the first shape of an agent.
    fn entry(&mut self, topics: &Topics, way: &Way<'_>) {
        let names = match topics {
            Topics::Names(names) => names.clone(),
            Topics::Pattern(pattern) => vec![format!("/{pattern}/")],
        };
        for topic in names {
            self.arrow(&topic_name(&topic), &way.entrance, Flow::Values, Vec::new());
            self.topics.entry(topic).or_default().read = true;
        }
    }

    /// From the batch window to the steps, and from one to the next, with what they touch beside their way.
    fn steps(&mut self, agent: &Agent, way: &Way<'_>) {
        if let (Some((window, _)), Some(first)) = (&way.window, way.steps.first()) {
            self.arrow(window, first, Flow::Values, vec![BATCH.to_owned()]);
        }
        for (number, (own, step)) in way.steps.iter().zip(&agent.steps).enumerate() {
            self.beside(own, step);
            if let Some(next) = way.steps.get(number + 1) {
                self.arrow(own, next, Flow::Values, Vec::new());
            }
        }
    }

    /// From the last shape on the way to topics, channels and sinks.
    fn outputs(&mut self, agent: &Agent, way: &Way<'_>) {
        let own = way.last();
        agent.outputs.iter().for_each(|output| self.topic_arrow(own, output));
        for output in &agent.channel_outputs {
            let label = self.functions(&[("if", output.predicate), ("value", output.value_selector)]);
            let channel = channel_name(&self.plan[output.channel].name);
            self.arrow(own, &channel, Flow::Values, label);
        }
        if way.begins_at_sink() {
            return;
        }
        // Single values are the usual case and need no label.
        let is_batch = way.window.is_some() && way.steps.is_empty();
        for sink in &way.sinks {
            self.arrow(own, sink, Flow::Values, is_batch.then(|| BATCH.to_owned()).into_iter().collect());
        }
    }

    /// Tables and topics that an operation touches on its way.
    fn beside(&mut self, own: &str, step: &Step) {
        for table in &step.tables {
            let table = table_name(&self.plan[table.table].name);
            self.arrow(own, &table, Flow::Table, Vec::new());
        }
        if let Action::TopicSend { output, .. } = &step.action {
            self.topic_arrow(own, output);
        }
        if let Some(topic) = step.on_error.as_ref().and_then(letters_topic) {
            self.letters(own.to_owned(), topic);
        }
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
            TopicChoice::Selector(function) => format!("{}()", self.plan[*function].name),
        };
        self.arrow(from, &topic_name(&topic), Flow::Values, label);
        self.topics.entry(topic).or_default().written = true;
    }

    /// Functions of an output as lines of a label: `key by_id`.
    fn functions(&self, selectors: &[(&str, Option<FunctionId>)]) -> Vec<String> {
        let labels = selectors
            .iter()
            .filter_map(|(name, function)| function.map(|function| format!("{name} {}", self.plan[function].name)));
        labels.collect()
    }

    /// One arrow to the topic that failed events go to.
    fn letters(&mut self, from: String, topic: &str) {
        self.topics.entry(topic.to_owned()).or_default().letters = true;
        self.arrow(&from, &topic_name(topic), Flow::Letters, vec!["failed events".to_owned()]);
    }

    /// Draws channels, each with arrows to its readers.
    fn channels(&mut self) {
        for channel in &self.plan.channels {
            let own = channel_name(&channel.name);
            let lines = vec!["channel".to_owned(), channel.name.clone()];
            self.drawing.shapes.push(shape(own.clone(), Role::Channel, lines));
            for reader in &channel.readers {
                self.arrow(&own, &self.ways[reader.index()].entrance, Flow::Values, Vec::new());
            }
        }
    }

    /// Draws tables, those that no step uses included.
    fn tables(&mut self) {
        let steps = self.plan.agents.iter().flat_map(|agent| &agent.steps);
        let used: BTreeSet<usize> = steps.flat_map(|step| &step.tables).map(|table| table.table.index()).collect();
        for (number, table) in self.plan.tables.iter().enumerate() {
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
            self.plan.topics.iter().filter(|topic| topic.declare).map(|topic| topic.name.as_str()).collect();
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

fn window_shape(id: &str, window: &BatchWindow) -> Shape {
    let mut lines = vec![format!("take {}", window.max), format!("within {}", duration(window.within_ms))];
    if window.scope == BatchScope::Partition {
        lines.push("per partition".to_owned());
    }
    shape(id.to_owned(), Role::Window, lines)
}

fn step_shape(id: &str, step: &Step) -> Shape {
    let (role, verb) = match &step.action {
        Action::Map(_) => (Role::Map, "map"),
        Action::Filter(_) => (Role::Filter, "filter"),
        Action::TopicSend { .. } => (Role::Send, "send"),
    };
    shape(id.to_owned(), role, vec![verb.to_owned(), step.operation.clone()])
}

/// A shape of something that the app does not create.
fn shape(id: String, role: Role, lines: Vec<String>) -> Shape {
    Shape { id, role, lines, is_declared: false }
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
