//! Watches the partitions of topics that tables depend on, while the worker runs.
//!
//! A table's state lies beside the partitions of its inputs. Where one of them gets other partitions, or is
//! deleted and created again with others, keys move to partitions that have no state of theirs. A start
//! refuses that, and so does a look at any later time.
//!
//! Three facts are enough to notice it early:
//!
//! | fact | noticed by |
//! |---|---|
//! | the count or identity of a topic changed | a look every `topics_look_every` |
//! | a partition is assigned that did not exist | [`Counts::have_outgrown`], before it starts |
//! | a key lies where the known count would not put it | [`Counts::is_misplaced`], for each event |

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use kaspr_ir::plan::{AgentId, Plan, Policies, TableId};
use rustc_hash::FxHashMap;

use crate::assignment::Reads;
use crate::broker::partitioner::Placing;
use crate::broker::{Admin, BrokerError, Seen};
use crate::check::{changelogs, topics};
use crate::config::{Config, NewTopics};
use crate::event::message::{Event, TopicName, TopicPartition};
use crate::tables::changelog;
use crate::tables::restore::used;

/// Topics that tables depend on, as they were at the last look. A part of the worker, made at its start.
/// Empty, and idle, where no agent uses a table.
pub struct Counts {
    plan: Rc<Plan>,
    app: String,
    policies: Policies,
    new_topics: NewTopics,
    /// Readers of tables that have a state for each partition: what they read, and the tables.
    readers: Vec<(Reads, BTreeSet<TableId>)>,
    /// Inputs of such tables, so far as they are known by name. Topics of patterns are added when their
    /// partitions come.
    inputs: BTreeSet<TopicName>,
    /// Changelogs of all tables that agents use, global ones too.
    changelogs: BTreeMap<TopicName, TableId>,
    /// Each topic as it was at the last look that found it.
    seen: FxHashMap<TopicName, Seen>,
    /// Changelogs that were missing at the last look.
    absent: BTreeSet<TopicName>,
    /// Per topic the partitioners that explain all keys since the last look.
    placing: FxHashMap<TopicName, Placing>,
    /// The time between two looks.
    every: Duration,
    /// The time of the next one, by the worker's clock; zero before the first.
    due: Duration,
}

impl Counts {
    /// Watches the inputs and changelogs of a plan's tables; nothing where no changelogs are kept. Asks no
    /// broker: the first look is due at once.
    pub fn new(plan: &Rc<Plan>, config: &Config) -> Counts {
        let kept = |agents: &[AgentId]| if config.keeps_changelogs { used(plan, agents) } else { BTreeSet::new() };
        let is_divided = |table: &TableId| !plan[*table].global;
        let readers = plan.readers.iter().map(|reader| {
            let tables: BTreeSet<TableId> = kept(&reader.agents).into_iter().filter(is_divided).collect();
            (Reads::of(&reader.topics), tables)
        });
        let readers: Vec<_> = readers.filter(|(_, tables)| !tables.is_empty()).collect();
        let named = readers.iter().filter_map(|(reads, _)| match reads {
            Reads::Names(names) => Some(names),
            Reads::Pattern(_) => None,
        });
        let inputs = named.flatten().map(|name| name.as_str().into()).collect();
        let tables = plan.readers.iter().flat_map(|reader| kept(&reader.agents));
        let changelogs = tables.map(|table| (changelog(&config.app, &plan[table].name).as_str().into(), table));
        Counts {
            new_topics: config.new_topics,
            changelogs: changelogs.collect(),
            plan: plan.clone(),
            app: config.app.clone(),
            policies: config.policies(plan),
            readers,
            inputs,
            seen: FxHashMap::default(),
            absent: BTreeSet::new(),
            placing: FxHashMap::default(),
            every: config.bounds.topics_look_every,
            due: Duration::ZERO,
        }
    }

    /// True if nothing depends on partitions: there is no table.
    pub fn is_idle(&self) -> bool {
        self.changelogs.is_empty()
    }

    /// The time of the next look.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// Puts the next look off to a period from now; until then each topic may ask for an earlier one, once.
    /// Called after each look.
    pub fn put_off(&mut self, now: Duration) {
        self.due = now + self.every;
        for name in &self.inputs {
            if let Some(seen) = self.seen.get(name) {
                self.placing.insert(name.clone(), Placing::new(seen.partitions));
            }
        }
    }

