//! Numbers of the worker's partitions.
//!
//! An event carries its topic by name. Everything that the worker keeps per partition (queued bytes, ledgers,
//! lanes, windows) is found by a small number instead, which is looked up once when the event arrives.
//!
//! ```text
//! orders/0 → 0   orders/1 → 1   clicks/0 → 2   (orders/0 leaves and comes back: still 0)
//! ```

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::event::message::{TopicName, TopicPartition};
use crate::guard::Watch;

/// The worker's partitions by number: small integers, so that no name is hashed for every event.
#[derive(Debug, Default)]
pub struct Slots {
    names: Vec<TopicPartition>,
    numbers: FxHashMap<TopicPartition, usize>,
    /// The number that was asked for last: events come in runs of one partition, so most look-ups end here.
    last: usize,
    /// Learns each new number, because the thread that reads the mark of the running event may not ask this
    /// one.
    watch: Option<Arc<Watch>>,
}

impl Slots {
    /// Makes slots that tell the watch what each number means, for the thread that reads its mark.
    pub fn watched(watch: Arc<Watch>) -> Slots {
        Slots { watch: Some(watch), ..Slots::default() }
    }

    /// The number of a partition; it stays the same for the worker's life. A name that was never seen gets the
    /// next free one.
    pub fn number(&mut self, topic: &TopicName, partition: i32) -> usize {
        if let Some(name) = self.names.get(self.last)
            && name.partition == partition
            // The pointers are equal for events of one consumer; the text decides where a name was made
            // elsewhere.
            && (std::rc::Rc::ptr_eq(&name.topic, topic) || name.topic == *topic)
        {
            return self.last;
        }
        let name = TopicPartition { topic: topic.clone(), partition };
        self.last = match self.numbers.get(&name) {
            Some(&number) => number,
            None => {
                if let Some(watch) = &self.watch {
                    watch.name_partition(topic, partition);
                }
                self.numbers.insert(name.clone(), self.names.len());
                self.names.push(name);
                self.names.len() - 1
            }
        };
        self.last
    }

    /// The partition with this number.
    ///
    /// # Panics
    ///
    /// If the number did not come from here.
    pub fn name(&self, number: usize) -> &TopicPartition {
        &self.names[number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_stable() {
        let mut slots = Slots::default();
        let (a, b): (TopicName, TopicName) = ("a".into(), "b".into());
        assert_eq!([slots.number(&a, 0), slots.number(&b, 0), slots.number(&a, 1)], [0, 1, 2]);
        assert_eq!(slots.number(&"a".into(), 0), 0);
        assert_eq!(slots.name(1), &TopicPartition::new("b", 0));
    }
}
