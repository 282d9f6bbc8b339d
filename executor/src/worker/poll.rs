//! The beginning of a turn: how long the worker sleeps, what it takes from the consumer, and to which readers
//! it gives that.
//!
//! *Architecture invariant:* a worker that waits for events sleeps in `poll` alone. (Short waits with an end
//! of their own are `Delivery::wait`, for acknowledgements, and `look_at_partitions`, for metadata.) Two
//! things bound the sleep: a deadline of its own (a window, a back-off, a commit, a look), and news that ring
//! its bell (events, acknowledgements, changelog records, signals).

use std::rc::Rc;
use std::time::Duration;

use super::{Stopped, Worker};
use crate::broker::Change;
use crate::code::Code;
use crate::dataflow::Dataflow;
use crate::event::frame::Given;
use crate::event::message::Event;
use crate::event::run::Run;
use crate::wake::Wake;

/// Most events of a run, and the bytes after which it ends: one event that is held, by user code that has kept its
/// context for one, holds no more than these besides itself.
const RUN_EVENTS_MAX: usize = 256;
const RUN_BYTES_MAX: usize = 64 << 10;

/// Reasons for which a worker may not sleep, or not long. A part of the worker: the turn sets it, and the
/// next poll reads it.
pub(super) struct Sleep {
    /// True if every source of news wakes the worker, wherever it sleeps.
    pub(super) is_woken: bool,
    /// True if something happened since the last look at the consumer: there may be more.
    pub(super) is_eager: bool,
    /// The time at which something last happened.
    pub(super) active: Duration,
    /// True if changelogs may have more to read right now.
    pub(super) has_restored: bool,
    /// The time at which the worker started, and how much of the time since then it has slept.
    began: Duration,
    slept: Duration,
}

impl Sleep {
    /// Starts awake: nothing is known yet.
    pub(super) fn new(is_woken: bool, now: Duration) -> Sleep {
        let slept = Duration::ZERO;
        Sleep { is_woken, is_eager: true, active: Duration::ZERO, has_restored: false, began: now, slept }
    }

    /// The times since the worker started in which it was awake, and in which it slept.
    pub(super) fn busy_and_idle(&self, now: Duration) -> (Duration, Duration) {
        (now.saturating_sub(self.began + self.slept), self.slept)
    }
}

/// Events between the consumer and their readers: empty except during a poll.
pub(super) struct Intake {
    /// Events in the order in which the consumer gave them.
    polled: Vec<Event>,
    /// Runs of them on their way to each reader.
    given: Vec<Vec<Given>>,
}

impl Intake {
    /// Room for what each reader takes.
    pub(super) fn of<C: Code>(dataflow: &Dataflow<C>) -> Intake {
        Intake { polled: Vec::new(), given: dataflow.readers.iter().map(|_| Vec::new()).collect() }
    }

    /// Events that were polled and not yet given.
    pub(super) fn polled(&self) -> &[Event] {
        &self.polled
    }

    /// Takes what was polled, as runs: events of one partition that follow each other, in the order of their
    /// offsets, and not too many.
    fn take_runs(&mut self) -> Vec<Vec<Event>> {
        // The next poll is mostly like this one.
        let room = Vec::with_capacity(self.polled.len());
        let mut first = std::mem::replace(&mut self.polled, room);
        let follows = |before: &Event, event: &Event| {
            event.partition == before.partition && event.offset > before.offset && event.topic == before.topic
        };
        let (mut starts, mut start, mut bytes) = (Vec::new(), 0, 0);
        for at in 0..first.len() {
            let is_full = at - start == RUN_EVENTS_MAX || bytes >= RUN_BYTES_MAX;
            if at > start && (is_full || !follows(&first[at - 1], &first[at])) {
                starts.push(at);
                (start, bytes) = (at, 0);
            }
            bytes += first[at].size();
        }
        // From the last to the first, so that each event moves once.
        let mut runs: Vec<_> = starts.iter().rev().map(|&start| first.split_off(start)).collect();
        if first.len() < first.capacity() / 2 {
            // A short run must not keep the room of the whole poll.
            first.shrink_to_fit();
        }
        runs.extend((!first.is_empty()).then_some(first));
        runs.reverse();
        runs
    }
}

