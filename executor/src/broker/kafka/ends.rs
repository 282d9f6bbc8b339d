//! Offsets of many partitions, asked for at once: over the producer's client, which does not fetch.
//!
//! Leaders are asked of the metadata first, so that a partition without one holds up no other of the question.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::producer::Producer as _;

use super::client::Line;
use super::errors::judge;
use super::metadata;
use super::offsets::{self, Offsets, Sees, Which};
use crate::broker::{BrokerError, Watermarks};
use crate::event::message::TopicPartition;
use crate::guard::ClientCall;

/// Longest wait for the ends of partitions: the worker's other partitions stand still meanwhile.
const ENDS_WAIT_MAX: Duration = Duration::from_secs(2);

/// The ends of partitions; `None`: no broker leads the partition at the moment.
///
/// In the order of `partitions`. `sees` says whether the high end counts open transactions. Fails as [`judge`] says;
/// the worker asks again at a later turn.
pub fn ends(line: &Line, sees: Sees, partitions: &[TopicPartition]) -> Result<Vec<Option<Watermarks>>, BrokerError> {
    let answers = ask(line, &[(Which::First, sees), (Which::End, sees)], partitions)?;
    let [first, end] = answers.as_slice() else { return Ok(vec![None; partitions.len()]) };
    let of = |offsets: &Offsets, TopicPartition { topic, partition }: &TopicPartition| {
        offsets.get(&(topic.to_string(), *partition)).copied().flatten()
    };
    let marks = |partition: &TopicPartition| Some(Watermarks { low: of(first, partition)?, high: of(end, partition)? });
    Ok(partitions.iter().map(marks).collect())
}

/// Asks about all partitions at once that some broker leads.
///
/// One answer per question, in their order. A partition that no broker leads is in none of them.
pub fn ask(line: &Line, asked: &[(Which, Sees)], partitions: &[TopicPartition]) -> Result<Vec<Offsets>, BrokerError> {
    let client = line.client();
    let led = led(line, partitions)?;
    if led.is_empty() {
        return Ok(asked.iter().map(|_| Offsets::new()).collect());
    }
    let ask = || offsets::ask_all(client.client(), asked, &led, (ENDS_WAIT_MAX, &line.patience));
    let answers = line.calls.during(ClientCall::ListOffsets, ask);
    let name = |first: &TopicPartition| format!("the ends of {} partitions, {first} first", led.len());
    answers.map_err(|error| judge(&led.first().map_or_else(String::new, name), &error))
}

/// Filters the partitions that some broker leads.
///
/// One question per topic: metadata of all topics of a cluster could be large.
fn led(line: &Line, partitions: &[TopicPartition]) -> Result<Vec<TopicPartition>, BrokerError> {
    let mut led: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for TopicPartition { topic, .. } in partitions {
        if led.contains_key(&**topic) {
            continue;
        }
        let asked = metadata::describe(line, Some(topic), ENDS_WAIT_MAX);
        let answered = asked.map_err(|error| judge(&format!("the leaders of \"{topic}\""), &error))?;
        led.insert(topic, answered.into_iter().flat_map(|described| described.led).collect());
    }
    let is_led = |partition: &&TopicPartition| led[&*partition.topic].contains(&partition.partition);
    Ok(partitions.iter().filter(is_led).cloned().collect())
}
