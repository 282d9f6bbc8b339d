//! A consumer group: members, their partitions, committed offsets.
//!
//! Assignment is cooperative: a partition stays with its member while that gives every member a fair share;
//! one that moves is first given up by its owner.
//!
//! ```text
//! rebalance: targets anew, generation + 1
//!   member with more than its target ─▶ Step::GiveUp ─▶ release: generation + 1
//!   member with less ─▶ Step::Take, of what no other member still has
//! ```
//!
//! A member learns of a rebalance when it polls. There are no sessions or heartbeats: a member is in the group
//! until it leaves or is expelled ([`sim`](super::sim)).

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use crate::broker::log::topic::TransactionId;
use crate::broker::{Committed, GroupMetadata, OffsetCommit, Subscription};
use crate::event::message::{TopicName, TopicPartition};

/// A member: what it reads, what it should have, and what it has.
#[derive(Debug, Default)]
struct Member {
    topics: BTreeSet<TopicName>,
    /// Matched against whole names, as [`Subscription::Pattern`] promises.
    patterns: Vec<Regex>,
    /// The partitions that it should have.
    target: BTreeSet<TopicPartition>,
    /// The partitions that the group has given it.
    owned: BTreeSet<TopicPartition>,
}

impl Member {
    fn reads(&self, topic: &TopicName) -> bool {
        self.topics.contains(topic) || self.patterns.iter().any(|pattern| pattern.is_match(topic))
    }
}

/// A group.
///
/// Made by the first member or the first commit of its name; lives as long as the log.
#[derive(Debug, Default)]
pub struct Group {
    members: BTreeMap<String, Member>,
    /// Raised at every rebalance and release, so that a commit under an old generation can be refused.
    generation: i32,
    committed: BTreeMap<TopicPartition, Committed>,
    /// Offsets in transactions that are open.
    pending: BTreeMap<TransactionId, BTreeMap<TopicPartition, Committed>>,
}

/// The next step of a member.
///
/// The connector hands it on as a [`crate::broker::Change`].
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The group has given these to the member: they are its own from this moment.
    Take(Vec<TopicPartition>),
    /// The member has these until it releases them; asked again, the group says the same again.
    GiveUp(Vec<TopicPartition>),
}

impl Group {
    /// Adds a member, or changes what it reads.
    ///
    /// The caller divides the partitions afterwards. An error: a pattern is no regular expression.
    pub fn join(&mut self, name: &str, subscriptions: &[Subscription]) -> Result<(), regex::Error> {
        let member = self.members.entry(name.to_owned()).or_default();
        for subscription in subscriptions {
            match subscription {
                Subscription::Topic(topic) => {
                    member.topics.insert(topic.clone());
                }
                // Anchored, since a pattern is for whole names, and in a group: both ends of `a|b` are anchored then.
                Subscription::Pattern(pattern) => member.patterns.push(Regex::new(&format!("^(?:{pattern})$"))?),
            }
        }
        Ok(())
    }

    /// Removes a member, which may have said nothing.
    ///
    /// Its partitions are free at once; the caller divides them afterwards.
    pub fn leave(&mut self, name: &str) {
        self.members.remove(name);
    }

    /// Divides the partitions of `topics` again.
    ///
    /// Every partition that some member reads gets a target, and members have equal shares as far as they read the
    /// same topics. Nothing moves here: members follow step by step.
    pub fn rebalance(&mut self, topics: &[(TopicName, i32)]) {
        self.generation += 1;
        let partitions = topics
            .iter()
            .flat_map(|(topic, count)| (0..*count).map(|partition| TopicPartition::new(topic.clone(), partition)));
        let all: Vec<_> = partitions.collect();
        for member in self.members.values_mut() {
            member.target.clear();
        }
        // Members whose topics do not exist yet must not make the shares of the others smaller.
        let readers = self.members.values().filter(|member| all.iter().any(|p| member.reads(&p.topic))).count();
        let wanted = all.iter().filter(|p| self.members.values().any(|member| member.reads(&p.topic))).count();
        // Rounded up: with 3 partitions for 2 members an owner keeps 2.
        let share = wanted.div_ceil(readers.max(1));
        for partition in &all {
            if let Some(name) = self.choose(partition, share) {
                self.members.get_mut(&name).expect("it was just chosen").target.insert(partition.clone());
            }
        }
    }

