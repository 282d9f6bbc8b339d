//! Stalls: partitions that have something to do and make no progress, reported with their cause.
//!
//! One line when a stall has lasted for a while, and one when it is over. The worker looks at a small summary
//! of its readers now and then. If a call keeps the worker's thread, the worker cannot look, so the alarm
//! thread reports that call.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::field::display;
use tracing::{info, warn};

use crate::event::message::TopicPartition;

/// Looks of a worker within the time after which a stall is reported: it is noticed a quarter of that late at
/// most.
const LOOKS_PER_STALL: u32 = 4;
/// The longest pause between two looks.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

/// The cause that holds a reader in a partition. Times count from the moment of the look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// A call has not ended.
    Call {
        /// The agent.
        agent: String,
        /// The operation.
        operation: String,
        /// The time since it began.
        held: Duration,
    },
    /// An await is pending.
    Await {
        /// The agent.
        agent: String,
        /// The operation.
        operation: String,
        /// The time since it began.
        held: Duration,
    },
    /// An event failed and is retried.
    Retry {
        /// The event's offset.
        offset: i64,
        /// Failed tries.
        tries: u32,
        /// The time until the next try.
        due_in: Duration,
    },
    /// An open batch window holds events.
    Window {
        /// The number of events.
        events: usize,
        /// The time until the window is handed over.
        due_in: Duration,
    },
    /// An event waits while another of its track is in flight.
    Track,
    /// Events have their turn behind others of the same worker.
    Turn {
        /// The number of events that wait.
        events: usize,
    },
    /// The partition is paused: the queue of another reader is full.
    Behind {
        /// That reader.
        reader: String,
    },
    /// A table is being restored.
    Restoring {
        /// The table.
        table: String,
        /// The percentage that is restored.
        percent: u8,
    },
    /// A transaction is open in the partition.
    Transaction {
        /// The transactional id, if it is known.
        id: Option<String>,
    },
    /// Records and offsets wait for the broker's acknowledgement.
    Acknowledgement,
    /// Nothing comes from the broker.
    Broker,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::Call { agent, operation, held } => {
                write!(f, "agent \"{agent}\", operation \"{operation}\" has not returned for {}", Seconds(*held))
            }
            Cause::Await { agent, operation, held } => {
                write!(f, "agent \"{agent}\", operation \"{operation}\" has been awaiting for {}", Seconds(*held))
            }
            Cause::Retry { offset, tries, due_in } => {
                write!(f, "offset {offset} failed {tries} times and is tried again in {}", Seconds(*due_in))
            }
            Cause::Window { events, due_in } => {
                write!(f, "an open window holds {events} events for another {}", Seconds(*due_in))
            }
            Cause::Track => write!(f, "another event of its track is in flight"),
            Cause::Turn { events } => write!(f, "{events} events wait for their turn behind others of this worker"),
            Cause::Behind { reader } => write!(f, "paused: the queue of reader \"{reader}\" is full"),
            Cause::Restoring { table, percent } => write!(f, "restoring table \"{table}\" at {percent} %"),
            Cause::Transaction { id: Some(id) } => write!(f, "the transaction of \"{id}\" is open"),
            Cause::Transaction { id: None } => write!(
                f,
                "its committed offset is not known (an open transaction of a member that is gone, or no answer)"
            ),
            Cause::Acknowledgement => write!(f, "waiting for the broker to acknowledge records and offsets"),
            Cause::Broker => write!(f, "waiting for the broker: no events come"),
        }
    }
}

impl Cause {
    /// The names of all causes.
    pub const KINDS: [&str; 11] = [
        "call",
        "await",
        "retry",
        "window",
        "track",
        "turn",
        "behind",
        "restoring",
        "transaction",
        "acknowledgement",
        "broker",
    ];

