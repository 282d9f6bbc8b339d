//! The callbacks of librdkafka: changes of partitions, and the state of the brokers.
//!
//! ```text
//! all clients ──complaints──▶ Health ◀──answered, unanswered── the worker
//! consumer ──rebalance──▶ MemberContext: a queue of changes ──next_change──▶ KafkaConsumer
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tracing::{debug, info, warn};

use super::config::ClientSettings;
use super::statistics::Statistics;
use super::tokens::{self, Tokens};
use super::withheld::Withheld;
use crate::clock::{Clock as _, SystemClock};

/// Questions without an answer after which brokers count as away.
const UNANSWERED_MAX: u32 = 4;
/// Time between two lines on brokers that are away.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The state of the brokers, as all clients of a worker see it. Logs when they go away, every ten seconds while
/// they are, and when they are back.
///
/// librdkafka complains of every connection that fails, also of those that it opens again at once. So a complaint is
/// a suspicion only: the worker then asks, and several questions in a row without an answer are the proof.
pub struct Health {
    servers: String,
    clock: SystemClock,
    /// The mechanism by which the client proves its identity: `PLAIN`.
    mechanism: String,
    state: Mutex<State>,
    /// Figures that the clients give of themselves now and then.
    pub statistics: Statistics,
    /// The source of tokens by which clients prove who they are, where they are made here.
    tokens: Option<Arc<dyn Tokens>>,
}

#[derive(Default)]
struct State {
    /// A client complained of a connection since a broker last answered.
    suspect: bool,
    /// Questions in a row that no broker answered.
    unanswered: u32,
    /// No broker can be reached: since when, and when that was logged last.
    down: Option<Down>,
    /// The last complaint, which names the reason.
    last: Option<String>,
    /// The brokers refuse the client, for this reason.
    refused: Option<String>,
    /// The client's words, if it is the user that the brokers do not know.
    denied: Option<String>,
    /// The client is beyond repair.
    fatal: Option<String>,
}

#[derive(Clone, Copy)]
struct Down {
    since: Duration,
    logged: Duration,
}

