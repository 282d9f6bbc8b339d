//! Failures in the log: the first of its kind at a place in full, and one line per interval for those that follow.
//!
//! A place that fails for every event would otherwise bury the line that explains it. Counters, the status, dead
//! letters and `--failures` have every failure; only the log is spared.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::warn;

use crate::event::frame::Unit;
use crate::event::message::{Event, TopicName};
use crate::event::run::SharedEvent;

/// The time for which failures like one that was logged in full are only counted, before a line reports them.
const EVERY: Duration = Duration::from_secs(10);
/// The most places and kinds that are counted apart: kinds are names that user code makes up.
const PLACES_MAX: usize = 256;

/// A failure, as the log names it.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The agent.
    pub agent: String,
    /// The operation.
    pub operation: String,
    /// The exception's type.
    pub kind: String,
    /// The place in the spec.
    pub at: String,
    /// The exception's text, cut: places keep their last failure.
    pub message: String,
    /// The offsets of the failed events.
    pub events: Span,
    /// The consequence for them, in words.
    pub verdict: String,
}

/// The events of a failure: all of a batch stand in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    topic: TopicName,
    partition: i32,
    first: i64,
    /// The last offset, if every offset from the first on belongs to it.
    last: Option<i64>,
    count: usize,
}

impl Span {
    /// One event.
    pub fn of(event: &Event) -> Span {
        Span { topic: event.topic.clone(), partition: event.partition, first: event.offset, last: None, count: 1 }
    }

    /// All events of a unit.
    pub fn of_unit(unit: &Unit) -> Span {
        let (first, count) = (&unit.events()[0], unit.events().len());
        let follows = |(at, event): (i64, &SharedEvent)| {
            (&event.topic, event.partition, event.offset) == (&first.topic, first.partition, at)
        };
        let is_whole = (first.offset..).zip(unit.events()).all(follows);
        let last = (count > 1 && is_whole).then(|| first.offset + count as i64 - 1);
        Span { last, count, ..Span::of(first) }
    }

    /// The number of events, if the offsets do not show it.
    fn events(&self) -> Option<usize> {
        (self.count > 1 && self.last.is_none()).then_some(self.count)
    }
}

/// The key of a flow: agent, operation, kind and place in the spec.
type Place = (String, String, String, String);

/// Failures like one that was logged.
#[derive(Debug)]
struct Flow {
    due: Duration,
    count: u64,
    last: Failed,
    /// The last offset of each partition that has failed like this: after an abort its events come again, and
    /// count no more.
    marks: BTreeMap<(TopicName, i32), i64>,
}

/// Decides which failures are logged.
#[derive(Debug, Default)]
pub struct Flood {
    flows: BTreeMap<Place, Flow>,
}

impl Flood {
    /// Logs a failure in full, or counts it. `traceback` is only called if the failure is logged.
    pub fn log(&mut self, now: Duration, failed: Failed, traceback: impl FnOnce() -> Option<String>) {
        if let Some(first) = self.note(now, failed) {
            first.log(traceback());
        }
    }

    /// Returns the failure if it is the first of its kind, and counts it if not.
    fn note(&mut self, now: Duration, failed: Failed) -> Option<Failed> {
        let mut place = (failed.agent.clone(), failed.operation.clone(), failed.kind.clone(), failed.at.clone());
        if self.flows.len() >= PLACES_MAX && !self.flows.contains_key(&place) {
            // All further kinds of the operation share one flow.
            (place.2, place.3) = (String::new(), String::new());
        }
        match self.flows.get_mut(&place) {
            Some(flow) => {
                if flow.passes(&failed.events) {
                    flow.count += failed.events.count as u64;
                    // The first is in the log already; the last shows whether it still fails in the same way.
                    flow.last = failed;
                }
                None
            }
            None => {
                let mut flow = Flow { due: now + EVERY, count: 0, last: failed.clone(), marks: BTreeMap::new() };
                flow.passes(&failed.events);
                self.flows.insert(place, flow);
                Some(failed)
            }
        }
    }

