//! The board: where the worker leaves its last [`Snapshot`] for the threads that answer for it.
//!
//! Only a process that serves a port has one. The worker publishes at most once a second, between two turns; it
//! never waits for a reader, since a reader holds the lock only while it copies one pointer. Requests of
//! readers go the other way as flags that the worker looks at.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::snapshot::{Partitions, Snapshot, State};
use crate::clock::{Clock as _, SystemClock};
use crate::guard::Watch;

/// The time between two snapshots.
pub const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// The last snapshot of a worker, and requests to it.
#[derive(Debug)]
pub struct Board {
    clock: SystemClock,
    latest: Mutex<Posted>,
    /// The end of the last turn, in ms of the clock.
    turned_ms: AtomicU64,
    /// True if a reader has asked for a rebalance.
    wants_rebalance: AtomicBool,
    /// The watch over the worker's thread, once there is one.
    watch: OnceLock<Arc<Watch>>,
    /// The way in which it is known who leads the app.
    leads: OnceLock<Leads>,
}

/// The way in which it is known whether a worker leads its app.
#[derive(Debug)]
enum Leads {
    /// It owns this partition, which it reads.
    Owner(String, i32),
    /// It owns the partition of this topic, which is made for nothing else: the flag is set while it does.
    Elected(String, Arc<AtomicBool>),
}

/// The partition of a topic that is made for nothing but its owner to lead.
const ELECTION: i32 = 0;

#[derive(Clone, Debug)]
struct Posted {
    snapshot: Arc<Snapshot>,
    /// The time at which it was published, by the board's clock; zero before the first turn.
    at: Duration,
    /// The time at which its state began, in ms since 1970.
    since_ms: i64,
}

/// The board as a reader finds it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The last snapshot.
    pub snapshot: Arc<Snapshot>,
    /// The time since it was published.
    pub age: Duration,
    /// The time since the worker's last turn; before the first, since the process began or last waited for
    /// a broker.
    pub turn_age: Duration,
    /// The time since the board was made, at the start of the process.
    pub up: Duration,
    /// The time at which the state began, in ms since 1970.
    pub since_ms: i64,
}

impl Board {
    /// Makes a board of a worker that loads.
    pub fn new(app: &str, worker: &str) -> Board {
        let clock = SystemClock::start();
        let timestamp_ms = clock.wall_ms();
        let snapshot = Snapshot {
            app: app.to_owned(),
            worker: worker.to_owned(),
            timestamp_ms,
            state: State::Loading,
            ..Snapshot::default()
        };
        let posted = Posted { snapshot: Arc::new(snapshot), at: Duration::ZERO, since_ms: timestamp_ms };
        Board {
            clock,
            latest: Mutex::new(posted),
            turned_ms: AtomicU64::new(0),
            wants_rebalance: AtomicBool::new(false),
            watch: OnceLock::new(),
            leads: OnceLock::new(),
        }
    }

    fn latest(&self) -> MutexGuard<'_, Posted> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the end of a turn. Returns true if a snapshot is due.
    pub fn turned(&self) -> bool {
        let now = self.clock.now();
        self.turned_ms.store(millis(now), Ordering::Relaxed);
        let at = self.latest().at;
        at.is_zero() || now >= at + PUBLISH_EVERY
    }

    /// Puts a snapshot in the place of the last one, and enters into it whether the worker leads.
    ///
    /// The topic of an election stands among the assigned partitions, as with the reference runtime: a worker owns its
    /// partition like any other.
    pub fn publish(&self, mut snapshot: Snapshot) {
        snapshot.is_leader = self.leads(&snapshot.assignment);
        if let (true, Some(Leads::Elected(topic, _))) = (snapshot.is_leader, self.leads.get()) {
            snapshot.assignment.insert(topic.clone(), [ELECTION].into());
        }
        self.post(snapshot, self.clock.now());
    }

    fn post(&self, snapshot: Snapshot, at: Duration) {
        let mut latest = self.latest();
        let since_ms = if latest.snapshot.state == snapshot.state { latest.since_ms } else { snapshot.timestamp_ms };
        *latest = Posted { snapshot: Arc::new(snapshot), at, since_ms };
    }

    /// Says what a worker without a turn so far does or waits for. Counts as a turn: a thread that says it is alive.
    pub fn note(&self, state: State, why: &str) {
        self.turned_ms.store(millis(self.clock.now()), Ordering::Relaxed);
        let last = self.latest().snapshot.clone();
        let timestamp_ms = self.clock.wall_ms();
        let noted = Snapshot { state, why: Some(why.to_owned()), timestamp_ms, ..Snapshot::clone(&last) };
        // As if there were none yet: the first turn publishes at once.
        self.post(noted, Duration::ZERO);
    }

