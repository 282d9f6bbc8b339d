use std::time::Duration;

use super::*;
use crate::broker::{Change, Consumer, OffsetCommit, OutgoingRecord, Producer, Subscription};

fn send(producer: &mut LogProducer, topic: &TopicName, value: &str) {
    let value = Some(value.as_bytes());
    let record =
        OutgoingRecord { topic, partition: 0, timestamp_ms: 0, key: None, value, headers: &[], tracked: false };
    producer.send(record, 0).expect("it is sent");
}

fn seen(log: &Log, topic: &TopicName) -> (Vec<String>, i64) {
    let (events, next) = log.read(topic, 0, 0, 100);
    let text = |event: &Event| String::from_utf8_lossy(event.value.as_deref().unwrap_or_default()).into_owned();
    (events.iter().map(text).collect(), next)
}

fn transactional(log: &Log, id: &str) -> LogProducer {
    let mut producer = log.producer(Some(id));
    producer.init_transactions().expect("it is initialised");
    producer
}

#[test]
fn an_open_transaction_hides_itself_and_what_follows() {
    let log = Log::new(1);
    let topic: TopicName = "t".into();
    let mut producer = transactional(&log, "a");
    producer.begin().expect("it begins");
    send(&mut producer, &topic, "in");
    log.append(&topic, NewRecord { value: Some("after".into()), ..NewRecord::default() }).expect("it is appended");
    assert_eq!(seen(&log, &topic), (vec![], 0));
    producer.commit().expect("it commits");
    assert_eq!(seen(&log, &topic), (vec!["in".into(), "after".into()], 3), "the marker has an offset");
}

#[test]
fn aborted_records_never_show() {
    let log = Log::new(1);
    let topic: TopicName = "t".into();
    let mut producer = transactional(&log, "a");
    producer.begin().expect("it begins");
    send(&mut producer, &topic, "gone");
    producer.abort().expect("it aborts");
    producer.begin().expect("it begins");
    send(&mut producer, &topic, "kept");
    producer.commit().expect("it commits");
    assert_eq!(seen(&log, &topic), (vec!["kept".into()], 4));
}

#[test]
fn a_second_producer_fences_the_first() {
    let log = Log::new(1);
    let topic: TopicName = "t".into();
    let mut first = transactional(&log, "a");
    first.begin().expect("it begins");
    send(&mut first, &topic, "lost");
    let mut second = transactional(&log, "a");
    assert!(first.commit().is_err());
    second.begin().expect("it begins");
    send(&mut second, &topic, "kept");
    second.commit().expect("it commits");
    assert_eq!(seen(&log, &topic).0, ["kept"]);
}

fn assigned(consumer: &mut LogConsumer) -> Vec<TopicPartition> {
    match consumer.poll(Duration::ZERO, 1, &mut Vec::new()) {
        Ok(Some(Change::Assigned(partitions))) => {
            let starts: Vec<_> = partitions.iter().map(|partition| (partition.clone(), 0)).collect();
            consumer.start(&starts).expect("it starts");
            partitions
        }
        _ => Vec::new(),
    }
}

#[test]
fn members_share_partitions_and_inherit_them() {
    let log = Log::new(1);
    log.create("t", 4);
    let topics = [Subscription::Topic("t".into())];
    let (mut a, mut b) = (log.consumer("g", None), log.consumer("g", None));
    a.subscribe(&topics).expect("it joins");
    assert_eq!(assigned(&mut a).len(), 4);
    b.subscribe(&topics).expect("it joins");
    assert_eq!(assigned(&mut b), [], "they are still a's");
    let Ok(Some(Change::Revoked(given_up))) = a.poll(Duration::ZERO, 1, &mut Vec::new()) else { panic!("a gives up") };
    a.release(&given_up).expect("it releases");
    assert_eq!(assigned(&mut b), given_up);
    drop(b);
    assert_eq!(assigned(&mut a), given_up);
}

#[test]
fn offsets_of_a_transaction_count_when_it_commits() {
    let log = Log::new(1);
    log.create("t", 1);
    let mut consumer = log.consumer("g", None);
    consumer.subscribe(&[Subscription::Topic("t".into())]).expect("it joins");
    assigned(&mut consumer);
    let mut producer = transactional(&log, "a");
    let partition = TopicPartition::new("t", 0);
    let committed = Committed { offset: 7, metadata: None };
    let offsets = [OffsetCommit { partition: partition.clone(), committed: committed.clone() }];
    producer.begin().expect("it begins");
    let old = crate::broker::GroupMetadata { generation: 0, ..consumer.group() };
    assert!(producer.send_offsets(&offsets, &old).is_err(), "an older generation commits nothing");
    assert_eq!(log.committed("g", &partition), None);
    producer.abort().expect("it aborts");
    producer.begin().expect("it begins");
    producer.send_offsets(&offsets, &consumer.group()).expect("the generation is the newest");
    assert_eq!(log.committed("g", &partition), None);
    producer.commit().expect("it commits");
    assert_eq!(log.committed("g", &partition), Some(committed));
}

#[test]
fn forgotten_records_leave_their_offsets() {
    let log = Log::new(1);
    let topic: TopicName = "t".into();
    for value in ["a", "b", "c"] {
        log.append(&topic, NewRecord { value: Some(value.into()), ..NewRecord::default() }).expect("it is appended");
    }
    log.forget_before(&TopicPartition::new("t", 0), 2);
    assert_eq!(seen(&log, &topic), (vec!["c".into()], 3));
}
