//! Poison events, which end the process: recognised after three crashes in a row, and not run again.
//!
//! The *mark* says which event runs. It lies in a mapped file, so it outlives the process; the next process
//! finds it there and counts it, and an event that was found three times is a poison event (delivery, rule
//! 9). Without a state dir there is a mark all the same, in memory: the watchdog and the stall report read
//! it.
//!
//! ```text
//! worker's thread ──plain stores──▶ Watch { mark, call } ◀──looks── watchdog, alarm, status, signal handlers
//!                                     │ mapped: running.{worker}
//! next process ──reads──▶ the mark that was left ──counts──▶ crashes.{worker} ──three──▶ poison event
//! ```
//!
//! Only a process that dies while an event runs leaves a mark. One that ends for another reason clears it first
//! ([`Watch::spare`]), so that no event is blamed for a signal or for a client of Kafka that does not return.

mod callers;
mod calls;
mod crashes;
mod lookers;
mod mark;
mod names;
mod patience;
mod watch;
mod watchdog;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

pub use callers::Callers;
pub use calls::{Calls, ClientCall};
pub use crashes::{CRASHES_MAX, Crash};
pub use lookers::Lookers;
pub use mark::Doing;
pub use names::Row;
pub use patience::Patience;
pub use watch::{InFlight, LookTime, NO_CALL, Outer, Rang, Sighting, Watch};
pub use watchdog::{FORCED, grace, name_events_of_fatal_signals, watch_over, write_stack_on};

use crashes::Crashes;

/// The worker and the files for which a guard is opened.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// Folder of its files.
    pub state_dir: &'a Path,
    /// The worker's number, from 0.
    pub worker: u32,
    /// The app's name: another app's crashes say nothing.
    pub app: &'a str,
    /// The plan's revision: what crashed under other code may run now.
    pub revision: &'a str,
}

/// The reason for which the guard cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Another process is at work there.
    #[error("the state dir \"{}\" is in use by another worker {worker}: give each process its own", .state_dir.display())]
    InUse {
        /// The folder.
        state_dir: PathBuf,
        /// The number of the worker.
        worker: u32,
    },
    /// The file system refused.
    #[error("the state dir \"{}\" cannot be used: {error}", .state_dir.display())]
    File {
        /// The folder.
        state_dir: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
}

/// The guard of one worker.
#[derive(Debug)]
pub struct Guard {
    /// The watch over the worker: the event and the call that run now.
    pub watch: Arc<Watch>,
    crashes: Crashes,
}

impl Guard {
    /// A guard without a file: the mark is gone with the process.
    ///
    /// Local runs and tests use it: nothing is counted, and no event is refused.
    pub fn none() -> Guard {
        Guard { watch: Arc::new(Watch::in_memory()), crashes: Crashes::default() }
    }

    /// Opens a guard in the state dir of a worker.
    pub fn open(post: Post<'_>) -> Result<Guard, GuardError> {
        Guard::none().keep_in(post)
    }

    /// Takes `{state-dir}/running.{worker}` over, moves the marks there, and counts the event that the process
    /// before this one left in it, or those in flight if none ran.
    ///
    /// Called once, before the first event. The lock on the file lasts as long as the process; it fails with
    /// [`GuardError::InUse`] where another process holds it.
    pub fn keep_in(self, post: Post<'_>) -> Result<Guard, GuardError> {
        let failed = |error| GuardError::File { state_dir: post.state_dir.to_owned(), error };
        std::fs::create_dir_all(post.state_dir).map_err(failed)?;
        let path = post.state_dir.join(format!("running.{}", post.worker));
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed)?;
        lock(&file, post)?;
        let mut crashes = Crashes::read(post).map_err(failed)?;
        let bytes = std::fs::read(&path).map_err(failed)?;
        let last = names::last_crashes(&bytes, post);
        if !last.is_empty() {
            // Counted before the marks are cleared below: a process that is killed in between counts the events once too
            // often, where the other order could miss them.
            crashes.count(&last).map_err(failed)?;
            tell(&last, &crashes);
        }
        self.watch.move_to(file, post).map_err(failed)?;
        Ok(Guard { watch: self.watch, crashes })
    }

    /// Looks whether [`Guard::keep_in`] would find the state dir free, and makes nothing.
    pub fn look(post: Post<'_>) -> Result<(), GuardError> {
        match File::open(post.state_dir.join(format!("running.{}", post.worker))) {
            Ok(file) => lock(&file, post),
            // There is none yet, or the first write will say what is wrong.
            Err(_) => Ok(()),
        }
    }

    /// Events that have ended the process too often.
    ///
    /// Asked once, at the start. They stay listed until their failures have been committed and the process has
    /// ended.
    pub fn poison_events(&self) -> Vec<&Crash> {
        self.crashes.poison_events()
    }

    /// Events that have ended the process, alone or with others in flight, and run alone until they complete.
    pub fn suspects(&self) -> Vec<&Crash> {
        self.crashes.suspects().collect()
    }

    /// Notes that a reader has completed everything before `done`. Events before it that crashed and are no
    /// poison events are forgotten.
    pub fn completed(&mut self, reader: &str, (topic, partition): (&str, i32), done: i64) {
        if let Err(error) = self.crashes.completed(reader, (topic, partition), done) {
            warn!(%error, "crashes of events cannot be noted");
        }
    }

    /// Some event has crashed and not completed since.
    pub fn has_suspects(&self) -> bool {
        self.crashes.has_suspects()
    }
}