impl<C: Code> Worker<C> {
    /// The time that the worker may sleep: zero while it is busy.
    ///
    /// `wait` is the caller's own bound. The reasons are asked from the most to the least pressing.
    pub(super) fn wait_until_due(&self, wait: Duration) -> Duration {
        let readers = &self.dataflow.readers;
        // Work that the pace does not let begin is no reason to stay awake: its commit is.
        if self.units_of_epoch() > 0 && readers.iter().any(|reader| reader.stage.borrow().is_busy()) {
            return Duration::ZERO;
        }
        if self.sleep.is_woken && self.sleep.is_eager {
            // The bell may have rung for what came, and not again for what came with it.
            return Duration::ZERO;
        }
        let now = self.shared.clock.now();
        let mut wait = wait.min(self.longest_sleep(now));
        if !self.counts.is_idle() {
            wait = wait.min(self.counts.due().saturating_sub(now));
        }
        if let Some(deadline) = self.next_deadline() {
            wait = wait.min(deadline.saturating_sub(now));
        }
        // Without a bell, the consumer's poll is where answers are found, so it must come soon.
        let answer_wait = if self.sleep.is_woken { self.config.bounds.answer_wait } else { Duration::from_millis(1) };
        if self.restore.is_restoring() {
            wait = if self.sleep.has_restored { Duration::ZERO } else { wait.min(answer_wait) };
        }
        if self.delivery.is_sending() {
            return wait.min(answer_wait);
        }
        // What is complete waits for its commit, and for nothing that would wake the worker.
        if !self.dataflow.staged.borrow().is_empty() {
            wait = wait.min(self.delivery.next_commit().saturating_sub(now));
        }
        wait
    }

    /// The longest sleep if no event, window or commit is due.
    ///
    /// `now` is by the worker's clock.
    fn longest_sleep(&self, now: Duration) -> Duration {
        let bounds = &self.config.bounds;
        let is_idle = self.sleep.is_woken
            && self.arrivals.is_empty()
            && !self.pace.is_in_parts()
            && self.delivery.is_idle()
            && !self.consumer.is_adrift()
            && !self.assignment.is_waiting();
        if !is_idle {
            return bounds.look_wait;
        }
        // The next commit also takes positions that moved past the last events, over transaction markers.
        let next_commit = Some(self.delivery.next_commit()).filter(|due| *due > now);
        let due = next_commit.into_iter().chain(self.stalls.next_look(self.sleep.active));
        let due = due.chain(self.shared.flood.borrow().due());
        due.map(|due| due.saturating_sub(now)).fold(bounds.idle_wait, Duration::min)
    }

    /// The earliest time at which a window is handed over, a back-off ends or an await takes too long. Runs
    /// under a clock of their own (users' tests) move it to this time when nothing else happens.
    pub fn next_deadline(&self) -> Option<Duration> {
        let readers = self.dataflow.readers.iter();
        let deadlines = readers.flat_map(|reader| {
            let window = reader.window.as_ref().and_then(|window| window.borrow().next_deadline());
            [window, reader.stage.borrow().next_deadline()]
        });
        deadlines.flatten().min()
    }

    /// Takes events and gives them to their readers, before any partition starts again: they come from where
    /// their partitions stood until now. Returns how many came.
    ///
    /// A partition whose events come faster than they run stands before those of all other partitions. While
    /// other readers have nothing to do, events are therefore taken in several parts, until the fast
    /// partitions have full queues and are paused; otherwise that would only cost the pauses.
    ///
    /// # Errors
    ///
    /// Those of the consumer, and [`Stopped::Topics`].
    pub(super) fn take_events(&mut self, wait: Duration) -> Result<(Option<Change>, usize), Stopped> {
        let readers = &self.dataflow.readers;
        let busy = readers.iter().filter(|reader| reader.stage.borrow().is_busy()).count();
        let is_uneven = busy > 0 && busy < readers.len();
        let polls = if is_uneven { self.config.bounds.polls_max } else { 1 };
        let (mut wait, mut all) = (self.wait_until_due(wait), 0);
        for poll in 1..=polls {
            let change = self.poll_noted(wait)?;
            let polled = self.intake.polled.len();
            // Before they are given: a stop must come before an event meets a table of the wrong partition.
            self.look_at_keys()?;
            self.give();
            all += polled;
            // A change ends it too: events of revoked partitions must run, or go, before anything else is
            // fetched.
            if poll == polls || change.is_some() || polled < self.config.bounds.poll_events_max {
                return Ok((change, all));
            }
            self.ease_pressure()?;
            wait = Duration::ZERO;
        }
        Ok((None, all))
    }

    /// As [`Worker::poll`]; notes how long the worker slept.
    fn poll_noted(&mut self, wait: Duration) -> Result<Option<Change>, Stopped> {
        if wait.is_zero() {
            return self.poll(wait);
        }
        let began = self.shared.clock.now();
        let polled = self.poll(wait);
        self.sleep.slept += self.shared.clock.now().saturating_sub(began);
        polled
    }

