//! The worker's interface to the outside world: a log with partitions, groups and transactions.
//!
//! The same worker runs over rdkafka, over the in-memory log and over seeded faults, because it
//! only knows these traits. All calls come from the worker's one thread. A *consumer* is a member
//! of the app's group; a *producer* sends records, in transactions or not; *admin* knows topics.
//!
//! The life of a partition, as a [`Consumer`] gives it:
//!
//! ```text
//! Change::Assigned ─▶ stands still ─▶ start(offset) ─▶ events … pause ⇄ resume … start(offset) after an abort
//! Change::Revoked  ─▶ still this member's, for a last commit ─▶ release
//! Change::Lost     ─▶ another member's already: nothing of it is committed ─▶ release
//! ```
//!
//! The life of a transaction, as a [`Producer`] takes it:
//!
//! ```text
//! init_transactions ─▶ begin ─▶ send … ─▶ poll until nothing is in flight ─▶ send_offsets ─▶ commit
//!         ▲              ▲                                                          │          │
//!         │              └───────────── abort ◀── BrokerError::Abort, Refused, Rejected ───────┤
//!         └──────────────────────────────────── BrokerError::Indefinite, Fenced ◀──────────────┘
//! ```

pub mod directory;
pub mod kafka;
pub mod log;
pub mod partitioner;
pub mod position;
pub mod reserved;
pub mod rights;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::warn;

use crate::broker::position::Metadata;
use crate::broker::rights::{Right, User};
use crate::event::message::{Event, Header, TopicName, TopicPartition};
pub use crate::event::outgoing::OutgoingRecord;
use crate::status::clients::ClientFigures;
use crate::wake::Bell;

/// The broker refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A person must act: the worker stops. The text names the thing and the place.
    #[error("{0}")]
    Fatal(String),
    /// As [`BrokerError::Fatal`], and every worker of the group meets it: its topics, its permissions, its
    /// protocol.
    #[error("{0}")]
    Group(String),
    /// Passing: the same call may succeed later.
    #[error("{0}")]
    Retriable(String),
    /// The transaction cannot be committed; the work in it must be done again.
    #[error("the transaction must be aborted: {0}")]
    Abort(String),
    /// The broker did not take the transaction, and gave a reason that may pass or may not: if it
    /// repeats, a record is the cause.
    #[error("{0}")]
    Rejected(String),
    /// The outcome of the commit is unknown: the stable committed offsets show whether it took place.
    #[error("the outcome of the transaction is not known: {0}")]
    Indefinite(String),
    /// Another producer has taken over the `transactional.id`, or the client cannot go on: only a new
    /// producer can, and the stable committed offsets show what became of the transaction.
    #[error("the producer was replaced: {0}")]
    Fenced(String),
    /// A record will never be taken by the broker, however often it is sent; the transaction must be
    /// aborted.
    #[error("{why}")]
    Refused {
        /// The kind of a failure record: `Size`, `Partition` or `Topic`.
        kind: &'static str,
        /// The broker's words.
        why: String,
    },
}

/// A change of this member's partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These were assigned. They stand still until [`Consumer::start`] names their offsets.
    Assigned(Vec<TopicPartition>),
    /// These are revoked. They stay this member's until [`Consumer::release`].
    Revoked(Vec<TopicPartition>),
    /// These are another member's already: nothing of them may be committed.
    Lost(Vec<TopicPartition>),
}

/// A committed offset of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    /// The readers' positions that were committed with it, which a connector writes as text; `None` where another
    /// program committed.
    pub metadata: Option<Metadata>,
}

/// An offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The partition that it is for.
    pub partition: TopicPartition,
    /// The offset with its metadata.
    pub committed: Committed,
}

/// The ends of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that exists.
    pub low: i64,
    /// The offset that the next committed record gets.
    pub high: i64,
}

impl Watermarks {
    /// Returns the offset, if the partition still has it. If retention has deleted it: the first that is
    /// left, with a line in the log. An offset past the end belongs to another topic of that name.
    pub fn within(self, name: &TopicPartition, offset: i64) -> Result<i64, BrokerError> {
        let Watermarks { low, high } = self;
        // Records that retention has deleted are lost whatever is done; stopping would not bring them back.
        if offset < low {
            warn!(topic = %name.topic, partition = name.partition, offset = low, "starting here: retention deleted offsets {offset} to {} before they were read", low - 1);
            return Ok(low);
        }
        // Reading from the end instead would skip whatever the new topic holds already.
        if offset > high {
            return Err(BrokerError::Group(format!(
                "the group stands at offset {offset} of {name}, which ends at {high}: the topic was recreated, or lost records; reset the group's offsets of this topic (kafka-consumer-groups --reset-offsets) to go on"
            )));
        }
        Ok(offset)
    }
}