    /// Chooses its owner, while that has no more than its share; else the reader with the fewest partitions.
    ///
    /// Partitions are given out in order, so the same members and topics always give the same division.
    fn choose(&self, partition: &TopicPartition, share: usize) -> Option<String> {
        let reading = || self.members.iter().filter(|(_, member)| member.reads(&partition.topic));
        // A partition that stays costs no revocation and no restoration of its tables.
        let owner = reading().find(|(_, member)| member.owned.contains(partition) && member.target.len() < share);
        let chosen = owner.or_else(|| reading().min_by_key(|(_, member)| member.target.len()));
        chosen.map(|(name, _)| name.clone())
    }

    /// Gives a member its next step: first it gives partitions up, then it takes those that no other member
    /// still has.
    ///
    /// `None`: the member has what it should have, or what it lacks is still another's. Asking takes: partitions of a
    /// [`Step::Take`] are the member's from here on.
    pub fn step(&mut self, name: &str) -> Option<Step> {
        let member = self.members.get(name)?;
        let over: Vec<_> = member.owned.difference(&member.target).cloned().collect();
        // As Kafka's cooperative members do it: what must move is freed before anything is taken.
        if !over.is_empty() {
            return Some(Step::GiveUp(over));
        }
        let free = |partition: &&TopicPartition| !self.members.values().any(|other| other.owned.contains(*partition));
        let take: Vec<_> = member.target.difference(&member.owned).filter(free).cloned().collect();
        if take.is_empty() {
            return None;
        }
        self.members.get_mut(name)?.owned.extend(take.iter().cloned());
        Some(Step::Take(take))
    }

    /// Takes partitions that a member has given up.
    ///
    /// A name that is no member is passed over: it has left, and its partitions with it.
    pub fn release(&mut self, name: &str, partitions: &[TopicPartition]) {
        if let Some(member) = self.members.get_mut(name) {
            for partition in partitions {
                member.owned.remove(partition);
            }
            // The members that get them join once more.
            self.generation += 1;
        }
    }

    /// The generation, where the member is one.
    ///
    /// `None`: the member has left, or was expelled.
    pub fn generation(&self, name: &str) -> Option<i32> {
        self.members.contains_key(name).then_some(self.generation)
    }

    /// The committed offset of a partition.
    pub fn committed(&self, partition: &TopicPartition) -> Option<Committed> {
        self.committed.get(partition).cloned()
    }

    /// True if the caller may commit: a member of this generation. As in Kafka, a caller that names neither
    /// member nor generation is not checked.
    ///
    /// The simulator relies on the gap, as a fault that a worker must not fall into.
    pub fn admits(&self, asking: &GroupMetadata) -> bool {
        let nameless = asking.member.is_empty() && asking.generation < 1;
        nameless || self.generation(&asking.member) == Some(asking.generation)
    }

    /// Commits offsets.
    ///
    /// They take the place of earlier ones, even of greater ones: the broker does not compare.
    pub fn commit(&mut self, offsets: &[OffsetCommit]) {
        for offset in offsets {
            self.committed.insert(offset.partition.clone(), offset.committed.clone());
        }
    }

    /// Keeps offsets for the end of their transaction; a later one of a partition takes the place of
    /// an earlier one.
    ///
    /// Until then they hide what is committed for their partitions ([`Group::is_stable`]).
    pub fn stage(&mut self, transaction: TransactionId, offsets: &[OffsetCommit]) {
        let pending = self.pending.entry(transaction).or_default();
        pending.extend(offsets.iter().map(|offset| (offset.partition.clone(), offset.committed.clone())));
    }

    /// A transaction ends; gives the offsets that it commits.
    pub fn decide(&mut self, transaction: TransactionId, commits: bool) -> Vec<OffsetCommit> {
        let pending = self.pending.remove(&transaction).filter(|_| commits).unwrap_or_default();
        let offsets: Vec<_> =
            pending.into_iter().map(|(partition, committed)| OffsetCommit { partition, committed }).collect();
        self.commit(&offsets);
        offsets
    }

    /// True if no open transaction may change what is committed for a partition.
    ///
    /// Kafka does not answer a question for *stable* offsets (KIP-447) before that; the simulated consumer's
    /// question fails until then, and is asked again.
    pub fn is_stable(&self, partition: &TopicPartition) -> bool {
        !self.pending.values().any(|offsets| offsets.contains_key(partition))
    }
}
