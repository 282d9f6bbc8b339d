//! A report: what one process tells another of its worker, so that the other can answer for it.
//!
//! A worker of several has no port. It writes a report a second to its supervisor, as a length and JSON, and reads
//! requests from there; the supervisor serves the port.
//!
//! ```text
//! worker's thread ─▶ Board ─▶ Report ══ socket ══▶ supervisor: Crew ◀── the HTTP thread
//!                     ◀── REBALANCE ══════════════
//! ```

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::board::{Board, Seen};
use super::counters::Counters;
use super::snapshot::Snapshot;
use crate::guard::Sighting;

/// Most bytes of a report.
const REPORT_BYTES_MAX: u32 = 2 << 20;
/// The request that the group share out its partitions anew.
pub const REBALANCE: u8 = b'r';

/// Details that a report has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// Partitions and the last failures.
    Partitions,
    /// These, and all that grows with agents, tables and topics.
    Counters,
}

/// The call in which a worker's thread is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The call, in words.
    pub what: String,
    /// The first event of the unit that runs.
    pub on: Option<String>,
}

impl std::fmt::Display for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.on {
            Some(on) => write!(f, "{} on {on}", self.what),
            None => write!(f, "{}", self.what),
        }
    }
}

/// A worker as others see it at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Its last snapshot.
    #[serde(serialize_with = "inner", deserialize_with = "shared")]
    pub snapshot: Arc<Snapshot>,
    /// The time since that was published.
    pub age: Duration,
    /// The time since its last turn.
    pub turn_age: Duration,
    /// The time since its process began.
    pub up: Duration,
    /// The time at which its state began, in ms since 1970.
    pub since_ms: i64,
    /// The call in which its thread is.
    pub running: Option<Running>,
    /// Figures of its process.
    pub process: Option<Process>,
}

fn inner<S: Serializer>(snapshot: &Arc<Snapshot>, serializer: S) -> Result<S::Ok, S::Error> {
    Snapshot::serialize(snapshot, serializer)
}

fn shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Snapshot>, D::Error> {
    Snapshot::deserialize(deserializer).map(Arc::new)
}

/// Figures of a process, as its system has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Time on a processor, in the program and in the system for it.
    pub cpu_seconds: f64,
    /// Memory that is its own or shared, and in use.
    pub resident_bytes: f64,
    /// Memory that is mapped.
    pub virtual_bytes: f64,
    /// Open descriptors.
    pub open_files: f64,
    /// Most descriptors.
    pub files_max: Option<f64>,
    /// Its begin, in seconds since 1970.
    pub began_seconds: Option<f64>,
}

impl Report {
    /// Reports what stands on a board.
    pub fn of(board: &Board) -> Report {
        let Seen { snapshot, age, turn_age, up, since_ms } = board.look();
        Report { snapshot, age, turn_age, up, since_ms, running: running(board), process: Process::now() }
    }

    /// The time for which complete events have waited for their commit; zero where none waits. Nothing was committed
    /// since the snapshot, or there were another one.
    pub fn commit_age(&self) -> Duration {
        let waits = self.snapshot.commit_age;
        if waits.is_zero() { waits } else { waits + self.age }
    }

    /// The same report when it is older.
    pub fn aged(mut self, by: Duration) -> Report {
        self.age += by;
        self.turn_age += by;
        self.up += by;
        self
    }

    /// Writes it, with as many details as there is room for. Returns what had to be left out.
    ///
    /// # Errors
    ///
    /// The other end is gone.
    pub fn write(&self, into: &mut impl Write) -> io::Result<Option<LeftOut>> {
        for left_out in [None, Some(LeftOut::Partitions), Some(LeftOut::Counters)] {
            let text = match left_out {
                None => serde_json::to_vec(self)?,
                Some(left_out) => serde_json::to_vec(&self.without(left_out))?,
            };
            if let Some(length) = u32::try_from(text.len()).ok().filter(|length| *length <= REPORT_BYTES_MAX) {
                into.write_all(&[&length.to_be_bytes(), text.as_slice()].concat())?;
                return Ok(left_out);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "a report is too large"))
    }

