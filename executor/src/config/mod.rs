//! Settings and bounds: every queue is bounded, and each bound has its name here.
//!
//! [`settings`] holds what users say, as text; [`Config`] what it means, with the bounds that users do not set.
//! A worker is made from a [`Config`] and its plan, and neither changes while it runs.

pub mod failpoint;
pub mod secret;
pub mod serving;
pub mod settings;
mod table;
pub mod variables;
pub mod web;

use std::num::NonZeroU32;
use std::time::Duration;

use kaspr_ir::plan::{CALL_MS_MAX, Defaults, OnError, Plan, Policies};

use crate::config::failpoint::Failpoint;

/// The longest time of one call of user code: a worker that is silent for longer would lose its
/// partitions (Kafka's `max.poll.interval.ms` is 300 s).
pub const CALL_MAX: Duration = Duration::from_millis(CALL_MS_MAX);

/// The least time between two polls after which a member leaves its group.
pub const POLL_MIN: Duration = Duration::from_secs(300);

/// The longest time of one call into Kafka's client. Each call has a shorter bound of its own; where the
/// client does not keep it, the process ends rather than stand still for ever. The longest that is meant to
/// wait takes 10 s: 40 s would do on a machine that is four times too slow.
pub const CLIENT_CALL_MAX: Duration = Duration::from_secs(60);

/// Longest time without progress that is not logged, by default.
pub const STALL_AFTER: Duration = Duration::from_secs(30);

/// Settings of a worker, besides its plan.
#[derive(Clone, Debug)]
pub struct Config {
    /// The app's name, which is the group's.
    pub app: String,
    /// `transactional.id` of this worker: `{app}.{instance}.{worker}`.
    pub transactional_id: String,
    /// The guarantee: what a crash may repeat.
    pub guarantee: Guarantee,
    /// The place from which the group reads a topic for which it has no commits.
    pub from: From,
    /// Longest time from an event's completion to its commit.
    pub commit_interval: Duration,
    /// The policy where a spec writes none.
    pub on_error: OnError,
    /// The topic of `deadLetter` where a spec names none.
    pub dead_letter_topic: Option<String>,
    /// The longest time of one call where the spec writes none.
    pub timeout: Duration,
    /// Units of each partition that may be in flight at once, where the spec writes none.
    pub concurrency: NonZeroU32,
    /// True if writes to tables go to changelog topics too.
    pub keeps_changelogs: bool,
    /// The place where a test ends the process.
    pub failpoint: Failpoint,
    /// Longest time without progress that is not logged.
    pub stall_after: Duration,
    /// Creation of topics, where specs say nothing.
    pub new_topics: NewTopics,
    /// The bounds.
    pub bounds: Bounds,
}

/// Creation of topics that are declared and missing, where specs say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTopics {
    /// False: none is created, not even a changelog.
    pub may_create: bool,
    /// Their partitions; `None`: the broker's default.
    pub partitions: Option<u32>,
    /// Their replicas; `None`: the broker's default.
    pub replicas: Option<u32>,
}

/// Times of a member of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupTimes {
    /// The group gives up a member that is silent for longer.
    pub session: Duration,
    /// Time between two heartbeats: members learn of a rebalance by them.
    pub heartbeat: Duration,
    /// A member that does not poll for longer leaves the group: more than the longest call, [`CALL_MAX`].
    pub poll: Duration,
}

impl Default for GroupTimes {
    fn default() -> GroupTimes {
        GroupTimes { session: Duration::from_secs(30), heartbeat: Duration::from_secs(1), poll: POLL_MIN }
    }
}

impl Default for NewTopics {
    fn default() -> NewTopics {
        NewTopics { may_create: true, partitions: None, replicas: None }
    }
}

/// Guarantees: what a crash may repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Nothing: effects and positions are one transaction.
    ExactlyOnce,
    /// A crash may repeat what was sent since the last commit.
    AtLeastOnce,
}

/// The place from which a group reads a topic for which it has no commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first record that exists.
    Earliest,
    /// At the end.
    Latest,
    /// At the first record of that time, in ms since 1970.
    Timestamp(i64),
}

/// Bytes of events of a partition that may wait before it is paused, where no test sets other bounds.
pub const QUEUED_BYTES_HIGH: usize = 8 << 20;

