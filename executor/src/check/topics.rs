//! The topics that a plan names: made where the spec declares them, looked for before the start.
//!
//! Nothing is changed that exists: where a topic differs from its declaration, the log says so.
//!
//! | the topic | declared | a run | `kaspr-exec check` |
//! |---|---|---|---|
//! | exists | - | uses it, if the user may | the same |
//! | is missing | yes | creates it | says that a run creates it, or why it could not |
//! | is missing | no | refuses to start | a fault |

use std::collections::BTreeMap;

use kaspr_ir::plan::{Action, AgentId, OnError, Place, Plan, Policies, Topic, TopicChoice, TopicOutput, Topics};
use tracing::{info, warn};

use super::leader;
use crate::assignment::Reads;
use crate::broker::reserved::Reserved;
use crate::broker::{Access, Admin, BrokerError, NewTopic};
use crate::config::NewTopics;
use crate::tables::changelog;

/// Topics that an app keeps for itself: its changelogs, and the topics that the product writes beside them. A
/// record of user code there would damage tables that are restored from them. Some of the names are kept for
/// uses to come, so that no app can take them now.
pub fn reserved(plan: &Plan, app: &str) -> Reserved {
    let tables = plan.tables.iter().map(|table| table.name.as_str());
    let of_tables = tables.flat_map(|table| [changelog(app, table), format!("{app}-{table}-closed")]);
    let of_app = ["plans", "dead-letter-states"].map(|kept| format!("{app}-{kept}"));
    Reserved::new(of_tables.chain(of_app).chain([leader::topic(app)]))
}

/// A topic that the plan names, and where. A topic that several places name is one entry, with all their
/// uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The topic.
    pub name: String,
    /// The first place that names it, in the user's words: `the input of agent "a"`.
    pub by: String,
    /// `file:line`.
    pub at: String,
    /// The place that could declare it: the spec, or `onError`.
    pub declares: &'static str,
    /// The plan's uses of it.
    pub uses: Access,
}

/// The words for whatever declares topics other than those of dead letters.
pub(super) const SPEC: &str = "the spec";

/// Every topic that the plan names, once, in order of names. Patterns name no topic (see [`matching`]); a
/// selector's topics are only known when an event comes.
pub fn named(plan: &Plan, policies: &Policies) -> Vec<Named> {
    let mut finder = Finder { plan, named: BTreeMap::new() };
    for reader in &plan.readers {
        let agent = &plan[reader.agents[0]];
        if let Topics::Names(names) = &reader.topics {
            // Agents of a reader share its input, and the first of them gives the reader its name.
            let by = format!("the input of agent \"{}\"", agent.name);
            names.iter().for_each(|name| finder.add(name, by.clone(), SPEC, agent.place, Access::READ));
        }
    }
    for (id, agent) in (0..).map(AgentId).zip(&plan.agents) {
        // Policies are resolved here: the topic of dead letters may stand in the step, its agent, or a
        // setting.
        for (step, policy) in agent.steps.iter().zip(policies.of_steps(id)) {
            finder.dead_letters(&policy.on_error, &agent.name, step.place);
        }
        finder.dead_letters(&policies.of_agent(id).on_error, &agent.name, agent.place);
        for step in &agent.steps {
            if let Action::TopicSend { output, .. } = &step.action {
                finder.output(output, &agent.name);
            }
        }
        agent.outputs.iter().for_each(|output| finder.output(output, &agent.name));
    }
    finder.named.into_values().collect()
}

/// Collects topics by name: the first place that names one is reported, and the uses of all add up.
struct Finder<'a> {
    plan: &'a Plan,
    named: BTreeMap<String, Named>,
}

impl Finder<'_> {
    /// Notes one use of a topic.
    fn add(&mut self, name: &str, by: String, declares: &'static str, place: Place, uses: Access) {
        let at = format!("{}:{}", self.plan.files[place.file.index()], place.line);
        let named = self.named.entry(name.to_owned());
        let named = named.or_insert(Named { name: name.to_owned(), by, at, declares, uses: Access::default() });
        named.uses.read |= uses.read;
        named.uses.write |= uses.write;
    }

    /// Notes an output's topic, if it is a fixed one.
    fn output(&mut self, output: &TopicOutput, agent: &str) {
        if let TopicChoice::Name(name) = &output.topic {
            self.add(name, format!("an output of agent \"{agent}\""), SPEC, output.place, Access::WRITE);
        }
    }

    /// Notes the topic that a policy sends dead letters to, at first or in the end.
    fn dead_letters(&mut self, policy: &OnError, agent: &str, place: Place) {
        if let OnError::DeadLetter { topic: Some(topic), .. } = policy.last_resort() {
            let by = format!("the dead letters of agent \"{agent}\"");
            self.add(topic, by, "onError", place, Access::WRITE);
        }
    }
}

