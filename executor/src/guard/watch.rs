//! Shows other threads what the worker's thread does now.
//!
//! Two things run there: a *unit* (an event or a batch, from its decoding to its last output) and,
//! within it, a *call* of user code. Beginning and ending them is a few plain stores. A call is one
//! atomic word, its number and whether the alarm has rung for it, so that an alarm never meets the
//! call behind the one that it was meant for.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockWriteGuard, TryLockError};
use std::time::Duration;

use kaspr_ir::plan::ReaderId;

use super::Post;
use super::calls::{self, Calls};
use super::lookers::Lookers;
use super::mark::{Doing, FLIGHTS_MAX, Mark, Page};
use super::names::{Names, Row};
use crate::config::CALL_MAX;
use crate::wake::Wake;

/// The row of no call of an event: it is decoded; or, outside any event, a task that user code has
/// started in the event loop runs.
pub const NO_CALL: u32 = u32::MAX;

/// The reason for which the alarm rang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rang {
    /// The call took longer than it may.
    Call,
    /// All calls of the event together did.
    Event,
}

/// The bits of a call's word that are not its number.
const RANG_BITS: u64 = 0b11;

impl Rang {
    fn bits(self) -> u64 {
        match self {
            Rang::Call => 1,
            Rang::Event => 2,
        }
    }

    fn of(word: u64) -> Option<Rang> {
        match word & RANG_BITS {
            1 => Some(Rang::Call),
            2 => Some(Rang::Event),
            _ => None,
        }
    }
}

/// The state of the worker's thread, for all threads that look at it.
#[derive(Debug)]
pub struct Watch {
    page: Page,
    /// Units and calls so far; only the worker's thread counts.
    units: AtomicU64,
    calls: AtomicU64,
    /// The call that runs: its number and `RANG_BITS`; 0: none runs.
    call: AtomicU64,
    /// Only the worker's thread writes; the threads that look read at the same time.
    names: RwLock<Names>,
    /// The time after which a stall is logged, in ms; 0: never.
    stall_after_ms: AtomicU64,
    /// A user wants the status.
    asked: AtomicBool,
    /// Calls into Kafka's client, where there is one.
    client: OnceLock<Arc<Calls>>,
    /// Gives the watchdog's words the form of the log, where it has one of its own.
    form: OnceLock<fn(&str) -> String>,
    /// Wakes the worker's thread; `None` where the process has no descriptors left.
    wake: OnceLock<Option<Wake>>,
    lookers: Lookers,
    /// Units in flight that are marked.
    flights: Mutex<Flights>,
}

/// Numbers of marks that are taken.
#[derive(Debug, Default)]
struct Flights {
    all: BTreeSet<usize>,
    /// The one next to which no other may be.
    lonely: Option<usize>,
}

/// A unit in flight: it awaits something, and does not run. Its mark goes with it.
#[derive(Debug)]
pub struct InFlight {
    watch: Arc<Watch>,
    at: usize,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.watch.page.flights()[self.at].clear();
        let mut flights = self.watch.flights();
        flights.all.remove(&self.at);
        flights.lonely = flights.lonely.filter(|lonely| *lonely != self.at);
    }
}

/// The unit and call that ran before something else was let in between.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    doing: Option<Doing>,
    call: u64,
    row: u32,
}

impl Watch {
    /// A mark that is gone with the process.
    pub fn in_memory() -> Watch {
        Watch {
            page: Page::in_memory(),
            units: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            call: AtomicU64::new(0),
            names: RwLock::default(),
            stall_after_ms: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            client: OnceLock::new(),
            form: OnceLock::new(),
            wake: OnceLock::new(),
            lookers: Lookers::default(),
            flights: Mutex::default(),
        }
    }

    /// Moves the mark to a file, which says that nothing runs. Nothing is named yet.
    pub(super) fn move_to(&self, file: File, post: Post<'_>) -> std::io::Result<()> {
        self.page.move_to(&file)?;
        *self.names() = Names::of(file, post)?;
        Ok(())
    }

