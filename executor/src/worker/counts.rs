//! Looks at the topics of a running worker: those that tables depend on, and those that it writes.
//!
//! There are three occasions: a period is over, a partition comes that did not exist, or an event's key lies
//! where the known count of partitions would not put it. The last two notice early that a topic has grown,
//! before many events are counted beside the wrong state.

use std::time::Duration;

use tracing::debug;

use super::{Stopped, Worker};
use crate::broker::BrokerError;
use crate::code::Code;
use crate::event::message::TopicPartition;

/// The most looks until the broker that is asked knows the partitions just assigned.
const LOOKS_MAX: u32 = 20;
/// The pause between two looks: metadata reaches the brokers one after the other.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl<C: Code> Worker<C> {
    /// Looks at all topics if a look is due. What is known of output topics is refreshed at the same times.
    pub(super) fn look_at_topics(&mut self) -> Result<(), Stopped> {
        let now = self.shared.clock.now();
        if now < self.counts.due() {
            return Ok(());
        }
        self.look_at_counts()?;
        self.counts.put_off(now);
        if let Err(why) = self.shared.directory.refresh() {
            debug!(error = %why, "output topics could not be looked up");
        }
        Ok(())
    }

    /// Stops, once everything complete is committed, if the topics have changed so that a start would be
    /// refused.
    ///
    /// # Errors
    ///
    /// [`Stopped::Topics`] with the text that a start would give. A broker that does not answer is asked at
    /// the next look.
    fn look_at_counts(&mut self) -> Result<(), Stopped> {
        if self.counts.is_idle() {
            return Ok(());
        }
        let (directory, counts) = (&self.shared.directory, &mut self.counts);
        match directory.admin(|admin| counts.look(admin)) {
            Ok(None) => Ok(()),
            // What is complete was computed with the right state: it is committed before the worker ends.
            Ok(Some(fault)) => {
                self.flush()?;
                Err(Stopped::Topics(fault))
            }
            Err(BrokerError::Retriable(why)) => {
                debug!(error = %why, "topics could not be looked up");
                Ok(())
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Checks events before they are given to their readers: a key that lies where it would not with the
    /// known number of partitions shows that its topic has another number by now. A false alarm is possible,
    /// since a producer may place its keys otherwise: it costs one look per topic and period.
    pub(super) fn look_at_keys(&mut self) -> Result<(), Stopped> {
        let counts = &mut self.counts;
        // No short cut with `any`: each topic must see all its events, since it gives up its guess only once.
        let misplaced = self.intake.polled().iter().filter(|event| counts.is_misplaced(event)).count();
        if misplaced > 0 { self.look_at_counts() } else { Ok(()) }
    }

    /// Checks partitions before they start: one that did not exist before shows that its topic has grown.
    /// Waits for at most 2 s: the broker that is asked may hear of new partitions later than the coordinator
    /// that assigned them.
    pub(super) fn look_at_partitions(&mut self, names: &[TopicPartition]) -> Result<(), Stopped> {
        for _ in 0..LOOKS_MAX {
            if self.counts.is_idle() || !self.counts.have_outgrown(names) {
                return Ok(());
            }
            self.look_at_counts()?;
            if self.counts.have_outgrown(names) {
                // The group waits meanwhile. Nothing else can be done before it is known whether the worker
                // must stop.
                std::thread::park_timeout(LOOK_AGAIN);
            }
        }
        Ok(())
    }
}