impl Health {
    /// The health of brokers of which nothing is known yet.
    pub fn new(settings: &ClientSettings) -> Health {
        let clock = SystemClock::start();
        let (servers, mechanism) = (settings.servers.clone(), settings.mechanism().to_owned());
        let (state, statistics, tokens) = (Mutex::default(), Statistics::default(), settings.tokens());
        Health { servers, clock, mechanism, state, statistics, tokens }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a complaint of a client, by its code: the user or TLS is refused, the client has given up, or a connection
    /// is gone.
    pub(super) fn complains(&self, code: Option<Code>, reason: &str) {
        let mut state = self.state();
        match code {
            Some(code @ (Code::Authentication | Code::SSL | Code::SaslAuthenticationFailed)) => {
                let Health { servers, mechanism, .. } = self;
                let text = match code {
                    Code::SSL => format!("no TLS connection to {servers}: {reason}"),
                    _ => format!("authentication failed at {servers} (mechanism {mechanism}): {reason}"),
                };
                // Once: librdkafka tries again for ever, and says so each time.
                if state.refused.is_none() {
                    warn!("{text}");
                }
                state.refused = Some(text);
                state.denied = (code != Code::SSL).then(|| reason.to_owned());
            }
            Some(Code::Fatal) => state.fatal = Some(reason.to_owned()),
            // The complaint before it names the reason.
            Some(Code::AllBrokersDown) => {
                state.suspect = true;
                return;
            }
            _ => debug!("{reason}"),
        }
        state.suspect = true;
        state.last = Some(reason.to_owned());
    }

    /// Notes that a broker has answered.
    ///
    /// Any answer of any broker does: events that came, a commit, metadata.
    pub fn answered(&self) {
        let mut state = self.state();
        (state.refused, state.denied, state.suspect, state.unanswered) = (None, None, false, 0);
        if let Some(Down { since, .. }) = state.down.take() {
            let seconds = (self.clock.now() - since).as_secs();
            info!(servers = %self.servers, seconds, "the brokers are back");
        }
    }

    /// True if a broker should be asked whether it answers.
    pub fn is_suspect(&self) -> bool {
        let state = self.state();
        state.suspect || state.down.is_some()
    }

    /// True while no broker can be reached.
    pub fn is_down(&self) -> bool {
        self.state().down.is_some()
    }

    /// No broker answered a question. After a few in a row the brokers are away.
    pub fn unanswered(&self) {
        let mut state = self.state();
        state.unanswered += 1;
        if state.unanswered >= UNANSWERED_MAX {
            self.tell_down(&mut state);
        }
    }

    /// No broker has answered yet: the start waits for the first.
    pub fn awaited(&self) {
        self.tell_down(&mut self.state());
    }

    fn tell_down(&self, state: &mut State) {
        let (now, servers) = (self.clock.now(), &self.servers);
        let why = state.last.as_deref().unwrap_or("no answer");
        match &mut state.down {
            None => {
                warn!(%servers, error = why, "waiting for a broker: none can be reached");
                state.down = Some(Down { since: now, logged: now });
            }
            Some(down) if now >= down.logged + TELL_EVERY => {
                let seconds = (now - down.since).as_secs();
                warn!(%servers, seconds, error = why, "still waiting for a broker");
                down.logged = now;
            }
            Some(_) => {}
        }
    }

    /// The reason for which the brokers refuse the client.
    ///
    /// The last words count; an answer of a broker withdraws them.
    pub fn refused(&self) -> Option<String> {
        self.state().refused.clone()
    }

    /// The client's words, if the brokers refuse the user.
    pub fn denied(&self) -> Option<String> {
        self.state().denied.clone()
    }

    /// The client's last words before it gave up for good.
    ///
    /// The client never recovers from it.
    pub fn fatal(&self) -> Option<String> {
        self.state().fatal.clone()
    }

    /// A token for a client that asks for the next one.
    pub fn token(&self) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        tokens::answer(self.tokens.as_ref())
    }

    /// The servers, for errors.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// The error of a start that found no broker.
    pub fn unreachable(&self, after: Duration) -> String {
        let why = self.state().last.clone().unwrap_or_else(|| "no answer".to_owned());
        format!("no broker answers at {} after {} s: {why}", self.servers, after.as_secs())
    }

    /// Logs what a client says.
    pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(target: "librdkafka", "{level:?} {facility} {message}");
    }
}

/// A change of partitions as it came.
///
/// Topics and partitions as librdkafka names them.
pub enum Rebalanced {
    /// These are assigned by the group, and not yet by the client.
    Assigned(Vec<(String, i32)>),
    /// These are revoked. Nothing moves until the member acknowledges it.
    Revoked(Vec<(String, i32)>),
    /// These are lost already, but must be acknowledged too.
    Lost(Vec<(String, i32)>),
    /// librdkafka could not do as the group said.
    Failed(String),
}

/// The callbacks of the consumer.
///
/// The callback runs within a poll of the client; the change is taken when that poll is over, or at the next one.
pub struct MemberContext {
    /// The state of the brokers.
    pub health: Arc<Health>,
    // Never contended: callbacks run in polls of the worker's own thread. rdkafka only wants types that threads may
    // share.
    changes: Mutex<VecDeque<Rebalanced>>,
    /// The group has changed since the consumer last asked.
    stirred: AtomicBool,
    /// The member leaves: the worker takes changes no more.
    leaves: AtomicBool,
    /// The group has assigned partitions, or none, and has revoked none since.
    has_assignment: AtomicBool,
    /// Partitions of which the worker learns nothing.
    withheld: Arc<Withheld>,
}

impl MemberContext {
    /// Callbacks before the first event.
    pub fn new(health: Arc<Health>, withheld: Arc<Withheld>) -> MemberContext {
        let no = || AtomicBool::new(false);
        let (stirred, leaves, has_assignment) = (no(), no(), no());
        MemberContext { health, changes: Mutex::default(), stirred, leaves, has_assignment, withheld }
    }

