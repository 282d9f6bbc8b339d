//! Ends transactions that a dead member left open: until then brokers keep the offsets under them back, and
//! records behind them stay hidden in every topic that it wrote.
//!
//! The offset's metadata names the producer that committed last. A new producer under that name makes the
//! broker end what the earlier one left open, in half a second instead of the transaction's timeout. The
//! group shows whether a member is gone: a consumer's `client.id` is the name of its producer. A member that
//! is only slow finds its producer replaced and does its work again.
//!
//! A member that dies inside its first transaction stands in no metadata: so the fence reads the list of
//! members whenever the group changes, and remembers it until it must know which of them are gone.
//!
//! A worker that waits asks every second. A name is not taken over as often: its owner may live, and work on
//! other partitions. What is still hidden then, no takeover brings to light, only an operator with Kafka's
//! tool for hanging transactions (a broker that is killed while it ends a transaction can lose the rest of
//! it: KAFKA-20734).
//!
//! ```text
//! worker ──Order──▶ thread "kaspr-fence"
//!   Learn   the group has changed          read who is in it
//!   Over    offsets or tables are hidden   take over the names in the metadata of these partitions, then as Gone
//!   Gone    partitions came                of all names ever seen, take over those whose members are gone
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::groups::{GroupInfo, GroupMemberInfo};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::topic_partition_list::TopicPartitionList;
use tracing::{debug, info, warn};

use super::config::{ClientSettings, TRANSACTION_TIMEOUT_MS};
use super::errors::code;
use super::kept::Kept;
use super::raw;
use super::tokens::Bearer;
use crate::broker::position::Metadata;
use crate::broker::rights::Right;
use crate::clock::{Clock, SystemClock};
use crate::event::message::TopicPartition;
use crate::guard::{Callers, Calls, ClientCall};

/// The name of the thread.
const THREAD: &str = "kaspr-fence";
/// Longest wait for each answer.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Orders that may wait; a worker that still waits gives the others again.
const ORDERS_MAX: usize = 16;
/// Names that are remembered; more are forgotten, and then the broker ends what they left open.
const KNOWN_MAX: usize = 10_000;
/// Time for which a name is left alone after it was taken over because of what it hid.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// Time without such a takeover of a name after which the next one is about something else.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// Takeovers of a name for the same reason after which they are logged as vain.
const TAKEOVERS_MAX: u32 = 3;

/// An order to the fence.
///
/// Orders are followed one after the other; one that does not fit into the queue is dropped, since it comes again.
enum Order {
    /// Read the list of members.
    Learn,
    /// End the open transactions of the producers that committed these partitions last, alive or not.
    Over(Vec<(String, i32)>),
    /// Remember these producers too, and end the open transactions of all that are gone.
    Gone(BTreeSet<String>),
}

/// Takes over the names of members that are gone, in a thread of its own.
///
/// It does nothing at-least-once: there are no transactions then. The thread starts with the first order.
pub struct Fence {
    settings: ClientSettings,
    callers: Arc<Callers>,
    /// The thread, and its calls.
    orders: Option<(SyncSender<Order>, Arc<Calls>)>,
}

impl Fence {
    /// A fence that has nothing to do.
    pub fn new(settings: &ClientSettings, callers: &Arc<Callers>) -> Fence {
        Fence { settings: settings.clone(), callers: callers.clone(), orders: None }
    }

    /// Reads the list of members of the group, which has just changed. Does not wait.
    pub fn learn(&mut self) {
        self.order(Order::Learn);
    }

    /// Ends the transactions of the producers that committed these partitions last, and of members that are
    /// gone. Does not wait.
    pub fn end_over(&mut self, partitions: &[TopicPartition]) {
        let named = |partition: &TopicPartition| (partition.topic.to_string(), partition.partition);
        self.order(Order::Over(partitions.iter().map(named).collect()));
    }

    /// Ends the transactions of these producers, and of all members that were known, where they are
    /// gone. Does not wait.
    pub fn end_gone(&mut self, producers: BTreeSet<String>) {
        self.order(Order::Gone(producers));
    }

