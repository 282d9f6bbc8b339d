//! What librdkafka's errors mean for a worker.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::broker::BrokerError;

/// Whether someone must act, or the same call may succeed later.
pub fn judge(doing: &str, error: &KafkaError) -> BrokerError {
    let code = error.rdkafka_error_code();
    let text = format!("{doing}: {}", words(error));
    match code {
        Some(code) if passes(code) => BrokerError::Retriable(text),
        Some(code) if is_about_membership(code) => BrokerError::Abort(text),
        _ => BrokerError::Fatal(text),
    }
}

/// The error without rdkafka's wrapping: what a person wants to read.
pub fn words(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}

/// The broker is away or busy: waiting helps.
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
    )
}

/// The group has gone on without this member: what it wanted to commit is void.
fn is_about_membership(code: Code) -> bool {
    matches!(code, Code::IllegalGeneration | Code::UnknownMemberId | Code::FencedInstanceId | Code::AssignmentLost)
}