/// Locks the file for as long as it is open.
fn lock(file: &File, post: Post<'_>) -> Result<(), GuardError> {
    file.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => {
            GuardError::InUse { state_dir: post.state_dir.to_owned(), worker: post.worker }
        }
        std::fs::TryLockError::Error(error) => GuardError::File { state_dir: post.state_dir.to_owned(), error },
    })
}

/// Logs the crashes that were found, with what happens to their events.
fn tell(crashes: &[Crash], all: &Crashes) {
    let [crash] = crashes else {
        let Crash { topic, partition, offset, .. } = &crashes[0];
        warn!(%topic, partition, offset, "the last process ended while {} events were in flight, this one first: each runs alone until it completes", crashes.len());
        return;
    };
    let (Crash { topic, partition, offset, events, call, .. }, count) = (crash, all.total(crash));
    let (agent, operation) = call.as_ref().map(|(agent, operation)| (agent.as_str(), operation.as_str())).unzip();
    let batch = if *events > 1 { format!(" (a batch of {events} events)") } else { String::new() };
    let verdict = match CRASHES_MAX.saturating_sub(count) {
        0 => "it is not run again and fails".to_owned(),
        left => format!("after {left} more in a row it fails alone"),
    };
    warn!(
        agent,
        operation,
        %topic,
        partition,
        offset,
        "the last process ended here{batch}: crash {count}, {verdict}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::slots::Slots;
    use crate::event::message::TopicPartition;
    use kaspr_ir::plan::ReaderId;

    fn post(state_dir: &Path) -> Post<'_> {
        Post { state_dir, worker: 0, app: "shop", revision: "r1" }
    }

    fn named(guard: &Guard) -> &Watch {
        guard.watch.name_reader(ReaderId(0), "orders");
        guard.watch.name_rows([Row {
            agent: "orders".into(),
            operation: "count".into(),
            limit: std::time::Duration::from_secs(1),
        }]);
        Slots::watched(guard.watch.clone()).number(&"in".into(), 3);
        &guard.watch
    }

    /// A process that dies while an event runs: its mark stays.
    fn crash(folder: &Path, offset: i64) -> usize {
        let guard = Guard::open(post(folder)).expect("it opens");
        named(&guard).begin(ReaderId(0), 0, offset, 1);
        guard.watch.arm(0);
        guard.poison_events().len()
    }

    #[test]
    fn three_crashes_in_a_row_make_a_poison_event() {
        let folder = tempfile::tempdir().expect("a folder");
        for expected in [0, 0, 0, 1, 1] {
            assert_eq!(crash(folder.path(), 7), expected);
        }
        let guard = Guard::open(post(folder.path())).expect("it opens");
        let poison = guard.poison_events();
        assert_eq!((poison[0].offset, poison[0].partition, poison[0].crashes), (7, 3, 5));
        assert_eq!(poison[0].place(), "agent \"orders\", operation \"count\"");
    }

    #[test]
    fn an_event_that_completes_is_free_again() {
        let folder = tempfile::tempdir().expect("a folder");
        crash(folder.path(), 7);
        crash(folder.path(), 7);
        let mut guard = Guard::open(post(folder.path())).expect("it opens");
        assert!(guard.has_suspects());
        guard.completed("orders", ("in", 3), 7);
        assert!(guard.has_suspects(), "7 is not complete when the next offset to complete is 7");
        guard.completed("orders", ("in", 3), 8);
        assert!(!guard.has_suspects());
        drop(guard);
        for expected in [0, 0, 0, 1] {
            assert_eq!(crash(folder.path(), 7), expected);
        }
    }

    #[test]
    fn a_process_that_ends_between_events_leaves_no_mark() {
        let folder = tempfile::tempdir().expect("a folder");
        for _ in 0..5 {
            let guard = Guard::open(post(folder.path())).expect("it opens");
            let watch = named(&guard);
            watch.begin(ReaderId(0), 0, 7, 1);
            watch.end();
            assert!(!guard.has_suspects() && guard.poison_events().is_empty());
        }
    }

    #[test]
    fn other_code_gets_new_tries_and_a_batch_counts_by_its_first_offset() {
        let folder = tempfile::tempdir().expect("a folder");
        for events in [3, 2, 5] {
            let guard = Guard::open(post(folder.path())).expect("it opens");
            named(&guard).begin(ReaderId(0), 0, 7, events);
        }
        assert_eq!(Guard::open(post(folder.path())).expect("it opens").poison_events().len(), 1);
        let mended = Post { revision: "r2", ..post(folder.path()) };
        assert_eq!(Guard::open(mended).expect("it opens").poison_events().len(), 0);
    }

    #[test]
    fn what_another_worker_counted_counts_too() {
        let folder = tempfile::tempdir().expect("a folder");
        for worker in [0, 1, 1, 0] {
            let guard = Guard::open(Post { worker, ..post(folder.path()) }).expect("it opens");
            named(&guard).begin(ReaderId(0), 0, 7, 1);
        }
        // Worker 1's second crash still stands in its mark: it is counted when it starts again.
        assert_eq!(Guard::open(post(folder.path())).expect("it opens").poison_events().len(), 1);
    }

    #[test]
    fn one_process_at_a_time_and_strange_files_are_nobodys_crash() {
        let folder = tempfile::tempdir().expect("a folder");
        let guard = Guard::open(post(folder.path())).expect("it opens");
        assert!(matches!(Guard::open(post(folder.path())), Err(GuardError::InUse { worker: 0, .. })));
        drop(guard);
        std::fs::write(folder.path().join("running.0"), vec![7; 5000]).expect("written");
        std::fs::write(folder.path().join("crashes.0"), "{").expect("written");
        assert!(!Guard::open(post(folder.path())).expect("it opens").has_suspects());
    }

    fn fly(watch: &Arc<Watch>, offset: i64) -> Option<InFlight> {
        let doing = Doing { unit: 1, offset, reader: 0, partition: 0, events: 1, row: 0 };
        watch.fly(&doing, false)
    }

    /// A process that dies, its marks as they are now.
    fn die(folder: &Path, guard: Guard, flights: Vec<Option<InFlight>>) {
        let file = folder.join("running.0");
        let left = std::fs::read(&file).expect("it is there");
        drop((guard, flights));
        std::fs::write(file, left).expect("written");
    }

    /// A process that dies while these events are in flight and none runs: its suspects and poison events.
    fn crash_in_flight(folder: &Path, offsets: &[i64]) -> [usize; 2] {
        let guard = Guard::open(post(folder)).expect("it opens");
        named(&guard);
        let flights = offsets.iter().map(|offset| fly(&guard.watch, *offset)).collect();
        let found = [guard.suspects().len(), guard.poison_events().len()];
        die(folder, guard, flights);
        found
    }

    #[test]
    fn all_events_in_flight_are_suspects_where_none_ran() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(crash_in_flight(folder.path(), &[7, 8, 9]), [0, 0]);
        // From here on they run alone.
        assert_eq!(crash_in_flight(folder.path(), &[7]), [3, 0]);
        assert_eq!(crash_in_flight(folder.path(), &[7]), [3, 0]);
        assert_eq!(crash_in_flight(folder.path(), &[]), [2, 1]);
        assert_eq!(Guard::open(post(folder.path())).expect("it opens").poison_events()[0].offset, 7);
    }

    #[test]
    fn the_event_that_ran_is_to_blame_and_not_those_in_flight() {
        let folder = tempfile::tempdir().expect("a folder");
        let guard = Guard::open(post(folder.path())).expect("it opens");
        named(&guard).begin(ReaderId(0), 0, 8, 1);
        let flights = vec![fly(&guard.watch, 7)];
        die(folder.path(), guard, flights);
        let guard = Guard::open(post(folder.path())).expect("it opens");
        assert_eq!(guard.suspects().iter().map(|crash| crash.offset).collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn an_event_that_is_not_in_flight_any_more_is_no_suspect() {
        let folder = tempfile::tempdir().expect("a folder");
        let guard = Guard::open(post(folder.path())).expect("it opens");
        named(&guard);
        drop(fly(&guard.watch, 7));
        assert!(!guard.watch.has_flights());
        let flights = vec![fly(&guard.watch, 8)];
        guard.watch.spare();
        die(folder.path(), guard, flights);
        assert_eq!(crash_in_flight(folder.path(), &[]), [0, 0]);
    }

    #[test]
    fn more_events_than_have_marks_may_be_in_flight() {
        let watch = Arc::new(Watch::in_memory());
        let mut flights: Vec<_> = (0..1100).map(|offset| fly(&watch, offset)).collect();
        assert_eq!(flights.iter().flatten().count(), 1024);
        flights.remove(5);
        assert!(fly(&watch, 5).is_some(), "a mark is free again");
    }

    #[test]
    fn partitions_are_named_once() {
        let watch = Arc::new(Watch::in_memory());
        let mut slots = Slots::watched(watch.clone());
        for partition in [4, 5, 4] {
            slots.number(&"t".into(), partition);
        }
        watch.begin(ReaderId(0), 1, 9, 1);
        let doing = watch.doing().expect("it runs");
        assert_eq!(watch.place(&doing), Some((TopicPartition::new("t", 5).to_string(), 9)));
    }
}