    /// Hands an order to the thread, and starts one where none is at work.
    fn order(&mut self, order: Order) {
        if !self.settings.is_exact() {
            return;
        }
        // A thread whose call does not return ends when the call does; a new thread does its work.
        if self.orders.as_ref().is_none_or(|(_, calls)| calls.is_given_up()) {
            let (orders, receiver) = sync_channel(ORDERS_MAX);
            let (settings, calls) = (self.settings.clone(), self.callers.other(THREAD));
            let theirs = calls.clone();
            let run = move || work(&settings, &theirs, &receiver);
            match std::thread::Builder::new().name(THREAD.to_owned()).spawn(run) {
                Ok(_) => self.orders = Some((orders, calls)),
                Err(error) => debug!("open transactions cannot be ended: {error}"),
            }
        }
        if let Some((orders, _)) = &self.orders {
            // A full queue: a worker that still waits gives the order again.
            let _ = orders.try_send(order);
        }
    }
}

/// Names that were taken over because of what they hid: the time of the last takeover, and their number.
///
/// Only of those that hid something: a member that is gone is ended once.
#[derive(Default)]
struct Takeovers(BTreeMap<String, (Duration, u32)>);

/// The outlook of a takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takeover {
    /// The last one was only just done.
    TooSoon,
    /// It may help.
    Due,
    /// Earlier ones have not helped.
    InVain,
}

impl Takeovers {
    /// Decides whether it is time for a takeover.
    ///
    /// Names that have been left alone for [`FORGOTTEN_AFTER`] begin anew.
    fn next(&mut self, id: &str, now: Duration) -> Takeover {
        self.0.retain(|_, (last, _)| now < *last + FORGOTTEN_AFTER);
        match self.0.get(id) {
            Some((last, _)) if now < *last + LEFT_ALONE => Takeover::TooSoon,
            Some((_, count)) if *count >= TAKEOVERS_MAX => Takeover::InVain,
            Some(_) | None => Takeover::Due,
        }
    }

    /// Notes a takeover.
    fn done(&mut self, id: String, now: Duration) {
        let (last, count) = self.0.entry(id).or_default();
        (*last, *count) = (now, *count + 1);
    }
}

/// Follows orders until the fence is dropped. An error ends the order, not the thread.
fn work(settings: &ClientSettings, calls: &Arc<Calls>, orders: &Receiver<Order>) {
    let (mut known, mut takeovers) = (BTreeSet::new(), Takeovers::default());
    let (clock, mut was_logged) = (SystemClock::start(), false);
    while let Ok(order) = orders.recv() {
        let Err(error) = follow((settings, calls), order, &mut known, &mut takeovers, &clock) else { continue };
        // Brokers end it by themselves in the end, so it is logged once.
        if code(&error) == Some(Code::TransactionalIdAuthorizationFailed) && !std::mem::replace(&mut was_logged, true) {
            let right = Right::transact(&settings.app);
            warn!(permission = %right, "not allowed: open transactions of dead workers hide records for {TRANSACTION_TIMEOUT_MS} ms");
        }
        debug!(%error, "open transactions could not be ended");
    }
}

/// Follows an order. `known`: producers whose members were in the group once and have not been ended since.
///
/// A client of its own for each order: orders are rare, and clients have threads.
fn follow(
    (settings, calls): (&ClientSettings, &Arc<Calls>),
    order: Order,
    known: &mut BTreeSet<String>,
    takeovers: &mut Takeovers,
    clock: &SystemClock,
) -> Result<(), KafkaError> {
    let consumer: Kept<BaseConsumer<Bearer>> = Kept::make(calls, || settings.passive(&settings.unstable()))?;
    let learns = matches!(order, Order::Learn);
    match order {
        Order::Learn => {}
        Order::Over(names) => {
            for id in holders((settings, calls), &consumer, &names)? {
                let takeover = takeovers.next(&id, clock.now());
                if reveal((settings, calls), &id, takeover)? {
                    takeovers.done(id, clock.now());
                }
            }
        }
        Order::Gone(producers) => known.extend(producers),
    }
    // After the takeovers of `Over`, so that an error here does not hold them up.
    let alive = members((settings, calls), consumer.client())?;
    // Only members get a reliable member list.
    if !alive.contains(&settings.transactional_id) {
        return Ok(());
    }
    if !learns {
        let gone: Vec<String> = known.difference(&alive).cloned().collect();
        for id in gone {
            // A takeover takes its time: a member that was gone before it may be back.
            if !members((settings, calls), consumer.client())?.contains(&id) {
                succeed((settings, calls), &id)?;
            }
            // Also where its member is back: it stands among the living below.
            known.remove(&id);
        }
    }
    // All at once: which of them matter is not known, and the living are learnt again at once.
    if known.len() > KNOWN_MAX {
        known.clear();
    }
    known.extend(alive);
    Ok(())
}

