//! The parts of an app that a test may name.

use std::collections::{BTreeMap, BTreeSet};

use kaspr_ir::plan::{Action, Agent, Block, OnError, Plan, Policies, ReaderId, TopicChoice, Topics};
use regex::Regex;

use crate::stage::program::lower;

/// Names of an app, for its tests.
pub struct Known {
    /// Topics that agents read.
    pub read: BTreeSet<String>,
    /// Patterns of topics that agents read.
    patterns: Vec<Regex>,
    /// Topics that the app names.
    topics: BTreeSet<String>,
    /// True if functions name topics too, when they run.
    names_at_run_time: bool,
    /// Tables.
    pub tables: BTreeSet<String>,
    /// Agents.
    pub agents: BTreeSet<String>,
    /// Operations, and whatever else may fail, by agent.
    sites: BTreeSet<(String, String)>,
    /// Names that the top level of each block binds, by block; `None` where they cannot be told.
    pub functions: Option<BTreeMap<String, BTreeSet<String>>>,
}

/// Gives the names that a block's top level binds; `None` where they cannot be told.
pub type NamesOf<'a> = &'a dyn Fn(&Block) -> Option<BTreeSet<String>>;

impl Known {
    /// Names of a plan, with the topics of its policies.
    pub fn of(plan: &Plan, policies: &Policies, names_of: NamesOf<'_>) -> Known {
        let mut known = Known {
            read: BTreeSet::new(),
            patterns: Vec::new(),
            topics: plan.topics.iter().map(|topic| topic.name.clone()).collect(),
            names_at_run_time: plan.agents.iter().any(has_selector)
                // A text search is enough: a `.send` that is not the app's only makes the check of topics milder.
                || plan.blocks.iter().any(|block| block.code.contains(".send")),
            tables: plan.tables.iter().map(|table| table.name.clone()).collect(),
            agents: plan.agents.iter().map(|agent| agent.name.clone()).collect(),
            sites: BTreeSet::new(),
            functions: functions(plan, names_of),
        };
        for (id, reader) in (0..).map(ReaderId).zip(&plan.readers) {
            match &reader.topics {
                Topics::Names(names) => known.read.extend(names.iter().cloned()),
                // An invalid pattern ends the run with an error of its own.
                Topics::Pattern(pattern) => known.patterns.extend(Regex::new(&format!("^(?:{pattern})$"))),
            }
            for site in lower(plan, id, policies, 0).sites {
                known.topics.extend(dead_letters(&site.on_error));
                known.sites.insert((site.agent_name.to_string(), site.operation));
            }
        }
        known.topics.extend(known.read.iter().cloned());
        known
    }

    /// True if some agent reads the topic.
    pub fn reads(&self, topic: &str) -> bool {
        self.read.contains(topic) || self.patterns.iter().any(|pattern| pattern.is_match(topic))
    }

    /// True if the app may have a topic of this name.
    pub fn has_topic(&self, topic: &str) -> bool {
        self.names_at_run_time || self.topics.contains(topic) || self.reads(topic)
    }

    /// Topics that the app names.
    pub fn topics(&self) -> &BTreeSet<String> {
        &self.topics
    }

    /// Operations of an agent, or of all.
    pub fn operations(&self, agent: Option<&str>) -> BTreeSet<String> {
        let of = self.sites.iter().filter(|(name, _)| agent.is_none_or(|agent| agent == name));
        of.map(|(_, operation)| operation.clone()).collect()
    }
}

fn has_selector(agent: &Agent) -> bool {
    let sends = agent.steps.iter().filter_map(|step| match &step.action {
        Action::TopicSend { output, .. } => Some(output.as_ref()),
        Action::Map(_) | Action::Filter(_) => None,
    });
    agent.outputs.iter().chain(sends).any(|output| matches!(output.topic, TopicChoice::Selector(_)))
}

/// Names by block: its own, and those of the init block that it starts with.
fn functions(plan: &Plan, names_of: NamesOf<'_>) -> Option<BTreeMap<String, BTreeSet<String>>> {
    let own: Vec<BTreeSet<String>> = plan.blocks.iter().map(names_of).collect::<Option<_>>()?;
    let with_init = plan.blocks.iter().zip(&own).map(|(block, names)| {
        let of_init = block.init.map(|init| &own[init.index()]);
        (block.name(), names.iter().chain(of_init.into_iter().flatten()).cloned().collect())
    });
    Some(with_init.collect())
}

fn dead_letters(policy: &OnError) -> Option<String> {
    match policy.last_resort() {
        OnError::DeadLetter { topic, .. } => topic.clone(),
        OnError::Skip | OnError::Halt | OnError::Retry { .. } => None,
    }
}
