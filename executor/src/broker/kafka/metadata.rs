//! Questions about topics in a thread of their own: the client's call returns when its time is over, not before,
//! and a process that is asked to stop does not wait so long.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::{Metadata, MetadataPartition, MetadataTopic};
use rdkafka::producer::Producer as _;

use super::client::{Answer, Client, Described, Line};
use crate::guard::ClientCall;

/// Asks a broker about a topic, or all.
pub(super) fn describe(line: &Line, topic: Option<&str>, wait: Duration) -> Answer {
    let (client, topic) = (line.client(), topic.map(str::to_owned));
    let ask = move || ask(&client, topic.as_deref(), wait);
    let asked = || line.questions.borrow_mut().run(wait + MARGIN, &line.patience, ask);
    line.calls.during(ClientCall::Metadata, asked).unwrap_or(Err(KafkaError::MetadataFetch(Code::OperationTimedOut)))
}

/// Time beyond its own in which the client surely returns.
const MARGIN: Duration = Duration::from_secs(2);

fn ask(client: &Arc<Client>, topic: Option<&str>, wait: Duration) -> Answer {
    let answered: Metadata = client.client().fetch_metadata(topic, wait)?;
    Ok(answered.topics().iter().map(described).collect())
}

fn described(topic: &MetadataTopic) -> Described {
    let partitions = topic.partitions();
    let led = partitions.iter().filter(|partition| partition.leader() >= 0);
    Described {
        name: topic.name().to_owned(),
        error: topic.error().map(Code::from),
        partitions: partitions.len(),
        led: led.map(MetadataPartition::id).collect(),
    }
}