/// Bounds of a worker.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Time for which stages run, all together, before the worker looks at commits, signals and rebalances.
    /// Events that have not run stay queued for the next epoch.
    pub epoch_budget: Duration,
    /// Events taken from the broker at once.
    pub poll_events_max: usize,
    /// Number of polls in one turn, while some readers have work left and others have none.
    pub polls_max: usize,
    /// Longest wait for a last commit, when partitions are given up or the worker stops.
    pub flush_wait_max: Duration,
    /// Longest time for which a worker that stops waits for calls to end.
    pub drain_wait_max: Duration,
    /// Longest sleep of an idle worker. Events and answers wake it; this is for looks at what does not wake
    /// it, such as stalls.
    pub idle_wait: Duration,
    /// Longest sleep of a worker that waits for something which does not wake it: a question that is asked
    /// again, or another member's transaction.
    pub look_wait: Duration,
    /// Longest sleep while an answer is on its way that wakes the worker when it comes.
    pub answer_wait: Duration,
    /// Bytes of waiting events of a partition at which it is paused.
    pub queued_bytes_high: usize,
    /// Bytes of waiting events of a partition at which it is resumed.
    pub queued_bytes_low: usize,
    /// Bytes that an open batch window holds before it is handed over early.
    pub window_bytes_max: usize,
    /// Bytes of what units of a partition that run ahead of their turn hold, beyond which no further one begins.
    pub overlap_bytes_max: usize,
    /// Staged bytes at which a commit does not wait for its interval.
    pub staged_bytes_max: usize,
    /// Staged records at which a commit does not wait for its interval.
    pub staged_records_max: usize,
    /// Longest time for which a busy worker gathers records before it hands them over (at-least-once).
    pub gather_max: Duration,
    /// Longest life of a transaction: then the broker aborts it.
    pub transaction_timeout: Duration,
    /// User code that keeps a worker for longer is slow: from then on no transaction is open while it runs,
    /// for it might not live as long.
    pub slow_code: Duration,
    /// Time for which a worker remembers that.
    pub slow_code_for: Duration,
    /// A commit or abort that took longer may have been repeated inside the client: the producer is
    /// replaced before the next transaction. 0.8 of Kafka's `retry.backoff.ms`.
    pub slow_call: Duration,
    /// Time for which a worker waits for committed offsets before it ends the transactions that hide them.
    pub unblock_after: Duration,
    /// Longest time for which partitions that are ready wait for others whose tables are being restored.
    pub start_wait_max: Duration,
    /// Records of changelogs that are taken into tables in one turn.
    pub restore_records_max: usize,
    /// Time between two looks whether topics have other partitions.
    pub topics_look_every: Duration,
    /// Longest time for which calls may go on that hold events of revoked partitions.
    pub revoke_wait_max: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            // A fifth of the default commit interval, so that a commit is late by no more than that and one call.
            epoch_budget: Duration::from_millis(20),
            poll_events_max: 1000,
            // 20,000 events at most; fewer where the fast partitions are paused before.
            polls_max: 20,
            // With `drain_wait_max` this is the default of `shutdownTimeout`: past it the process ends anyway.
            flush_wait_max: Duration::from_secs(20),
            drain_wait_max: Duration::from_secs(5),
            // Nothing is expected from it: an idle worker that wakes more often only costs CPU.
            idle_wait: Duration::from_secs(5),
            look_wait: Duration::from_millis(100),
            answer_wait: Duration::from_millis(10),
            // Far apart, because a pause may drop what the client has fetched, and a resume fetches it again.
            queued_bytes_high: QUEUED_BYTES_HIGH,
            queued_bytes_low: 2 << 20,
            window_bytes_max: 64 << 20,
            overlap_bytes_max: 8 << 20,
            staged_bytes_max: 16 << 20,
            staged_records_max: 100_000,
            gather_max: Duration::from_millis(5),
            // The same number as in the settings of the producer: the broker goes by that one.
            transaction_timeout: Duration::from_secs(15),
            slow_code: Duration::from_secs(1),
            slow_code_for: Duration::from_secs(600),
            // 0.8 of the 250 ms in the settings of the producer.
            slow_call: Duration::from_millis(200),
            unblock_after: Duration::from_secs(1),
            start_wait_max: Duration::from_millis(500),
            restore_records_max: 5000,
            topics_look_every: Duration::from_secs(10),
            // Until the revocation is acknowledged, the partitions that stay stand still as well.
            revoke_wait_max: Duration::from_secs(1),
        }
    }
}

impl Config {
    /// Resolves the policies of every place of a plan, with these settings.
    pub fn policies(&self, plan: &Plan) -> Policies {
        plan.policies(&Defaults {
            on_error: self.on_error.clone(),
            dead_letter_topic: self.dead_letter_topic.clone(),
            timeout: self.timeout,
            concurrency: self.concurrency,
        })
    }

    /// The defaults, for an app of this name whose instance is `instance`.
    pub fn new(app: &str, instance: &str, worker: u32) -> Config {
        Config {
            app: app.to_owned(),
            transactional_id: format!("{app}.{instance}.{worker}"),
            guarantee: Guarantee::ExactlyOnce,
            from: From::Earliest,
            commit_interval: Duration::from_millis(100),
            on_error: OnError::Skip,
            dead_letter_topic: None,
            timeout: CALL_MAX,
            concurrency: NonZeroU32::MIN,
            keeps_changelogs: false,
            failpoint: Failpoint::default(),
            stall_after: STALL_AFTER,
            new_topics: NewTopics::default(),
            bounds: Bounds::default(),
        }
    }
}
