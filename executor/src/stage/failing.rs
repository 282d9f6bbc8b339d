//! Policies applied: what happens to a unit that fails, by the policy of the place where it failed.
//!
//! Every failed event leaves exactly one trace: a failure record, and a dead letter if the policy says so. Or
//! it waits and runs again; or the worker stops before it.

use std::time::Duration;

use bytes::Bytes;
use kaspr_ir::plan::{Backoff, OnError};
use tracing::error;

use super::Stage;
use super::flood::{Failed, Span};
use super::lane::LaneId;
use crate::code::{Code, Fault};
use crate::event::effects::Scratch;
use crate::event::failure::{FailureRecord, MESSAGE_CHARACTERS_MAX};
use crate::event::frame::Unit;
use crate::event::message::{Event, Header, TopicName};
use crate::event::run::SharedEvent;
use crate::event::shown::{cut, cut_bytes};
use crate::event::tally::Tally;
use crate::stage::program::{Site, SiteId};

/// Longest `kaspr.dlq.message`, in bytes.
const LETTER_MESSAGE_MAX: usize = 1024;
/// Longest `kaspr.dlq.traceback`, in bytes.
const LETTER_TRACEBACK_MAX: usize = 8 * 1024;
/// The wait of an event before it runs again, if the outside world is the cause.
const PASSING_WAIT: Duration = Duration::from_secs(1);

/// A unit that failed, with the place and the reason.
pub(super) struct Failing<'a> {
    /// The whole unit: the events of a batch fail together.
    pub unit: Unit,
    /// Events of it that do not decode: failures of their own, whatever becomes of the others.
    pub undecodable: &'a [(SharedEvent, Fault)],
    /// The place whose policy applies.
    pub site: SiteId,
    /// The reason.
    pub fault: Fault,
    /// Counts of the values of this try, which count if no further try follows.
    pub passed: Tally,
}

impl Failing<'_> {
    /// The event that stands for the unit in logs and records.
    fn first(&self) -> &SharedEvent {
        &self.unit.events()[0]
    }
}

/// The way of a unit that failed:
///
/// 1. [`Stage::fail`]: if the outside world is to blame, the unit waits and no policy is asked. If the policy
///    has tries left, it waits for the next one ([`Stage::retry`]).
/// 2. [`Stage::fail_at_last`]: no further try helps. The worker halts before the unit ([`Stage::halt`]), or
///    goes on without it ([`Stage::give_up`]): each of its events leaves a record, and a dead letter if the
///    policy says so.
impl<C: Code> Stage<C> {
    /// Applies the policy of the site to a unit that failed there.
    pub(super) fn fail(&mut self, id: LaneId, failing: Failing<'_>) {
        // Before any policy: an outage must neither use up tries nor turn events into dead letters.
        if failing.fault.passes {
            return self.hold(id, failing.unit, failing.site, &failing.fault);
        }
        match self.site(failing.site).on_error.clone() {
            // `attempts` counts all tries; the one that has just failed is not in `tries` yet.
            OnError::Retry { attempts, backoff, .. } if self.lanes[&id].tries + 1 < attempts => {
                self.retry(id, failing, &backoff);
            }
            OnError::Retry { .. } | OnError::Skip | OnError::DeadLetter { .. } | OnError::Halt => {
                self.fail_at_last(id, failing);
            }
        }
    }

    /// Puts the unit back to the front of its lane until its back-off ends, and counts the try.
    fn retry(&mut self, id: LaneId, failing: Failing<'_>, backoff: &Backoff) {
        let Failing { unit, site, fault, .. } = failing;
        let lane = self.lanes.get_mut(&id).expect("its unit ran");
        lane.tries += 1;
        let (wait, events) = (wait(backoff, lane.tries, unit.events()[0].offset), Span::of_unit(&unit));
        lane.held_until = Some(self.shared.clock.now() + wait);
        lane.put_back(unit);
        let counter = self.site(site).counter;
        self.shared.counters.borrow_mut().count_retry(counter, &fault.kind);
        self.log(events, site, &fault, format!("failed, tried again in {} ms", wait.as_millis()));
    }

    /// As [`Stage::fail`], when no further try can help. While it is not known whether a dead letter can be
    /// written, the unit waits and nothing of it is recorded.
    pub(super) fn fail_at_last(&mut self, id: LaneId, failing: Failing<'_>) {
        let waits = self
            .dead_letter_waits(failing.site, &failing.fault)
            .or_else(|| self.dead_letters_wait(failing.undecodable));
        if let Some(why) = waits {
            return self.hold(id, failing.unit, failing.site, &why);
        }
        match self.site(failing.site).on_error.last_resort() {
            OnError::Halt => self.halt(id, failing),
            OnError::Skip | OnError::DeadLetter { .. } | OnError::Retry { .. } => self.give_up(id, failing),
        }
    }