    /// The report with fewer details: the worker's state stays, by which others judge whether it lives.
    fn without(&self, left_out: LeftOut) -> Report {
        let whole = Snapshot::clone(&self.snapshot);
        let short = Snapshot { partitions: Vec::new(), failures: Vec::new(), ..whole };
        let snapshot = match left_out {
            LeftOut::Partitions => short,
            LeftOut::Counters => {
                let (counters, clients) = (Counters::default(), Vec::new());
                let (events, unit_times, tables) = (Vec::new(), Vec::new(), Vec::new());
                Snapshot { counters, clients, events, unit_times, tables, restoring: Vec::new(), ..short }
            }
        };
        Report { snapshot: Arc::new(snapshot), ..self.clone() }
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// The other end is gone, or what comes is no report.
    pub fn read(from: &mut impl Read) -> io::Result<Report> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        // Checked before there is room for it: the other end must not choose how much memory this process takes.
        if length > REPORT_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a report is too large"));
        }
        let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
        from.read_exact(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// The call that keeps the worker's thread; `None` where nothing runs.
fn running(board: &Board) -> Option<Running> {
    let watch = board.watched()?;
    let mut sighting = Sighting::default();
    // One look is enough: ages would need a second one, and only what runs is asked for.
    sighting.look(watch, Duration::ZERO);
    if let Some((_, call, _)) = sighting.client_call(Duration::ZERO) {
        return Some(Running { what: format!("the call \"{call}\" of Kafka's client"), on: None });
    }
    sighting.longest(Duration::ZERO)?;
    let place = sighting.doing().and_then(|doing| watch.place(&doing));
    Some(Running { what: watch.row_in_words(), on: place.map(|(place, offset)| format!("{place}@{offset}")) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::counters::StepCounters;
    use crate::status::snapshot::{PartitionStatus, State};

    #[test]
    fn a_report_that_is_too_large_leaves_details_out() {
        let board = Board::new("shop", "shop.pod-1.0");
        let partition = |partition| PartitionStatus {
            topic: "t".repeat(200),
            partition,
            high: None,
            queued_bytes: 0,
            oldest_ms: None,
            readers: Vec::new(),
        };
        let partitions: Vec<_> = (0..10_000).map(partition).collect();
        let written = |snapshot: Snapshot| {
            board.publish(snapshot);
            let mut bytes = Vec::new();
            let left_out = Report::of(&board).write(&mut bytes).expect("it is written");
            (left_out, Report::read(&mut bytes.as_slice()).expect("a report").snapshot)
        };
        let mut snapshot = Snapshot { state: State::Running, partitions, ..Snapshot::default() };
        snapshot.counters.completed = 7;
        let (left_out, came) = written(snapshot.clone());
        assert_eq!((left_out, came.state, came.counters.completed), (Some(LeftOut::Partitions), State::Running, 7));
        let step = StepCounters { agent: "a".repeat(200), ..StepCounters::default() };
        snapshot.counters.steps = vec![step; 10_000];
        let (left_out, came) = written(snapshot);
        assert_eq!((left_out, came.state, came.counters.completed), (Some(LeftOut::Counters), State::Running, 0));
    }

    #[test]
    fn a_report_comes_as_it_was_written() {
        let board = Board::new("shop", "shop.pod-1.0");
        let mut snapshot = Snapshot { state: State::Running, ..Snapshot::default() };
        snapshot.counters.failed_by_kind.count("a", "o", "KeyError");
        snapshot.events = vec![(("r".to_owned(), "t".to_owned()), Default::default())];
        snapshot.delivery.transactions.observe(Duration::from_millis(3), 1);
        board.publish(snapshot);
        let mut bytes = Vec::new();
        for _ in 0..2 {
            Report::of(&board).write(&mut bytes).expect("it is written");
        }
        let mut rest = bytes.as_slice();
        for _ in 0..2 {
            let report = Report::read(&mut rest).expect("a report");
            let snapshot = &report.snapshot;
            assert_eq!((snapshot.state, snapshot.delivery.transactions.seconds.count()), (State::Running, 1));
            assert_eq!(snapshot.counters.failed_by_kind.iter().next(), Some(("a", "o", "KeyError", 1)));
            assert!(report.process.is_some_and(|process| process.resident_bytes > 0.0));
        }
        assert!(Report::read(&mut rest).is_err(), "the other end is gone");
        assert!(Report::read(&mut [255, 255, 255, 255].as_slice()).is_err(), "no report is so large");
    }
}
