//! A static member that its group takes for fenced: where no other process has its instance id, as after its
//! coordinator has moved, it goes on; where one has, it ends.

use std::time::Duration;

use kaspr_tests::app::{Agents, App};
use kaspr_tests::clock::{now, pause};
use kaspr_tests::figure;
use kaspr_tests::load::{Load, Shape};
use kaspr_tests::proxy::{Fault, HEARTBEAT};
use kaspr_tests::watch::Watch;

use super::{PARTITIONS, PATIENCE, all_zeros, broker, network, quick, recovery};

const INSTANCE: &[&str] = &["--instance", "lasting"];
/// Kafka's number of FENCED_INSTANCE_ID.
const FENCED: i16 = 82;

#[test]
fn a_static_member_that_is_taken_for_fenced_joins_again() {
    const TIMES: usize = 3;
    let (broker, network) = (broker(), network());
    let mut app = quick(App::new(broker, Agents::All, PARTITIONS));
    let dynamic = app.start(0);
    app.servers = network.servers();
    let fenced = app.start_with(1, INSTANCE, None);
    let watch = Watch::start(&broker.servers, app.output(), PARTITIONS);
    let load = Load::start(&broker.servers, &app.input, Shape { waits_every: 301, ..Shape::default() }, u64::MAX);
    recovery(&app, &watch, 0..2);
    let comes_back = || app.words(1).matches(": it joins again").count();
    let mut worst: f64 = 0.0;
    for time in 1..=TIMES {
        network.fault(HEARTBEAT, Fault::Error(FENCED));
        let began = now();
        while comes_back() < time {
            assert!(now() - began < PATIENCE, "it does not join again\n{}", app.last_words(0..2, 30));
            pause(Duration::from_millis(20));
        }
        worst = worst.max(recovery(&app, &watch, 0..2));
    }
    let verdict = all_zeros(&app, broker, load, vec![dynamic, fenced]);
    assert_eq!(comes_back(), TIMES, "one line for each time\n{}", app.last_words(0..2, 30));
    figure(&format!("taken for fenced {TIMES} times: all partitions back after {worst:.1} s: {verdict}"));
}

#[test]
fn a_static_member_whose_instance_id_another_process_has_ends() {
    let broker = broker();
    let app = quick(App::new(broker, Agents::All, PARTITIONS));
    let mut first = app.start_with(0, INSTANCE, None);
    let watch = Watch::start(&broker.servers, app.output(), PARTITIONS);
    let load = Load::start(&broker.servers, &app.input, Shape { waits_every: 301, ..Shape::default() }, u64::MAX);
    recovery(&app, &watch, 0..1);
    let second = app.start_with(1, INSTANCE, None);
    let status = first.ends_within(PATIENCE).unwrap_or_else(|| panic!("it goes on\n{}", app.last_words(0..2, 30)));
    let words = app.words(0);
    assert_eq!(status, Some(1), "{words}");
    assert!(words.contains("another process reads under the instance id") && words.contains("--instance"), "{words}");
    assert!(!words.contains("it joins again"), "it would take the place of the other one\n{words}");
    recovery(&app, &watch, 0..2);
    all_zeros(&app, broker, load, vec![second]);
}