/// The creation of each topic, by specs and settings. That of a topic which only a setting names stands in
/// the policies. The spec's own declaration goes first; what `onError` declares is added to it.
fn declared(plan: &Plan, policies: &Policies) -> BTreeMap<String, Topic> {
    let mut topics: BTreeMap<_, _> = plan.topics.iter().map(|topic| (topic.name.clone(), topic.clone())).collect();
    for policy in policies.all() {
        if let OnError::DeadLetter { topic: Some(name), creation } = policy.on_error.last_resort() {
            topics.entry(name.clone()).or_insert_with(|| Topic::named(name)).add(creation);
        }
    }
    topics
}

/// The finding about a topic. `created` belongs to a run, `is_made_by_run` to a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The topic.
    pub named: Named,
    /// Its partitions, or why it cannot be used. The text completes "the topic … ".
    pub partitions: Result<i32, String>,
    /// True if it was created just now.
    pub created: bool,
    /// True if it is missing, and a run creates it.
    pub is_made_by_run: bool,
}

/// Looks for every topic; `make` creates those that are declared and missing, where `new` allows it. Where a topic differs from its
/// declaration, that is logged and nothing is changed. Those that are `reserved` must not be written.
///
/// # Errors
///
/// Those that pass (a broker that does not answer), so that the caller can ask again. Faults of single topics
/// are findings.
pub fn prepare(
    plan: &Plan,
    policies: &Policies,
    reserved: &Reserved,
    admin: &mut dyn Admin,
    (make, new): (bool, NewTopics),
) -> Result<Vec<Found>, BrokerError> {
    let mut all = Vec::new();
    let topics = declared(plan, policies);
    for named in named(plan, policies) {
        // Even a topic that does not exist yet must not be created under such a name.
        if let Some(why) = reserved.refuses(&named.name).filter(|_| named.uses.write) {
            let partitions = Err(format!("cannot be written: {why}"));
            all.push(Found { named, partitions, created: false, is_made_by_run: false });
            continue;
        }
        let declared = topics.get(&named.name);
        let creates = declared.filter(|topic| topic.declare);
        let is_forbidden = creates.is_some() && !new.may_create;
        let creates = creates.filter(|_| new.may_create);
        let (mut created, mut is_made_by_run) = (false, false);
        let mut partitions = admin.partitions(&named.name);
        // Asked again after the creation: the broker's default of partitions is only known now.
        if let (Ok(None), Some(topic), true) = (&partitions, creates, make) {
            partitions = match admin.create(&new_topic(topic, new)) {
                Ok(()) => admin.partitions(&named.name),
                Err(error) => Err(error),
            };
            created = true;
        }
        let partitions = match partitions {
            Ok(Some(partitions)) => {
                match (created, declared) {
                    (true, _) => info!(topic = %named.name, partitions, "created the topic"),
                    // Those that exist are compared at the look before anything is made.
                    (false, Some(topic)) if !make => compare(topic, partitions, &named, admin)?,
                    (false, _) => {}
                }
                // A topic that exists, and cannot be used, is a fault like one that is missing.
                denied(&named, admin)?.map_or(Ok(partitions), Err)
            }
            Ok(None) if let Some(topic) = creates => {
                let objection = admin.objection(&new_topic(topic, new))?;
                is_made_by_run = objection.is_none();
                Err(not_yet(objection))
            }
            Ok(None) if is_forbidden => Err(FORBIDDEN.to_owned()),
            Ok(None) => Err(format!("does not exist; create it, or let {} say \"declare: true\"", named.declares)),
            Err(BrokerError::Retriable(why)) => return Err(BrokerError::Retriable(why)),
            // Brokers hide what a user may not see, so a denied right explains the error better than its own
            // words.
            Err(error) => Err(denied(&named, admin)?.unwrap_or_else(|| format!("cannot be used: {error}"))),
        };
        all.push(Found { named, partitions, created, is_made_by_run });
    }
    Ok(all)
}