    /// A unit begins: an event, or a batch by its first event.
    pub fn begin(&self, reader: ReaderId, partition: usize, offset: i64, events: usize) {
        let (reader, partition, events) = (reader.0, partition as u32, events as u32);
        self.page.set(&Doing { unit: next(&self.units), offset, reader, partition, events, row: NO_CALL });
    }

    /// The unit has ended, or waits for time or the world.
    pub fn end(&self) {
        self.page.clear();
    }

    /// Marks a unit that is in flight from now on, for the next process; if it `is_lonely`, no other may begin
    /// meanwhile. `None`: too many are marked.
    pub fn fly(self: &Arc<Watch>, doing: &Doing, is_lonely: bool) -> Option<InFlight> {
        let mut flights = self.flights();
        let next = flights.all.last().map_or(0, |last| last + 1);
        let is_free = |at: &usize| !flights.all.contains(at);
        // Behind the last while there is room: flights end roughly in their order, so a search is seldom needed.
        let at = if next < FLIGHTS_MAX { next } else { (0..FLIGHTS_MAX).find(is_free)? };
        flights.all.insert(at);
        if is_lonely {
            flights.lonely = Some(at);
        }
        self.page.flights()[at].set(doing);
        Some(InFlight { watch: self.clone(), at })
    }

    /// True if some unit that is marked is in flight.
    pub fn has_flights(&self) -> bool {
        !self.flights().all.is_empty()
    }

