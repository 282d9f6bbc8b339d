//! A static member that dies in the middle of a rebalance.

use std::time::Duration;

use kaspr_tests::app::{Agents, App};
use kaspr_tests::clock::now;
use kaspr_tests::figure;
use kaspr_tests::load::{Load, Shape};
use kaspr_tests::watch::Watch;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::{PATIENCE, all_zeros, broker, quick, recovery};

const PARTITIONS: i32 = 4;

/// The member was asked to give partitions up and did not join again, so Kafka gives it the others when it
/// comes back, and assigns those to no member.
#[test]
fn partitions_that_a_static_member_died_with_find_an_owner() {
    let broker = broker();
    let app = quick(App::new(broker, Agents::One, PARTITIONS));
    let began = now();
    let wait_for = |what: &str, is_so: &mut dyn FnMut() -> bool| {
        while !is_so() {
            assert!(now() - began < PATIENCE, "waited in vain for {what}\n{}", app.last_words(0..2, 30));
        }
    };
    // It stands for a worker that stops at a place where a test cannot stop one.
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.servers).set("group.id", &app.name).set("log_level", "0");
    config.set("group.instance.id", format!("{}.first.0", app.name)).set("client.id", format!("{}.first.0", app.name));
    config.set("partition.assignment.strategy", "cooperative-sticky").set("heartbeat.interval.ms", "500");
    let first: BaseConsumer = config.create().expect("a consumer");
    first.subscribe(&[&app.input]).expect("a subscription");
    wait_for("all partitions", &mut || {
        drop(first.poll(Duration::from_millis(50)));
        first.assignment().is_ok_and(|assignment| assignment.count() == 4)
    });
    let second = app.start_with(1, &["--instance", "second"], None);
    // Its partitions were shared out, and it does not know: it is not polled any more from here on.
    wait_for("the second member", &mut || broker.members(&app.name) == Some(2));
    let watch = Watch::start(&broker.servers, app.output(), PARTITIONS);
    let load = Load::start(&broker.servers, &app.input, Shape::default(), u64::MAX);
    let comes_back = now();
    let first_again = app.start_with(0, &["--instance", "first"], None);
    recovery(&app, &watch, 0..2);
    let seconds = (now() - comes_back).as_secs_f64();
    let was_seen = (0..2).any(|number| app.words(number).contains("without an owner"));
    drop(first);
    let verdict = all_zeros(&app, broker, load, vec![first_again, second]);
    figure(&format!("partitions without an owner found one in {seconds:.1} s: {verdict}"));
    assert!(was_seen, "there were no partitions without an owner\n{}", app.last_words(0..2, 30));
}
