//! Transactions that did not end as they should: aborted, refused, or with an unknown outcome.
//!
//! | the broker's word ([`BrokerError`]) | what becomes of the transaction |
//! |---|---|
//! | `Abort` | aborted; the next one holds half as much |
//! | `Refused`, `Rejected` | aborted, and one of its events may be the cause: see `worker/redo.rs` |
//! | `Indefinite` | unknown: the producer is replaced, then the committed offsets are asked |
//! | `Fenced` | the same; the third time in a row the worker gives way |
//! | `Retriable` | it goes on at the next turn |
//! | `Fatal`, `Group` | the worker stops |
//!
//! *Architecture invariant:* while an outcome is unknown no commit begins, no partition starts and no table is
//! restored. Each of them would act on offsets that a late commit could still move.

use tracing::{debug, info, warn};

use super::generation::Generation;
use super::{Around, Delivered, Delivery, Refused};
use crate::broker::BrokerError;
use crate::clock::Clock;
use crate::config::Guarantee;

/// The most takeovers in a row by other producers with this worker's `transactional.id` before it gives way.
/// One takeover may be this worker's own transaction that timed out, two in a row still may on a slow broker.
/// A third says that another process has the same name, and both would fence each other for ever.
const FENCED_MAX: u32 = 2;

/// The kind of failure of an event whose record the broker rejected several times, for a reason that is not
/// known to concern records.
const REJECTED_KIND: &str = "Topic";

/// The next step to learn the outcome of a transaction. The order is fixed: as long as the old producer
/// lives, a late request of it could still commit, and an answer from the offsets would be worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// A new producer must take over first.
    Replace,
    /// The committed offsets must be asked.
    Ask,
}

impl Delivery {
    /// Decides what an error means for the transaction. Every variant is named, so that a new kind of error
    /// must be given a meaning here. Exactly-once only.
    pub(super) fn recover(&mut self, error: BrokerError, around: &mut Around<'_>) -> Result<Delivered, BrokerError> {
        match error {
            BrokerError::Abort(why) => {
                // The transaction may have outlived its timeout, so the next one is half as large.
                self.room.timed_out();
                Ok(self.undo(why, None, around.clock))
            }
            BrokerError::Refused { kind, why } => {
                Ok(self.undo(why.clone(), Some(Refused { kind, why, is_certain: true }), around.clock))
            }
            BrokerError::Rejected(why) => {
                let refused = Refused { kind: REJECTED_KIND, why: why.clone(), is_certain: false };
                Ok(self.undo(why, Some(refused), around.clock))
            }
            BrokerError::Indefinite(why) => {
                info!(error = %why, "the outcome of the transaction is unknown");
                self.figures.outcomes.unknown += u64::from(self.closing.is_some());
                self.question = Some(Question::Replace);
                Ok(Delivered::Nothing)
            }
            BrokerError::Fenced(why) => {
                // Once is no proof of another worker: the broker also fences a producer whose transaction timed
                // out, and every other fatal error of the client ends here too.
                self.fenced += 1;
                if self.fenced > FENCED_MAX {
                    return Err(BrokerError::Fatal(format!("another worker runs under this one's name: {why}")));
                }
                warn!(error = %why, "the producer must be replaced");
                self.figures.outcomes.unknown += u64::from(self.closing.is_some());
                self.question = Some(Question::Replace);
                Ok(Delivered::Nothing)
            }
            BrokerError::Retriable(why) => {
                debug!(error = %why, "the commit waits");
                Ok(Delivered::Nothing)
            }
            fatal @ (BrokerError::Fatal(_) | BrokerError::Group(_)) => Err(fatal),
        }
    }

    /// Learns the outcome of a transaction for which it is unknown. First replaces the producer, then asks
    /// the group. The answer is final, because the old producer is fenced: if the committed offset and
    /// metadata are those of the transaction, it took place as a whole.
    ///
    /// # Errors
    ///
    /// Those of the calls; a retriable one leaves the question open for the next turn.
    pub(super) fn settle(&mut self, question: Question, around: &mut Around<'_>) -> Result<Delivered, BrokerError> {
        if question == Question::Replace {
            self.producer.init_transactions()?;
            (self.stale, self.question) = (false, Some(Question::Ask));
            self.figures.recycled += 1;
        }
        // Nothing was under way: an idle producer was fenced, and the new one simply goes on.
        let Some((closing, _)) = &self.closing else {
            self.question = None;
            return Ok(Delivered::Nothing);
        };
        // One offset is enough to ask for: a transaction commits all of its offsets or none.
        let Some(sent) = closing.offsets.first() else {
            self.question = None;
            return Ok(self.forget("none of its partitions is left".to_owned(), None));
        };
        let found = around.consumer.committed(std::slice::from_ref(&sent.partition))?;
        self.question = None;
        // A window may keep the offset where it is while the metadata changes: so both are compared.
        if found.first().and_then(Option::as_ref) == Some(&sent.committed) {
            info!("the transaction was committed");
            let abandoned = std::mem::take(&mut self.abandoned);
            let committed = self.apply(around);
            return Ok(if abandoned { self.forget("partitions were given up".to_owned(), None) } else { committed });
        }
        Ok(self.forget("it was not committed".to_owned(), None))
    }

    /// Aborts the transaction under way and forgets everything staged in it or after it. Never fails: if the
    /// abort itself does, the producer counts as stale, and its successor's `init_transactions` ends the
    /// transaction.
    fn undo(&mut self, why: String, refused: Option<Refused>, clock: &dyn Clock) -> Delivered {
        if self.closing.is_some() {
            let before = clock.now();
            if let Err(error) = self.producer.abort() {
                debug!(%error, "the transaction could not be aborted");
                self.stale = true;
            }
            self.stale |= clock.now() - before >= self.bounds.slow_call || self.producer.is_outdated();
        }
        self.forget(why, refused)
    }

    /// Drops the commit under way and what was taken for the next, and says which progress goes back. Epochs
    /// that are staged and not yet taken are the worker's to drop (`start_over`).
    fn forget(&mut self, why: String, refused: Option<Refused>) -> Delivered {
        self.figures.outcomes.aborted += u64::from(self.closing.is_some());
        let undone = self.closing.take().map(|(closing, _)| closing.effects).unwrap_or_default();
        let progress = undone.iter().flat_map(|effects| &effects.progress).copied();
        let progress = progress.filter(|_| !self.producer.is_outdated()).collect();
        self.abandoned = false;
        // A new number: acknowledgements of dropped records must not count for a later generation.
        self.open = Generation::new(self.open.number + 1);
        // Changelog positions of aborted records belong to no commit.
        drop(self.producer.written());
        Delivered::Undone { why, progress, refused }
    }

    /// Gives up everything not committed, because partitions change hands (exactly-once). If the outcome of a
    /// transaction is unknown, returns false: the worker starts over later, when the outcome shows from
    /// where. At-least-once there is nothing to take back, since records have left already: returns true.
    pub fn abandon(&mut self, clock: &dyn Clock) -> bool {
        if self.guarantee == Guarantee::AtLeastOnce {
            return true;
        }
        if self.is_outcome_unknown() {
            self.abandoned = true;
            return false;
        }
        self.undo(String::new(), None, clock);
        true
    }

    /// True if the outcome of the last transaction is unknown. While it is, no partition may start and no
    /// table may be restored: both would miss a commit that took place.
    pub fn is_outcome_unknown(&self) -> bool {
        self.question.is_some()
    }
}
