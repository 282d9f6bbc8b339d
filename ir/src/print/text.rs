//! The plan as text, to be read without a legend.
//!
//! ```text
//! app shop
//!
//! reader enrich
//!   source topic orders (key raw, value json)
//!   track 0: one event at a time
//!   agent enrich
//!     map price: price() at agent.yaml:12, table prices as t
//!     sink topic priced (key raw, value json)
//! ```
//!
//! Every name is written out, so that a reader has no ids to follow. An agent behind a channel stands within each
//! reader that reaches it.

use std::fmt::{self, Write};

use crate::plan::{
    Action, Agent, Assignor, Backoff, BatchScope, ChannelOutput, Codec, FunctionId, Input, OnError, Overlap, Plan,
    Reader, SinkOutput, Step, Table, TopicChoice, TopicOutput, Topics,
};

impl Plan {
    /// The plan as text.
    ///
    /// With a line break at its end.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        Printer { plan: self, out: &mut text }.plan().expect("writing to a string never fails");
        text
    }
}

/// Each method writes one part of the plan; indentation is two spaces a level.
struct Printer<'a> {
    plan: &'a Plan,
    out: &'a mut String,
}

impl Printer<'_> {
    /// The whole plan: the app, its readers with all that is in them, then tables and topics.
    fn plan(&mut self) -> fmt::Result {
        let app = &self.plan.app;
        writeln!(self.out, "app {}", app.name.as_deref().unwrap_or("(named at start: --app)"))?;
        // The other assignor is the usual one and needs no line.
        if app.assignor == Assignor::Range {
            writeln!(self.out, "  partitions: range (topics share a table; all partitions stop during a rebalance)")?;
        }
        for (name, value) in &app.settings {
            writeln!(self.out, "  setting {name}: {value}")?;
        }
        for reader in &self.plan.readers {
            self.reader(reader)?;
        }
        for table in &self.plan.tables {
            self.table(table)?;
        }
        // Only topics that the app creates: the others are named where they are used.
        for topic in self.plan.topics.iter().filter(|topic| topic.declare) {
            write!(self.out, "\ntopic {}: created at start where it is missing", topic.name)?;
            if let Some(partitions) = topic.partitions {
                write!(self.out, ", partitions {partitions}")?;
            }
            if let Some(replicas) = topic.replicas {
                write!(self.out, ", replicas {replicas}")?;
            }
            for (name, value) in &topic.config {
                write!(self.out, ", {name}={value}")?;
            }
            writeln!(self.out)?;
        }
        Ok(())
    }

    /// A reader: its source, batch window, track and agents.
    fn reader(&mut self, reader: &Reader) -> fmt::Result {
        // A reader has the name of its first agent, the one with the topic input.
        let first = &self.plan[reader.agents[0]];
        writeln!(self.out, "\nreader {}", first.name)?;
        let topics = match &reader.topics {
            Topics::Names(names) => format!("topic {}", names.join(", ")),
            Topics::Pattern(pattern) => format!("topics matching /{pattern}/"),
        };
        writeln!(self.out, "  source {topics} (key {}, value {})", reader.key_codec, reader.value_codec)?;
        if let Some(part) = &reader.part {
            let fields = if part.fields.is_empty() { "no fields".to_owned() } else { part.fields.join(", ") };
            let rest = if part.keeps_text { ", the rest passes as text" } else { "" };
            writeln!(self.out, "  decodes {fields}{rest}")?;
        }
        if let Some(window) = &reader.window {
            let scope = match window.scope {
                BatchScope::Mixed => "partitions mixed",
                BatchScope::MixedUnlessRetry => "partitions mixed unless retry",
                BatchScope::Partition => "one per partition",
            };
            writeln!(
                self.out,
                "  batch window: up to {} events within {}, {scope}",
                window.max,
                duration(window.within_ms)
            )?;
        }
        let track = track(reader);
        // Counted here, not stored: what can be derived is not in the plan.
        let shared = self.plan.readers.iter().filter(|other| other.track.group == reader.track.group).count() > 1;
        writeln!(
            self.out,
            "  track {}: {track}{}",
            reader.track.group,
            if shared { ", together with other readers" } else { "" }
        )?;
        // An agent that several readers reach is printed in each, as it runs in each.
        for &agent in &reader.agents {
            self.agent(&self.plan[agent])?;
        }
        Ok(())
    }

    /// An agent within a reader, in the order in which an event meets its parts.
    fn agent(&mut self, agent: &Agent) -> fmt::Result {
        let from = match agent.input {
            Input::Topic(_) => String::new(),
            Input::Channel(channel) => format!(" from channel {}", self.plan[channel].name),
        };
        writeln!(self.out, "  agent {}{from}", agent.name)?;
        if let Some(description) = &agent.description {
            // On one line, whatever its author's line breaks.
            writeln!(self.out, "    {}", description.trim().replace('\n', " "))?;
        }
        if let Some(init) = &agent.init {
            let call = init
                .function
                .map_or("runs once".to_owned(), |function| format!("runs once, then {}()", self.plan[function].name));
            writeln!(self.out, "    init {call}")?;
        }
        for step in &agent.steps {
            self.step(step)?;
        }
        for output in &agent.outputs {
            self.output("    ", output)?;
        }
        for output in &agent.channel_outputs {
            self.channel(output)?;
        }
        for sink in &agent.sinks {
            self.sink(sink)?;
        }
        if let Some(policy) = &agent.on_error {
            writeln!(self.out, "    on error: {}", on_error(policy))?;
        }
        if let Some(timeout) = agent.timeout_ms {
            writeln!(self.out, "    timeout of a call: {}", duration(timeout))?;
        }
        Ok(())
    }

    /// One step of a pipeline.
    fn step(&mut self, step: &Step) -> fmt::Result {
        match &step.action {
            Action::Map(function) => write!(self.out, "    map {}: {}", step.operation, self.call(*function))?,
            Action::Filter(function) => write!(self.out, "    filter {}: {}", step.operation, self.call(*function))?,
            // An output of its own, so it is printed as one, below its step.
            Action::TopicSend { output, pass_through } => {
                let then = match (pass_through, output.ack) {
                    (true, _) => "the value goes on",
                    (false, true) => "the record's metadata goes on",
                    (false, false) => "None goes on",
                };
                writeln!(self.out, "    send {}: {then}", step.operation)?;
                return self.output("      ", output);
            }
        }
        for table in &step.tables {
            write!(self.out, ", table {} as {}", self.plan[table.table].name, table.parameter)?;
        }
        if let Some(policy) = &step.on_error {
            write!(self.out, ", on error: {}", on_error(policy))?;
        }
        if let Some(timeout) = step.timeout_ms {
            write!(self.out, ", timeout {}", duration(timeout))?;
        }
        writeln!(self.out)
    }

    /// A topic output, with a line for each of its functions.
    fn output(&mut self, indent: &str, output: &TopicOutput) -> fmt::Result {
        let topic = match &output.topic {
            TopicChoice::Name(name) => name.clone(),
            TopicChoice::Selector(function) => format!("named by {}", self.call(*function)),
        };
        write!(self.out, "{indent}sink topic {topic}")?;
        self.codecs(&output.key_codec, &output.value_codec)?;
        if output.forwards {
            write!(self.out, ", forwards the bytes")?;
        }
        writeln!(self.out)?;
        let selectors = [
            ("only if", output.predicate),
            ("key", output.key_selector),
            ("value", output.value_selector),
            ("partition", output.partition_selector),
            ("headers", output.headers_selector),
        ];
        self.selectors(indent, &selectors)
    }

    /// Codecs in brackets, behind the thing that has them.
    fn codecs(&mut self, key: &Codec, value: &Codec) -> fmt::Result {
        write!(self.out, " (key {key}, value {value})")
    }

    /// A line for each function that is there, further right than the output.
    fn selectors(&mut self, indent: &str, selectors: &[(&str, Option<FunctionId>)]) -> fmt::Result {
        for (name, function) in selectors {
            if let Some(function) = function {
                let call = self.call(*function);
                writeln!(self.out, "{indent}  {name} {call}")?;
            }
        }
        Ok(())
    }

    /// A channel output, with the agents that read the channel.
    fn channel(&mut self, output: &ChannelOutput) -> fmt::Result {
        let channel = &self.plan[output.channel];
        let readers: Vec<_> = channel.readers.iter().map(|reader| self.plan[*reader].name.as_str()).collect();
        writeln!(self.out, "    channel {} to {}", channel.name, readers.join(", "))?;
        let selectors = [
            ("only if", output.predicate),
            ("key", output.key_selector),
            ("value", output.value_selector),
            ("headers", output.headers_selector),
        ];
        self.selectors("    ", &selectors)
    }

    /// A custom sink.
    fn sink(&mut self, sink: &SinkOutput) -> fmt::Result {
        writeln!(self.out, "    sink {}: {}, outside the transaction", sink.name, self.call(sink.function))?;
        self.selectors("    ", &[("only if", sink.predicate), ("value", sink.value_selector)])
    }

    /// A table and what is special about it.
    fn table(&mut self, table: &Table) -> fmt::Result {
        write!(self.out, "\ntable {}", table.name)?;
        self.codecs(&table.key_codec, &table.value_codec)?;
        if table.global {
            write!(self.out, ", global")?;
        }
        if let Some(default) = table.default {
            write!(self.out, ", default {}", self.plan[default].name)?;
        }
        if let Some(partitions) = table.partitions {
            write!(self.out, ", partitions {partitions}")?;
        }
        if let Some(window) = &table.window {
            write!(self.out, ", windows of {} every {}", duration(window.size_ms), duration(window.step_ms))?;
        }
        writeln!(self.out)
    }

    /// `name() agent.yaml:12`, and whether it looks at the event.
    fn call(&self, function: FunctionId) -> String {
        let function = &self.plan[function];
        let place = function.place;
        let context = if function.reads_context { " with context" } else { "" };
        let shape = match function.shape {
            crate::plan::Shape::Generator => " yields",
            crate::plan::Shape::Async => " async",
            crate::plan::Shape::AsyncGenerator => " async, yields",
            // A plain function is the usual case, and of an unknown one nothing is known.
            _ => "",
        };
        format!("{}() at {}:{}{shape}{context}", function.name, self.plan[place.file], place.line)
    }
}