    /// The name in metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Cause::Call { .. } => "call",
            Cause::Await { .. } => "await",
            Cause::Retry { .. } => "retry",
            Cause::Window { .. } => "window",
            Cause::Track => "track",
            Cause::Turn { .. } => "turn",
            Cause::Behind { .. } => "behind",
            Cause::Restoring { .. } => "restoring",
            Cause::Transaction { .. } => "transaction",
            Cause::Acknowledgement => "acknowledgement",
            Cause::Broker => "broker",
        }
    }
}

/// A duration as a log line shows it.
struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} s", self.0.as_secs_f64())
    }
}

/// A thing that may stall.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A reader in a partition.
    Reader(TopicPartition, String),
    /// A partition that is assigned and has not started.
    Start(TopicPartition),
    /// The commits of the worker.
    Commits,
}

impl Subject {
    /// The words for a stall of it.
    fn verb(&self) -> &'static str {
        match self {
            Subject::Reader(..) => "stands still",
            Subject::Start(_) => "has not started",
            Subject::Commits => "nothing is committed",
        }
    }

    /// The reader and the partition that a line of the log names.
    fn fields(&self) -> (Option<&str>, Option<&TopicPartition>) {
        match self {
            Subject::Reader(partition, reader) => (Some(reader), Some(partition)),
            Subject::Start(partition) => (None, Some(partition)),
            Subject::Commits => (None, None),
        }
    }
}

/// One look at a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The subject that was looked at.
    pub subject: Subject,
    /// The position: any change is progress.
    pub position: i64,
    /// The number of offsets or commits that wait; 0 if none.
    pub lag: u64,
    /// The cause that holds it, if one is known.
    pub cause: Option<Cause>,
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A stall has lasted for a while.
    Stalled {
        /// The subject's standing now.
        standing: Standing,
        /// The time that the stall has lasted.
        held: Duration,
    },
    /// A stall is over.
    Over {
        /// The subject that had stalled.
        subject: Subject,
        /// The time that the stall lasted.
        held: Duration,
    },
}

impl Notice {
    /// Writes it to the log. A wait that the spec asks for (a window, a back-off) is no warning.
    pub fn log(&self) {
        match self {
            Notice::Stalled { standing, held } => standing.log(Seconds(*held)),
            Notice::Over { subject, held } => {
                let (reader, partition) = subject.fields();
                let (topic, partition) = partition.map(|at| (display(&at.topic), at.partition)).unzip();
                info!(reader, topic, partition, "goes on after {}", Seconds(*held));
            }
        }
    }
}

impl Standing {
    fn log(&self, held: Seconds) {
        let Standing { subject, position, lag, cause } = self;
        let (reader, partition) = subject.fields();
        let offset = reader.map(|_| *position);
        let (topic, partition) = partition.map(|at| (display(&at.topic), at.partition)).unzip();
        // A window or a back-off is the spec's own wish: it needs no attention.
        let is_asked_for = matches!(cause, Some(Cause::Window { .. } | Cause::Retry { .. }));
        let cause = cause.as_ref().map_or_else(|| "the cause is not known".to_owned(), Cause::to_string);
        let verb = subject.verb();
        match is_asked_for {
            true => info!(reader, topic, partition, offset, cause, "{verb} for {held}, {lag} behind"),
            false => warn!(reader, topic, partition, offset, cause, "{verb} for {held}, {lag} behind"),
        }
    }
}

/// A subject that has something to do, as of the last look.
#[derive(Debug)]
struct Seen {
    position: i64,
    /// The time of the look that saw this position first.
    since: Duration,
    /// True if the log has a line about it, so that its end gets one too.
    reported: bool,
    /// The name of what holds it, as of the last look.
    cause: &'static str,
}

/// The name of a cause that is not known.
pub const UNKNOWN_CAUSE: &str = "unknown";

/// The subjects that had something to do at the last look.
#[derive(Debug)]
pub struct Stalls {
    /// The time without progress after which a stall is reported (`--stall-after`).
    after: Duration,
    /// Only subjects with a lag: without one, standing still is rest.
    seen: BTreeMap<Subject, Seen>,
    /// The time of the last look; `None` before the first.
    looked: Option<Duration>,
}

