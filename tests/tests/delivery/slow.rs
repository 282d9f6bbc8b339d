//! Slowness: a link that carries 20 kB a second, a sink that sleeps. Memory stays bounded, nothing ends,
//! nothing times out, and all else goes on.

use std::time::Duration;

use kaspr_tests::app::{Agents, App};
use kaspr_tests::clock::{now, pause};
use kaspr_tests::figure;
use kaspr_tests::kafka::Broker;
use kaspr_tests::load::{Load, Shape};
use kaspr_tests::verify::read::Topics;
use kaspr_tests::watch::Watch;

use crate::{PARTITIONS, PATIENCE, all_zeros, broker, network, recovery};

/// Bytes a second of a slow link.
const LINK: u64 = 20_000;
/// Most memory of a process, in bytes, whatever is slow.
const MEMORY_MAX: u64 = 400 << 20;

/// 20 MB of input, which no slow link carries in the time of a test.
fn backlog(broker: &Broker, app: &App, fails_every: u64) -> Load {
    let shape = Shape { rate: 0, padding: 300, fails_every, ..Shape::default() };
    let mut load = Load::start(&broker.servers, &app.input, shape, 60_000);
    load.wait();
    load
}

fn records(watch: &Watch) -> u64 {
    watch.partitions().values().map(|partition| partition.records).sum()
}

/// The first line that reports something wrong. Lines on partitions that stand still are right: their events
/// are on their way. So are those on events that are meant to fail.
fn fault(words: &str) -> Option<&str> {
    let is_meant = |line: &str| line.contains(" stands still ") || line.contains("marked to fail");
    let is_fault = |line: &&str| line.contains("ERROR") || line.contains("WARN") && !is_meant(line);
    words.lines().find(is_fault)
}

#[test]
fn a_link_that_becomes_slow_is_waited_for_in_bounded_memory() {
    let (broker, network) = (broker(), network());
    let app = App::new(broker, Agents::One, PARTITIONS).at(network.servers());
    let load = backlog(broker, &app, 50);
    let watch = Watch::start(&broker.servers, app.output(), PARTITIONS);
    let member = app.start(0);
    let began = now();
    while watch.partitions().is_empty() {
        assert!(now() - began < PATIENCE, "no output\n{}", app.last_words(0..1, 30));
        pause(Duration::from_millis(20));
    }
    network.throttle(LINK);
    pause(Duration::from_secs(15));
    let (early, said) = (member.memory().0, app.words(0).len());
    watch.reset();
    pause(Duration::from_secs(25));
    let ((late, most), records) = (member.memory(), records(&watch));
    let words = app.words(0)[said..].to_owned();
    network.clear();
    let verdict = all_zeros(&app, broker, load, vec![member]);
    figure(&format!(
        "20 kB/s, 20 MB to read: {records} records in 25 s, memory {} MB, then {} MB, at most {} MB: {verdict}",
        early >> 20,
        late >> 20,
        most >> 20
    ));
    assert!(records > 0, "nothing came through\n{words}");
    assert!(most < MEMORY_MAX && late < early + (64 << 20), "{early} {late} {most}");
    assert_eq!(fault(&words), None, "{words}");
}

#[test]
fn a_link_that_is_slow_from_its_first_byte_is_waited_for_in_bounded_memory() {
    let (broker, network) = (broker(), network());
    let app = App::new(broker, Agents::One, PARTITIONS).at(network.servers());
    let load = backlog(broker, &app, 0);
    let watch = Watch::start(&broker.servers, app.output(), PARTITIONS);
    network.throttle(LINK);
    let (mut member, began) = (app.start(0), now());
    while records(&watch) == 0 && now() - began < PATIENCE {
        assert_eq!(member.ended(), None, "{}", app.last_words(0..1, 40));
        pause(Duration::from_millis(20));
    }
    let (first, (_, most), words) = (now() - began, member.memory(), app.words(0));
    network.clear();
    let verdict = all_zeros(&app, broker, load, vec![member]);
    figure(&format!(
        "20 kB/s from the first byte on, 20 MB to read: first record after {first:.0?}, memory at most {} MB: {verdict}",
        most >> 20
    ));
    assert!(first < PATIENCE, "nothing came through\n{words}");
    assert!(most < MEMORY_MAX, "{most}");
    assert_eq!(fault(&words), None, "{words}");
}