    /// Looks at the board.
    pub fn look(&self) -> Seen {
        let Posted { mut snapshot, at, since_ms } = self.latest().clone();
        if let Some(Leads::Elected(topic, leads)) = self.leads.get()
            && snapshot.is_leader
            && !leads.load(Ordering::Relaxed)
        {
            // It has given the partition up since: another worker may lead before the next snapshot.
            let snapshot = Arc::make_mut(&mut snapshot);
            snapshot.is_leader = false;
            snapshot.assignment.remove(topic);
        }
        let now = self.clock.now();
        let turned = Duration::from_millis(self.turned_ms.load(Ordering::Relaxed));
        Seen { snapshot, age: now.saturating_sub(at), turn_age: now.saturating_sub(turned), up: now, since_ms }
    }

    /// Lets readers see what the worker's thread does, and wake it.
    pub fn watch(&self, watch: Arc<Watch>) {
        // A process has one worker: a second watch would not count.
        let _ = self.watch.set(watch);
    }

    /// The watch over the worker's thread, once there is one.
    pub fn watched(&self) -> Option<&Arc<Watch>> {
        self.watch.get()
    }

    /// Makes the owner of this partition, which is read, the leader: before the worker joins its group.
    pub fn lead_with(&self, topic: &str, partition: i32) {
        // An app has one way to choose: a second one would not count.
        let _ = self.leads.set(Leads::Owner(topic.to_owned(), partition));
    }

    /// Makes the owner of this topic's partition the leader: before the worker joins its group. `leads` says at any
    /// moment whether the worker owns it.
    pub fn lead_by(&self, topic: &str, leads: Arc<AtomicBool>) {
        // As above.
        let _ = self.leads.set(Leads::Elected(topic.to_owned(), leads));
    }

    /// True if a worker with this assignment leads the app.
    fn leads(&self, assignment: &Partitions) -> bool {
        match self.leads.get() {
            Some(Leads::Owner(topic, partition)) => {
                assignment.get(topic).is_some_and(|partitions| partitions.contains(partition))
            }
            Some(Leads::Elected(_, leads)) => leads.load(Ordering::Relaxed),
            None => false,
        }
    }

    /// Asks the worker to have its group share out partitions anew.
    pub fn ask_rebalance(&self) {
        // Set before the bell is rung: a worker that is woken looks for it at once.
        self.wants_rebalance.store(true, Ordering::Release);
        if let Some(watch) = self.watch.get() {
            watch.wake_up();
        }
    }

    /// True if a reader has asked for a rebalance since the last call.
    pub fn take_rebalance(&self) -> bool {
        // Asked at every turn, so a load comes first: a swap would claim the cache line each time.
        self.wants_rebalance.load(Ordering::Relaxed) && self.wants_rebalance.swap(false, Ordering::Acquire)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_finds_the_last_snapshot_and_when_its_state_began() {
        let board = Board::new("shop", "shop.pod-1.0");
        assert_eq!(board.look().snapshot.state, State::Loading);
        assert!(board.turned(), "the first turn publishes");
        let at = |state, timestamp_ms| Snapshot { state, timestamp_ms, ..Snapshot::default() };
        board.publish(at(State::Joining, 10));
        assert!(!board.turned(), "not again within a second");
        board.publish(at(State::Running, 20));
        board.publish(at(State::Running, 30));
        let seen = board.look();
        assert_eq!((seen.snapshot.state, seen.snapshot.timestamp_ms, seen.since_ms), (State::Running, 30, 20));
    }

    #[test]
    fn a_note_says_why_a_worker_is_not_ready() {
        let board = Board::new("shop", "shop.pod-1.0");
        board.note(State::Loading, "no broker answers");
        let seen = board.look();
        assert_eq!((seen.snapshot.app.as_str(), seen.snapshot.why.as_deref()), ("shop", Some("no broker answers")));
        assert!(board.turned(), "the first turn publishes, however soon it comes");
    }

    #[test]
    fn the_owner_of_one_partition_leads() {
        let board = Board::new("shop", "shop.pod-1.0");
        let of = |partitions: &[i32]| Partitions::from([("t".to_owned(), partitions.iter().copied().collect())]);
        assert!(!board.leads(&of(&[0])), "it is not known yet which partition that is");
        board.lead_with("t", 0);
        assert!(board.leads(&of(&[0, 1])) && !board.leads(&of(&[1])) && !board.leads(&Partitions::new()));
    }

    #[test]
    fn a_worker_that_gives_its_office_up_leads_no_more() {
        let (board, leads) = (Board::new("shop", "shop.pod-1.0"), Arc::new(AtomicBool::new(true)));
        board.lead_by("shop-leader", leads.clone());
        board.publish(Snapshot::default());
        let seen = board.look().snapshot;
        assert!(seen.is_leader && seen.assignment["shop-leader"].contains(&0));
        leads.store(false, Ordering::Relaxed);
        let seen = board.look().snapshot;
        assert!(!seen.is_leader && seen.assignment.is_empty(), "without a new snapshot");
    }

    #[test]
    fn a_request_is_taken_once() {
        let board = Board::new("shop", "shop.pod-1.0");
        assert!(!board.take_rebalance());
        board.ask_rebalance();
        board.ask_rebalance();
        assert!(board.take_rebalance() && !board.take_rebalance());
    }
}