impl Stalls {
    /// Makes a report that mentions stalls after this time.
    pub fn new(after: Duration) -> Stalls {
        Stalls { after, seen: BTreeMap::new(), looked: None }
    }

    /// The number of subjects that have stalled for longer than is right, by the name of what holds each.
    pub fn stalled(&self) -> BTreeMap<String, u64> {
        let mut stalled = BTreeMap::new();
        for seen in self.seen.values().filter(|seen| seen.reported) {
            *stalled.entry(seen.cause.to_owned()).or_insert(0) += 1;
        }
        stalled
    }

    /// True if a look is due.
    pub fn is_due(&self, now: Duration) -> bool {
        self.looked.is_none_or(|looked| now >= looked + self.every())
    }

    /// The time at which a worker that has done nothing since `active` must look next: a subject that has
    /// moved since the last look has ended its stall, and one that has not is reported once it has stood
    /// still for long enough. `None`: nothing stood still at the last look.
    pub fn next_look(&self, active: Duration) -> Option<Duration> {
        let looked = self.looked.filter(|_| !self.seen.is_empty())?;
        // Something moved since: a subject that had stalled may be over, so the look comes at the usual pace.
        if looked <= active {
            return Some(looked + self.every());
        }
        // Early enough that the look does not count the worker as away.
        let again = looked + self.after / LOOKS_PER_STALL * (LOOKS_PER_STALL - 1);
        let is_due = |seen: &Seen| (!seen.reported).then_some(again.min(seen.since + self.after));
        self.seen.values().filter_map(is_due).min()
    }

    fn every(&self) -> Duration {
        (self.after / LOOKS_PER_STALL).min(LOOK_EVERY_MAX)
    }

    /// Compares with the last look, and returns the lines to log. A subject no longer listed has ended its
    /// stall.
    pub fn look(&mut self, now: Duration, standings: Vec<Standing>) -> Vec<Notice> {
        // A call kept the worker's thread, so nothing else could make progress: no time of that counts as a
        // stall.
        let was_away = self.looked.is_some_and(|looked| now >= looked + self.after);
        self.looked = Some(now);
        let (mut notices, mut still) = (Vec::new(), BTreeMap::new());
        for standing in standings.into_iter().filter(|standing| standing.lag > 0) {
            let before = self.seen.remove(&standing.subject);
            let mut seen = match before {
                Some(seen) if seen.position == standing.position => seen,
                other => {
                    // It moved, so an earlier stall of it is over, and a new one may begin.
                    notices.extend(other.and_then(|seen| over(standing.subject.clone(), &seen, now)));
                    Seen { position: standing.position, since: now, reported: false, cause: UNKNOWN_CAUSE }
                }
            };
            seen.cause = standing.cause.as_ref().map_or(UNKNOWN_CAUSE, Cause::kind);
            // A stall that was reported keeps its beginning: its end tells the whole time.
            if was_away && !seen.reported {
                seen.since = now;
            }
            let subject = standing.subject.clone();
            let held = now.saturating_sub(seen.since);
            if !seen.reported && held >= self.after {
                seen.reported = true;
                notices.push(Notice::Stalled { standing, held });
            }
            still.insert(subject, seen);
        }
        // Left over are subjects that are gone, or have nothing to do any more.
        let ended = std::mem::replace(&mut self.seen, still);
        notices.extend(ended.into_iter().filter_map(|(subject, seen)| over(subject, &seen, now)));
        notices
    }
}