    /// Stops before the unit: it stays at the front of its lane, and the worker ends once everything before
    /// it is committed.
    fn halt(&mut self, id: LaneId, failing: Failing<'_>) {
        let record = self.record(failing.first(), failing.site, &failing.fault);
        let (mut tally, undecodable) = (failing.passed, failing.undecodable.len() as u64);
        tally.drop_records();
        tally.at(self.program.decoding.0).failed += undecodable;
        tally.at(failing.site.0).failed += failing.unit.events().len() as u64 - undecodable;
        // Counted only when the worker ends on it: if the commit before it aborts, the unit comes again.
        self.halted = Some((record, tally));
        self.log(Span::of_unit(&failing.unit), failing.site, &failing.fault, "failed".to_owned());
        self.lanes.get_mut(&id).expect("its unit ran").put_back(failing.unit);
    }

    /// Goes on without the unit: its events are dropped here.
    fn give_up(&mut self, id: LaneId, mut failing: Failing<'_>) {
        failing.passed.drop_records();
        self.tally.append(&mut failing.passed);
        self.log(Span::of_unit(&failing.unit), failing.site, &failing.fault, "failed".to_owned());
        for event in failing.unit.events() {
            match failing.undecodable.iter().find(|(other, _)| other.is(event)) {
                Some((_, own)) => self.give_up_undecodable(id, event, own),
                None => self.give_up_event(id, event, failing.site, &failing.fault),
            }
        }
        self.account(id, &failing.unit);
    }

    /// The reason for which dead letters of events that do not decode must wait.
    pub(super) fn dead_letters_wait(&self, refused: &[(SharedEvent, Fault)]) -> Option<Fault> {
        refused.iter().find_map(|(_, fault)| self.dead_letter_waits(self.program.decoding, fault))
    }

    /// The reason for which a dead letter must wait: no broker answers what its topic is like.
    fn dead_letter_waits(&self, site: SiteId, fault: &Fault) -> Option<Fault> {
        let OnError::DeadLetter { topic: Some(topic), .. } = self.site(site).on_error.last_resort() else {
            return None;
        };
        if fault.without_dead_letter {
            return None;
        }
        let known = self.shared.directory.look_up(&topic.as_str().into());
        known.err().filter(|fault| fault.passes)
    }

    /// Lets a unit wait for the outside world, without counting a try.
    pub(super) fn hold(&mut self, id: LaneId, unit: Unit, site: SiteId, fault: &Fault) {
        self.log(Span::of_unit(&unit), site, fault, "waits for the outside world".to_owned());
        let lane = self.lanes.get_mut(&id).expect("its unit ran");
        lane.held_until = Some(self.shared.clock.now() + PASSING_WAIT);
        lane.put_back(unit);
    }

    /// Goes on without an event that does not decode, whatever becomes of the others of its batch.
    pub(super) fn give_up_undecodable(&mut self, id: LaneId, event: &SharedEvent, fault: &Fault) {
        self.log(Span::of(event), self.program.decoding, fault, "failed".to_owned());
        self.give_up_event(id, event, self.program.decoding, fault);
    }

    /// Records the failure of an event, and sends a dead letter where the policy says so.
    fn give_up_event(&mut self, id: LaneId, event: &SharedEvent, site: SiteId, fault: &Fault) {
        match self.site(site).on_error.last_resort().clone() {
            _ if fault.without_dead_letter => {
                error!(topic = %event.topic, partition = event.partition, offset = event.offset, "the broker refuses its dead letter: the failure is only recorded");
            }
            OnError::DeadLetter { topic: Some(topic), .. } => self.dead_letter(id, event, site, fault, &topic),
            OnError::DeadLetter { topic: None, .. } => {
                error!(topic = %event.topic, partition = event.partition, offset = event.offset, "no dead-letter topic is named: the failure is only recorded");
            }
            OnError::Skip | OnError::Halt | OnError::Retry { .. } => {}
        }
        let record = self.record(event, site, fault);
        self.shared.recent.borrow_mut().note(&record);
        self.effects.failures.push(record);
        self.tally.at(site.0).failed += 1;
    }

    fn dead_letter(&mut self, id: LaneId, event: &SharedEvent, site: SiteId, fault: &Fault, topic: &str) {
        let topic: TopicName = topic.into();
        let tries = self.lanes.get(&id).map_or(0, |lane| lane.tries) + 1;
        let mut headers = event.headers.clone();
        // Behind the event's own: where a dead letter fails in its turn, user code sees the last of each name.
        headers.extend(self.dead_letter_headers(event, site, fault, tries));
        let letter = self.stage_dead_letter(&topic, event, headers.clone()).or_else(|_| {
            // The traceback may have made the record too large for its topic.
            headers.retain(|(name, _)| name != "kaspr.dlq.traceback");
            self.stage_dead_letter(&topic, event, headers)
        });
        match letter {
            Ok(()) => {
                self.effects.dead_letters.push(topic);
                self.tally.at(site.0).dead_letters += 1;
            }
            Err(fault) => {
                let error = cut(&fault.message, MESSAGE_CHARACTERS_MAX);
                error!(topic = %event.topic, partition = event.partition, offset = event.offset, dead_letter_topic = %topic, error, "the dead letter cannot be sent: the failure is only recorded");
            }
        }
    }