    fn changes(&self) -> MutexGuard<'_, VecDeque<Rebalanced>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the oldest change.
    ///
    /// In the order in which they came.
    pub fn next_change(&self) -> Option<Rebalanced> {
        self.changes().pop_front()
    }

    /// The group has changed since the last call, with or without a change for this member.
    pub fn take_stirred(&self) -> bool {
        self.stirred.swap(false, Ordering::Relaxed)
    }

    /// True if the last word of the group was an assignment, of nothing perhaps.
    pub fn has_assignment(&self) -> bool {
        self.has_assignment.load(Ordering::Relaxed)
    }

    /// Has revocations acknowledged at once from here on: the member leaves.
    ///
    /// There is no way back: the flag goes with the client.
    pub fn acknowledge_all(&self) {
        self.leaves.store(true, Ordering::Relaxed);
    }

    /// True if there is a change that the worker has not taken.
    pub fn has_change(&self) -> bool {
        !self.changes().is_empty()
    }
}

impl ClientContext for MemberContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Health::log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.health.statistics.note(statistics);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.health.token()
    }

    /// Passes errors of connections on. The poll returns an error that the client does not survive, and it is
    /// judged there.
    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if !matches!(code, Some(Code::Fatal | Code::FencedInstanceId)) {
            self.health.complains(code, reason);
        }
    }
}

impl ConsumerContext for MemberContext {
    /// Acknowledges partitions that come at once, since the whole group waits for that, but assigns them only
    /// when their offsets are known: at any other offset a fetch could slip out, and where retention has
    /// deleted that offset the client would give the partition up. Partitions that go are acknowledged by the
    /// worker, after its last commit.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.stirred.store(true, Ordering::Relaxed);
        let names: Vec<_> =
            list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        // A revocation of nothing moves nothing, and no other word need follow.
        let is_assigned = matches!(code, RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS);
        if is_assigned || !names.is_empty() {
            self.has_assignment.store(is_assigned, Ordering::Relaxed);
        }
        let names = if is_assigned { self.withheld.comes(names) } else { self.withheld.goes(names) };
        let done = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => acknowledge(consumer),
            // A rebalance that moves nothing must be acknowledged like any other, or the group waits for it.
            _ if names.is_empty() || self.leaves.load(Ordering::Relaxed) => unassign(consumer, list),
            _ => Ok(()),
        };
        let change = match (done, code) {
            (Err(error), _) => Rebalanced::Failed(error.to_string()),
            _ if names.is_empty() => return,
            (Ok(()), RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) => Rebalanced::Assigned(names),
            _ if consumer.assignment_lost() => Rebalanced::Lost(names),
            _ => Rebalanced::Revoked(names),
        };
        self.changes().push_back(change);
    }
}

/// Acknowledges partitions that came, without assigning any.
///
/// The next step of the group then takes place while offsets are asked for.
fn acknowledge(consumer: &BaseConsumer<MemberContext>) -> Result<(), KafkaError> {
    let none = TopicPartitionList::new();
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(&none),
        _ => consumer.assign(&none),
    }
}

/// Acknowledges that partitions are given up, those too that were never assigned.
///
/// Without the cooperative protocol all partitions go at once, whatever `list` names.
pub fn unassign(consumer: &BaseConsumer<MemberContext>, list: &TopicPartitionList) -> Result<(), KafkaError> {
    if !matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
        return consumer.unassign();
    }
    // librdkafka refuses to unassign what it does not have, and partitions come without being assigned here.
    let assigned = consumer.assignment()?;
    let mut left = TopicPartitionList::with_capacity(list.count());
    for element in list.elements() {
        if assigned.find_partition(element.topic(), element.partition()).is_some() {
            left.add_partition(element.topic(), element.partition());
        }
    }
    consumer.incremental_unassign(&left)
}