    /// Writes the lines that are due. A place that has not failed for an interval is forgotten: its next
    /// failure is logged in full.
    pub fn tell(&mut self, now: Duration) {
        self.flows.retain(|_, flow| {
            if now < flow.due {
                return true;
            }
            flow.tell();
            let goes_on = flow.count > 0;
            (flow.count, flow.due) = (0, now + EVERY);
            goes_on
        });
    }

    /// Writes what has been counted so far, because the worker ends.
    pub fn tell_all(&mut self) {
        self.flows.values().for_each(Flow::tell);
        self.flows.clear();
    }

    /// The time at which the next line is due.
    pub fn due(&self) -> Option<Duration> {
        self.flows.values().filter(|flow| flow.count > 0).map(|flow| flow.due).min()
    }
}

impl Drop for Flood {
    /// Writes what was counted, whatever ended the worker.
    fn drop(&mut self) {
        self.tell_all();
    }
}

impl Flow {
    /// Moves the partition's mark to the end of these events. False: it is there already, and they have come again. A
    /// topic that was recreated begins anew once the flow has been quiet for an interval.
    fn passes(&mut self, events: &Span) -> bool {
        let end = events.last.unwrap_or(events.first);
        let mark = self.marks.entry((events.topic.clone(), events.partition)).or_insert(-1);
        let is_behind = *mark < end;
        *mark = end.max(*mark);
        is_behind
    }

    fn tell(&self) {
        if self.count == 0 {
            return;
        }
        let Failed { agent, operation, kind, at, message, events, .. } = &self.last;
        let Span { topic, partition, first, last, .. } = events;
        warn!(
            agent,
            operation,
            %topic,
            partition,
            offset = last.unwrap_or(*first),
            kind,
            error = message,
            at,
            count = self.count,
            "more failed like this, this one last",
        );
    }
}

impl Failed {
    fn log(&self, traceback: Option<String>) {
        let Span { topic, partition, first, last, .. } = &self.events;
        warn!(
            agent = self.agent,
            operation = self.operation,
            %topic,
            partition,
            offset = first,
            last,
            kind = self.kind,
            error = self.message,
            at = self.at,
            events = self.events.events(),
            traceback = traceback.map(display),
            "{}",
            self.verdict,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: &str, offset: i64) -> Failed {
        let text = |text: &str| text.to_owned();
        let events = Span { topic: "in".into(), partition: 0, first: offset, last: None, count: 1 };
        let (agent, operation, at) = (text("a"), text("o"), text("f:1"));
        Failed { agent, operation, kind: text(kind), at, message: text("m"), events, verdict: text("failed") }
    }

    #[test]
    fn the_first_of_a_kind_is_told_in_full_and_the_others_counted() {
        let (mut flood, second) = (Flood::default(), Duration::from_secs(1));
        assert!(flood.note(second, failed("KeyError", 0)).is_some());
        assert_eq!(flood.due(), None, "nothing is held back");
        for offset in 1..300 {
            assert!(flood.note(2 * second, failed("KeyError", offset)).is_none());
        }
        assert!(flood.note(2 * second, failed("ValueError", 7)).is_some());
        assert_eq!(flood.due(), Some(11 * second));
        let flow = flood.flows.values().next().expect("it is known");
        assert_eq!((flow.count, flow.last.events.first), (299, 299));
        assert!(flood.note(2 * second, failed("KeyError", 0)).is_none(), "it comes again after an abort");
        assert!(flood.note(2 * second, failed("KeyError", 299)).is_none());
        let flow = flood.flows.values().next().expect("it is known");
        assert_eq!((flow.count, flow.last.events.first), (299, 299));
        flood.tell(11 * second);
        assert!(flood.note(12 * second, failed("KeyError", 400)).is_none(), "it goes on");
        flood.tell(21 * second);
        flood.tell(31 * second);
        assert!(flood.flows.is_empty(), "an interval without a failure");
        assert!(flood.note(32 * second, failed("KeyError", 500)).is_some());
    }

    #[test]
    fn kinds_that_user_code_makes_up_are_bounded() {
        let mut flood = Flood::default();
        let told = (0..10_000).filter(|n| flood.note(Duration::ZERO, failed(&format!("E{n}"), *n)).is_some()).count();
        assert_eq!((told, flood.flows.len()), (PLACES_MAX + 1, PLACES_MAX + 1));
    }
}