    fn stage_dead_letter(&mut self, topic: &TopicName, event: &SharedEvent, headers: Vec<Header>) -> Result<(), Fault> {
        let (key, value) = (event.key.as_deref(), event.value.as_deref());
        // By the key and not by the event's partition, which the topic of dead letters need not have.
        let partition = self.shared.directory.place(topic, None, key)?;
        self.shared.directory.check_size(topic, key, value, &headers)?;
        // A scratch of its own: the dead letter is sent although the effects of its event are dropped.
        let mut letter = Scratch::default();
        letter.send(topic, partition, self.shared.clock.wall_ms(), (key, value), headers);
        self.effects.keep(&mut letter);
        Ok(())
    }

    fn dead_letter_headers(&self, event: &Event, site: SiteId, fault: &Fault, tries: u32) -> Vec<Header> {
        let site = self.site(site);
        let trace = fault.trace.as_ref().map(|trace| trace.text()).unwrap_or_default();
        let fields: [(&str, String); 11] = [
            ("topic", event.topic.to_string()),
            ("partition", event.partition.to_string()),
            ("offset", event.offset.to_string()),
            ("timestamp", event.timestamp_ms.to_string()),
            ("agent", site.agent_name.to_string()),
            ("operation", site.operation.clone()),
            ("kind", fault.kind.clone()),
            ("message", cut_bytes(&fault.message, LETTER_MESSAGE_MAX).to_owned()),
            ("traceback", cut_bytes(&trace, LETTER_TRACEBACK_MAX).to_owned()),
            ("attempt", tries.to_string()),
            ("plan", self.shared.revision.to_string()),
        ];
        fields.into_iter().map(|(name, value)| (format!("kaspr.dlq.{name}"), Some(Bytes::from(value)))).collect()
    }

    fn record(&self, event: &Event, site: SiteId, fault: &Fault) -> FailureRecord {
        let site = self.site(site);
        FailureRecord {
            agent: site.agent_name.to_string(),
            operation: site.operation.clone(),
            topic: event.topic.to_string(),
            partition: event.partition,
            offset: event.offset,
            kind: fault.kind.clone(),
            message: message(fault),
            at: place(site, fault),
        }
    }

    fn log(&self, events: Span, site: SiteId, fault: &Fault, verdict: String) {
        let site = self.site(site);
        let failed = Failed {
            agent: site.agent_name.to_string(),
            operation: site.operation.clone(),
            kind: fault.kind.clone(),
            at: place(site, fault),
            message: message(fault),
            events,
            verdict,
        };
        let traceback = || fault.trace.as_ref().map(|trace| without_message(trace.text(), fault));
        self.shared.flood.borrow_mut().log(self.shared.clock.now(), failed, traceback);
    }
}

/// The text of a failure, as records and the log have it.
fn message(fault: &Fault) -> String {
    cut(&fault.message, MESSAGE_CHARACTERS_MAX).to_owned()
}

/// The line of the YAML that a failure names.
fn place(site: &Site, fault: &Fault) -> String {
    fault.at.clone().unwrap_or_else(|| site.at.clone())
}

/// The traceback without the message at its end: the log has it already, and it may be long.
fn without_message(mut trace: String, fault: &Fault) -> String {
    trace.truncate(trace.trim_end().len());
    if let Some(rest) = trace.strip_suffix(fault.message.trim_end()) {
        trace.truncate(rest.trim_end_matches([':', ' ']).len());
    }
    trace
}

/// The wait after a failed try. The jitter comes from the event's offset, so that a run can be repeated, and
/// events that failed together do not come back together.
fn wait(backoff: &Backoff, tries: u32, offset: i64) -> Duration {
    let grown = backoff.initial_ms as f64 * backoff.factor.powi(i32::try_from(tries).unwrap_or(i32::MAX) - 1);
    let spread = (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) >> 40) as f64 / f64::from(1 << 23);
    let wait = grown.min(backoff.max_ms as f64) * (1.0 + backoff.jitter * spread);
    Duration::from_millis(wait.max(0.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { initial_ms: 1000, max_ms: 60_000, factor: 2.0, jitter: 0.2 };

    #[test]
    fn back_off_grows_to_its_bound_and_jitters_within_its_share() {
        for (tries, middle) in [(1, 1000.0), (2, 2000.0), (7, 60_000.0), (1000, 60_000.0)] {
            for offset in [0, 1, 17, i64::MAX] {
                let ms = wait(&BACKOFF, tries, offset).as_millis() as f64;
                assert!((middle * 0.79..=middle * 1.21).contains(&ms), "{tries} {offset} {ms}");
            }
        }
    }
}
