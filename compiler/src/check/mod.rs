//! AST to HIR: the only stage that may reject. All faults are found in one run.
//!
//! Here names become ids, defaults are filled in, Python is read, and everything that can be known of an app before
//! it runs is judged. One file a subject; all of them are methods of [`Checker`], which holds what they share.
//!
//! ```text
//! AST  agents, tables, apps           HIR  tables, channels, topics: in name order, so an id is a place
//!   │                                  ▲   agents: every name in them resolved to an id
//!   ├─ sorted by name ── whole-app checks: duplicates, settings, tables, readers, loops of channels
//!   └─ per agent ─────── input, init, operations, outputs, policies; each code block read once
//! ```
//!
//! The order counts: tables and channels are collected before the first agent is checked, because agents name them.
//!
//! Rules of every check:
//!
//! - It reports and goes on. What it returns for a faulty part is `None` or a stand-in, which no later stage sees:
//!   an error anywhere means that the HIR is dropped.
//! - One slip, one fault: fields that `read` has reported are marked in the sink ([`Checker::is_faulty`]), and names
//!   that a document which could not be read may declare are not missed ([`Checker::is_partial`]).
//! - A fault that only the deployment can settle is a warning, unless the specs hold the app
//!   ([`Checker::app_should_say`]).
//!
//! A spec that passes here starts (see "What `kasprc check` promises" in `docs/agents.md`): a start that fails on a
//! spec without faults is a fault of this folder.
//!
//! The files that raise each fault:
//!
//! ```text
//! agent.rs      K01xx of inputs and take, K02xx of operations and the pipeline, K0301, K0302, K0403 to K0405
//! blocks.rs     K0303, K05xx: everything about Python
//! outputs.rs    K0112, K0401, K0402, K0409        policies.rs   K0406, K0407, K0412
//! tables.rs     K0304 to K0306                    windows.rs    K0307, K0308
//! readers.rs    K0114                             settings.rs   K0410, K0411
//! values.rs     K0105, K0106, K0109, K0408        operator.rs   K0602
//! mod.rs        K0005, K0008, K0206               read, yaml    K0001 to K0007, K0104, K0113
//! ```

mod agent;
mod ahead;
mod blocks;
mod operator;
mod outputs;
mod policies;
mod readers;
pub mod settings;
mod tables;
mod values;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use kaspr_ir::plan::{AgentId, App, Assignor, Channel, ChannelId, Codec, Place, Table, TableId, Topic};

use crate::ast::{self, Ast};
use crate::diagnostics::{Code, Diagnostic, Severity, Sink};
use crate::hir::Hir;
use crate::options::{Options, Target};
use crate::source::{At, Spanned, Text};
use ahead::Ahead;
use blocks::Blocks;

/// State that all checks share.
///
/// Made for one app in [`check`]; its lists become the HIR's.
pub struct Checker<'a> {
    /// Texts of the files, by number.
    /// A place's `file` is a number in it.
    texts: &'a [Text<'a>],
    /// Receiver of faults.
    sink: &'a mut Sink,
    /// Blocks that were read ahead.
    ahead: Ahead,
    /// Blocks and functions so far.
    blocks: Blocks,
    /// Tables by name, and where they are declared.
    /// In name order once [`check`] has collected them: [`Checker::table`] searches by halves.
    tables: Vec<Table>,
    /// Channels by name.
    /// In name order too, for the same reason.
    channels: Vec<Channel>,
    /// Topics so far.
    /// By name, so that they come out in name order whatever agent names them first.
    topics: BTreeMap<String, Topic>,
    /// The version whose syntax is accepted, and no newer one.
    python_version: (u8, u8),
    /// Codecs of keys and values of topics where a spec names none.
    codecs: (Codec, Codec),
    /// The specs hold a `KasprApp`: then settings that are not written are not set, as far as the specs decide.
    has_app: bool,
    /// The app's settings name a topic for dead letters.
    names_dead_letters: bool,
    /// The app says how many events may await at once.
    sets_concurrency: bool,
    /// Channels that some agent reads.
    read_channels: BTreeSet<String>,
    /// Some document could not be read: what is declared nowhere may be declared there.
    is_partial: bool,
}

