//! The offsets from which a member's partitions are fetched: given to the client, and put right where it
//! gets nothing any more.
//!
//! ```text
//! assigned already ──▶ seek ── refused: given up by the client ──┐
//! new              ────────────────────────────────────────────▶ unassign, assign at the offset
//! ```
//!
//! librdkafka gives a partition up for good when its offset does not exist (`auto.offset.reset=error`): the error
//! names no partition, and only unassigning and assigning it again revives it.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{Consumer as _, RebalanceProtocol};
use tracing::{debug, warn};

use super::KafkaConsumer;
use crate::broker::kafka::ANSWER_WAIT_MAX;
use crate::broker::kafka::context::unassign;
use crate::broker::kafka::errors::judge;
use crate::broker::kafka::lists::{list, offsets_list};
use crate::broker::kafka::stuck;
use crate::broker::{BrokerError, Consumer as _};
use crate::clock::Clock as _;
use crate::event::message::TopicPartition;
use crate::guard::ClientCall;

/// Pause between tries to put partitions right whose offsets do not exist any more.
const ADRIFT_AGAIN: Duration = Duration::from_secs(1);

impl KafkaConsumer {
    /// Fetches partitions from these offsets on, and drops what was fetched of them before.
    ///
    /// `starts` is changed at the end, so that after an error the partitions are tried anew.
    pub(super) fn fetch_from(&mut self, at: Vec<(TopicPartition, i64)>) -> Result<(), BrokerError> {
        let (assigned, mut new): (Vec<_>, Vec<_>) =
            at.iter().cloned().partition(|(partition, _)| self.starts.contains_key(partition));
        new.extend(self.seek(assigned)?);
        self.assign(&new)?;
        let names: Vec<_> = at.iter().map(|(partition, _)| partition.clone()).collect();
        self.starts.extend(at);
        self.wake_fetchers(&names);
        Ok(())
    }

    /// Seeks in partitions that are assigned. Gives back those that the client has given up: it revives none
    /// of them, whatever is sought.
    ///
    /// Waits for the client's own threads, not for a broker. No message that was fetched before comes after it.
    fn seek(&self, at: Vec<(TopicPartition, i64)>) -> Result<Vec<(TopicPartition, i64)>, BrokerError> {
        if at.is_empty() {
            return Ok(at);
        }
        let sought = offsets_list(&at)?;
        let sought =
            self.line.calls.during(ClientCall::Seek, || self.consumer.seek_partitions(sought, ANSWER_WAIT_MAX));
        let sought = sought.map_err(|error| judge("partitions cannot be read from their offsets", &error))?;
        let is_refused = |(partition, _): &(TopicPartition, i64)| {
            let found = sought.find_partition(&partition.topic, partition.partition);
            found.is_some_and(|element| element.error().is_err())
        };
        Ok(at.into_iter().filter(is_refused).collect())
    }

    /// Assigns partitions at these offsets, also those that are assigned already.
    ///
    /// Unassigned first where the protocol is cooperative: assigning twice is an error there.
    fn assign(&self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError> {
        if at.is_empty() {
            return Ok(());
        }
        let failed = |error| BrokerError::Fatal(format!("partitions could not be taken over: {error}"));
        let calls = &self.line.calls;
        let protocol = calls.during(ClientCall::Assign, || self.consumer.rebalance_protocol());
        if matches!(protocol, RebalanceProtocol::Cooperative) {
            let names: Vec<_> = at.iter().map(|(partition, _)| partition.clone()).collect();
            calls.during(ClientCall::Assign, || unassign(&self.consumer, &list(&names))).map_err(failed)?;
            let new = offsets_list(at)?;
            return calls.during(ClientCall::Assign, || self.consumer.incremental_assign(&new)).map_err(failed);
        }
        // Here only all partitions can be assigned at once: the others go on where they stand.
        // Read before the assignment, with which all partitions begin anew.
        let mut all: BTreeMap<_, _> = self.fetched(|_| true).into_iter().collect();
        all.extend(at.iter().cloned());
        let all: Vec<_> = all.into_iter().collect();
        let all = offsets_list(&all)?;
        calls.during(ClientCall::Assign, || self.consumer.assign(&all)).map_err(failed)
    }

    /// The offsets at which assigned partitions stand.
    ///
    /// A partition whose position the client does not know stands where it was started.
    pub(super) fn fetched(&self, which: impl Fn(&TopicPartition) -> bool) -> Vec<(TopicPartition, i64)> {
        let asked = self.starts.iter().filter(|(partition, _)| which(partition));
        asked.map(|(partition, start)| (partition.clone(), self.position(partition).unwrap_or(*start))).collect()
    }

    /// The client has given up a partition whose offset does not exist any more: retention has passed it. It
    /// goes on at the first offset that is left. Where none has been passed, all begin again where they stand.
    ///
    /// Without an answer, or with a partition that no broker leads, it is tried again after [`ADRIFT_AGAIN`]. One that
    /// retention has passed is logged; one that stands behind the end of its log ends the worker
    /// ([`crate::broker::Watermarks::within`]).
    pub(super) fn put_right(&mut self) -> Result<(), BrokerError> {
        let fetched = self.fetched(|_| true);
        let names: Vec<_> = fetched.iter().map(|(partition, _)| partition.clone()).collect();
        let ends = match self.ends(&names) {
            Err(BrokerError::Retriable(why)) => {
                debug!("where partitions begin is not known: {why}");
                self.adrift = Some(self.clock.now() + ADRIFT_AGAIN);
                return Ok(());
            }
            ends => ends?,
        };
        self.adrift = ends.iter().any(Option::is_none).then(|| self.clock.now() + ADRIFT_AGAIN);
        let mut passed = Vec::new();
        for ((partition, position), ends) in fetched.iter().zip(ends) {
            let Some(ends) = ends else { continue };
            let within = ends.within(partition, *position)?;
            if within != *position {
                passed.push((partition.clone(), within));
            }
        }
        // Where none was passed, the one that was given up is not known: all are assigned anew.
        self.fetch_from(if passed.is_empty() { fetched } else { passed })
    }

    /// Revives partitions that get nothing though they go on.
    ///
    /// Paused ones are left out: nothing should come from them.
    pub(super) fn free_stuck(&mut self) -> Result<(), BrokerError> {
        let mut look = std::mem::take(&mut self.stuck);
        let fetched = || self.fetched(|partition| !self.paused.contains(partition));
        let stuck = look.turn(self.clock.now(), &self.line, fetched);
        self.stuck = look;
        if stuck.is_empty() {
            return Ok(());
        }
        let seconds = stuck::STUCK_AFTER.as_secs();
        for (partition, position) in &stuck {
            warn!(%partition, position, "more can be read and nothing has come for {seconds} s: it is assigned again");
        }
        self.assign(&stuck)?;
        let names: Vec<_> = stuck.iter().map(|(partition, _)| partition.clone()).collect();
        self.starts.extend(stuck);
        self.wake_fetchers(&names);
        Ok(())
    }
}
