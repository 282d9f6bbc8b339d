//! Three brokers on loopback for the tests, with every topic on all three, of which two must be in sync. Each
//! broker can be killed, stopped, frozen and started again. They end with the test process, however that
//! ends.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{now, pause};
use crate::kafka::{Broker, free_ports, unique};
use crate::root;
use crate::wire::{self, Coordinates, Topic, View};

/// Brokers of a cluster, numbered from 1.
pub const BROKERS: usize = 3;
/// Longest time until brokers that were started answer and hold everything again.
const START_MAX: Duration = Duration::from_secs(120);
/// Longest time until a broker that has just lost another knows the new coordinator or leader.
const ELECTION_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Three brokers.
pub struct Cluster {
    view: Broker,
    ports: [u16; BROKERS],
    folder: PathBuf,
    script: Mutex<Script>,
    /// Brokers that do not answer now.
    away: Mutex<BTreeSet<i32>>,
}

/// The process that starts brokers and ends with this one.
struct Script {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Cluster {
    /// Starts the brokers, and waits until all know each other and the internal topics are there.
    ///
    /// # Panics
    /// If they do not answer.
    pub fn start() -> Cluster {
        let ports = [(); BROKERS].map(|()| free_ports());
        let folder = std::env::temp_dir().join(unique("kaspr-cluster"));
        let mut command = Command::new(root().join("tests/kafka/broker"));
        command.arg("cluster").arg(&folder).args(ports.map(|port| port.to_string()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the script of the brokers starts");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let script = Mutex::new(Script { orders: child.stdin.take(), child, answers });
        let servers = ports.map(|port| format!("127.0.0.1:{port}"));
        let view = Broker::elsewhere(servers.join(","), BROKERS);
        let cluster = Cluster { view, ports, folder, script, away: Mutex::default() };
        lock(&cluster.script).is_done("start");
        cluster.wait_until_whole();
        cluster.coordinator(Coordinates::Group, "a group");
        cluster.coordinator(Coordinates::Transaction, "a transactional id");
        cluster.wait_until_whole();
        cluster
    }

    /// The brokers as clients see them: one list of addresses.
    pub fn brokers(&self) -> &Broker {
        &self.view
    }

    /// The port behind a proxy of each broker, and the one that the proxy must take: the broker names it to
    /// clients that come that way.
    pub fn behind_proxies(&self) -> [(u16, u16); BROKERS] {
        self.ports.map(|port| (port + 3, port + 4))
    }

    /// Ends a broker as a crash would (`kill -9`).
    pub fn kill(&self, number: i32) {
        self.away().insert(number);
        self.order("kill", number);
    }

    /// Ends a broker as an administrator does: it hands over what it leads, then ends.
    pub fn stop(&self, number: i32) {
        self.away().insert(number);
        self.order("stop", number);
    }

    /// Stops a broker as it stands, or lets it go on.
    pub fn freeze(&self, number: i32, frozen: bool) {
        if frozen {
            self.away().insert(number);
            self.order("freeze", number);
        } else {
            self.order("thaw", number);
            self.away().remove(&number);
        }
    }

    /// Starts a broker that was killed or stopped, with the data that it had. It takes part some seconds later:
    /// see [`Cluster::wait_until_whole`].
    pub fn start_again(&self, number: i32) {
        self.order("start", number);
        self.away().remove(&number);
    }

    /// Waits until all brokers know each other, and all partitions have a leader and all replicas in sync.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_until_whole(&self) {
        let is_whole = |view: io::Result<View>| view.is_ok_and(|view| view.brokers.len() == BROKERS && view.is_whole());
        let began = now();
        while !(1..=BROKERS).all(|number| is_whole(wire::view(&self.server(number)))) {
            assert!(now() - began < START_MAX, "the cluster is not whole in {START_MAX:?}\n{}", self.last_words());
            pause(LOOK_EVERY);
        }
    }

    /// The number of the broker that leads a partition.
    ///
    /// # Panics
    /// If there is none for long.
    pub fn leader(&self, topic: &str, partition: i32) -> i32 {
        self.until_known(&format!("the leader of {topic}/{partition}"), |server| {
            let view = wire::view(server)?;
            let known = view.topic(topic).and_then(|topic| topic.partition(partition));
            known.map(|partition| partition.leader).ok_or(io::ErrorKind::NotFound.into())
        })
    }

    /// The number of the broker that coordinates a group or a transactional id.
    ///
    /// # Panics
    /// If there is none for long.
    pub fn coordinator(&self, coordinates: Coordinates, name: &str) -> i32 {
        self.until_known(&format!("the coordinator of {name}"), |server| wire::coordinator(server, coordinates, name))
    }

    /// The partitions of these topics that a broker leads.
    ///
    /// # Panics
    /// If the cluster does not answer.
    pub fn led_by(&self, number: i32, topics: &[String]) -> Vec<(String, i32)> {
        let view = wire::view(&self.any()).expect("a broker answers");
        let topics = view.topics.iter().filter(|topic| topics.contains(&topic.name));
        let of = |topic: &Topic| {
            let led = topic.partitions.iter().filter(|partition| partition.leader == number);
            led.map(|partition| (topic.name.clone(), partition.number)).collect::<Vec<_>>()
        };
        topics.flat_map(of).collect()
    }

    /// Gives partitions other replicas, the preferred leader first, and waits until only they hold them.
    ///
    /// # Panics
    /// If the cluster refuses it, or does not do it for long.
    pub fn reassign(&self, moves: &[(String, i32, Vec<i32>)]) {
        let began = now();
        let waits = |what: &dyn Fn() -> io::Result<bool>| {
            while !what().is_ok_and(|is_done| is_done) {
                assert!(now() - began < START_MAX, "{moves:?} are not done\n{}", self.last_words());
                pause(LOOK_EVERY);
            }
        };
        for (topic, partition, replicas) in moves {
            waits(&|| wire::reassign(&self.any(), topic, *partition, replicas).map(|()| true));
        }
        waits(&|| {
            let view = wire::view(&self.any())?;
            Ok(moves.iter().all(|(topic, partition, replicas)| {
                let known = view.topic(topic).and_then(|topic| topic.partition(*partition));
                known.is_some_and(|known| known.replicas == *replicas && known.in_sync.len() == replicas.len())
            }))
        });
    }

    /// The last lines of each broker's log.
    pub fn last_words(&self) -> String {
        const LINES: usize = 20;
        let last = |number: usize| {
            let said = std::fs::read_to_string(self.folder.join(number.to_string()).join("log")).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            format!("-- broker {number}:\n{}\n", lines[lines.len().saturating_sub(LINES)..].join("\n"))
        };
        (1..=BROKERS).map(last).collect()
    }

    /// Asks brokers that answer until one knows a broker that does.
    fn until_known(&self, what: &str, ask: impl Fn(&str) -> io::Result<i32>) -> i32 {
        let began = now();
        loop {
            match ask(&self.any()) {
                Ok(number) if number > 0 && !self.away().contains(&number) => return number,
                known => {
                    let last = self.last_words();
                    assert!(now() - began < ELECTION_MAX, "{what} is not known: {known:?}\n{last}");
                }
            }
            pause(LOOK_EVERY);
        }
    }

    /// The address of a broker that answers.
    fn any(&self) -> String {
        let away = self.away();
        let number = (1..=BROKERS).find(|&number| !away.contains(&i32::try_from(number).expect("few")));
        self.server(number.expect("a broker is there"))
    }

    fn server(&self, number: usize) -> String {
        format!("127.0.0.1:{}", self.ports[number - 1])
    }

    fn away(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        lock(&self.away)
    }

    fn order(&self, what: &str, number: i32) {
        let mut script = lock(&self.script);
        let orders = script.orders.as_mut().expect("the script runs");
        writeln!(orders, "{what} {number}").expect("the script reads");
        script.is_done(what);
    }
}

impl Script {
    fn is_done(&mut self, what: &str) {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the script answers");
        assert_eq!(answer.trim(), "ok", "the script of the brokers cannot {what}");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // The script ends the brokers when its standard input closes.
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
