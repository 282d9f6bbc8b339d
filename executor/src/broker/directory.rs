//! The directory of the topics that are written: whether they exist, their partitions and limits.
//!
//! A record that the broker would refuse is found here, when it is staged, as its event's failure; in a
//! transaction it would be found after ten seconds, and the transaction would fail as a whole.
//!
//! A topic is asked for once and then remembered until it is known to have changed. What cannot be written is
//! remembered for a second ([`MISSING_FOR`]), so that a flood of events with the name of a missing topic costs one
//! question a second and not one each. Three kinds of faults come from here, each an event's failure and none the
//! worker's: `Topic` (missing, reserved, no permission), `Partition` (not one of the topic's) and `Size`. A fault
//! with [`Fault::passes`] means that no broker answered: its event waits and runs again.
//!
//! ```text
//! stage ──place(topic, partition?, key)──▶ Directory ──not known──▶ Admin::topic, Admin::access
//!       ──check_size(topic, record)─────▶    │  └── known: no question
//!                                            └── worker: refresh every 10 s, forget after a refusal
//! ```

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::broker::partitioner::partition_for;
use crate::broker::reserved::Reserved;
use crate::broker::{Admin, BrokerError, TopicInfo, record_size};
use crate::clock::Clock;
use crate::event::fault::Fault;
use crate::event::message::{Header, TopicName};

/// The time for which a topic that cannot be written stays so without asking the broker again.
const MISSING_FOR: Duration = Duration::from_secs(1);
/// Topics that cannot be written which are remembered at once: payloads may name any number of them.
const MISSING_MAX: usize = 1000;

/// Made when the topic is first asked for; never changed but for its turn.
struct Known {
    info: TopicInfo,
    /// The number that the next record without a key gets: partitions take turns.
    turn: u32,
}

/// Topics by name, asked of the broker once.
///
/// A handle: the stages, user code and the worker hold clones of one directory.
#[derive(Clone)]
pub struct Directory {
    inner: Rc<RefCell<Inner>>,
}

/// State that all handles share. Every number in `numbers` and `last` is an index into `topics`, which only grows until
/// [`Directory::forget`] empties all three.
struct Inner {
    admin: Box<dyn Admin>,
    topics: Vec<Known>,
    numbers: FxHashMap<TopicName, usize>,
    /// The topic that was asked for last: mostly it is the same again, by the same `Rc`.
    last: Option<(TopicName, usize)>,
    /// Topics that cannot be written, since when, and why.
    missing: FxHashMap<TopicName, (Duration, Fault)>,
    reserved: Reserved,
    /// `None`: no worker has begun, and nothing is remembered of what is missing.
    clock: Option<Rc<dyn Clock>>,
    /// Time that the broker's answers took since the last call of [`Directory::take_waited`].
    waited: Duration,
}

impl Directory {
    /// A directory that asks `admin`.
    ///
    /// Until [`Directory::begin`] it has no clock: it then asks about a missing topic every time.
    pub fn new(admin: Box<dyn Admin>) -> Directory {
        Directory {
            inner: Rc::new(RefCell::new(Inner {
                admin,
                topics: Vec::new(),
                numbers: FxHashMap::default(),
                last: None,
                missing: FxHashMap::default(),
                reserved: Reserved::default(),
                clock: None,
                waited: Duration::ZERO,
            })),
        }
    }

    /// From here on a worker writes: user code may not send to topics that are `reserved`.
    pub fn begin(&self, reserved: Reserved, clock: Rc<dyn Clock>) {
        let mut inner = self.inner.borrow_mut();
        (inner.reserved, inner.clock) = (reserved, Some(clock));
    }

