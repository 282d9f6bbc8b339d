//! The way back into the group for a static member that the group takes for fenced: everything of it is
//! lost to the worker, and a new client joins in the place of the old one.
//!
//! ```text
//! fenced ─▶ Change::Lost ─▶ release ─▶ ask who holds the instance id, every second ─┬─▶ join again, as a new client
//!                                                                                   └─▶ another process: an error
//! ```
//!
//! The judgement is [`Identity`]'s; here is what it takes of the consumer.

use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::Producer as _;

use super::KafkaConsumer;
use crate::broker::kafka::groups::holder;
use crate::broker::kafka::identity::{Identity, Way};
use crate::broker::kafka::inbox::Inbox;
use crate::broker::kafka::kept::Kept;
use crate::broker::kafka::raw;
use crate::broker::{BrokerError, Change};
use crate::clock::Clock as _;
use crate::guard::ClientCall;

/// Longest wait for the group's word on which member holds the instance id. The worker has no partitions
/// meanwhile.
const HOLDER_WAIT_MAX: Duration = Duration::from_secs(2);

impl KafkaConsumer {
    /// The group took this member for fenced, so its client does nothing any more.
    ///
    /// librdkafka's fatal errors last as long as the client: only a new one ends this.
    pub(super) fn is_fenced(&self) -> bool {
        let is_fatal = || matches!(self.consumer.client().fatal_error(), Some((Code::FencedInstanceId, _)));
        self.identity.is_some() && is_fatal()
    }

    /// Remembers the member id that the group has just given, or confirmed.
    ///
    /// `is_served`: the group has given partitions, too, so the way back was worth it.
    pub(super) fn note_identity(&mut self, is_served: bool) {
        let id = self.member().1;
        let Some(identity) = &mut self.identity else { return };
        identity.note(id);
        if is_served {
            identity.is_served();
        }
    }

    /// Goes on where a call failed because the member is fenced: the next poll puts it right.
    ///
    /// The error becomes one that may be tried again.
    pub(super) fn unless_fenced<T>(&self, outcome: Result<T, BrokerError>) -> Result<T, BrokerError> {
        match outcome {
            Err(BrokerError::Fatal(why) | BrokerError::Group(why)) if self.is_fenced() => {
                Err(BrokerError::Retriable(why))
            }
            other => other,
        }
    }

    /// One step on the way back: first the worker loses its partitions, then the group is asked whether
    /// another process has the instance id, then a new client joins.
    pub(super) fn come_back(&mut self, wait: Duration) -> Result<Option<Change>, BrokerError> {
        let now = self.clock.now();
        let id = self.member().1;
        let Some(identity) = &mut self.identity else { return Ok(None) };
        let is_due = identity.fenced(id, now);
        // Another member may lead by now.
        self.withheld.clear();
        // Before any question: the worker must stop its work on partitions that others may have by now.
        if !self.given.is_empty() {
            self.owed = std::mem::take(&mut self.given).into_iter().collect();
            return Ok(Some(Change::Lost(self.owed.clone())));
        }
        if !is_due {
            // Whatever it still says comes from a member that is none any more.
            drop(self.line.calls.during(ClientCall::PollConsumer, || self.consumer.poll(wait)));
            return Ok(None);
        }
        let client = self.line.client();
        let ask = || holder(client.client(), &self.settings.app, identity.instance(), HOLDER_WAIT_MAX);
        let holder = self.line.calls.during(ClientCall::Admin, ask);
        match identity.way(&holder, now)? {
            Way::Wait => {}
            Way::JoinAgain => self.join_again()?,
        }
        Ok(None)
    }

    /// Puts a new client in the place of the old one.
    ///
    /// Partitions start at their committed offsets, like those of any new member.
    fn join_again(&mut self) -> Result<(), BrokerError> {
        let new = Kept::make(&self.line.calls, || super::client(&self.settings, &self.health, &self.withheld))?;
        let parts = (raw::Commits::new(&new), super::Questions::new(new.client()), Inbox::of(&new));
        // What belongs to the old client goes before it.
        (self.commits, self.wakes, self.inbox) = parts;
        // Partitions may have come and gone before the worker learnt of them: a client that owes an acknowledgement
        // waits for it at its end, for ever. It is beyond repair, so the answer does not matter.
        let calls = self.line.calls.clone();
        let _ = calls.during(ClientCall::Assign, || self.give_back());
        let old = std::mem::replace(&mut self.consumer, new);
        self.line.calls.during(ClientCall::Destroy, || drop(old));
        self.starts.clear();
        self.paused.clear();
        self.owed.clear();
        (self.adrift, self.stuck) = (None, Default::default());
        if let Some(bell) = self.bell.clone() {
            self.hang(&bell);
        }
        self.join()
    }

    /// True if the member is on its way back.
    pub(super) fn is_coming_back(&self) -> bool {
        self.identity.as_ref().is_some_and(Identity::is_fenced)
    }
}
