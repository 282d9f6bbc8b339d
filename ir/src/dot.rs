//! The graph as DOT: agents as boxes around their operators, topics between them.
//!
//! A topic that one agent writes and another reads is one node, so that the app is one picture.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use petgraph::stable_graph::NodeIndex;

use crate::graph::{Contract, Graph, Kind, Node, Sink};
use crate::plan::{Action, AgentId, BatchScope, OnError, Step, TopicChoice, TopicOutput, Topics};
use crate::text::duration;

/// Fill and line colours by what a node is.
const SOURCE: (&str, &str) = ("#DCEBFA", "#2F6FAB");
const WINDOW: (&str, &str) = ("#FFF3CF", "#B58900");
const MAP: (&str, &str) = ("#FFFFFF", "#3C4A57");
const FILTER: (&str, &str) = ("#F1E9FA", "#6B3FA0");
const SEND: (&str, &str) = ("#E6F4EA", "#2E7D46");
const CHANNEL: (&str, &str) = ("#E0F4F4", "#1F7F85");
const SINK: (&str, &str) = ("#E2F3E1", "#3B7F38");
const CUSTOM: (&str, &str) = ("#FCE8D9", "#B35A1F");
const TABLE: (&str, &str) = ("#FBE9EE", "#A33A5B");
const LETTERS: (&str, &str) = ("#FBE3E1", "#B3362C");

impl Graph {
    /// The graph as DOT.
    pub fn to_dot(&self) -> String {
        let mut dot = Dot { graph: self, out: String::new(), topics: BTreeMap::new(), edges: Vec::new() };
        dot.graph();
        dot.out
    }
}

/// How a topic is used in the app.
#[derive(Default)]
struct Use {
    read: bool,
    written: bool,
    letters: bool,
    declared: bool,
}

struct Dot<'a> {
    graph: &'a Graph,
    out: String,
    topics: BTreeMap<String, Use>,
    edges: Vec<String>,
}

