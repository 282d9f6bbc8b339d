//! Requests of a transaction on their way to the broker, and how a client's call with one ends.
//!
//! The client's answer and the fate at the broker are drawn apart:
//!
//! ```text
//! fault       request at the broker              the caller sees
//! none        applied                            its answer
//! Repeated    applied, and perhaps a late copy   its answer, after 200 ms or more
//! Aborted     not applied, perhaps a late copy   Abort
//! Unknown     lost, applied, late, or both       Indefinite
//! Crash       none, applied, or late             nothing: the process is dead
//! ```
//!
//! A late copy carries the id and epoch of its sender. A takeover in between raises the epoch, and the copy is
//! refused: that is why a worker replaces its producer after a slow call.

use std::time::Duration;

use super::{Fault, Life, World};
use crate::broker::{BrokerError, GroupMetadata, OffsetCommit};
use crate::clock::Clock;

/// A request that carries a producer's id and epoch.
#[derive(Clone, Debug)]
pub enum Request {
    /// Kafka's request TxnOffsetCommit.
    Offsets(Vec<OffsetCommit>, GroupMetadata),
    /// Kafka's request EndTxn.
    End {
        /// True: it commits; false: it aborts.
        commits: bool,
    },
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Request::Offsets(offsets, group) => {
                write!(f, "offsets of \"{}\" generation {}:", group.member, group.generation)?;
                offsets.iter().try_for_each(|OffsetCommit { partition, committed }| {
                    write!(f, " {partition}@{}", committed.offset)?;
                    let ahead = committed.metadata.iter().flat_map(|metadata| &metadata.ahead);
                    ahead.into_iter().try_for_each(|(reader, ahead)| write!(f, "[{reader}=+{ahead}]"))
                })
            }
            Request::End { commits: true } => f.write_str("commit"),
            Request::End { commits: false } => f.write_str("abort"),
        }
    }
}

/// The sender of a request.
///
/// Stays what it was when the request was sent, whatever becomes of the producer.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The `transactional.id`.
    pub id: String,
    /// Its epoch when the request was sent.
    pub epoch: u32,
}

/// A request or takeover that is under way, and for which no caller waits.
///
/// The world has it arrive when the clock passes `due`.
#[derive(Debug)]
pub struct Late {
    due: Duration,
    what: Arrival,
}

/// The kinds of late arrivals.
#[derive(Debug)]
enum Arrival {
    /// A first copy of a request that was repeated or given up.
    Copy(Sender, Request),
    /// A producer that takes an id over, to end what is open under it.
    Successor(String),
}

/// Shortest time after which librdkafka may have repeated a request: 0.8 of `retry.backoff.ms`.
const REPEATS_AFTER_MS: u64 = 200;

/// Rate at which a process may die as it ends a transaction: higher than elsewhere, because then it leaves
/// the most behind.
const DEATHS: usize = 6;

impl World {
    /// The late request that arrives next, if its time has come.
    pub(super) fn next_late(&self, now: Duration) -> Option<Late> {
        let mut inner = self.inner.borrow_mut();
        let due = inner.late.iter().enumerate().filter(|(_, late)| late.due <= now);
        let (place, _) = due.min_by_key(|(_, late)| late.due)?;
        // The others keep their order: of two that are due at once the older one arrives first.
        Some(inner.late.remove(place))
    }

    /// Lets a late request have its effect, if its sender is still the newest producer.
    pub(super) fn arrive(&self, late: Late) {
        match late.what {
            Arrival::Copy(sender, request) => self.arrive_late(&sender, &request),
            Arrival::Successor(id) => {
                self.log.state.borrow_mut().take_over(&id);
                self.note(|| format!("{id}: ended by another worker"));
            }
        }
    }

    /// A copy may hit a transaction that was opened after it was sent: protocol V1 does not name the transaction.
    fn arrive_late(&self, sender: &Sender, request: &Request) {
        // Offsets that come when nothing is open are not kept for what is opened next: the broker
        // asks the coordinator first.
        let idle = !self.log.state.borrow().coordinator.all_open().any(|(id, _)| id == sender.id);
        let applied = if idle { Ok(()) } else { self.apply(sender, request) };
        let fate = match applied {
            Ok(()) if idle => "finds nothing open",
            Ok(()) => "is applied",
            Err(_) => "is refused",
        };
        self.note(|| format!("{}: a late copy {fate}: {request}", sender.id));
    }