/// Checks everything. The HIR is whole only if no fault was an error.
///
/// Total: whatever the AST, there is an answer. Faults go to `sink`. `files` are the names of the files in the order
/// of `texts`. Needs stack for the Python of the blocks; see `python::with_room`.
pub fn check(ast: Ast, files: Vec<String>, texts: &[Text<'_>], options: &Options, sink: &mut Sink) -> Hir {
    let mut checker = Checker {
        texts,
        sink,
        ahead: Ahead::of(&ast.agents, options.python_version),
        blocks: Blocks::default(),
        tables: Vec::new(),
        channels: Vec::new(),
        topics: BTreeMap::new(),
        python_version: options.python_version,
        codecs: settings::codecs(&ast.apps, options),
        has_app: !ast.apps.is_empty(),
        names_dead_letters: settings::get(&ast.apps, "deadLetterTopic").is_some_and(|topic| !topic.is_empty()),
        sets_concurrency: settings::get(&ast.apps, "concurrency").is_some_and(|units| !units.is_empty()),
        read_channels: BTreeSet::new(),
        is_partial: ast.is_partial,
    };
    let Ast { mut agents, mut tables, apps, .. } = ast;
    // By name, so that the plan does not depend on how specs are cut into files.
    agents.sort_by(|a, b| name(&a.name).cmp(name(&b.name)));
    tables.sort_by(|a, b| name(&a.name).cmp(name(&b.name)));
    checker.unique(agents.iter().map(|agent| &agent.name));
    checker.unique(tables.iter().map(|table| &table.name));
    let app = checker.app(&apps, &agents);
    checker.check_settings(&apps);
    checker.tables(&tables);
    debug_assert!(checker.tables.is_sorted_by(|a, b| a.name <= b.name), "tables are searched by name");
    checker.check_tables(&agents, &tables);
    checker.check_readers(&agents);
    if options.target == Target::Operator {
        agents.iter().for_each(|agent| checker.check_for_operator(agent));
        tables.iter().for_each(|table| checker.check_table_for_operator(table));
    }
    checker.collect_channels(&agents);
    // Last, because agents name the tables and channels that have been collected above.
    let agents = agents.iter().map(|agent| checker.agent(agent)).collect();
    let Checker { blocks, tables, channels, topics, .. } = checker;
    let (blocks, functions) = blocks.into_parts();
    Hir { app, files, blocks, functions, tables, channels, topics: topics.into_values().collect(), agents }
}

/// A component's name, or nothing where it has none, which has been reported.
fn name(name: &Option<ast::Text>) -> &str {
    name.as_ref().map_or("", |name| &name.value)
}

impl Checker<'_> {
    /// Reports a fault.
    fn fault(&mut self, diagnostic: Diagnostic) {
        self.sink.push(diagnostic);
    }

    /// A place as the plan has it: by line and column, from 1.
    fn place(&self, at: &At) -> Place {
        let (line, column) = self.texts[at.file].line_column(at.start);
        Place { file: kaspr_ir::plan::FileId(u32::try_from(at.file).expect("files are counted in u32")), line, column }
    }

    /// Reports components of one kind that share a name (K0008); `names` are sorted.
    ///
    /// Three of a name are two faults, each beside the first.
    fn unique<'b>(&mut self, names: impl Iterator<Item = &'b Option<ast::Text>>) {
        let mut before: Option<&ast::Text> = None;
        for name in names.flatten() {
            match before {
                Some(first) if first.value == name.value => {
                    let message = format!("two components of the app are named \"{}\"", name.value);
                    let diagnostic = Diagnostic::new(Code::K0008, message, name.at.clone());
                    self.fault(diagnostic.label(first.at.clone(), "first here"));
                }
                _ => before = Some(name),
            }
        }
    }

    /// The app as a whole: its name and its settings.
    ///
    /// The name is, from the strongest: the `KasprApp`'s, the label that all labelled agents share, the only agent's.
    /// The first two get `-app` behind them. Two labels name nothing: then a flag must.
    fn app(&mut self, apps: &[ast::App], agents: &[ast::Agent]) -> App {
        if let [first, second, ..] = apps
            && let (Some(a), Some(b)) = (&first.name, &second.name)
        {
            let diagnostic = Diagnostic::new(Code::K0008, "the specs hold more than one KasprApp", b.at.clone());
            self.fault(diagnostic.label(a.at.clone(), "first here"));
        }
        let labels: BTreeSet<_> = agents.iter().filter_map(|agent| agent.app.as_ref()).map(|l| &l.value).collect();
        let label = labels.first().filter(|_| labels.len() == 1).map(|label| format!("{label}-app"));
        // An agent's own name counts only where no label says that the app is larger.
        let only = match agents {
            [agent] => agent.name.as_ref().map(|name| name.value.clone()),
            _ => None,
        };
        let named = apps.first().and_then(|app| app.name.as_ref()).map(|name| format!("{}-app", name.value));
        let settings = apps.first().into_iter().flat_map(|app| &app.config);
        App {
            name: named.or(label).or(only.filter(|_| labels.is_empty())),
            settings: settings.map(|(name, value)| (name.value.clone(), value.value.clone().into())).collect(),
            assignor: Assignor::default(),
        }
    }

    /// Collects the tables, sorted already, into the plan's form.
    fn tables(&mut self, tables: &[ast::Table]) {
        for table in tables {
            let place = self.place(&table.at);
            let owner = format!("table \"{}\"", name(&table.name));
            let default = table.default.as_ref().and_then(|code| self.default_selector(&owner, code));
            let window = table.window.as_ref().and_then(|window| self.window(&owner, window));
            // The window is checked first: a fault in it shall not wait until windows are supported.
            if let Some(written) = table.window.as_ref().filter(|_| window.is_some()) {
                let message = format!("the window of the {owner} is not supported yet");
                let fault = Diagnostic::new(Code::K0601, message, written.at.head());
                self.fault(fault.hint("remove \"window\" until it is"));
            }
            let key_codec = self.codec(&table.key_codec, Codec::Json);
            let value_codec = self.codec(&table.value_codec, Codec::Json);
            self.check_codec_is_built(&key_codec, &table.key_codec);
            self.check_codec_is_built(&value_codec, &table.value_codec);
            let checked = Table {
                name: name(&table.name).to_owned(),
                description: table.description.as_ref().map(|text| text.value.clone()),
                place,
                global: table.global.as_ref().is_some_and(|global| global.value),
                key_codec,
                value_codec,
                default,
                partitions: table.partitions.as_ref().map(|partitions| partitions.value),
                topic_config: table
                    .config
                    .iter()
                    .map(|(name, value)| (name.value.clone(), value.value.clone()))
                    .collect(),
                window,
            };
            self.tables.push(checked);
        }
    }

    /// Channels are those that some agent writes.
    ///
    /// The channels that agents read are noted beside: one that is only read is a fault of its reader (K0108), one that
    /// is only written a warning (K0112).
    fn collect_channels(&mut self, agents: &[ast::Agent]) {
        let written = agents.iter().flat_map(|agent| &agent.channels).filter_map(|output| output.name.as_ref());
        let mut channels: BTreeMap<&str, Vec<AgentId>> =
            written.map(|name| (name.value.as_str(), Vec::new())).collect();
        for (number, agent) in agents.iter().enumerate() {
            let channel = agent.input.as_ref().and_then(|input| input.channel.as_ref());
            self.read_channels.extend(channel.map(|name| name.value.clone()));
            if let Some(readers) = channel.and_then(|name| channels.get_mut(name.value.as_str())) {
                readers.push(agent_id(number));
            }
        }
        self.channels =
            channels.into_iter().map(|(name, readers)| Channel { name: name.to_owned(), readers }).collect();
        // Here and not with the agents: it needs the readers of every channel.
        self.check_loops(agents);
    }

    /// The number of a table; they are in the order of their names.
    ///
    /// `None`: no such table is declared.
    fn table(&self, name: &str) -> Option<TableId> {
        let number = self.tables.binary_search_by(|table| table.name.as_str().cmp(name)).ok()?;
        Some(TableId(u32::try_from(number).expect("tables are counted in u32")))
    }

    /// The number of a channel; they are in the order of their names.
    ///
    /// `None`: no agent writes such a channel.
    fn channel(&self, name: &str) -> Option<ChannelId> {
        let number = self.channels.binary_search_by(|channel| channel.name.as_str().cmp(name)).ok()?;
        Some(ChannelId(u32::try_from(number).expect("channels are counted in u32")))
    }

    /// The first loop of channels, if there is one.
    ///
    /// An event would go round for ever within one commit, so it is an error (K0206). One loop is enough to report: the
    /// same agents often close several.
    fn check_loops(&mut self, agents: &[ast::Agent]) {
        // Agents from which no loop is reached.
        let mut is_clear = vec![false; agents.len()];
        for number in 0..agents.len() {
            if let Some(path) = self.find_loop(agents, number, &mut is_clear) {
                let names: Vec<_> = path.iter().map(|agent| name(&agents[*agent].name)).collect();
                let message = format!("channels form a loop: {}", names.join(" → "));
                let diagnostic = Diagnostic::new(Code::K0206, message, agents[path[0]].at.clone());
                self.fault(diagnostic.hint("put a topic in the place of one of the channels"));
                return;
            }
        }
    }

    /// Walks on from an agent, depth first and without recursion: an app may chain thousands.
    ///
    /// Returns the agents of a loop, the first one at both ends, or `None` where none is reached. Agents that are left
    /// behind are marked in `is_clear`, so that all calls together walk each agent once.
    ///
    /// ```text
    /// a ─▶ b ─▶ c ─▶ b   ⇒   [b, c, b]
    /// ```
    fn find_loop(&self, agents: &[ast::Agent], start: usize, is_clear: &mut [bool]) -> Option<Vec<usize>> {
        let readers = |agent: usize| -> Vec<usize> {
            let channels =
                agents[agent].channels.iter().filter_map(|output| self.channel(&output.name.as_ref()?.value));
            channels.flat_map(|channel| &self.channels[channel.index()].readers).map(|reader| reader.index()).collect()
        };
        if is_clear[start] {
            return None;
        }
        // Each agent on the path, with those behind it that have not been tried.
        let mut path = vec![(start, readers(start))];
        while let Some((agent, open)) = path.last_mut() {
            let agent = *agent;
            match open.pop() {
                Some(next) => {
                    // A reader that is on the path already closes the loop; what lies before it is only the way there.
                    if let Some(first) = path.iter().position(|(on_path, _)| *on_path == next) {
                        return Some(path[first..].iter().map(|(agent, _)| *agent).chain([next]).collect());
                    }
                    if !is_clear[next] {
                        path.push((next, readers(next)));
                    }
                }
                None => {
                    is_clear[agent] = true;
                    path.pop();
                }
            }
        }
        None
    }

    /// Text of a required field; a fault where it is missing.
    ///
    /// `what` is the field's path, whose last part is its name; `at` is the mapping that should have it. None for a
    /// field that is faulty either, but then without a fault.
    fn required<'b>(&mut self, field: &'b Option<ast::Text>, what: &str, at: &At) -> Option<&'b Spanned<String>> {
        let name = what.rsplit('.').next().unwrap_or(what);
        if field.is_none() && !self.is_faulty(at, &[name]) {
            self.fault(Diagnostic::new(Code::K0005, format!("required field \"{what}\" is missing"), at.head()));
        }
        field.as_ref()
    }

    /// Tells that one of these fields of a mapping stands there, faulty: it is not missing.
    ///
    /// `mapping` must be the place by which `read` knows the mapping; `fields` are names in the Kubernetes form.
    fn is_faulty(&self, mapping: &At, fields: &[&str]) -> bool {
        fields.iter().any(|field| self.sink.is_marked(mapping, field))
    }

    /// A warning, or an error where the specs hold the app and so could have said it.
    ///
    /// Without the app, a flag or the environment may say it, and the specs cannot know.
    fn app_should_say(&mut self, diagnostic: Diagnostic) {
        let severity = if self.has_app { Severity::Error } else { Severity::Warning };
        self.fault(diagnostic.with_severity(severity));
    }
}

/// The id of an agent, from its place in name order.
fn agent_id(number: usize) -> kaspr_ir::plan::AgentId {
    kaspr_ir::plan::AgentId(u32::try_from(number).expect("agents are counted in u32"))
}
