//! An agent: its input, operations and pipeline.
//!
//! The largest unit of a spec. What happens outside it (tables, channels, topics of other agents) has been collected
//! by [`super::check`] before; what is found here goes into one [`Agent`] of the HIR.
//!
//! A function is judged by its place in the pipeline, so the pipeline is resolved first:
//!
//! ```text
//! input: {take: …}   pipeline: [parse, price]   output: {topics: [out]}
//!
//! parse   is_batch: true    it gets a list, so `v["a"]` is a warning (K0516)
//! price   is_batch: false   it gets what parse gave; its result is sent, so it must give one (K0507)
//! ```

use std::collections::{HashMap, HashSet};

use kaspr_ir::graph::{AgentInfo, Source};
use kaspr_ir::plan::{Action, BatchScope, BatchWindow, Codec, Step, TableParameter, Topics};

use super::Checker;
use super::blocks::{Call, Purpose, Scope};
use super::values::creation;
use crate::ast::{self, Code as Written};
use crate::diagnostics::{Code, Diagnostic};
use crate::hir::{Agent, Input};
use crate::source::At;

impl Checker<'_> {
    /// Checks an agent and gives it in the HIR's form.
    ///
    /// Always gives one, so that agents keep their numbers. Faulty parts are left out of it, which is safe because the
    /// HIR is dropped then. Blocks are read in the order init, operations, outputs, channels, sinks: a block may use
    /// what init defines, so init must be known first.
    pub(super) fn agent(&mut self, agent: &ast::Agent) -> Agent {
        let name = agent.name.as_ref().map_or("", |name| &name.value).to_owned();
        let mut scope = Scope { owner: format!("agent \"{name}\""), init: None };
        let init = agent.init.as_ref().map(|code| self.init(&mut scope, code));
        let input = self.input(agent);
        let batches = matches!(&input, Some(Input::Topic(_, Some(_))));
        self.check_unique_operations(agent);
        // Checked before the operations: an operation's function is judged by its place in the pipeline.
        let pipeline = self.pipeline(agent);
        // A misspelled name in the pipeline would make its operation look unused: one slip, one fault.
        let names_are_known = pipeline.len() == agent.pipeline.len();
        let last = pipeline.last().copied();
        let mut operations = Vec::new();
        // From an operation's number in the spec to its number in the HIR, where faulty ones are missing.
        let mut numbers = vec![None; agent.operations.len()];
        let named: HashSet<&str> = agent.pipeline.iter().map(|name| name.value.as_str()).collect();
        for (number, operation) in agent.operations.iter().enumerate() {
            let is_last = last == Some(number);
            let first_and_last = batches && pipeline.first() == Some(&number) && is_last;
            let map = Purpose::Map {
                batch_to_topic: first_and_last && !agent.outputs.is_empty(),
                // The last value of an agent without outputs goes nowhere: its function need not return one.
                is_end: is_last && agent.outputs.is_empty() && agent.channels.is_empty() && agent.sinks.is_empty(),
            };
            if let Some(step) = self.operation(&scope, operation, map, batches && pipeline.first() == Some(&number)) {
                numbers[number] = Some(operations.len());
                operations.push(step);
            }
            // Every name of the pipeline was found, so an operation it does not name is truly unused.
            if names_are_known {
                self.warn_unused(&named, operation);
            }
        }
        let outputs: Vec<_> =
            agent.outputs.iter().filter_map(|output| self.topic_output(&scope, output, "output")).collect();
        let channels = agent.channels.iter().filter_map(|output| self.channel_output(&scope, output)).collect();
        let sinks = agent.sinks.iter().filter_map(|sink| self.sink_output(&scope, sink)).collect();
        self.warn_own_topic(agent, input.as_ref());
        self.note_awaits(agent, &operations);
        let info = AgentInfo {
            name,
            description: agent.description.as_ref().map(|text| text.value.clone()),
            place: self.place(&agent.at),
            isolated_partitions: agent.isolated_partitions.as_ref().is_some_and(|isolated| isolated.value),
            concurrency: agent.concurrency.as_ref().map(|concurrency| concurrency.value),
            init,
            on_error: self.on_error(&agent.on_error),
            timeout_ms: self.timeout(&agent.timeout),
        };
        // Stands in for a faulty input until the HIR is dropped.
        let topics = || Topics::Names(Vec::new());
        let nowhere = || Source {
            topics: topics(),
            key_codec: Codec::Raw,
            value_codec: Codec::Json,
            key_place: None,
            value_place: None,
            part: None,
        };
        Agent {
            info,
            input: input.unwrap_or_else(|| Input::Topic(nowhere(), None)),
            pipeline: pipeline.into_iter().filter_map(|number| numbers[number]).collect(),
            operations,
            outputs,
            channels,
            sinks,
        }
    }

    /// Source of the events; `None` where it is faulty.
    ///
    /// Demands one of topic and channel (K0101, K0102).
    fn input(&mut self, agent: &ast::Agent) -> Option<Input> {
        let lacks = |at| Diagnostic::new(Code::K0101, "the input names neither a topic nor a channel", at);
        let Some(input) = &agent.input else {
            if !self.is_faulty(&agent.at, &["input"]) {
                self.fault(lacks(agent.at.clone()).hint("spec.input.topic.name: the topic to read"));
            }
            return None;
        };
        match (&input.topic, &input.channel) {
            (Some(topic), Some(channel)) => {
                let diagnostic =
                    Diagnostic::new(Code::K0102, "the input names both a topic and a channel", channel.at.clone());
                self.fault(diagnostic.label(topic.at.head(), "the topic"));
                None
            }
            (None, None) => {
                if !self.is_faulty(&input.at, &["topic", "channel"]) {
                    self.fault(lacks(input.at.head()));
                }
                None
            }
            (Some(topic), None) => self.topic_input(input, topic),
            (None, Some(channel)) => self.channel_input(input, channel),
        }
    }

    /// An input from a channel, which some agent of the app must write (K0108).
    fn channel_input(&mut self, input: &ast::Input, channel: &ast::Text) -> Option<Input> {
        if let Some(take) = &input.take {
            self.fault(
                Diagnostic::new(Code::K0110, "\"take\" on a channel input is not supported yet", take.at.head())
                    .hint("take where the channel is fed, or put a topic between"),
            );
        }
        let found = self.channel(&channel.value);
        // A document that could not be read may hold the writer.
        if found.is_none() && !self.is_partial {
            let names: Vec<_> = self.channels.iter().map(|known| known.name.clone()).collect();
            let message = format!("no agent of the app writes the channel \"{}\"", channel.value);
            let mut diagnostic = Diagnostic::new(Code::K0108, message, channel.at.clone());
            diagnostic = diagnostic.near(&channel.value, names.iter().map(String::as_str));
            if !names.is_empty() {
                diagnostic = diagnostic.hint(format!("the channels that are written: {}", names.join(", ")));
            }
            self.fault(diagnostic);
        }
        found.map(Input::Channel)
    }

    /// An input from Kafka: by names or by a pattern (K0103), with codecs and, under `take`, a batch window.
    fn topic_input(&mut self, input: &ast::Input, topic: &ast::InputTopic) -> Option<Input> {
        let topics = match (&topic.name, &topic.pattern) {
            (Some(name), Some(pattern)) => {
                let diagnostic =
                    Diagnostic::new(Code::K0103, "the input topic has both a name and a pattern", pattern.at.clone());
                self.fault(diagnostic.label(name.at.clone(), "the name"));
                return None;
            }
            (None, None) => {
                if !self.is_faulty(&topic.at, &["name", "pattern"]) {
                    let message = "the input names neither a topic nor a channel";
                    self.fault(Diagnostic::new(Code::K0101, message, topic.at.head()));
                }
                return None;
            }
            (Some(name), None) => self.topic_names(name, input, topic),
            (None, Some(pattern)) => {
                // Only the last line says what is wrong: those before it draw the pattern, which the diagnostic does
                // too.
                if let Err(error) = regex::Regex::new(&pattern.value) {
                    let reason = error.to_string();
                    let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    let message = format!("the pattern is not a regular expression: {reason}");
                    self.fault(Diagnostic::new(Code::K0107, message, pattern.at.clone()));
                }
                Topics::Pattern(pattern.value.clone())
            }
        };
        let (of_keys, of_values) = self.codecs.clone();
        let key_codec = self.codec(&topic.settings.key_codec, of_keys);
        let value_codec = self.codec(&topic.settings.value_codec, of_values);
        for (codec, text) in [(&key_codec, &topic.settings.key_codec), (&value_codec, &topic.settings.value_codec)] {
            // Unpickling runs code that the sender chose, so it has a code of its own.
            match text {
                Some(text) if matches!(codec, Codec::Pickle) => {
                    let fault = Diagnostic::new(Code::K0403, "pickle runs code from messages", text.at.clone());
                    self.fault(fault.hint("use json: kaspr-exec does not read pickle"));
                }
                _ => self.check_codec_is_built(codec, text),
            }
        }
        let window = input.take.as_ref().and_then(|take| self.take(take));
        let place = |text: &Option<ast::Text>| {
            let head = topic.at.head();
            Some(self.place(text.as_ref().map_or(&head, |text| &text.at)))
        };
        let (key_place, value_place) = (place(&topic.settings.key_codec), place(&topic.settings.value_codec));
        Some(Input::Topic(Source { topics, key_codec, value_codec, key_place, value_place, part: None }, window))
    }

    /// The topics that an input names, each once, in the order written. All of them are noted with the same creation.
    ///
    /// ```text
    /// name: "a, b,a"   ⇒   [a, b]
    /// ```
    fn topic_names(&mut self, name: &ast::Text, input: &ast::Input, topic: &ast::InputTopic) -> Topics {
        let mut creation = creation(&topic.settings.creation);
        // `declare` may stand beside the topic or in it.
        creation.declare |= input.declare.as_ref().is_some_and(|declare| declare.value);
        let mut names: Vec<String> = Vec::new();
        for one in name.value.split(',').map(str::trim) {
            self.check_topic_name(one, &name.at);
            self.note_topic(one, &creation);
            if !names.iter().any(|known| known == one) {
                names.push(one.to_owned());
            }
        }
        Topics::Names(names)
    }

    /// The batch window of `take`. Both bounds are required (K0111): without either, a batch may never end.
    fn take(&mut self, take: &ast::Take) -> Option<BatchWindow> {
        for (field, missing) in [("max", take.max.is_none()), ("within", take.within.is_none())] {
            if missing && !self.is_faulty(&take.at, &[field]) {
                let diagnostic = Diagnostic::new(Code::K0111, format!("\"take.{field}\" is missing"), take.at.head());
                self.fault(
                    diagnostic
                        .hint("a batch without \"within\" might wait for ever, one without \"max\" grow for ever"),
                );
            }
        }
        // Parsed before `max` may end the function, so that a faulty duration is reported in any case.
        let within_ms = take.within.as_ref().and_then(|within| self.duration(within));
        let max = take.max.as_ref()?.value;
        // Which events may share a batch is decided by a rule.
        Some(BatchWindow { max, within_ms: within_ms?, scope: BatchScope::Mixed })
    }

    /// Reports operations with the name of one before them (K0202). The pipeline means the first.
    fn check_unique_operations(&mut self, agent: &ast::Agent) {
        let mut seen: HashMap<&str, &ast::Text> = HashMap::new();
        for name in agent.operations.iter().filter_map(|operation| operation.name.as_ref()) {
            match seen.get(name.value.as_str()) {
                Some(first) => {
                    let message = format!("the operation \"{}\" is defined twice", name.value);
                    let diagnostic = Diagnostic::new(Code::K0202, message, name.at.clone());
                    self.sink.push(diagnostic.label(first.at.clone(), "first here"));
                }
                None => drop(seen.insert(&name.value, name)),
            }
        }
    }

    /// Operations by number, in the order of the pipeline.
    ///
    /// Names that are not defined are reported (K0201) and left out, so the result may be shorter than the pipeline.
    fn pipeline(&mut self, agent: &ast::Agent) -> Vec<usize> {
        let names: Vec<&str> = agent
            .operations
            .iter()
            .filter_map(|operation| operation.name.as_ref())
            .map(|name| name.value.as_str())
            .collect();
        // Backwards, so that of two operations of a name the first one wins, as the fault beside it says.
        let numbered = agent.operations.iter().enumerate().rev();
        let numbers: HashMap<&str, usize> = numbered
            .filter_map(|(number, operation)| Some((operation.name.as_ref()?.value.as_str(), number)))
            .collect();
        let mut pipeline = Vec::new();
        for name in &agent.pipeline {
            match numbers.get(name.value.as_str()) {
                Some(number) => pipeline.push(*number),
                None => {
                    let message = format!("the pipeline names an operation \"{}\" that is not defined", name.value);
                    let mut diagnostic = Diagnostic::new(Code::K0201, message, name.at.clone());
                    diagnostic = diagnostic.near(&name.value, names.iter().copied());
                    let mut known = names.clone();
                    known.dedup();
                    if !known.is_empty() {
                        diagnostic = diagnostic.hint(format!("the operations that are: {}", known.join(", ")));
                    }
                    self.sink.push(diagnostic);
                }
            }
        }
        pipeline
    }

    /// Warns of an operation that the pipeline does not name (K0205).
    fn warn_unused(&mut self, named: &HashSet<&str>, operation: &ast::Operation) {
        if let Some(name) = operation.name.as_ref().filter(|name| !named.contains(name.value.as_str())) {
            let message = format!("the operation \"{}\" is in no pipeline", name.value);
            self.fault(
                Diagnostic::new(Code::K0205, message, name.at.clone()).hint("add it to spec.processors.pipeline"),
            );
        }
    }

    /// One operation: exactly one of map, filter and topicSend, with its tables and policies.
    ///
    /// `purpose` is what a map's result is for at this place; `is_batch` says that the function gets a list. Gives
    /// `None` where the operation is faulty.
    fn operation(
        &mut self,
        scope: &Scope,
        operation: &ast::Operation,
        purpose: Purpose,
        is_batch: bool,
    ) -> Option<Step> {
        let name = self.required(&operation.name, "operations[].name", &operation.at)?.clone();
        let tables = self.table_parameters(operation);
        let parameters: Vec<(&str, At)> = operation
            .tables
            .iter()
            .filter_map(|table| table.parameter.as_ref())
            .map(|parameter| (parameter.value.as_str(), parameter.at.clone()))
            .collect();
        // With a faulty table the function's arguments are not known, and a fault about them might be an echo.
        let mut seen = HashSet::new();
        let tables_are_known = !self.is_faulty(&operation.at, &["tables"])
            && parameters.len() == operation.tables.len()
            && parameters.iter().all(|(parameter, _)| seen.insert(*parameter));
        // One call for map and filter: they differ in the purpose of the result alone.
        let function = |checker: &mut Self, code: &Written, purpose| {
            let tables = parameters.clone();
            let call =
                Call { role: format!("operation \"{}\"", name.value), tables, tables_are_known, is_batch, purpose };
            checker.call(scope, code, &call)
        };
        let action = match (&operation.map, &operation.filter, &operation.send) {
            (Some(map), None, None) => function(self, map, purpose).map(Action::Map),
            (None, Some(filter), None) => function(self, filter, Purpose::Filter).map(Action::Filter),
            (None, None, Some(send)) => self.topic_send(scope, &name.value, send),
            // One of them stands there and has been reported.
            (None, None, None) if self.is_faulty(&operation.at, &["map", "filter", "topicSend"]) => None,
            (None, None, None) => {
                let message = format!("the operation \"{}\" has none of map, filter, topicSend", name.value);
                self.fault(Diagnostic::new(Code::K0203, message, name.at.clone()));
                None
            }
            _ => {
                let message = format!("the operation \"{}\" has more than one of map, filter, topicSend", name.value);
                self.fault(Diagnostic::new(Code::K0204, message, name.at.clone()).hint("make an operation of each"));
                None
            }
        };
        // After the action, and whatever became of it: the operation's other fields are checked in any case.
        let on_error = self.on_error(&operation.on_error);
        let timeout_ms = self.timeout(&operation.timeout);
        let place = self.place(&name.at);
        Some(Step { operation: name.value, place, action: action?, tables, on_error, timeout_ms })
    }

    /// The action of a `topicSend`: an output inside the pipeline.
    fn topic_send(&mut self, scope: &Scope, name: &str, send: &ast::TopicOutput) -> Option<Action> {
        let output = self.topic_output(scope, send, &format!("operation \"{name}\" topicSend"))?;
        let pass_through = send.pass_through.as_ref().is_some_and(|pass| pass.value);
        // Only without passThrough does the metadata go on, and only then may code look for its offset.
        if let (false, true, Some(ack)) = (pass_through, output.ack, &send.ack) {
            self.fault(
                Diagnostic::new(Code::K0405, "the metadata of \"topicSend\" holds no offset", ack.at.clone())
                    .hint("the record is sent in the transaction, after the code has run: \"offset\" is -1"),
            );
        }
        Some(Action::TopicSend { output: Box::new(output), pass_through })
    }

    /// Tables of an operation and the parameters that get them, in the order written.
    ///
    /// A parameter that two tables share (K0302) and a table that is not declared (K0301) are reported and left out.
    fn table_parameters(&mut self, operation: &ast::Operation) -> Vec<TableParameter> {
        let mut parameters: Vec<TableParameter> = Vec::new();
        for table in &operation.tables {
            let name = self.required(&table.name, "tables[].name", &table.at);
            let parameter = self.required(&table.parameter, "tables[].paramName", &table.at);
            let (Some(name), Some(parameter)) = (name, parameter) else { continue };
            if parameters.iter().any(|known| known.parameter == parameter.value) {
                let operation = operation.name.as_ref().map_or("", |name| &name.value);
                let message = format!("two tables of \"{operation}\" share the parameter \"{}\"", parameter.value);
                self.fault(Diagnostic::new(Code::K0302, message, parameter.at.clone()));
                continue;
            }
            match self.table(&name.value) {
                Some(table) => parameters.push(TableParameter { parameter: parameter.value.clone(), table }),
                None => self.undeclared_table(name),
            }
        }
        parameters
    }

    /// Reports a table that no document declares, unless one that could not be read may do so.
    fn undeclared_table(&mut self, name: &ast::Text) {
        if self.is_partial {
            return;
        }
        let names: Vec<_> = self.tables.iter().map(|table| table.name.clone()).collect();
        let message = format!("the table \"{}\" is not declared", name.value);
        let diagnostic = Diagnostic::new(Code::K0301, message, name.at.clone());
        let diagnostic = diagnostic.near(&name.value, names.iter().map(String::as_str));
        self.fault(
            diagnostic.hint(format!("declare it: a document of kind KasprTable with metadata.name {}", name.value)),
        );
    }

    /// An event waits for the awaits of others, unless the agent or the app says that it need not.
    ///
    /// A note, not a warning: awaiting in order is right, and only costs time where it is not needed.
    fn note_awaits(&mut self, agent: &ast::Agent, operations: &[Step]) {
        let is_isolated = agent.isolated_partitions.as_ref().is_some_and(|isolated| isolated.value);
        if is_isolated || agent.concurrency.is_some() || self.sets_concurrency {
            return;
        }
        let awaits = |step: &&Step| match &step.action {
            Action::Map(function) | Action::Filter(function) => self.blocks.awaits(*function),
            Action::TopicSend { .. } => false,
        };
        if let Some(step) = operations.iter().find(awaits) {
            let agent = agent.name.as_ref().map_or("", |name| &name.value);
            self.sink.note(format!(
                "agent \"{agent}\" awaits in operation \"{}\", one event after the other: concurrency: 10 lets ten of each partition overlap, with the same result, and isolatedPartitions: true partitions",
                step.operation
            ));
        }
    }

    /// Warns of an agent that writes a topic it reads (K0404), by name. Selectors and patterns cannot be judged.
    fn warn_own_topic(&mut self, agent: &ast::Agent, input: Option<&Input>) {
        let Some(Input::Topic(Source { topics: Topics::Names(read), .. }, _)) = input else { return };
        for name in agent.outputs.iter().filter_map(|output| output.name.as_ref()) {
            if read.contains(&name.value) {
                let message = format!("the agent writes the topic \"{}\" that it reads", name.value);
                self.fault(
                    Diagnostic::new(Code::K0404, message, name.at.clone())
                        .hint("every event would come again for ever, unless a predicate ends it"),
                );
            }
        }
    }
}