/// The topics that a group reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// This topic.
    Topic(TopicName),
    /// Every topic whose whole name matches the regular expression, new ones too.
    Pattern(String),
}

/// A member of the app's consumer group.
pub trait Consumer {
    /// Joins the group. Partitions come as [`Change`]s.
    fn subscribe(&mut self, topics: &[Subscription]) -> Result<(), BrokerError>;

    /// Appends up to `max` events to `into`, waiting at most `wait` for the first. Per partition
    /// they come in offset order, each once, and only committed ones. A change of partitions comes
    /// alone: no events with it.
    fn poll(&mut self, wait: Duration, max: usize, into: &mut Vec<Event>) -> Result<Option<Change>, BrokerError>;

    /// Fetches these partitions from these offsets on, whether they stood still or ran before.
    /// Nothing that was fetched before comes after this call.
    fn start(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError>;

    /// Stops fetching these partitions. Events that were fetched and not polled may be dropped;
    /// [`Consumer::resume`] then fetches them again.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError>;

    /// Goes on fetching these partitions where they stopped.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError>;

    /// The next offset that [`Consumer::poll`] would give, markers and aborted records passed over;
    /// `None` where the partition has not started.
    fn position(&self, partition: &TopicPartition) -> Option<i64>;

    /// The group's *stable* committed offsets, one answer per partition asked for.
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, BrokerError>;

    /// The ends of partitions, as a committed reader sees them: one question for all. `None`: no broker leads
    /// the partition at the moment.
    fn ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Watermarks>>, BrokerError>;

    /// The end of a partition as the client last heard of it, without a question to a broker; `None`: it has
    /// not heard of one.
    fn known_end(&self, _partition: &TopicPartition) -> Option<i64> {
        None
    }

    /// Per partition the first offset whose record is at or after the time, or the end: one question for all.
    /// `None`: no broker leads the partition at the moment.
    fn offsets_at(&mut self, partitions: &[TopicPartition], timestamp_ms: i64)
    -> Result<Vec<Option<i64>>, BrokerError>;

    /// Commits offsets outside any transaction (at-least-once), without waiting. True: they are
    /// committed. False: they are on their way, and the same call asks how far they are.
    fn commit(&mut self, offsets: &[OffsetCommit]) -> Result<bool, BrokerError>;

    /// Ends what gone producers left open: of these producers, which committed last in partitions that came,
    /// and of others that were seen in the group. It would hide later records of the topics that they wrote.
    /// Does not wait.
    fn end_gone(&mut self, _producers: BTreeSet<String>) {}

    /// Makes [`Consumer::committed`] answerable: ends transactions over the offsets of these partitions that
    /// a dead member left open, its first one too. Does not wait; asking again does no harm.
    fn unblock(&mut self, _partitions: &[TopicPartition]) {}

    /// True while the group's word on this member's partitions stands; the word that it has none is one too. False
    /// while it joins, and from the moment at which it gives partitions up until the group has assigned anew.
    fn has_assignment(&self) -> bool {
        true
    }

    /// Figures of the clients that talk to brokers for the worker, as they last gave them.
    fn clients(&self) -> Vec<ClientFigures> {
        Vec::new()
    }

    /// The reason for which this member cannot join: brokers are away, or the group has members of another protocol.
    /// `None` where nothing but the group's own pace keeps it out.
    fn kept_out(&self) -> Option<&'static str> {
        None
    }

    /// Has the group share out its partitions anew. Does not wait; asking soon again does nothing.
    fn stir(&mut self) {}

    /// True if a [`Consumer::poll`] should come soon, to put something right.
    fn is_adrift(&self) -> bool {
        false
    }

    /// Acknowledges a [`Change::Revoked`] or [`Change::Lost`]: this member gives the partitions up.
    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), BrokerError>;

    /// The identity of this member at this moment, for [`Producer::commit`].
    fn group(&self) -> GroupMetadata;

    /// Rings this bell from now on whenever [`Consumer::poll`], which found nothing, may have something,
    /// for a worker that sleeps elsewhere. False: it does not, so the worker sleeps in the poll.
    fn rings(&mut self, _bell: &Arc<Bell>) -> bool {
        false
    }

    /// True if it also rings for what a poll has left. False: after a poll that gave something, another look must
    /// follow before the worker sleeps. The in-memory log is filled by the worker itself, which rings for nothing.
    fn rings_for_rest(&self) -> bool {
        false
    }

    /// Leaves the group.
    fn close(&mut self) -> Result<(), BrokerError>;
}