/// `sleeps` gives every event to a sink that sleeps, `copies` copies another topic.
const SPEC: &str = r#"
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata:
  name: sleeps
spec:
  input:
    topic:
      name: "@sleeps"
  output:
    sinks:
      - name: bed
        python: |
          import time
          def sleep(value):
              time.sleep(0.01)
  processors:
    pipeline: [same]
    operations:
      - name: same
        map:
          python: |
            def same(value):
                return value
---
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata:
  name: copies
spec:
  input:
    topic:
      name: "@copies"
  output:
    topics:
      - name: "@copied"
        keySelector:
          python: |
            def key(value):
                return value["key"]
  processors:
    pipeline: [copy]
    operations:
      - name: copy
        map:
          python: |
            def copy(value):
                message = context["event"].message
                return {**value, "partition": message.partition, "offset": message.offset}
"#;

/// The sum of the offsets that the app's group has committed in a topic.
fn committed(broker: &Broker, app: &App, topic: &str) -> i64 {
    broker.committed(&app.name, topic).iter().flatten().map(|(offset, _)| offset).sum()
}

#[test]
fn a_sink_that_sleeps_holds_its_own_events_alone_in_bounded_memory() {
    /// At 10 ms each they are hours of work.
    const EVENTS: u64 = 1_000_000;
    let broker = broker();
    let [slow, input, output] = ["sleeps", "copies", "copied"].map(|name| broker.topic(name, PARTITIONS));
    let spec = SPEC.replace("@sleeps", &slow).replace("@copies", &input).replace("@copied", &output);
    let copies = Topics { input: input.clone(), outputs: vec![output], ..Topics::default() };
    let app = App::of(broker, &spec, "copies", copies, PARTITIONS);
    let shape = Shape { fails_every: 0, ..Shape::default() };
    Load::start(&broker.servers, &slow, Shape { rate: 0, ..shape.clone() }, EVENTS).wait();
    let mut member = app.start(0);
    let watch = Watch::start(&broker.servers, app.output(), PARTITIONS);
    let load = Load::start(&broker.servers, &input, shape, u64::MAX);
    recovery(&app, &watch, 0..1);
    watch.reset();
    let (measured, mut positions) = (now(), vec![committed(broker, &app, &slow)]);
    // Again and again its own commits go on, and so does the other agent, in far less time than the hours that
    // the slow one's events take.
    for _ in 0..4 {
        pause(Duration::from_secs(1));
        recovery(&app, &watch, 0..1);
        let last = positions[positions.len() - 1];
        while committed(broker, &app, &slow) == last {
            assert!(now() - measured < 4 * PATIENCE, "commits stand still\n{}", app.last_words(0..1, 40));
            pause(Duration::from_millis(100));
        }
        positions.push(committed(broker, &app, &slow));
    }
    let (late, copied, seconds) = (watch.oldest(), records(&watch), (now() - measured).as_secs());
    let (_, most) = member.memory();
    let (events, began) = (load.end(), now());
    while broker.lag(&app.name, &input) > 0 {
        assert!(now() - began < PATIENCE, "the copies do not end\n{}", app.last_words(0..1, 30));
        pause(Duration::from_millis(100));
    }
    assert_eq!(member.terminate(), Some(0), "{}", app.last_words(0..1, 40));
    let verdict = app.verify(broker).unwrap_or_else(|why| panic!("{why}"));
    figure(&format!(
        "a sink that sleeps 10 ms before a million events: memory at most {} MB; in {seconds} s {copied} records of the other agent, {late:.1?} late at most, and {} events of its own committed: {verdict}",
        most >> 20,
        positions[positions.len() - 1] - positions[0],
    ));
    assert!(verdict.is_clean() && verdict.events() as u64 == events, "{events} events were sent: {verdict}");
    assert!(most < MEMORY_MAX, "{most}");
    assert_eq!(fault(&app.words(0)), None, "{}", app.words(0));
}