/// The units that a track has in flight at once, in words.
fn track(reader: &Reader) -> String {
    let Overlap { written, is_whole } = reader.overlap;
    match written.filter(|units| units.get() > 1) {
        Some(units) => {
            let what = if reader.window.is_some() { "batches" } else { "events" };
            let setting = if is_whole { "" } else { ", or the app's concurrency if that is less" };
            format!("up to {units} {what} of each partition await at once{setting}")
        }
        None if reader.track.per_partition => "one event at a time per partition".to_owned(),
        None => "one event at a time".to_owned(),
    }
}

/// A policy in words.
///
/// ```text
/// retry, 3 tries, waits from 1s to 1m (times 2, jitter 0.2), then dead letter to orders-dead
/// ```
pub fn on_error(policy: &OnError) -> String {
    match policy {
        OnError::Skip => "skip".to_owned(),
        OnError::Halt => "halt".to_owned(),
        OnError::DeadLetter { topic: Some(topic), .. } => format!("dead letter to {topic}"),
        OnError::DeadLetter { topic: None, creation } => {
            let created = if creation.declare { ", created at start where it is missing" } else { "" };
            format!("dead letter to the app's topic{created}")
        }
        OnError::Retry { attempts, backoff: Backoff { initial_ms, max_ms, factor, jitter }, then } => format!(
            "retry, {attempts} tries, waits from {} to {} (times {factor}, jitter {jitter}), then {}",
            duration(*initial_ms),
            duration(*max_ms),
            on_error(then)
        ),
    }
}

/// A duration in the largest unit that leaves it whole.
///
/// The opposite of `kaspr_ir::duration::parse`: 90000 is `90s`, 3600000 is `1h`, 1500 is `1500ms`.
pub fn duration(ms: u64) -> String {
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        // Zero is whole in every unit; `0ms` is the plainest.
        if ms != 0 && ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}
