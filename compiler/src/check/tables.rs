//! Tables and what feeds them: partition counts and key serializers that must agree.
//!
//! A table's partition lives with the partition of the events that use it: an event of partition 5 reads and writes
//! partition 5 of its tables, and the worker that owns one owns the other. So all topics that feed a table, and all
//! tables of an agent, must have as many partitions as each other:
//!
//! ```text
//! orders (6 partitions) ─▶ agent a ─┬─▶ table totals
//! prices (4 partitions) ─▶ agent b ─┘        K0305: partition 5 of orders has no partner among prices
//! ```
//!
//! Only counts that specs write are compared here; the executor compares those of real topics at its start. Global
//! tables are on every worker and have one partition, so they fit every topic.

use std::collections::{BTreeMap, BTreeSet};

use kaspr_ir::topics::{TOPIC_NAME_RULE, is_topic_name};

use super::{Checker, name};
use crate::ast::{self, Text};
use crate::diagnostics::{Code, Diagnostic};
use crate::source::Spanned;

/// Agents and tables of an app as they were written, by name.
///
/// A second view of the AST, by name: checks here follow events from topics through channels to tables.
struct App<'a> {
    agents: &'a [ast::Agent],
    /// Tables by name.
    tables: BTreeMap<&'a str, &'a ast::Table>,
    /// Agents that read a channel, by its name.
    readers: BTreeMap<&'a str, Vec<usize>>,
    /// Partition counts of topics, where first said.
    /// If two places say different counts, the first one counts, as it does for the topic's creation.
    partitions: BTreeMap<&'a str, &'a Spanned<u32>>,
}

impl<'a> App<'a> {
    /// Collects who reads which channel, and which topics have a count: of inputs, outputs, sends and dead letters.
    fn new(agents: &'a [ast::Agent], tables: &'a [ast::Table]) -> App<'a> {
        let mut app = App {
            agents,
            tables: tables.iter().map(|table| (name(&table.name), table)).collect(),
            readers: BTreeMap::new(),
            partitions: BTreeMap::new(),
        };
        for (number, agent) in agents.iter().enumerate() {
            if let Some(channel) = agent.input.as_ref().and_then(|input| input.channel.as_ref()) {
                app.readers.entry(channel.value.as_str()).or_default().push(number);
            }
            if let Some((topics, Some(count))) =
                input_topics(agent).map(|(names, topic)| (names, &topic.settings.creation.partitions))
            {
                topics.for_each(|topic| {
                    app.partitions.entry(topic).or_insert(count);
                });
            }
            // Outputs and dead letters count too: a topic that one agent writes may feed another.
            let sends = agent.operations.iter().filter_map(|operation| operation.send.as_ref());
            for output in agent.outputs.iter().chain(sends) {
                if let (Some(topic), Some(count)) = (&output.name, &output.settings.creation.partitions) {
                    app.partitions.entry(topic.value.as_str()).or_insert(count);
                }
            }
            let policies = agent.operations.iter().filter_map(|operation| operation.on_error.as_ref());
            for policy in agent.on_error.iter().chain(policies) {
                if let (Some(topic), Some(count)) = (&policy.topic, &policy.creation.partitions) {
                    app.partitions.entry(topic.value.as_str()).or_insert(count);
                }
            }
        }
        app
    }

    /// The agent and those that its channels reach.
    ///
    /// With their channels' readers in turn; loops of channels are a fault of their own, and end here.
    ///
    /// ```text
    /// a ─▶ channel c ─▶ b, d      reached(a)  ⇒  {a, b, d}
    /// ```
    fn reached(&self, agent: usize) -> BTreeSet<usize> {
        let (mut reached, mut open) = (BTreeSet::new(), vec![agent]);
        while let Some(agent) = open.pop() {
            if reached.insert(agent) {
                let channels = self.agents[agent].channels.iter().filter_map(|output| output.name.as_ref());
                open.extend(channels.filter_map(|name| self.readers.get(name.value.as_str())).flatten());
            }
        }
        reached
    }

    /// Tables that an agent's operations use and that are partitioned, each at its first use.
    ///
    /// Tables that no document declares are left out: they are reported at the operation.
    fn tables_of(&self, agent: usize) -> Vec<(&'a Text, &'a ast::Table)> {
        let mut seen = BTreeSet::new();
        let used = self.agents[agent].operations.iter().flat_map(|operation| &operation.tables);
        used.filter_map(|used| used.name.as_ref())
            .filter_map(|used| self.tables.get(used.value.as_str()).map(|table| (used, *table)))
            .filter(|(used, table)| !is_global(table) && seen.insert(used.value.as_str()))
            .collect()
    }
}

fn is_global(table: &ast::Table) -> bool {
    table.global.as_ref().is_some_and(|global| global.value)
}

/// The topics that an agent reads by name.
///
/// `None` for a channel, a pattern or a faulty input: then nothing is known of the topics.
fn input_topics(agent: &ast::Agent) -> Option<(impl Iterator<Item = &str>, &ast::InputTopic)> {
    let topic = agent.input.as_ref()?.topic.as_ref()?;
    Some((topic.name.as_ref()?.value.split(',').map(str::trim), topic))
}

