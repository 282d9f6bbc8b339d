//! Decides what librdkafka's errors mean for a worker.
//!
//! ```text
//! passes          waiting helps                          Retriable
//! membership      the group went on without us           Abort
//! the group's     permissions, protocol: a person acts   Group
//! anything else   a person acts                          Fatal
//! ```
//!
//! A code that is not listed ends the worker: better than to go on after an error of unknown meaning.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::broker::BrokerError;

/// Tells an error on which a person must act from one after which the same call may succeed later.
///
/// `doing` is what was tried, for the text: `the topic "in"`.
pub fn judge(doing: &str, error: &KafkaError) -> BrokerError {
    let code = code(error);
    let text = format!("{doing}: {}", words(error));
    match code {
        Some(code) if passes(code) => BrokerError::Retriable(text),
        Some(code) if is_about_membership(code) => BrokerError::Abort(text),
        Some(code) if is_the_groups(code) => BrokerError::Group(text),
        _ => BrokerError::Fatal(text),
    }
}

/// A call on a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A producer begins its life.
    Init,
    /// A transaction begins.
    Begin,
    /// Offsets are put into it.
    Offsets,
    /// It is committed.
    Commit,
    /// It is aborted.
    Abort,
}

/// The client's answer to a call on a transaction that failed.
///
/// `is_fatal` and `requires_abort` are librdkafka's own judgement of its state, which the code alone does not give.
#[derive(Debug)]
pub struct TransactionError {
    /// The code.
    pub code: Code,
    /// The name of the code, and the client's words.
    pub text: String,
    /// The client cannot go on.
    pub is_fatal: bool,
    /// The transaction can only be aborted.
    pub requires_abort: bool,
}

/// Decides what an error of a call on a transaction means. A call whose request may still be under way leaves
/// the outcome open, whatever the client says of trying again.
///
/// ```text
///                 is_fatal   requires_abort   else
/// Init            Fatal      Retriable        Retriable
/// Begin           Fenced     Fenced           Fenced
/// Offsets, Commit Fenced     Abort            Indefinite
/// Abort           Fenced     Indefinite       Indefinite
/// ```
pub fn judge_transaction(step: Step, error: TransactionError) -> BrokerError {
    let TransactionError { code, text, is_fatal, requires_abort } = error;
    match (step, code) {
        (Step::Init, _) if is_fatal => BrokerError::Fatal(text),
        (Step::Init, _) => BrokerError::Retriable(text),
        _ if is_fatal => BrokerError::Fenced(text),
        // Beginning asks no broker: it fails only where the client's state has come apart from the worker's.
        (Step::Begin, _) => BrokerError::Fenced(text),
        // Whatever the client demands: a takeover ends what is open.
        (Step::Abort, _) => BrokerError::Indefinite(text),
        _ if requires_abort => BrokerError::Abort(text),
        _ => BrokerError::Indefinite(text),
    }
}

/// The error without rdkafka's wrapping, as a person reads it.
///
/// Short: the code's words, without the name of the call.
pub fn words(error: &KafkaError) -> String {
    match (code(error), error) {
        (Some(code), _) => code.to_string(),
        // The value may be a secret.
        (None, KafkaError::ClientConfig(_, _, name, _)) => format!("the Kafka setting \"{name}\" is refused"),
        (None, error) => error.to_string(),
    }
}

/// The code of an error, also where rdkafka does not give it.
pub fn code(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        KafkaError::Transaction(error) => Some(error.code()),
        error => error.rdkafka_error_code(),
    }
}

/// True if the broker is away or busy: waiting helps.
pub fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::Resolve
            | Code::NotCoordinator
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            // A leader that has just been elected, or one that was until just now.
            | Code::OffsetNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::ReplicaNotAvailable
            // The leader's disk: another broker becomes leader.
            | Code::KafkaStorageError
            | Code::NetworkException
            | Code::BrokerNotAvailable
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::TimedOutQueue
            | Code::WaitingForCoordinator
            | Code::WaitCache
            | Code::InProgress
            | Code::UnstableOffsetCommit
            | Code::Retry
            | Code::RebalanceInProgress
            // What the client says of a partition that has no leader, as when its broker has just started.
            | Code::UnknownPartition
            // A broker does not know a topic yet that was just created. A reader of the topic finds out
            // whether it was deleted.
            | Code::UnknownTopic
            | Code::UnknownTopicOrPartition
    )
}

/// True if every member of the group meets the error: a person must change permissions or the group.
///
/// See [`BrokerError::Group`].
pub fn is_the_groups(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::InconsistentGroupProtocol
            | Code::Authentication
            | Code::SaslAuthenticationFailed
    )
}

/// True if the broker has answered, and its reason is neither known to pass nor about the producer or the
/// group.
///
/// Some of them name a policy of the cluster, which may concern one record.
pub fn is_answer(code: Code) -> bool {
    matches!(
        code,
        Code::PolicyViolation
            | Code::UnsupportedForMessageFormat
            | Code::InvalidRequest
            | Code::InvalidConfig
            | Code::OperationNotAttempted
            | Code::Unknown
    )
}

/// True if the group has gone on without this member: a commit of it is void.
fn is_about_membership(code: Code) -> bool {
    matches!(code, Code::IllegalGeneration | Code::UnknownMemberId | Code::FencedInstanceId | Code::AssignmentLost)
}