/// Looks at topics that match patterns of inputs now, other than those that were found. Only for show: topics
/// that come later match too, and are met while the app runs. `found` are the findings of [`prepare`].
pub fn matching(plan: &Plan, found: &[Found], admin: &mut dyn Admin) -> Result<Vec<Found>, BrokerError> {
    let mut all: Vec<Found> = Vec::new();
    for reader in plan.readers.iter().filter(|reader| matches!(reader.topics, Topics::Pattern(_))) {
        let (reads, agent) = (Reads::of(&reader.topics), &plan[reader.agents[0]]);
        let at = format!("{}:{}", plan[agent.place.file], agent.place.line);
        for name in admin.topics()?.into_iter().filter(|name| reads.reads(name)) {
            if found.iter().chain(&all).any(|found| found.named.name == name && found.named.uses.read) {
                continue;
            }
            let by = format!("it matches the input of agent \"{}\"", agent.name);
            let named = Named { name, by, at: at.clone(), declares: SPEC, uses: Access::READ };
            let partitions = match admin.partitions(&named.name)? {
                Some(partitions) => denied(&named, admin)?.map_or(Ok(partitions), Err),
                // It was deleted just now.
                None => continue,
            };
            all.push(Found { named, partitions, created: false, is_made_by_run: false });
        }
    }
    Ok(all)
}

/// Reports that the user may not use a topic as the plan does.
///
/// `None`: it may, or the broker does not say. The text names the rights that are missing, ready for
/// `kafka-acls`.
pub(super) fn denied(named: &Named, admin: &mut dyn Admin) -> Result<Option<String>, BrokerError> {
    let Named { name, uses, .. } = named;
    let lacks = uses.lacks(admin.access(name)?, name);
    let doing = match (uses.read, uses.write) {
        (true, true) => "read and written",
        (true, false) => "read",
        _ => "written",
    };
    Ok((!lacks.is_empty()).then(|| format!("must be {doing}: {}", admin.user().lacks(&lacks))))
}

/// The text on a topic that a run creates, if there is no objection.
///
/// `objection` is the broker's answer to a creation that was only asked about.
pub(super) fn not_yet(objection: Option<String>) -> String {
    match objection {
        None => "does not exist yet; a run creates it".to_owned(),
        Some(why) => format!("does not exist yet, and cannot be created: {why}"),
    }
}

/// The text on a topic that is missing and declared, where none may be created.
pub(super) const FORBIDDEN: &str =
    "does not exist, and topicAllowDeclare (TOPIC_ALLOW_DECLARE) is false: create it, or allow the app to create it";

/// The creation as Kafka takes it; settings that are neither declared nor set are left to the broker.
fn new_topic(topic: &Topic, new: NewTopics) -> NewTopic {
    NewTopic {
        name: topic.name.clone(),
        partitions: topic.partitions.or(new.partitions),
        replicas: topic.replicas.or(new.replicas),
        config: topic.config.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

/// Reports where a topic is not as it is declared. A run never alters a topic: its other users may depend on
/// what it is.
fn compare(topic: &Topic, partitions: i32, named: &Named, admin: &mut dyn Admin) -> Result<(), BrokerError> {
    let (name, at) = (&topic.name, &named.at);
    // Compared as wide numbers: a declared count may not fit into Kafka's.
    if let Some(declared) = topic.partitions.filter(|&declared| i64::from(declared) != i64::from(partitions)) {
        warn!(
            topic = name,
            found = partitions,
            declared,
            at,
            "the topic has another number of partitions than its spec says: left as it is"
        );
    }
    for (setting, declared) in &topic.config {
        match admin.setting(name, setting)? {
            Some(found) if found != *declared => {
                warn!(topic = name, setting, found, declared, at, "the topic differs from its spec: left as it is");
            }
            _ => {}
        }
    }
    Ok(())
}

/// The faults among the findings that a run does not mend by making a topic.
pub fn lasting_faults(found: &[Found]) -> Vec<String> {
    let lasting: Vec<Found> = found.iter().filter(|found| !found.is_made_by_run).cloned().collect();
    faults(&lasting)
}

/// The faults among the findings, one line each, with their places.
///
/// ```text
/// the topic "orders" (the input of agent "a") does not exist; create it, or let the spec say "declare: true"
///   --> agent.yaml:7
/// ```
pub fn faults(found: &[Found]) -> Vec<String> {
    let fault = |found: &Found| {
        let why = found.partitions.as_ref().err()?;
        let Named { name, by, at, .. } = &found.named;
        Some(format!("the topic \"{name}\" ({by}) {why}\n  --> {at}"))
    };
    found.iter().filter_map(fault).collect()
}
