//! The brokers below an app and the networks before them: one of each, or three.

use std::time::Duration;

use super::{INSTANCE, Role};
use crate::app::App;
use crate::clock::pause;
use crate::cluster::{BROKERS, Cluster};
use crate::kafka::Broker;
use crate::proxy::{Api, Fault, Proxy};
use crate::random::Random;
use crate::wire::Coordinates;

/// The numbers of a cluster's brokers.
const NUMBERS: std::ops::RangeInclusive<i32> = 1..=3;

/// The ground under an app: brokers, and the networks before them.
pub struct Stage {
    brokers: Brokers,
    /// One before each broker.
    networks: Vec<Proxy>,
}

enum Brokers {
    One(Broker),
    Three(Cluster),
}

impl Stage {
    /// Starts one broker, or a cluster.
    pub fn start(brokers: usize) -> Stage {
        let (brokers, behind) = match brokers {
            BROKERS => {
                let cluster = Cluster::start();
                let behind = cluster.behind_proxies().to_vec();
                (Brokers::Three(cluster), behind)
            }
            _ => {
                let mut broker = Broker::start();
                broker.stop();
                broker.start_again(false);
                let behind = vec![broker.behind_proxy()];
                (Brokers::One(broker), behind)
            }
        };
        let networks = behind.into_iter().map(|(upstream, port)| Proxy::start(port, upstream)).collect();
        Stage { brokers, networks }
    }

    /// The brokers as clients see them.
    pub fn brokers(&self) -> &Broker {
        match &self.brokers {
            Brokers::One(broker) => broker,
            Brokers::Three(cluster) => cluster.brokers(),
        }
    }

    /// True if there are three brokers.
    pub fn is_cluster(&self) -> bool {
        matches!(self.brokers, Brokers::Three(_))
    }

    /// The addresses for clients that come through the networks.
    pub fn through_networks(&self) -> String {
        self.networks.iter().map(Proxy::servers).collect::<Vec<_>>().join(",")
    }

    /// Kills a broker, starts it again after `away`, and waits until it takes part.
    pub fn kill(&mut self, role: Role, app: &App, random: &mut Random, away: Duration) {
        match &mut self.brokers {
            Brokers::One(broker) => {
                broker.stop();
                pause(away);
                broker.start_again(false);
            }
            Brokers::Three(cluster) => {
                let number = number(cluster, role, app, random);
                cluster.kill(number);
                pause(away);
                cluster.start_again(number);
                cluster.wait_until_whole();
            }
        }
    }

    /// Stops a broker as it stands for this time.
    pub fn freeze(&self, role: Role, app: &App, random: &mut Random, time: Duration) {
        match &self.brokers {
            Brokers::One(broker) => {
                broker.freeze(true);
                pause(time);
                broker.freeze(false);
            }
            Brokers::Three(cluster) => {
                let number = number(cluster, role, app, random);
                cluster.freeze(number, true);
                pause(time);
                cluster.freeze(number, false);
                cluster.wait_until_whole();
            }
        }
    }

    /// Ends every broker in good order and starts it again, one after the other.
    pub fn restart_each(&self) {
        let Brokers::Three(cluster) = &self.brokers else { return };
        for number in NUMBERS {
            cluster.stop(number);
            cluster.start_again(number);
            cluster.wait_until_whole();
        }
    }

    /// Takes from a broker all partitions of some topics that it leads, and gives them back to it as a
    /// follower.
    pub fn reassign(&self, role: Role, app: &App, random: &mut Random) {
        let Brokers::Three(cluster) = &self.brokers else { return };
        let from = number(cluster, role, app, random);
        let topics = match role {
            Role::Group => vec!["__consumer_offsets".to_owned()],
            Role::Transactions => vec!["__transaction_state".to_owned()],
            Role::Any | Role::Leader => app.topics(),
        };
        let places = cluster.led_by(from, &topics);
        let others: Vec<i32> = NUMBERS.filter(|&other| other != from).collect();
        let turned = |turn: usize| if turn.is_multiple_of(2) { [others[0], others[1]] } else { [others[1], others[0]] };
        let moves = |comes_back: bool| -> Vec<_> {
            let replicas = |turn: usize| turned(turn).into_iter().chain(comes_back.then_some(from)).collect();
            places.iter().enumerate().map(|(turn, place)| (place.0.clone(), place.1, replicas(turn))).collect()
        };
        cluster.reassign(&moves(false));
        cluster.reassign(&moves(true));
        cluster.wait_until_whole();
    }

    /// Waits until every broker holds what it should.
    pub fn wait_until_whole(&self) {
        if let Brokers::Three(cluster) = &self.brokers {
            cluster.wait_until_whole();
        }
    }

    /// Breaks all connections that are open.
    pub fn cut(&self) {
        self.networks.iter().for_each(Proxy::cut);
    }

    /// Breaks all connections and takes no new ones, or takes them again.
    pub fn refuse(&self, refuses: bool) {
        self.networks.iter().for_each(|network| network.refuse(refuses));
    }

    /// Delays every frame by this much from now on, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.networks.iter().for_each(|network| network.delay(delay));
    }

    /// Has this fault strike the next request of that kind to each broker.
    pub fn fault(&self, api: Api, fault: Fault) {
        self.networks.iter().for_each(|network| network.fault(api, fault));
    }

    /// Faults that happened to requests of that kind.
    pub fn happened(&self, api: Api) -> u64 {
        self.networks.iter().map(|network| network.happened(api)).sum()
    }

    /// Forgets faults that have not happened yet, and delays.
    pub fn clear(&self) {
        self.networks.iter().for_each(Proxy::clear);
    }
}

/// The number of the broker that has this role now.
fn number(cluster: &Cluster, role: Role, app: &App, random: &mut Random) -> i32 {
    match role {
        Role::Any => 1 + i32::try_from(random.below(BROKERS as u64)).expect("few"),
        Role::Group => cluster.coordinator(Coordinates::Group, &app.name),
        Role::Transactions => cluster.coordinator(Coordinates::Transaction, &format!("{}.{INSTANCE}.0", app.name)),
        Role::Leader => {
            let partition = random.below(u64::try_from(app.partitions).expect("a count"));
            cluster.leader(&app.input, i32::try_from(partition).expect("few"))
        }
    }
}