    /// Polls the consumer. The one place where a worker sleeps: on its wake-up descriptor, in the event loop
    /// while coroutines wait, or in the poll of a consumer that does not wake it. Returns a change of
    /// partitions, if one came; events lie in the intake.
    fn poll(&mut self, wait: Duration) -> Result<Option<Change>, Stopped> {
        let watch = self.shared.watch.clone();
        let wake = watch.wake().filter(|_| self.sleep.is_woken);
        let waits = self.shared.code.borrow().waits(wait.is_zero());
        let wait = match wake {
            _ if waits => {
                let began = self.shared.clock.now();
                self.shared.code.borrow_mut().turn(wait, wake.map(Wake::fd));
                // The wait is not time of user code.
                self.note_time(began + wait);
                Duration::ZERO
            }
            Some(wake) if !wait.is_zero() => {
                // No call of user code can be late while the worker sleeps, so the threads that look for one
                // sleep too.
                watch.lookers().rest();
                self.shared.code.borrow().detached(&mut || wake.wait(Some(wait)));
                watch.lookers().stir();
                Duration::ZERO
            }
            _ => wait,
        };
        if let Some(wake) = wake {
            // Cleared before the looks for news below: a bell that rings during them wakes the next sleep.
            wake.clear();
        }
        self.intake.polled.clear();
        let (max, consumer, polled) = (self.config.bounds.poll_events_max, &mut self.consumer, &mut self.intake.polled);
        if wait.is_zero() {
            return Ok(consumer.poll(wait, max, polled)?);
        }
        // Python's other threads go on while this one waits: the interpreter's lock is given up.
        let mut change = Ok(None);
        self.shared.code.borrow().detached(&mut || change = consumer.poll(wait, max, polled));
        Ok(change?)
    }

    /// Gives what was polled to the readers that accept it. An event that no reader accepts is dropped here:
    /// each of its readers has taken it before, or its partition has not started. See
    /// [`Assignment::take`](crate::assignment::Assignment::take).
    fn give(&mut self) {
        debug_assert!(self.intake.given.iter().all(Vec::is_empty), "what the last poll gave was handed over");
        for events in self.intake.take_runs() {
            self.give_run(events);
        }
        for (reader, given) in self.dataflow.readers.iter_mut().zip(&mut self.intake.given) {
            if !given.is_empty() {
                reader.input.send_batch(given);
                reader.was_given = true;
                given.clear();
            }
        }
    }

    /// Gives consecutive events of one partition to its readers.
    fn give_run(&mut self, mut events: Vec<Event>) {
        let number = self.shared.slots.borrow_mut().number(&events[0].topic, events[0].partition);
        events.iter_mut().for_each(|event| event.slot = number);
        let mut queued = self.shared.queued.borrow_mut();
        if queued.len() <= number {
            queued.resize(number + 1, 0);
        }
        let mut counters = self.shared.counters.borrow_mut();
        let events = Rc::new(events);
        self.assignment.take(number, &events, |reader, part| {
            let taken = part.len() as u64;
            // Counted per reader: an event waits in each of them, and leaves each at its own time.
            queued[number] += events[part.clone()].iter().map(Event::size).sum::<usize>();
            counters.events += taken;
            counters.at(reader, number).taken += taken;
            self.intake.given[reader].extend(Run::of(&events, part).map(Given::Run));
        });
    }

    /// Pauses partitions of which too much waits, and resumes those that have fallen to the low mark.
    /// Everything is paused while the broker owes acknowledgements for as much as may be staged.
    pub(super) fn ease_pressure(&mut self) -> Result<(), Stopped> {
        let bounds = &self.config.bounds;
        let queued = self.shared.queued.borrow();
        let marks = (bounds.queued_bytes_high, bounds.queued_bytes_low);
        let full = self.delivery.is_full(&self.dataflow.staged);
        let (pause, resume) = self.assignment.back_pressure(&queued, marks, full);
        if !pause.is_empty() {
            self.consumer.pause(&pause)?;
        }
        if !resume.is_empty() {
            self.consumer.resume(&resume)?;
        }
        if !full {
            let paused =
                self.assignment.paused().filter(|&number| queued.get(number).is_some_and(|&bytes| bytes > marks.1));
            paused.for_each(|number| self.hurry_windows(number, queued[number]));
        }
        Ok(())
    }

    /// Ends the wait of windows that hold the better part of a paused partition's queue. Else the partition would
    /// stand still for all its readers until the windows' time is over.
    fn hurry_windows(&self, partition: usize, queued: usize) {
        let windows = || self.dataflow.readers.iter().filter_map(|reader| reader.window.as_ref());
        let held: usize = windows().map(|window| window.borrow().held(partition)).sum();
        if held * 2 >= queued {
            windows().for_each(|window| window.borrow_mut().hurry(partition));
        }
    }
}
