//! Names that events share.

use rustc_hash::FxHashSet;

use crate::event::message::TopicName;

/// Names of topics, each once. Most messages are of the same topic as the one before: that costs one comparison and no
/// hash.
pub(super) struct Names {
    known: FxHashSet<TopicName>,
    last: TopicName,
}

impl Default for Names {
    fn default() -> Names {
        Names { known: FxHashSet::default(), last: "".into() }
    }
}

impl Names {
    /// The name that many events share.
    pub(super) fn name(&mut self, topic: &str) -> TopicName {
        if *self.last != *topic {
            self.last = match self.known.get(topic) {
                Some(known) => known.clone(),
                None => {
                    let new: TopicName = topic.into();
                    self.known.insert(new.clone());
                    new
                }
            };
        }
        self.last.clone()
    }
}