impl Dot<'_> {
    fn graph(&mut self) {
        let name = self.graph.app.name.as_deref().unwrap_or("app");
        self.line(&format!("digraph {} {{", quote(name)));
        self.line("  rankdir=LR; bgcolor=\"white\"; pad=0.3; nodesep=0.35; ranksep=0.55; compound=true;");
        self.line("  node [fontname=\"Helvetica\" fontsize=11 style=\"filled\" penwidth=1.2 margin=\"0.16,0.09\"];");
        self.line("  edge [fontname=\"Helvetica\" fontsize=9 color=\"#5B6770\" fontcolor=\"#5B6770\" arrowsize=0.7];");
        for agent in self.graph.agent_ids() {
            self.agent(agent);
        }
        self.channels();
        self.tables();
        self.topics();
        let edges = std::mem::take(&mut self.edges);
        for edge in edges {
            self.line(&format!("  {edge}"));
        }
        self.line("}");
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn agent(&mut self, id: AgentId) {
        let agent = &self.graph.agents[id.index()];
        self.line(&format!("  subgraph {} {{", quote(&format!("cluster_{}", agent.name))));
        let title = match &agent.on_error {
            Some(policy) => format!("{}\\lon error: {}\\l", escape(&agent.name), escape(&short_policy(policy))),
            None => format!("{}\\l", escape(&agent.name)),
        };
        self.line(&format!(
            "    label=\"{title}\"; labeljust=l; style=\"rounded,filled\"; fillcolor=\"#F6F8FA\"; color=\"#AEB9C2\"; fontname=\"Helvetica-Bold\"; fontsize=11; margin=14;"
        ));
        let nodes: Vec<(NodeIndex, Node)> =
            self.graph.nodes_of(id).map(|(index, node)| (index, node.clone())).collect();
        let has_body = nodes.iter().any(|(_, node)| {
            matches!(node.kind, Kind::BatchWindow(_) | Kind::Operator(_) | Kind::Sink(Sink::Custom(_)))
        });
        if !has_body {
            self.node(&pass(id), "point", MAP, "", " width=0.12");
        }
        for (index, node) in &nodes {
            self.inside(*index, node);
        }
        self.line("  }");
        for (index, node) in &nodes {
            self.around(id, *index, node);
        }
        if let Some(topic) = agent.on_error.as_ref().and_then(letters_topic) {
            self.letters(id, topic, &nodes, has_body);
        }
    }

    /// Nodes that stand inside their agent's box.
    fn inside(&mut self, index: NodeIndex, node: &Node) {
        let name = name(index);
        match &node.kind {
            Kind::BatchWindow(window) => {
                let scope = if window.scope == BatchScope::Partition { "\\nper partition" } else { "" };
                let label = format!("take {}\\nwithin {}{scope}", window.max, duration(window.within_ms));
                self.node(&name, "component", WINDOW, &label, "");
            }
            Kind::Operator(step) => self.operator(&name, step),
            Kind::Sink(Sink::Custom(sink)) => {
                self.node(&name, "house", CUSTOM, &format!("sink\\n{}", escape(&sink.name)), " margin=\"0.05,0.0\"");
            }
            Kind::Source(_) | Kind::Sink(Sink::Topic(_)) | Kind::Channel(_) => {}
        }
    }

    fn operator(&mut self, name: &str, step: &Step) {
        let (shape, colours, verb) = match &step.action {
            Action::Map(_) => ("box", MAP, "map"),
            Action::Filter(_) => ("hexagon", FILTER, "filter"),
            Action::TopicSend { .. } => ("rarrow", SEND, "send"),
        };
        let style = match shape {
            "box" => " style=\"filled,rounded\"",
            "hexagon" => " margin=\"0.02,0.0\"",
            _ => "",
        };
        self.node(name, shape, colours, &format!("{verb}\\n{}", escape(&step.operation)), style);
    }

    /// Edges of a node, and what it touches outside its agent's box.
    fn around(&mut self, agent: AgentId, index: NodeIndex, node: &Node) {
        let own = self.point(agent, index);
        match &node.kind {
            Kind::Source(source) => {
                let names = match &source.topics {
                    Topics::Names(names) => names.clone(),
                    Topics::Pattern(pattern) => vec![format!("/{pattern}/")],
                };
                let first = self.graph.next(index).first().map(|(next, _)| *next);
                let to = first.filter(|next| self.is_inside(*next)).map_or_else(|| pass(agent), name);
                for topic in names {
                    self.topics.entry(topic.clone()).or_default().read = true;
                    self.edge(&topic_name(&topic), &to, "");
                }
            }
            Kind::Operator(step) => {
                for table in &step.tables {
                    let table = &self.graph.tables[table.table.index()].name;
                    let style = " [dir=both style=dashed color=\"#A33A5B\" arrowsize=0.5]";
                    self.edges.push(format!("{} -> {}{style};", quote(&own), quote(&format!("table {table}"))));
                }
                if let Action::TopicSend { output, .. } = &step.action {
                    self.topic_edge(&own, output);
                }
                if let Some(topic) = step.on_error.as_ref().and_then(letters_topic) {
                    self.letters_edge(&own, topic);
                }
            }
            _ => {}
        }
        let next: Vec<_> = self.graph.next(index).into_iter().map(|(target, edge)| (target, edge.clone())).collect();
        for (target, edge) in next {
            let batch = if edge.contract == Contract::Batch { "batch" } else { "" };
            match &self.graph.flow[target].kind {
                Kind::Sink(Sink::Topic(output)) => self.topic_edge(&own, &output.clone()),
                Kind::Channel(channel) => {
                    let label = edge
                        .via
                        .as_ref()
                        .map(|via| self.labels(&[("if", via.predicate), ("value", via.value_selector)]));
                    let channel = format!("channel {}", self.graph.channels[channel.index()].name);
                    self.edge(&own, &channel, &label.unwrap_or_default());
                }
                _ if matches!(node.kind, Kind::Source(_)) => {}
                _ => self.edge(&own, &name(target), batch),
            }
        }
    }

    /// Where an edge of this node is drawn: its source is the agent's entry.
    fn point(&self, agent: AgentId, index: NodeIndex) -> String {
        if self.is_inside(index) { name(index) } else { pass(agent) }
    }

    fn is_inside(&self, index: NodeIndex) -> bool {
        matches!(self.graph.flow[index].kind, Kind::BatchWindow(_) | Kind::Operator(_) | Kind::Sink(Sink::Custom(_)))
    }

    fn topic_edge(&mut self, from: &str, output: &TopicOutput) {
        let label = self.labels(&[
            ("if", output.predicate),
            ("key", output.key_selector),
            ("value", output.value_selector),
            ("partition", output.partition_selector),
            ("headers", output.headers_selector),
        ]);
        let topic = match &output.topic {
            TopicChoice::Name(name) => name.clone(),
            TopicChoice::Selector(function) => {
                format!("{}()", self.graph.functions[function.index()].name)
            }
        };
        self.topics.entry(topic.clone()).or_default().written = true;
        self.edge(from, &topic_name(&topic), &label);
    }

    fn labels(&self, selectors: &[(&str, Option<crate::plan::FunctionId>)]) -> String {
        let labels = selectors.iter().filter_map(|(name, function)| {
            function.map(|function| format!("{name} {}", escape(&self.graph.functions[function.index()].name)))
        });
        labels.collect::<Vec<_>>().join("\\n")
    }

    /// One dashed edge from the agent's box to its dead-letter topic.
    fn letters(&mut self, agent: AgentId, topic: &str, nodes: &[(NodeIndex, Node)], has_body: bool) {
        let last = nodes.iter().rev().find(|(index, _)| self.is_inside(*index)).map(|(index, _)| name(*index));
        let from = last.filter(|_| has_body).unwrap_or_else(|| pass(agent));
        self.letters_edge(&from, topic);
    }

    fn letters_edge(&mut self, from: &str, topic: &str) {
        self.topics.entry(topic.to_owned()).or_default().letters = true;
        let style = " [style=dashed color=\"#B3362C\" fontcolor=\"#B3362C\" label=\"failed events\"]";
        self.edges.push(format!("{} -> {}{style};", quote(from), quote(&topic_name(topic))));
    }

    fn channels(&mut self) {
        for channel in &self.graph.channels.clone() {
            let own = format!("channel {}", channel.name);
            self.node(
                &own,
                "parallelogram",
                CHANNEL,
                &format!("channel\\n{}", escape(&channel.name)),
                " margin=\"0.0,0.0\"",
            );
            for reader in &channel.readers {
                let first = self.graph.nodes_of(*reader).map(|(index, _)| index).find(|index| self.is_inside(*index));
                let to = first.map_or_else(|| pass(*reader), name);
                self.edge(&own, &to, "");
            }
        }
    }

    fn tables(&mut self) {
        let used: BTreeSet<_> = self
            .graph
            .flow
            .node_weights()
            .filter_map(|node| match &node.kind {
                Kind::Operator(step) => Some(step.tables.iter().map(|table| table.table.index())),
                _ => None,
            })
            .flatten()
            .collect();
        for (number, table) in self.graph.tables.clone().iter().enumerate() {
            let kind = if table.global { "global table" } else { "table" };
            let unused = if used.contains(&number) { "" } else { "\\n(unused)" };
            let label = format!("{kind}\\n{}{unused}", escape(&table.name));
            self.node(&format!("table {}", table.name), "cylinder", TABLE, &label, "");
        }
    }

    fn topics(&mut self) {
        for topic in self.graph.topics.iter().filter(|topic| topic.declare) {
            if let Some(used) = self.topics.get_mut(&topic.name) {
                used.declared = true;
            }
        }
        let topics: Vec<_> = std::mem::take(&mut self.topics).into_iter().collect();
        for (topic, used) in topics {
            let colours = match used {
                Use { letters: true, read: false, .. } => LETTERS,
                Use { read: true, written: false, .. } => SOURCE,
                Use { read: true, .. } => CHANNEL,
                _ => SINK,
            };
            let kind = if topic.starts_with('/') { "topics matching" } else { "topic" };
            let label = format!("{kind}\\n{}", escape(&topic));
            let line = if used.declared { " margin=\"0.3,0.16\" peripheries=2" } else { " margin=\"0.3,0.16\"" };
            self.node(&topic_name(&topic), "cds", colours, &label, line);
        }
    }

    fn node(&mut self, name: &str, shape: &str, (fill, line): (&str, &str), label: &str, more: &str) {
        let name = quote(name);
        let text = format!("    {name} [label=\"{label}\" shape={shape} fillcolor=\"{fill}\" color=\"{line}\"{more}];");
        self.line(&text);
    }

    fn edge(&mut self, from: &str, to: &str, label: &str) {
        let mut edge = format!("{} -> {}", quote(from), quote(to));
        if !label.is_empty() {
            write!(edge, " [label=\"{label}\"]").expect("writing to a string never fails");
        }
        self.edges.push(format!("{edge};"));
    }
}

fn name(index: NodeIndex) -> String {
    format!("n{}", index.index())
}

fn topic_name(topic: &str) -> String {
    format!("topic {topic}")
}

/// The point through which values pass where an agent has no operators.
fn pass(agent: AgentId) -> String {
    format!("pass {}", agent.0)
}

fn letters_topic(policy: &OnError) -> Option<&str> {
    match policy {
        OnError::DeadLetter { topic } => topic.as_deref(),
        OnError::Retry { then, .. } => letters_topic(then),
        OnError::Skip | OnError::Halt => None,
    }
}

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

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn quote(text: &str) -> String {
    format!("\"{}\"", escape(text))
}