impl Checker<'_> {
    /// Checks that tables fit the topics that feed them, and each other.
    ///
    /// K0109 for names, K0304 for key serializers, K0305 and K0306 for partition counts.
    pub(super) fn check_tables(&mut self, agents: &[ast::Agent], tables: &[ast::Table]) {
        tables.iter().filter_map(|table| table.name.as_ref()).for_each(|name| self.check_table_name(name));
        let app = App::new(agents, tables);
        // By table: the first topic with a count that feeds it, against which the others are held.
        let mut feeding: BTreeMap<&str, (&str, &Spanned<u32>)> = BTreeMap::new();
        for (number, agent) in agents.iter().enumerate() {
            // Before the input is looked at: the tables of an agent behind a channel must agree as well.
            self.check_tables_together(&app, number);
            let Some((topics, input)) = input_topics(agent) else { continue };
            let topics: Vec<&str> = topics.collect();
            // Agents behind channels use their tables in the partition of the reader's event.
            for (_, table) in app.reached(number).into_iter().flat_map(|agent| app.tables_of(agent)) {
                self.check_key_codecs(&topics, input, table);
                for topic in &topics {
                    self.check_partitions(&app, topic, table, &mut feeding);
                }
            }
        }
    }

    /// A table's name is part of its changelog's.
    ///
    /// `{app}-{table}-changelog` must be a name that Kafka takes. The app's name is not known here, so a short one
    /// stands in for it.
    fn check_table_name(&mut self, name: &Text) {
        if !is_topic_name(&format!("app-{}-changelog", name.value)) {
            let message =
                format!("the table \"{}\" cannot have a changelog: Kafka does not allow the name", name.value);
            self.fault(Diagnostic::new(Code::K0109, message, name.at.clone()).hint(TOPIC_NAME_RULE));
        }
    }

    /// Tables of one agent are written by the same partition of its input.
    ///
    /// K0306, for every table that differs from the first one with a count.
    fn check_tables_together(&mut self, app: &App<'_>, agent: usize) {
        let tables = app.tables_of(agent);
        let mut counted = tables.iter().filter_map(|(_, table)| Some((*table, table.partitions.as_ref()?)));
        let Some((first, count)) = counted.next() else { return };
        for (table, other) in counted.filter(|(_, other)| other.value != count.value) {
            let (one, two) = (name(&first.name), name(&table.name));
            let message = format!("the tables \"{one}\" and \"{two}\" of one agent have different partition counts");
            let diagnostic = Diagnostic::new(Code::K0306, message, other.at.clone());
            self.fault(
                diagnostic
                    .under(format!("{} here", other.value))
                    .label(count.at.clone(), format!("{} here", count.value))
                    .hint("give both as many partitions as the topic has that feeds them, or omit \"partitions\""),
            );
        }
    }

    /// An event of partition 5 writes partition 5 of its tables: counts must be equal.
    ///
    /// K0305, in two ways: the table's own count differs from the topic's, or two topics that feed it differ.
    ///
    /// `feeding` has the first topic with a count for each table, over all calls.
    fn check_partitions<'b>(
        &mut self,
        app: &App<'b>,
        topic: &'b str,
        table: &'b ast::Table,
        feeding: &mut BTreeMap<&'b str, (&'b str, &'b Spanned<u32>)>,
    ) {
        let Some(count) = app.partitions.get(topic).copied() else { return };
        let table_name = name(&table.name);
        let hint = "repartition one of the topics through an agent of its own, or make the table global";
        if let Some(own) = table.partitions.as_ref().filter(|own| own.value != count.value) {
            let message = format!(
                "the table \"{table_name}\" and the topic \"{topic}\" that feeds it have different partition counts"
            );
            let diagnostic = Diagnostic::new(Code::K0305, message, own.at.clone()).under(format!("{} here", own.value));
            self.fault(
                diagnostic
                    .label(count.at.clone(), format!("{} here", count.value))
                    .hint("omit the table's \"partitions\": its changelog takes those of the topic"),
            );
        }
        let (other, first) = *feeding.entry(table_name).or_insert((topic, count));
        if first.value != count.value {
            let message = format!(
                "the topics \"{other}\" and \"{topic}\" share the table \"{table_name}\" and declare different partition counts"
            );
            let diagnostic = Diagnostic::new(Code::K0305, message, count.at.clone());
            self.fault(
                diagnostic
                    .under(format!("{} here", count.value))
                    .label(first.at.clone(), format!("{} here", first.value))
                    .hint(hint),
            );
        }
    }

    /// Only where both are written: a default says nothing of what the keys are.
    ///
    /// K0304. A key that goes from the event into the table would be encoded twice.
    fn check_key_codecs(&mut self, topics: &[&str], input: &ast::InputTopic, table: &ast::Table) {
        let (Some(read), Some(kept)) = (&input.settings.key_codec, &table.key_codec) else { return };
        if read.value == kept.value {
            return;
        }
        let (topic, table) = (topics.join(","), name(&table.name));
        let message = format!("the key serializer of topic \"{topic}\" differs from that of table \"{table}\"");
        let diagnostic = Diagnostic::new(Code::K0304, message, read.at.clone()).label(kept.at.clone(), "the table's");
        self.fault(
            diagnostic.hint("a key that goes from the topic into the table would be encoded twice: write the same"),
        );
    }
}