    /// The partition for a record: the one chosen by the user, else the one of its key.
    ///
    /// Fails with the kind `Topic` or `Partition`. A record without a key takes the next partition in turn; one with a
    /// key or a partition of its own takes no turn.
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
                // The turn was taken above; with a key the number is not looked at.
                Ok(partition_for(key, partitions, known.turn.wrapping_sub(1)))
            }
        }
    }

    /// Finds out what a topic is like, or why nothing can be written to it; [`Fault::passes`]: no broker
    /// answers.
    pub fn look_up(&self, topic: &TopicName) -> Result<(), Fault> {
        self.inner.borrow_mut().known(topic).map(drop)
    }

    /// Refuses a record that is larger than its topic takes.
    ///
    /// Fails with the kind `Size`, or with `Topic` where the topic cannot be written at all.
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

    /// Takes the time that records waited for the broker's word on their topics since the last call: it is not the
    /// time of the code that sends them.
    ///
    /// Taken by the epoch, which subtracts it when it judges whether user code is slow.
    pub fn take_waited(&self) -> Duration {
        std::mem::take(&mut self.inner.borrow_mut().waited)
    }

    /// Asks the broker again about every topic: one has changed.
    ///
    /// The worker calls it when the broker has refused a record that fitted what is known here. Missing topics are
    /// kept: they are asked again within a second anyway.
    pub fn forget(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.numbers.clear();
        inner.topics.clear();
        inner.last = None;
    }

    /// Looks at all topics that are known: of those whose partitions are others than when they were asked
    /// for, records are placed by what the broker says from here on.
    ///
    /// One question for all topics, now and then. An error leaves everything as it was.
    pub fn refresh(&self) -> Result<(), BrokerError> {
        let mut inner = self.inner.borrow_mut();
        let names: Vec<TopicName> = inner.numbers.keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        let seen = inner.admin.look(&names)?;
        for (name, seen) in names.iter().zip(seen) {
            let partitions = inner.topics[inner.numbers[name]].info.partitions;
            if seen.is_none_or(|seen| seen.partitions != partitions) {
                // Only the name goes: the entry in `topics` stays, so that the numbers of other topics stay valid.
                inner.numbers.remove(name);
                inner.last = None;
            }
        }
        Ok(())
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
    /// The topic, asked for if it is not known. Most records of an event go where the last one went.
    fn known(&mut self, topic: &TopicName) -> Result<&mut Known, Fault> {
        let number = match &self.last {
            // Names are shared, so comparing pointers is enough here; an equal name elsewhere costs one hash.
            Some((last, number)) if Rc::ptr_eq(last, topic) => *number,
            _ => self.number(topic)?,
        };
        Ok(&mut self.topics[number])
    }

    fn number(&mut self, topic: &TopicName) -> Result<usize, Fault> {
        let number = match self.numbers.get(topic) {
            Some(&number) => number,
            None => self.learn(topic)?,
        };
        self.last = Some((topic.clone(), number));
        Ok(number)
    }

    /// Asks for a topic that is not known, unless the answer was no a moment ago: every event of a
    /// flood may name it.
    fn learn(&mut self, topic: &TopicName) -> Result<usize, Fault> {
        // Before any question: no answer of a broker would make such a name right.
        if let Some(why) = self.reserved.refuses(topic) {
            return Err(Fault::new("Topic", why));
        }
        let now = self.clock.as_ref().map(|clock| clock.now());
        let is_fresh = |since: Duration| now.is_some_and(|now| now < since + MISSING_FOR);
        if let Some((_, fault)) = self.missing.get(topic).filter(|(since, _)| is_fresh(*since)) {
            return Err(fault.clone());
        }
        // The time goes to the broker's account, not to that of the code whose record asked.
        let asked = self.ask(topic);
        if let (Some(clock), Some(began)) = (&self.clock, now) {
            self.waited += clock.now().saturating_sub(began);
        }
        self.missing.remove(topic);
        match (asked, now) {
            (Ok(info), _) => {
                self.numbers.insert(topic.clone(), self.topics.len());
                self.topics.push(Known { info, turn: 0 });
                Ok(self.topics.len() - 1)
            }
            // A fault that passes is not remembered: its event asks again as soon as it runs again.
            (Err(fault), Some(now)) if !fault.passes => {
                if self.missing.len() >= MISSING_MAX {
                    self.missing.retain(|_, (since, _)| is_fresh(*since));
                }
                // A thousand names within a second: those beyond are asked for each time, and memory stays bounded.
                if self.missing.len() < MISSING_MAX {
                    self.missing.insert(topic.clone(), (now, fault.clone()));
                }
                Err(fault)
            }
            (Err(fault), _) => Err(fault),
        }
    }

    /// Asks for a topic and for the permission to write it, as a fault of the event where either is lacking.
    fn ask(&mut self, topic: &str) -> Result<TopicInfo, Fault> {
        let fault = |why: String| Fault::new("Topic", why);
        let info = match self.admin.topic(topic) {
            Ok(Some(info)) => info,
            Ok(None) => return Err(fault(format!("the topic \"{topic}\" does not exist"))),
            Err(BrokerError::Retriable(why)) => return Err(Fault::passing(why)),
            Err(error) => return Err(fault(format!("the topic \"{topic}\": {error}"))),
        };
        match self.admin.access(topic) {
            Ok(access) if access.write => Ok(info),
            Err(BrokerError::Retriable(why)) => Err(Fault::passing(why)),
            _ => Err(fault(format!("no permission to write the topic \"{topic}\" (WRITE)"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::broker::NewTopic;
    use crate::clock::SimulatedClock;

    /// Knows no topic, and counts the questions.
    struct Nothing(Rc<Cell<u32>>);

    impl Admin for Nothing {
        fn topic(&mut self, _: &str) -> Result<Option<TopicInfo>, BrokerError> {
            self.0.set(self.0.get() + 1);
            Ok(None)
        }

        fn topics(&mut self) -> Result<Vec<String>, BrokerError> {
            Ok(Vec::new())
        }

        fn setting(&mut self, _: &str, _: &str) -> Result<Option<String>, BrokerError> {
            Ok(None)
        }

        fn create(&mut self, _: &NewTopic) -> Result<(), BrokerError> {
            Ok(())
        }
    }

    #[test]
    fn a_missing_topic_is_asked_for_once_a_second() {
        let (questions, clock) = (Rc::new(Cell::new(0)), Rc::new(SimulatedClock::default()));
        let directory = Directory::new(Box::new(Nothing(questions.clone())));
        directory.begin(Reserved::default(), clock.clone());
        for event in 0..1000 {
            let name: TopicName = "gone".into();
            directory.place(&name, None, None).expect_err("it is missing");
            directory.check_size(&name, None, None, &[]).expect_err("it is missing");
            assert_eq!(questions.get(), 1 + event / 250, "events of a flood, 4 ms each");
            clock.advance(Duration::from_millis(4));
        }
        (0..3 * MISSING_MAX).for_each(|n| drop(directory.place(&format!("t{n}").into(), None, None)));
        assert!(directory.inner.borrow().missing.len() <= MISSING_MAX, "any number of names may come");
    }

    /// Knows every topic, and takes 3 s to say so.
    struct Late(Rc<SimulatedClock>);

    impl Admin for Late {
        fn topic(&mut self, _: &str) -> Result<Option<TopicInfo>, BrokerError> {
            self.0.advance(Duration::from_secs(3));
            Ok(Some(TopicInfo { partitions: 1, message_bytes_max: 1000 }))
        }

        fn topics(&mut self) -> Result<Vec<String>, BrokerError> {
            Ok(Vec::new())
        }

        fn setting(&mut self, _: &str, _: &str) -> Result<Option<String>, BrokerError> {
            Ok(None)
        }

        fn create(&mut self, _: &NewTopic) -> Result<(), BrokerError> {
            Ok(())
        }
    }

    #[test]
    fn the_time_of_answers_is_told_once() {
        let clock = Rc::new(SimulatedClock::default());
        let directory = Directory::new(Box::new(Late(clock.clone())));
        directory.begin(Reserved::default(), clock.clone());
        for name in ["first", "second", "first"] {
            directory.place(&name.into(), None, None).expect("it is there");
            clock.advance(Duration::from_secs(5));
        }
        assert_eq!(directory.take_waited(), Duration::from_secs(6), "one answer for each topic");
        assert_eq!(directory.take_waited(), Duration::ZERO);
    }

    #[test]
    fn names_that_kafka_cannot_hold_are_asked_of_nobody() {
        let questions = Rc::new(Cell::new(0));
        let directory = Directory::new(Box::new(Nothing(questions.clone())));
        for name in ["../evil", "a\nb", "", "__consumer_offsets", "__transaction_state"] {
            let fault = directory.place(&name.into(), None, None).expect_err(name);
            assert_eq!(fault.kind, "Topic");
            assert!(!fault.message.contains('\n'), "{}", fault.message);
        }
        assert_eq!(questions.get(), 0);
    }
}