    /// True if a unit is in flight next to which no other may be.
    pub fn has_lonely_flight(&self) -> bool {
        self.flights().lonely.is_some()
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins at this row of the table of counters.
    pub fn arm(&self, row: u32) {
        // Before the call's word: a thread that sees the call reads the limit of its row.
        self.page.set_row(row);
        self.call.store(next(&self.calls) << 2, Ordering::Release);
    }

    /// The call has ended. No alarm fires between load and store: the alarm thread needs the GIL, which the
    /// caller holds.
    pub fn disarm(&self) -> Option<Rang> {
        // Read and then cleared: the caller, which armed it, must know whether an exception is on its way to it.
        let word = self.call.load(Ordering::Acquire);
        self.call.store(0, Ordering::Release);
        Rang::of(word)
    }

    /// A unit that waited goes on inside something else, with a call at the row that it had.
    pub fn enter(&self, doing: &Doing) -> Outer {
        // Taken before the mark is overwritten: `leave` restores unit, row and call as they were.
        let outer = Outer { doing: self.doing(), call: self.call.load(Ordering::Acquire), row: self.page.row() };
        self.page.set(&Doing { unit: next(&self.units), ..*doing });
        self.arm(doing.row);
        outer
    }

    /// It waits again: what ran before runs again.
    pub fn leave(&self, outer: Outer) -> Option<Rang> {
        let rang = self.disarm();
        match &outer.doing {
            Some(doing) => self.page.set(doing),
            None => self.page.clear(),
        }
        self.page.set_row(outer.row);
        self.call.store(outer.call, Ordering::Release);
        rang
    }

    /// Notes that the alarm rings for this call. False: it has ended, or the alarm rang before.
    pub fn ring(&self, call: u64, why: Rang) -> bool {
        let word = call << 2;
        self.call.compare_exchange(word, word | why.bits(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The unit that runs.
    pub fn doing(&self) -> Option<Doing> {
        self.page.get()
    }

    /// The number of the call that runs; 0: none runs.
    fn call(&self) -> u64 {
        self.call.load(Ordering::Acquire) >> 2
    }

    /// Clears all marks: the process ends for reasons that are not the event's, so it must not count as a
    /// crash of it.
    pub fn spare(&self) {
        self.page.clear();
        self.page.flights().iter().for_each(Mark::clear);
    }

    /// Names the reader of this number, the next one.
    pub fn name_reader(&self, reader: ReaderId, name: &str) {
        let mut names = self.names();
        debug_assert_eq!(names.readers.len(), reader.index(), "readers are named in order");
        names.add_reader(name);
    }

    /// Names the next rows.
    pub fn name_rows(&self, rows: impl IntoIterator<Item = Row>) {
        let mut names = self.names();
        rows.into_iter().for_each(|row| names.add_row(row));
    }

    /// Names the next partition of the worker's list.
    pub fn name_partition(&self, topic: &str, partition: i32) {
        self.names().add_partition(topic, partition);
    }

    fn names(&self) -> RwLockWriteGuard<'_, Names> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a name without ever waiting for the worker's thread. `None` too while that one writes.
    fn peek<R>(&self, read: impl FnOnce(&Names) -> Option<R>) -> Option<R> {
        match self.names.try_read() {
            Ok(names) => read(&names),
            Err(TryLockError::Poisoned(names)) => read(&names.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The longest time of a call at the row of the last one.
    pub fn limit(&self) -> Duration {
        self.row().map_or(CALL_MAX, |row| row.limit)
    }

    /// The place of the last call; `None` where it is no event's.
    pub fn row(&self) -> Option<Row> {
        let row = self.page.row() as usize;
        self.peek(|names| names.rows.get(row).cloned())
    }

    /// The place of the last call in words.
    pub fn row_in_words(&self) -> String {
        match (self.row(), self.doing()) {
            (Some(row), _) => row.words(),
            (None, Some(_)) => "the codec".to_owned(),
            (None, None) => "a task of the event loop".to_owned(),
        }
    }

    /// `topic/partition` and offset of a unit's first event.
    pub fn place(&self, doing: &Doing) -> Option<(String, i64)> {
        let at = doing.partition as usize;
        self.peek(|names| names.partitions.get(at).map(|(topic, number)| (format!("{topic}/{number}"), doing.offset)))
    }

    /// Writes in which call and on which event the worker's thread is, in pieces. May be called in a signal
    /// handler: it allocates nothing and waits for nothing.
    pub(super) fn say_where(&self, say: &mut dyn FnMut(&[u8])) {
        let Some(doing) = self.doing() else { return say(b" while no event runs") };
        self.peek(|names| {
            if let Some(row) = names.rows.get(self.page.row() as usize) {
                [" in agent \"", &row.agent, "\", operation \"", &row.operation, "\""]
                    .iter()
                    .for_each(|piece| say(piece.as_bytes()));
            }
            let (topic, number) = names.partitions.get(doing.partition as usize)?;
            let (mut partition, mut offset) = (itoa::Buffer::new(), itoa::Buffer::new());
            [" on ", topic.as_str(), "/", partition.format(*number), "@", offset.format(doing.offset)]
                .iter()
                .for_each(|piece| say(piece.as_bytes()));
            Some(())
        });
    }

    /// Sets the time after which a stall is logged.
    pub fn set_stall_after(&self, after: Duration) {
        self.stall_after_ms.store(u64::try_from(after.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The time after which a stall is logged; `None`: never.
    pub fn stall_after(&self) -> Option<Duration> {
        let ms = self.stall_after_ms.load(Ordering::Relaxed);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// Sets the form in which the watchdog writes.
    pub fn speak_through(&self, form: fn(&str) -> String) {
        // A process speaks in one form to its end.
        let _ = self.form.set(form);
    }

    /// The watchdog's words in the form of the log.
    pub(super) fn formed(&self, words: &str) -> String {
        self.form.get().map_or_else(|| words.to_owned(), |form| form(words))
    }

    /// Watches the calls into Kafka's client too.
    pub fn watch_calls(&self, calls: Arc<Calls>) {
        // A worker has one producer client: a second one would not count.
        let _ = self.client.set(calls);
    }

    /// Asks for the status. May be called in a signal handler.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
        self.wake_up();
    }

    /// The descriptor that the worker's thread sleeps on.
    pub fn wake(&self) -> Option<&Wake> {
        self.wake.get_or_init(Wake::new).as_ref()
    }

    /// Wakes the worker's thread, if it sleeps. May be called in a signal handler.
    pub fn wake_up(&self) {
        // A worker that has never slept looks for news before it does.
        if let Some(wake) = self.wake.get().and_then(Option::as_ref) {
            wake.ring();
        }
    }

    /// The threads that look at what is done here.
    pub fn lookers(&self) -> &Lookers {
        &self.lookers
    }

    /// True if a thread has asked since the last call.
    pub fn take_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::Relaxed)
    }

    /// True if the status was asked for, and not given yet.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Counts up: only one thread does.
fn next(counter: &AtomicU64) -> u64 {
    let number = counter.load(Ordering::Relaxed) + 1;
    counter.store(number, Ordering::Relaxed);
    number
}

/// The time of threads that look now and then: between two looks it passes no faster than they should
/// come. A process that stood still as a whole, alarms and all, blames no call for it.
#[derive(Debug)]
pub struct LookTime {
    last: Duration,
    passed: Duration,
    most: Duration,
}

impl LookTime {
    /// From `now` on, with a look `every` now and then. A busy machine may be late by as much again.
    ///
    /// A gap of two periods still counts in full.
    pub fn start(now: Duration, every: Duration) -> LookTime {
        LookTime { last: now, passed: Duration::ZERO, most: 2 * every }
    }

    /// The time of a look.
    pub fn look(&mut self, now: Duration) -> Duration {
        // A longer gap is a process that was stopped, or a machine that slept: no call had that time.
        self.passed += now.saturating_sub(self.last).min(self.most);
        self.last = now;
        self.passed
    }
}

/// The last look of a thread that looks now and then: since when the same unit or call runs.
#[derive(Debug, Default)]
pub struct Sighting {
    call: (u64, Duration),
    unit: (u64, Duration),
    client: (u64, Duration),
    doing: Option<Doing>,
}

impl Sighting {
    /// Looks. Ages count from the first look that saw the same, so they are never too long.
    pub fn look(&mut self, watch: &Watch, now: Duration) {
        self.doing = watch.doing();
        let see = |seen: &mut (u64, Duration), number: u64| {
            if seen.0 != number {
                *seen = (number, now);
            }
        };
        see(&mut self.call, watch.call());
        see(&mut self.client, watch.client.get().map_or(0, |calls| calls.running()));
        see(&mut self.unit, self.doing.map_or(0, |doing| doing.unit));
    }

    /// The unit that runs.
    pub fn doing(&self) -> Option<Doing> {
        self.doing
    }

    /// The number of the call that runs, and how long it has.
    pub fn call(&self, now: Duration) -> Option<(u64, Duration)> {
        (self.call.0 != 0).then(|| (self.call.0, now.saturating_sub(self.call.1)))
    }

    /// The call into Kafka's client that runs: its number, its name and how long it has.
    pub fn client_call(&self, now: Duration) -> Option<(u64, &'static str, Duration)> {
        let (number, since) = self.client;
        (number != 0).then(|| (number, calls::words(number), now.saturating_sub(since)))
    }

    /// Age of the unit that runs.
    pub fn unit(&self, now: Duration) -> Option<Duration> {
        (self.unit.0 != 0).then(|| now.saturating_sub(self.unit.1))
    }

    /// Number and age of what runs longest: the unit or, outside any, the call.
    pub fn longest(&self, now: Duration) -> Option<(u64, Duration)> {
        match self.unit(now) {
            Some(age) => Some((self.unit.0, age)),
            None => self.call(now),
        }
    }

    /// The call that runs, and the reason for which it should be interrupted, if there is one.
    pub fn overdue(&self, now: Duration, limit: Duration) -> Option<(u64, Rang)> {
        let (call, age) = self.call(now)?;
        let why = match self.unit(now) {
            _ if age >= limit => Rang::Call,
            Some(age) if age >= CALL_MAX => Rang::Event,
            _ => return None,
        };
        Some((call, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_ring_is_for_one_call_and_once() {
        let watch = Watch::in_memory();
        watch.arm(0);
        assert!(watch.ring(1, Rang::Call) && !watch.ring(1, Rang::Event));
        assert_eq!(watch.disarm(), Some(Rang::Call));
        assert!(!watch.ring(1, Rang::Call), "it has ended");
        watch.arm(0);
        assert!(!watch.ring(1, Rang::Call), "another one runs");
        assert_eq!(watch.disarm(), None);
    }

    #[test]
    fn what_is_let_in_between_has_a_time_of_its_own() {
        let watch = Watch::in_memory();
        watch.begin(ReaderId(0), 0, 5, 1);
        watch.arm(3);
        let waiting = Doing { unit: 0, offset: 9, reader: 1, partition: 1, events: 1, row: 4 };
        let outer = watch.enter(&waiting);
        let doing = watch.doing().expect("it runs");
        assert_eq!((doing.unit, doing.offset, doing.row), (2, 9, 4));
        assert!(watch.ring(2, Rang::Call));
        assert_eq!(watch.leave(outer), Some(Rang::Call));
        let doing = watch.doing().expect("it runs");
        assert_eq!((doing.unit, doing.offset, doing.row), (1, 5, 3));
        assert!(watch.ring(1, Rang::Call), "the outer call is armed as it was");
    }

    #[test]
    fn ages_count_from_the_first_look_at_the_same() {
        let (watch, mut sighting) = (Watch::in_memory(), Sighting::default());
        watch.begin(ReaderId(0), 0, 5, 1);
        watch.arm(0);
        sighting.look(&watch, SECOND);
        sighting.look(&watch, 3 * SECOND);
        assert_eq!((sighting.call(3 * SECOND), sighting.unit(3 * SECOND)), (Some((1, 2 * SECOND)), Some(2 * SECOND)));
        assert_eq!(sighting.overdue(3 * SECOND, 3 * SECOND), None);
        assert_eq!(sighting.overdue(3 * SECOND, 2 * SECOND), Some((1, Rang::Call)));
        watch.disarm();
        watch.arm(0);
        sighting.look(&watch, 4 * SECOND);
        assert_eq!(
            (sighting.call(4 * SECOND), sighting.unit(4 * SECOND)),
            (Some((2, Duration::ZERO)), Some(3 * SECOND))
        );
        // Many calls, each in time: together they may take no longer than one.
        let late = SECOND + CALL_MAX;
        sighting.look(&watch, late);
        assert_eq!(sighting.overdue(late, 2 * CALL_MAX), Some((2, Rang::Event)));
    }

    #[test]
    fn time_in_which_nobody_looked_is_nobodys() {
        let mut time = LookTime::start(SECOND, SECOND / 2);
        assert_eq!(time.look(SECOND * 3 / 2), SECOND / 2);
        assert_eq!(time.look(9 * SECOND), SECOND * 3 / 2, "it stood still");
        assert_eq!(time.look(SECOND * 19 / 2), 2 * SECOND);
    }

    #[test]
    fn whoever_reads_names_hides_them_from_nobody_else() {
        let watch = Watch::in_memory();
        watch.name_rows([Row { agent: "a".into(), operation: "o".into(), limit: SECOND }]);
        watch.name_partition("t", 3);
        watch.begin(ReaderId(0), 0, 5, 1);
        watch.arm(0);
        let doing = watch.doing().expect("it runs");
        let seen = watch.peek(|_| Some((watch.limit(), watch.row_in_words(), watch.place(&doing))));
        let words = "agent \"a\", operation \"o\"".to_owned();
        assert_eq!(seen, Some((SECOND, words, Some(("t/3".to_owned(), 5)))));
    }

    #[test]
    fn nothing_runs_between_events() {
        let (watch, mut sighting) = (Watch::in_memory(), Sighting::default());
        sighting.look(&watch, SECOND);
        assert_eq!((sighting.longest(SECOND), sighting.overdue(SECOND, SECOND)), (None, None));
    }
}