    /// Lets some worker end what is open under an id, in its own time.
    ///
    /// In a quarter of all cases none does: the broker's own timeout must do then.
    pub(super) fn succeed(&self, id: &str) {
        if self.draw(|seed| seed.hits(250)) {
            self.note(|| format!("{id}: no producer comes that would end it"));
            return;
        }
        let due = self.clock.now() + self.draw(|seed| seed.millis(1, 700));
        self.inner.borrow_mut().late.push(Late { due, what: Arrival::Successor(id.to_owned()) });
    }

    /// Lets a request have its effect at the broker, now.
    fn apply(&self, sender: &Sender, request: &Request) -> Result<(), BrokerError> {
        let now = self.clock.now();
        let mut state = self.log.state.borrow_mut();
        match request {
            Request::Offsets(offsets, group) => state.add_offsets((&sender.id, sender.epoch), offsets, group, now),
            Request::End { commits } => state.end(&sender.id, sender.epoch, *commits),
        }
    }

    /// Puts a copy on its way. Two in three take 600 ms at most, one in three up to 9 s: they come when a later
    /// transaction is open, or after a takeover.
    fn arrives_late(&self, sender: &Sender, request: &Request) {
        let most = self.draw(|seed| *seed.pick(&[600, 600, 9000]));
        let due = self.clock.now() + self.draw(|seed| seed.millis(1, most));
        self.note(|| format!("{}: a copy is late until {:.3} s", sender.id, due.as_secs_f64()));
        self.inner.borrow_mut().late.push(Late { due, what: Arrival::Copy(sender.clone(), request.clone()) });
    }

    /// A call of a client. The outcome that the caller sees and the fate of the request are two things.
    ///
    /// The process may die before the request leaves, or when it has had its effect and no answer has come.
    pub(super) fn call(&self, life: &Life, sender: &Sender, request: &Request) -> Result<(), BrokerError> {
        if (0..DEATHS).any(|_| self.hits(Fault::Crash)) {
            self.note(|| format!("{}: its process is killed", sender.id));
            life.end();
        }
        if let Err(ended) = self.step(life, "its call") {
            // The request may have left before the process ended.
            if self.draw(|seed| seed.hits(500)) {
                self.arrives_late(sender, request);
            }
            return Err(ended);
        }
        let is_abort = matches!(request, Request::End { commits: false });
        let answer = if !is_abort && self.hits(Fault::Aborted) {
            self.is_refused(sender, request)
        } else if self.hits(Fault::Unknown) {
            self.is_unknown(sender, request)
        } else {
            if self.hits(Fault::Repeated) {
                self.takes(REPEATS_AFTER_MS, 1500);
                if self.draw(|seed| seed.hits(700)) {
                    self.arrives_late(sender, request);
                }
            } else {
                self.takes(0, 20);
            }
            self.apply(sender, request)
        };
        self.note(|| match &answer {
            Ok(()) => format!("{}: {request}: ok", sender.id),
            Err(error) => format!("{}: {request}: {error}", sender.id),
        });
        self.step(life, "the answer to its call")?;
        answer
    }

    /// Answers that the transaction must be aborted. The request was not applied; where the client had repeated it, the
    /// first copy may still arrive.
    fn is_refused(&self, sender: &Sender, request: &Request) -> Result<(), BrokerError> {
        if self.draw(|seed| seed.hits(500)) {
            self.takes(REPEATS_AFTER_MS, 1500);
            if matches!(request, Request::Offsets(..)) {
                self.arrives_late(sender, request);
            }
        } else {
            self.takes(0, 20);
        }
        Err(BrokerError::Abort("the broker demands it".to_owned()))
    }

    /// Answers that nothing is known, whatever has become of the request. The caller learns the outcome only from the
    /// committed offsets, once a takeover has fenced a late copy.
    ///
    /// ```text
    /// 0 lost   1 applied, the answer is lost   2 late   3 applied, and a copy is late
    /// ```
    fn is_unknown(&self, sender: &Sender, request: &Request) -> Result<(), BrokerError> {
        // The numbers are those of the words below.
        let fate = self.draw(|seed| seed.below(4));
        // The broker may refuse it: the caller does not learn of that.
        if matches!(fate, 1 | 3) {
            drop(self.apply(sender, request));
        }
        if matches!(fate, 2 | 3) {
            self.arrives_late(sender, request);
        }
        match self.draw(|seed| seed.hits(300)) {
            // The client waits out its timeout, or the connection breaks soon.
            true => self.passes(Duration::from_secs(10)),
            false => self.takes(1, 400),
        }
        let what = ["its request is lost", "its answer is lost", "its request is late", "it was repeated"][fate];
        Err(BrokerError::Indefinite(what.to_owned()))
    }
}
