//! Three brokers, which are stopped, killed and frozen, and partitions that move between them
//! (`cargo test --test cluster -- --nocapture` prints the figures).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kaspr_tests::clock::{now, pause};
use kaspr_tests::cluster::Cluster;
use kaspr_tests::figure;
use kaspr_tests::kafka::Record;
use kaspr_tests::trouble::{Role, Scene, Setting, Trouble};

/// Waits for its turn: one cluster is enough for a machine.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn records_outlive_the_brokers_that_lead_them() {
    let _alone = alone();
    let began = now();
    let cluster = Cluster::start();
    figure(&format!("three brokers are whole {:.1?} after their start", now() - began));
    let topic = cluster.brokers().topic("outlives", 1);
    let three = || (0..3).map(|number| Record::new(format!("{number}"), "a value"));
    cluster.brokers().produce(&topic, three());

    let first = cluster.leader(&topic, 0);
    cluster.kill(first);
    cluster.brokers().produce(&topic, three());
    let second = cluster.leader(&topic, 0);
    assert_ne!(first, second);
    cluster.start_again(first);
    cluster.wait_until_whole();

    let others: Vec<i32> = (1..=3).filter(|&number| number != second).collect();
    cluster.reassign(&[(topic.clone(), 0, others.clone())]);
    assert_ne!(cluster.leader(&topic, 0), second);
    cluster.brokers().produce(&topic, three());
    cluster.reassign(&[(topic.clone(), 0, vec![others[0], others[1], second])]);

    let third = cluster.leader(&topic, 0);
    cluster.freeze(third, true);
    pause(Duration::from_millis(500));
    cluster.freeze(third, false);
    cluster.stop(third);
    assert_ne!(cluster.leader(&topic, 0), third);
    assert_eq!(cluster.brokers().count(&topic), 9);
}

/// Two processes, which connect to the brokers directly: nothing but the brokers gets in their way.
const SETTING: Setting = Setting { brokers: 3, processes: 2, has_networks: false, rate: 300, seed: 3 };

#[test]
fn an_app_outlives_a_rolling_restart() {
    outlives(&[Trouble::RollingRestart]);
}

#[test]
fn an_app_outlives_its_brokers_and_their_moves() {
    outlives(&[
        Trouble::BrokerKilled(Role::Group),
        Trouble::BrokerKilled(Role::Leader),
        Trouble::Reassigned(Role::Leader),
        Trouble::Reassigned(Role::Group),
    ]);
}

/// Asserts that no process ends, no partition stands still for long, and nothing is lost or duplicated. `make
/// soak CLUSTER=3` does more of it.
#[track_caller]
fn outlives(troubles: &[Trouble]) {
    let _alone = alone();
    let began = now();
    let mut scene = Scene::start(SETTING).unwrap_or_else(|why| panic!("{why}"));
    let mut told = format!("the app runs {:.1?} after its start", now() - began);
    for &trouble in troubles {
        let began = now();
        let survived = scene.survive(trouble, 1).unwrap_or_else(|why| panic!("{why}"));
        told += &format!("; {} {:.1?} of {:.1?}", trouble.name(), survived.standstill, now() - began);
    }
    let began = now();
    let outcome = scene.end().unwrap_or_else(|why| panic!("{why}"));
    figure(&format!(
        "longest standstills on three brokers: {told}; ended in {:.1?}; {}",
        now() - began,
        outcome.verdict
    ));
    assert!(outcome.is_clean(), "{outcome}");
}