/// The identity of a member at a moment: it ties a transaction to the group's generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// The group's name.
    pub group: String,
    /// Raised at every rebalance; below 1 nothing may be committed.
    pub generation: i32,
    /// This member's name in the group; empty where there is none.
    pub member: String,
    /// The member's lasting name, where one was given.
    pub instance: Option<String>,
}

impl GroupMetadata {
    /// True if it stands for a member: the broker might take anything else without a check.
    pub fn is_member(&self) -> bool {
        // A broker takes generation -1 with an empty member id unchecked from a caller that names no instance, and
        // from any caller while a group of the classic protocol is empty.
        self.generation >= 1 && !self.member.is_empty()
    }
}

/// The client's answer to a record that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is on its way.
    Yes,
    /// The queue is full: poll and try again.
    QueueFull,
}

/// Sends records. Records of one *generation* are acknowledged together: at-least-once commits the
/// offsets of a generation when nothing of it is in flight; a transaction is one generation.
pub trait Producer {
    /// Fences every other producer with this `transactional.id`, earlier ones of this object
    /// included, and ends what they left open. Late requests of theirs have no effect after it.
    fn init_transactions(&mut self) -> Result<(), BrokerError>;

    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), BrokerError>;

    /// Queues a record; does not wait.
    fn send(&mut self, record: OutgoingRecord<'_>, generation: u64) -> Result<Taken, BrokerError>;

    /// Queues records; does not wait. Gives how many were taken, from the first on: fewer than there are where the queue
    /// is full, so poll and hand over the rest. Their order is kept in each partition. After an error it is not known
    /// which of them are on their way.
    fn send_all(
        &mut self,
        records: &mut dyn Iterator<Item = OutgoingRecord<'_>>,
        generation: u64,
    ) -> Result<usize, BrokerError> {
        let mut taken = 0;
        for record in records {
            if self.send(record, generation)? == Taken::QueueFull {
                break;
            }
            taken += 1;
        }
        Ok(taken)
    }

    /// Takes what the broker acknowledged; waits at most `wait` for something. A record that could
    /// not be delivered is an error.
    fn poll(&mut self, wait: Duration) -> Result<(), BrokerError>;

    /// Waits at most `wait` until something was acknowledged; the next [`Producer::poll`] returns what went
    /// wrong.
    fn wait(&mut self, wait: Duration);

    /// Records of the generation and of those before it that are not acknowledged.
    fn in_flight(&self, generation: u64) -> usize;

    /// Per partition that took tracked records since the last call: the offset after the last of them
    /// that was acknowledged.
    fn written(&mut self) -> Vec<(TopicPartition, i64)>;

    /// True if its client should be replaced, with [`Producer::init_transactions`], before the next
    /// transaction.
    fn is_outdated(&self) -> bool {
        false
    }

    /// Rings this bell from now on when something was acknowledged, while [`Producer::listens`] says so.
    fn rings(&mut self, _bell: &Arc<Bell>) {}

    /// Says whether acknowledgements are waited for. Those that are not ring no bell: the next poll finds them.
    fn listens(&mut self, _listens: bool) {}

    /// Puts the offsets of the group's member into the transaction: after its records.
    fn send_offsets(&mut self, offsets: &[OffsetCommit], group: &GroupMetadata) -> Result<(), BrokerError>;

    /// Commits the transaction. All its records are acknowledged.
    fn commit(&mut self) -> Result<(), BrokerError>;

    /// Aborts the transaction; what is queued is dropped. Nothing of it is in flight afterwards.
    fn abort(&mut self) -> Result<(), BrokerError>;
}

/// Reads the changelogs of tables, outside any group: each partition from an offset on, only committed
/// records.
pub trait Changelog {
    /// The ends of partitions: one question for all. The high one counts records of open transactions too:
    /// what is committed below it at this moment is read when [`Changelog::position`] has reached it. `None`:
    /// no broker leads the partition at the moment.
    fn ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Watermarks>>, BrokerError>;

    /// The end of the records that are decided: behind it stands an open transaction, or nothing.
    fn stable_end(&mut self, partition: &TopicPartition) -> Result<i64, BrokerError>;

    /// A name for the topic that another topic of the same name never has; empty where the broker gives none.
    fn identity(&mut self, topic: &TopicName) -> Result<String, BrokerError>;

