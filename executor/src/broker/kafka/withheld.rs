//! Partitions that the group gives to a member and that the worker never sees: the one whose owner leads the app, and
//! those of topics that the member does not read.
//!
//! The client is never assigned one, so it fetches nothing of it, and no offset of it is committed.
//!
//! A static member that comes back with another subscription gets its last partitions again, and no rebalance begins
//! (KAFKA-12759): it holds topics that it has dropped, and new ones have no owner. What is withheld shows it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use regex::Regex;

use crate::broker::Subscription;

type Partition = (String, i32);

/// The partition whose owner leads, of a topic that is made for nothing else.
pub const LEADS: i32 = 0;

/// The withheld partitions of a member, whichever client it has at the moment.
#[derive(Debug, Default)]
pub struct Withheld {
    /// The topic whose owner leads, where there is one.
    election: OnceLock<String>,
    /// True while the member owns that topic's partition.
    leads: Arc<AtomicBool>,
    /// Topics that the worker reads, once it has subscribed.
    reads: OnceLock<Reads>,
    /// Partitions that the member owns and does not read.
    unread: Mutex<BTreeSet<Partition>>,
}

/// The topics of a subscription.
#[derive(Debug, Default)]
struct Reads {
    names: BTreeSet<String>,
    patterns: Vec<Regex>,
}

impl Reads {
    /// A pattern that cannot be read matches nothing; the plan's check has refused it before.
    fn of(topics: &[Subscription]) -> Reads {
        let mut reads = Reads::default();
        for topic in topics {
            match topic {
                Subscription::Topic(name) => drop(reads.names.insert(name.to_string())),
                Subscription::Pattern(pattern) => reads.patterns.extend(Regex::new(&format!("^(?:{pattern})$"))),
            }
        }
        reads
    }

    fn has(&self, topic: &str) -> bool {
        self.names.contains(topic) || self.patterns.iter().any(|pattern| pattern.is_match(topic))
    }
}

impl Withheld {
    /// The topic whose owner leads, named before the member subscribes. The answer is true while it leads.
    pub fn elect(&self, topic: &str) -> Arc<AtomicBool> {
        // A member has one such topic: a second one would not count.
        let _ = self.election.set(topic.to_owned());
        self.leads.clone()
    }

    /// The topic whose owner leads.
    pub fn election(&self) -> Option<&str> {
        self.election.get().map(String::as_str)
    }

    /// The topics that the worker reads, told before the member joins.
    pub fn subscribe(&self, topics: &[Subscription]) {
        // A worker subscribes once.
        let _ = self.reads.set(Reads::of(topics));
    }

    fn unread(&self) -> MutexGuard<'_, BTreeSet<Partition>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_read(&self, topic: &str) -> bool {
        self.reads.get().is_none_or(|reads| reads.has(topic))
    }

    /// Notes partitions that the group has assigned; gives those that the worker is to see.
    pub fn comes(&self, mut names: Vec<Partition>) -> Vec<Partition> {
        names.retain(|(topic, partition)| {
            if self.election() == Some(topic) {
                self.leads.fetch_or(*partition == LEADS, Ordering::Relaxed);
                return false;
            }
            let is_read = self.is_read(topic);
            if !is_read {
                self.unread().insert((topic.clone(), *partition));
            }
            is_read
        });
        names
    }

    /// Notes partitions that the group takes away; gives those that the worker has seen.
    ///
    /// Called before the group is told that they are given up: there are never two leaders.
    pub fn goes(&self, mut names: Vec<Partition>) -> Vec<Partition> {
        names.retain(|name| {
            if self.election() == Some(&name.0) {
                self.leads.fetch_and(name.1 != LEADS, Ordering::Relaxed);
                return false;
            }
            self.unread().remove(name);
            self.is_read(&name.0)
        });
        names
    }

    /// The member has lost all that it had.
    pub fn clear(&self) {
        self.leads.store(false, Ordering::Relaxed);
        self.unread().clear();
    }

    /// Partitions that the member owns and does not read.
    pub fn strays(&self) -> BTreeSet<Partition> {
        self.unread().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[(&str, i32)]) -> Vec<Partition> {
        names.iter().map(|(topic, partition)| ((*topic).to_owned(), *partition)).collect()
    }

    #[test]
    fn the_worker_sees_what_it_reads_and_nothing_else() {
        let topics = [Subscription::Topic("orders".into()), Subscription::Pattern("eu-.*".to_owned())];
        let withheld = Withheld::default();
        let leads = withheld.elect("eu-leader");
        withheld.subscribe(&topics);
        let all = names(&[("eu-leader", 0), ("eu-west", 1), ("orders", 2), ("not-eu-west", 0), ("prices", 3)]);
        let seen = names(&[("eu-west", 1), ("orders", 2)]);
        assert_eq!(withheld.comes(all.clone()), seen);
        assert!(leads.load(Ordering::Relaxed), "though the pattern matches its topic");
        assert_eq!(withheld.strays(), names(&[("not-eu-west", 0), ("prices", 3)]).into_iter().collect());
        assert_eq!(withheld.goes(names(&[("prices", 3), ("orders", 2)])), names(&[("orders", 2)]));
        assert_eq!(withheld.strays(), names(&[("not-eu-west", 0)]).into_iter().collect());
        assert_eq!(withheld.goes(all), seen);
        assert!(!leads.load(Ordering::Relaxed) && withheld.strays().is_empty());
    }

    #[test]
    fn only_the_first_partition_of_its_topic_leads() {
        let withheld = Withheld::default();
        let leads = withheld.elect("leader");
        assert!(withheld.comes(names(&[("leader", 1)])).is_empty());
        assert!(!leads.load(Ordering::Relaxed));
        withheld.comes(names(&[("leader", 0)]));
        withheld.goes(names(&[("leader", 1)]));
        assert!(leads.load(Ordering::Relaxed));
        withheld.clear();
        assert!(!leads.load(Ordering::Relaxed));
    }
}