/// The notice of a stall's end, if its beginning was reported.
fn over(subject: Subject, seen: &Seen, now: Duration) -> Option<Notice> {
    seen.reported.then(|| Notice::Over { subject, held: now.saturating_sub(seen.since) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn subject(partition: i32) -> Subject {
        Subject::Reader(TopicPartition::new("t", partition), "orders".to_owned())
    }

    fn standing(partition: i32, position: i64, lag: u64) -> Standing {
        Standing { subject: subject(partition), position, lag, cause: Some(Cause::Broker) }
    }

    /// Looks every second; returns each notice with its time.
    fn watch(stalls: &mut Stalls, seconds: std::ops::Range<u64>, standings: &[Standing]) -> Vec<(u64, Notice)> {
        let look = |second| stalls.look(at(second), standings.to_vec()).into_iter().map(move |notice| (second, notice));
        seconds.flat_map(look).collect()
    }

    #[test]
    fn a_stall_is_told_once_and_its_end_once() {
        let mut stalls = Stalls::new(AFTER);
        let told = watch(&mut stalls, 0..100, &[standing(0, 5, 3)]);
        assert_eq!(told, [(30, Notice::Stalled { standing: standing(0, 5, 3), held: at(30) })]);
        assert_eq!(stalls.stalled(), [("broker".to_owned(), 1)].into());
        let told = watch(&mut stalls, 100..120, &[standing(0, 6, 2)]);
        assert_eq!(told, [(100, Notice::Over { subject: subject(0), held: at(100) })]);
        assert_eq!(stalls.stalled(), [].into());
    }

    #[test]
    fn progress_and_nothing_to_do_are_no_stall() {
        let mut stalls = Stalls::new(AFTER);
        for second in 0..100_u32 {
            let standings = vec![standing(0, i64::from(second / 20), 3), standing(1, 7, 0)];
            assert_eq!(stalls.look(at(second.into()), standings), []);
        }
    }

    #[test]
    fn a_worker_that_sleeps_until_its_next_look_tells_of_stalls_in_time() {
        let mut stalls = Stalls::new(at(8));
        assert_eq!(stalls.next_look(at(0)), None);
        stalls.look(at(10), vec![standing(0, 5, 1)]);
        assert_eq!(stalls.next_look(at(10)), Some(at(11)), "it was active: that may have moved it");
        let (mut now, mut told) = (at(10), Vec::new());
        while let Some(next) = stalls.next_look(at(9)) {
            now = next;
            told = stalls.look(now, vec![standing(0, 5, 1)]);
        }
        assert!(now == at(18) && told.len() == 1, "{now:?} {told:?}");
        // Nothing happens until it moves; then it looks once more.
        assert_eq!((stalls.next_look(at(9)), stalls.next_look(at(30))), (None, Some(at(19))));
    }

    #[test]
    fn a_partition_that_goes_away_has_ended_its_stall() {
        let mut stalls = Stalls::new(AFTER);
        watch(&mut stalls, 0..40, &[standing(0, 5, 3)]);
        assert_eq!(watch(&mut stalls, 40..41, &[]), [(40, Notice::Over { subject: subject(0), held: at(40) })]);
        assert_eq!(watch(&mut stalls, 41..100, &[]), []);
    }

    #[test]
    fn who_could_not_run_has_not_stalled() {
        let mut stalls = Stalls::new(AFTER);
        stalls.look(at(0), vec![standing(0, 5, 3)]);
        // The worker's thread was kept by a call for 50 s.
        assert_eq!(watch(&mut stalls, 50..80, &[standing(0, 5, 3)]), []);
        assert_eq!(watch(&mut stalls, 80..81, &[standing(0, 5, 3)]).len(), 1);
    }

    #[test]
    fn causes_are_told_in_words() {
        let words = |cause: Cause| cause.to_string();
        let (agent, operation) = ("a".to_owned(), "o".to_owned());
        assert_eq!(
            [
                words(Cause::Await { agent, operation, held: at(31) }),
                words(Cause::Retry { offset: 5, tries: 2, due_in: at(40) }),
                words(Cause::Window { events: 3, due_in: at(570) }),
                words(Cause::Restoring { table: "t".to_owned(), percent: 70 }),
            ],
            [
                "agent \"a\", operation \"o\" has been awaiting for 31 s",
                "offset 5 failed 2 times and is tried again in 40 s",
                "an open window holds 3 events for another 570 s",
                "restoring table \"t\" at 70 %",
            ]
        );
    }
}