    /// Reads these partitions from these offsets on.
    fn start(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError>;

    /// Reads this partition no more.
    fn stop(&mut self, partition: &TopicPartition) -> Result<(), BrokerError>;

    /// Rings this bell from now on when there is something to poll.
    fn rings(&mut self, _bell: &Arc<Bell>) {}

    /// Appends up to `max` records to `into` without waiting, of each partition in offset order.
    fn poll(&mut self, max: usize, into: &mut Vec<Event>) -> Result<(), BrokerError>;

    /// The next offset that is to be read, markers and aborted records passed over; `None` before
    /// anything was.
    fn position(&self, partition: &TopicPartition) -> Option<i64>;
}

/// The properties of a topic, as far as staging a record needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its partitions.
    pub partitions: i32,
    /// The largest record that it takes, in bytes (`max.message.bytes`).
    pub message_bytes_max: usize,
}

/// A topic as it is at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its partitions.
    pub partitions: i32,
    /// A name that another topic of the same name never has; empty where the broker does not say.
    pub identity: String,
}

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// `None`: the broker's default.
    pub partitions: Option<u32>,
    /// `None`: the broker's default.
    pub replicas: Option<u32>,
    /// Kafka's topic settings.
    pub config: Vec<(String, String)>,
}

/// Uses of a topic: those that the plan makes of it, or those that are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Its records are read.
    pub read: bool,
    /// Records are written to it.
    pub write: bool,
}

impl Access {
    /// Reading alone.
    pub const READ: Access = Access { read: true, write: false };
    /// Writing alone.
    pub const WRITE: Access = Access { read: false, write: true };

    /// The rights on a topic that these uses need and this user lacks; the user may only do what is
    /// `allowed`.
    pub fn lacks(self, allowed: Access, topic: &str) -> Vec<Right> {
        let read = (self.read && !allowed.read).then(|| Right::read_topic(topic));
        let write = (self.write && !allowed.write).then(|| Right::write_topic(topic));
        read.into_iter().chain(write).collect()
    }
}

/// Knows and makes topics.
pub trait Admin {
    /// `None`: the topic does not exist.
    fn topic(&mut self, name: &str) -> Result<Option<TopicInfo>, BrokerError>;

    /// Partitions of a topic; `None`: the topic does not exist.
    fn partitions(&mut self, name: &str) -> Result<Option<i32>, BrokerError> {
        Ok(self.topic(name)?.map(|topic| topic.partitions))
    }

    /// Partitions and identity of several topics, in one question where that can be; `None`: a topic does
    /// not exist.
    fn look(&mut self, names: &[TopicName]) -> Result<Vec<Option<Seen>>, BrokerError> {
        let look = |name: &TopicName| {
            Ok(self.partitions(name)?.map(|partitions| Seen { partitions, identity: String::new() }))
        };
        names.iter().map(look).collect()
    }

    /// Names of all topics, sorted.
    fn topics(&mut self) -> Result<Vec<String>, BrokerError>;

    /// A setting of a topic; `None`: the broker does not say.
    fn setting(&mut self, topic: &str, name: &str) -> Result<Option<String>, BrokerError>;

    /// Asks what this user may do with a topic that exists; everything, where the broker does not say.
    fn access(&mut self, _topic: &str) -> Result<Access, BrokerError> {
        Ok(Access { read: true, write: true })
    }

    /// Creates a topic.
    fn create(&mut self, topic: &NewTopic) -> Result<(), BrokerError>;

    /// Asks whether a topic could be created, and creates none. Gives what is against it.
    fn objection(&mut self, _topic: &NewTopic) -> Result<Option<String>, BrokerError> {
        Ok(None)
    }

    /// The user that brokers see.
    fn user(&self) -> User {
        User::default()
    }
}

/// Bytes that a record takes in a log, as Kafka counts them against `max.message.bytes`: its
/// fields, and the overhead of a batch that holds it alone.
///
/// An upper bound: every length is counted as if it took the five bytes of the longest one, so the result is some
/// tens of bytes too large for most records. Compression is not taken into account.
pub fn record_size(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) -> usize {
    /// Batch header (61) and the longest variable-length fields of one record (KIP-98).
    const OVERHEAD: usize = 61 + 32;
    let headers: usize =
        // Ten bytes: two lengths of up to five bytes each.
        headers.iter().map(|(name, value)| 10 + name.len() + value.as_ref().map_or(0, Bytes::len)).sum();
    OVERHEAD + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers
}