/// Takes over a name because of what it hides. False: it is too soon.
///
/// `InVain`: it is done all the same, and logged with the tool that helps.
fn reveal((settings, calls): (&ClientSettings, &Arc<Calls>), id: &str, takeover: Takeover) -> Result<bool, KafkaError> {
    match takeover {
        Takeover::TooSoon => return Ok(false),
        Takeover::Due => {}
        Takeover::InVain => warn!(
            "something of {id} is open that its coordinator does not know of, so records and offsets stay hidden: \
             \"kafka-transactions.sh --bootstrap-server {} find-hanging --broker-id …\" shows it, and \"abort\" ends it \
             (KAFKA-20734)",
            settings.servers
        ),
    }
    succeed((settings, calls), id)?;
    Ok(true)
}

/// Begins as a producer under a name and ends at once.
///
/// Waits [`WAIT_MAX`] at most. The producer that had the name is fenced if it lives, and its worker does
/// its work again.
fn succeed((settings, calls): (&ClientSettings, &Arc<Calls>), id: &str) -> Result<(), KafkaError> {
    let make = || settings.successor(id).create_with_context(settings.bearer());
    let successor: Kept<BaseProducer<Bearer>> = Kept::make(calls, make)?;
    settings.admit(successor.client());
    calls.during(ClientCall::InitTransactions, || successor.init_transactions(WAIT_MAX))?;
    info!("ended what {id} may have left open");
    Ok(())
}

/// The producers, other than this worker's, that committed these partitions last.
///
/// Partitions without a commit, or with one of another program, have none. The client sees commits under open
/// transactions too, so it does not wait for them.
fn holders(
    (settings, calls): (&ClientSettings, &Arc<Calls>),
    consumer: &BaseConsumer<Bearer>,
    names: &[(String, i32)],
) -> Result<BTreeSet<String>, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(names.len());
    for (topic, partition) in names {
        list.add_partition(topic, *partition);
    }
    let committed = calls.during(ClientCall::CommittedOffsets, || consumer.committed_offsets(list, WAIT_MAX))?;
    let partitions = names.iter().map(|(topic, partition)| TopicPartition::new(topic.as_str(), *partition));
    let metadata = partitions.filter_map(|partition| Metadata::decode(&raw::metadata(&committed, &partition)));
    let is_other = |id: &String| !id.is_empty() && *id != settings.transactional_id;
    Ok(metadata.map(|metadata| metadata.transactional_id).filter(is_other).collect())
}

/// The producers whose consumers are members of the group. Other readers in the group have none.
///
/// A client that is no member may get a list without names, or none.
pub(super) fn members<C: ClientContext>(
    (settings, calls): (&ClientSettings, &Arc<Calls>),
    client: &Client<C>,
) -> Result<BTreeSet<String>, KafkaError> {
    let ask = || client.fetch_group_list(Some(&settings.app), WAIT_MAX);
    let groups = calls.during(ClientCall::Admin, ask)?;
    let members = groups.groups().iter().flat_map(GroupInfo::members);
    let is_worker = |name: &&str| name.strip_prefix(settings.app.as_str()).is_some_and(|rest| rest.starts_with('.'));
    Ok(members.map(GroupMemberInfo::client_id).filter(is_worker).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_taken_over_again_and_again() {
        let mut takeovers = Takeovers::default();
        let mut taken = Vec::new();
        for second in 0..24 {
            let now = Duration::from_secs(second);
            match takeovers.next("app.0", now) {
                Takeover::TooSoon => {}
                takeover => {
                    takeovers.done("app.0".to_owned(), now);
                    taken.push((second, takeover));
                }
            }
        }
        let due = [0, 5, 10].map(|second| (second, Takeover::Due));
        let in_vain = [15, 20].map(|second| (second, Takeover::InVain));
        assert_eq!(taken, [due.as_slice(), &in_vain].concat());
        assert_eq!(takeovers.next("other.0", Duration::from_secs(20)), Takeover::Due);
        assert_eq!(takeovers.next("app.0", Duration::from_secs(51)), Takeover::Due, "it is about something else");
    }
}
