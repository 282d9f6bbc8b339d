//! What is known of the topics that are written: whether they exist, their partitions and limits.
//!
//! What one record can do wrong is found here, when it is staged, as its event's failure; a
//! transaction would find it after ten seconds and fail as a whole.

use std::cell::RefCell;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::broker::partitioner::partition_for;
use crate::broker::{Admin, BrokerError, TopicInfo, record_size};
use crate::code::Fault;
use crate::event::message::{Header, TopicName};

struct Known {
    info: TopicInfo,
    /// The number that the next record without a key gets: partitions take turns.
    turn: u32,
}

/// Topics by name, asked of the broker once.
#[derive(Clone)]
pub struct Directory {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    admin: Box<dyn Admin>,
    topics: Vec<Known>,
    numbers: FxHashMap<TopicName, usize>,
    /// The topic that was asked for last: mostly it is the same again, by the same `Rc`.
    last: Option<(TopicName, usize)>,
}

impl Directory {
    /// A directory that asks `admin`.
    pub fn new(admin: Box<dyn Admin>) -> Directory {
        Directory {
            inner: Rc::new(RefCell::new(Inner {
                admin,
                topics: Vec::new(),
                numbers: FxHashMap::default(),
                last: None,
            })),
        }
    }

    /// The partition for a record: the one chosen by the user, else the one of its key.
    pub fn place(&self, topic: &TopicName, chosen: Option<i32>, key: Option<&[u8]>) -> Result<i32, Fault> {
        let mut inner = self.inner.borrow_mut();
        let known = inner.known(topic)?;
        let partitions = known.info.partitions;
        match chosen {
            Some(partition) if (0..partitions).contains(&partition) => Ok(partition),
            Some(partition) => Err(Fault::new(
                "Partition",
                format!("the topic \"{topic}\" has no partition {partition}: it has {partitions}, counted from 0"),
            )),
            None => {
                if key.is_none() {
                    known.turn = known.turn.wrapping_add(1);
                }
                Ok(partition_for(key, partitions, known.turn.wrapping_sub(1)))
            }
        }
    }

    /// Refuses a record that is larger than its topic takes.
    pub fn check_size(
        &self,
        topic: &TopicName,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<(), Fault> {
        let mut inner = self.inner.borrow_mut();
        let limit = inner.known(topic)?.info.message_bytes_max;
        let size = record_size(key, value, headers);
        if size <= limit {
            return Ok(());
        }
        Err(Fault::new(
            "Size",
            format!("a record of {size} bytes is larger than the topic \"{topic}\" takes ({limit})"),
        ))
    }

    /// Asks anew of every topic: one is no longer what it was.
    pub fn forget(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.numbers.clear();
        inner.topics.clear();
        inner.last = None;
    }

    /// Partitions of a topic as they are now; `None` where it does not exist.
    pub fn partitions(&self, topic: &str) -> Result<Option<i32>, BrokerError> {
        self.inner.borrow_mut().admin.partitions(topic)
    }

    /// The broker's administration, for what concerns topics as a whole.
    pub fn admin<R>(&self, with: impl FnOnce(&mut dyn Admin) -> R) -> R {
        with(self.inner.borrow_mut().admin.as_mut())
    }
}

impl Inner {
    fn known(&mut self, topic: &TopicName) -> Result<&mut Known, Fault> {
        let number = match &self.last {
            Some((last, number)) if Rc::ptr_eq(last, topic) => *number,
            _ => self.number(topic)?,
        };
        Ok(&mut self.topics[number])
    }

    fn number(&mut self, topic: &TopicName) -> Result<usize, Fault> {
        if !self.numbers.contains_key(topic) {
            let info = match self.admin.topic(topic) {
                Ok(Some(info)) => info,
                Ok(None) => {
                    return Err(Fault::new("Topic", format!("the topic \"{topic}\" does not exist")));
                }
                Err(BrokerError::Retriable(why)) => return Err(Fault::passing(why)),
                Err(error) => return Err(Fault::new("Topic", format!("the topic \"{topic}\": {error}"))),
            };
            match self.admin.access(topic) {
                Ok(access) if access.write => {}
                Err(BrokerError::Retriable(why)) => return Err(Fault::passing(why)),
                _ => {
                    let why = format!("no permission to write the topic \"{topic}\" (WRITE)");
                    return Err(Fault::new("Topic", why));
                }
            }
            self.numbers.insert(topic.clone(), self.topics.len());
            self.topics.push(Known { info, turn: 0 });
        }
        let number = self.numbers[topic];
        self.last = Some((topic.clone(), number));
        Ok(number)
    }
}