    /// True if the event's key lies in another partition than the topic's count at the last look gives it. A
    /// key may be placed by other means than Kafka's partitioner: so this is only a reason to look. It gives
    /// up its guess for the topic then, until the next period.
    pub fn is_misplaced(&mut self, event: &Event) -> bool {
        // An event without a key lies anywhere.
        let Some(key) = &event.key else { return false };
        let placing = self.placing.get_mut(&event.topic);
        placing.is_some_and(|placing| placing.contradicts(key, event.partition))
    }

    /// True if one of these partitions feeds a table and was not there at the last look. Also notes topics of
    /// patterns, which are not known by name before.
    pub fn have_outgrown(&mut self, names: &[TopicPartition]) -> bool {
        let mut outgrown = false;
        for TopicPartition { topic, partition } in names {
            if self.readers.iter().any(|(reads, _)| reads.reads(topic)) {
                self.inputs.insert(topic.clone());
                outgrown |= self.seen.get(topic).is_none_or(|seen| *partition >= seen.partitions);
            }
        }
        outgrown
    }

    /// Looks at all topics. Gives the message that a start would give, if one would not start any more.
    ///
    /// # Errors
    ///
    /// The errors of the questions. A topic that does not exist is no error here: it keeps what was seen of it.
    pub fn look(&mut self, admin: &mut dyn Admin) -> Result<Option<String>, BrokerError> {
        let names: Vec<TopicName> = self.inputs.iter().chain(self.changelogs.keys()).cloned().collect();
        let seen = admin.look(&names)?;
        let mut gone = None;
        for (name, seen) in names.into_iter().zip(seen) {
            if let Some(&table) = self.changelogs.get(&name)
                && self.is_gone(&name, seen.as_ref())
            {
                gone = Some(self.lost(&name, table));
            }
            if let Some(seen) = seen {
                self.seen.insert(name, seen);
            }
        }
        // The usual case ends here, with one question to the broker. Only a difference is worth the whole
        // check.
        if gone.is_some() || !self.is_uneven() {
            return Ok(gone);
        }
        // The words are those of a start, so that a person who restarts the worker reads the same.
        let reserved = topics::reserved(&self.plan, &self.app);
        let how = (false, self.new_topics);
        let mut found = topics::prepare(&self.plan, &self.policies, &reserved, admin, how)?;
        found = changelogs::prepare(&self.plan, &self.app, &found, admin, how)?;
        let faults = topics::faults(&found);
        Ok((!faults.is_empty()).then(|| faults.join("\nerror: ")))
    }

    /// True if the changelog of before is gone: it is another topic now, or there was none at two looks in a
    /// row. One look is not enough for a missing one: a broker that has just come up may not know it yet.
    fn is_gone(&mut self, name: &TopicName, now: Option<&Seen>) -> bool {
        let Some(before) = self.seen.get(name) else { return false };
        match now {
            Some(now) => {
                self.absent.remove(name);
                // Two empty identities tell nothing: the broker does not report them.
                now.identity != before.identity && !before.identity.is_empty() && !now.identity.is_empty()
            }
            None => !self.absent.insert(name.clone()),
        }
    }

    /// The message for a changelog that is gone, with the way to build its table again.
    fn lost(&self, name: &TopicName, table: TableId) -> String {
        let table = &self.plan[table];
        format!(
            "the topic \"{name}\" (the changelog of table \"{}\") was deleted or recreated while the app ran, and what it held is gone; stop all workers, and reset the group's offsets of the table's inputs to build it from them again\n  --> {}:{}",
            table.name, self.plan[table.place.file], table.place.line
        )
    }

    /// True if topics of a table have other numbers of partitions than its changelog. Counts are compared as
    /// they were seen; a topic that was never seen is left out.
    fn is_uneven(&self) -> bool {
        self.changelogs.iter().filter(|(_, table)| !self.plan[**table].global).any(|(changelog, table)| {
            let readers = self.readers.iter().filter(|(_, tables)| tables.contains(table));
            let readers: Vec<_> = readers.map(|(reads, _)| reads).collect();
            let inputs = self.inputs.iter().filter(|name| readers.iter().any(|reads| reads.reads(name)));
            let counts = inputs.chain([changelog]).filter_map(|name| self.seen.get(name)).map(|seen| seen.partitions);
            counts.collect::<BTreeSet<i32>>().len() > 1
        })
    }
}
