//! Everything that can go wrong around an app, one kind after the other, and how long it takes until
//! all of its partitions give output again.

use std::time::Duration;

use crate::app::{Agents, App, Member};
use crate::clock::{now, pause, since_1970};
use crate::kafka::Broker;
use crate::load::{Load, Shape};
use crate::proxy::{ADD_OFFSETS_TO_TXN, Api, END_TXN, Fault, Proxy, TXN_OFFSET_COMMIT};
use crate::random::Random;
use crate::verify::Verdict;
use crate::watch::Watch;

/// Longest time until all partitions give output again.
const PATIENCE: Duration = Duration::from_secs(180);
/// Longest time until a process dies at its failpoint, or a request comes.
const COMES_MAX: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 12;
/// How often, and how often in a row, the group must look settled: between the two halves of a
/// rebalance it does for a moment.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const SETTLED_LOOKS: u32 = 4;
/// Processes at the start; the last is a static member of the group.
const PROCESSES: usize = 3;

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// A process is killed and started again.
    Kill,
    /// A process dies at this step of a commit, and is started again.
    Death(&'static str),
    /// A process stands still, some of the times for longer than its session.
    FrozenProcess,
    /// A process is told to end, and is started again.
    Terminated,
    /// One process more for a while.
    Joined,
    /// The broker is killed and started again.
    BrokerKilled,
    /// The broker stands still.
    BrokerFrozen,
    /// All connections break, a few times.
    Cut,
    /// There is no network for a while.
    NoNetwork,
    /// Every frame takes longer for a while.
    SlowNetwork,
    /// A request of a commit arrives after it was repeated.
    Late(Api),
    /// The answer to a request of a commit is lost.
    Unanswered(Api),
    /// A request of a commit takes long.
    Held(Api),
}

impl Trouble {
    /// Every kind once.
    pub fn all() -> Vec<Trouble> {
        use Trouble::*;
        let mut all =
            vec![Kill, FrozenProcess, Terminated, Joined, BrokerKilled, BrokerFrozen, Cut, NoNetwork, SlowNetwork];
        all.extend(["begin", "sent", "delivered", "offsets", "committed", "applied"].map(Death));
        for api in [END_TXN, TXN_OFFSET_COMMIT, ADD_OFFSETS_TO_TXN] {
            all.extend([Late(api), Unanswered(api), Held(api)]);
        }
        all
    }

    /// In words.
    pub fn name(self) -> String {
        let request = |api: Api| match api {
            END_TXN => "EndTxn",
            TXN_OFFSET_COMMIT => "TxnOffsetCommit",
            _ => "AddOffsetsToTxn",
        };
        match self {
            Trouble::Kill => "process killed (-9)".to_owned(),
            Trouble::Death(step) => format!("process dead at \"{step}\" of a commit"),
            Trouble::FrozenProcess => "process stopped and continued".to_owned(),
            Trouble::Terminated => "process told to end".to_owned(),
            Trouble::Joined => "process joined and left".to_owned(),
            Trouble::BrokerKilled => "broker killed (-9)".to_owned(),
            Trouble::BrokerFrozen => "broker stopped and continued".to_owned(),
            Trouble::Cut => "connections cut".to_owned(),
            Trouble::NoNetwork => "no network".to_owned(),
            Trouble::SlowNetwork => "slow network".to_owned(),
            Trouble::Late(api) => format!("{} late, after its repeat", request(api)),
            Trouble::Unanswered(api) => format!("{} unanswered", request(api)),
            Trouble::Held(api) => format!("{} held", request(api)),
        }
    }
}

/// An app under load, with a broker, a network and processes of its own.
pub struct Scene {
    /// The app.
    pub app: App,
    /// What readers of its output see.
    pub watch: Watch,
    load: Option<Load>,
    members: Vec<Member>,
    network: Proxy,
    broker: Broker,
    random: Random,
    ended: Vec<String>,
}

/// What one trouble came to.
pub struct Survived {
    /// How often it was done.
    pub count: usize,
    /// From its end until all partitions gave output of events that were sent after it.
    pub recovery: Duration,
}

impl Scene {
    /// Starts it all; `rate` events a second.
    ///
    /// # Errors
    /// In words, if there is no output.
    pub fn start(rate: u64, seed: u64) -> Result<Scene, String> {
        let mut broker = Broker::start();
        broker.stop();
        broker.start_again(false);
        let (upstream, port) = broker.behind_proxy();
        let network = Proxy::start(port, upstream);
        let app = App::new(&broker, Agents::All, PARTITIONS).at(network.servers());
        let app = app.with_kafka("session.timeout.ms=4000").with_kafka("heartbeat.interval.ms=500");
        let watch = Watch::start(&broker.servers, app.output(), PARTITIONS);
        let shape = Shape { rate, waits_every: rate * 3 + 1, ..Shape::default() };
        let load = Some(Load::start(&broker.servers, &app.input, shape, u64::MAX));
        let random = Random::new(seed);
        let (members, ended) = (Vec::new(), Vec::new());
        let mut scene = Scene { app, watch, load, members, network, broker, random, ended };
        scene.members = (0..PROCESSES).map(|number| scene.process(number, None)).collect();
        scene.recovery()?;
        Ok(scene)
    }

    /// Does it, and waits until all is well again.
    ///
    /// # Errors
    /// In words, if that takes too long.
    pub fn survive(&mut self, trouble: Trouble, times: usize) -> Result<Survived, String> {
        let count = match trouble {
            Trouble::Kill => {
                for _ in 0..times {
                    let number = self.pick();
                    self.members[number].kill();
                    self.start_again(number);
                    self.pause(100..1200);
                }
                times
            }
            Trouble::Joined => {
                let number = self.members.len() + self.random.below(100) as usize;
                let mut more = self.process(number, None);
                self.pause(500..4000);
                more.terminate();
                1
            }
            Trouble::Cut => {
                for _ in 0..times {
                    self.network.cut();
                    self.pause(50..700);
                }
                times
            }
            once => usize::from(self.once(once)),
        };
        self.network.clear();
        let recovery = self.recovery()?;
        self.count_ended();
        Ok(Survived { count, recovery })
    }

    /// False: it could not be done.
    fn once(&mut self, trouble: Trouble) -> bool {
        match trouble {
            Trouble::Death(step) => return self.death(step),
            Trouble::FrozenProcess => {
                let number = self.pick();
                self.members[number].freeze(true);
                self.pause(500..9000);
                self.members[number].freeze(false);
            }
            Trouble::Terminated => {
                let number = self.pick();
                self.members[number].terminate();
                self.start_again(number);
            }
            Trouble::BrokerKilled => {
                self.broker.stop();
                self.pause(0..2000);
                self.broker.start_again(false);
            }
            Trouble::BrokerFrozen => {
                self.broker.freeze(true);
                self.pause(500..9000);
                self.broker.freeze(false);
            }
            Trouble::NoNetwork => {
                self.network.refuse(true);
                self.pause(500..8000);
                self.network.refuse(false);
            }
            Trouble::SlowNetwork => {
                self.network.delay(Duration::from_millis(20 + self.random.below(130)));
                self.pause(2000..5000);
            }
            Trouble::Late(api) => {
                let late = Duration::from_millis(210 + self.random.below(1500));
                return self.request(api, Fault::Late(late));
            }
            Trouble::Unanswered(api) => return self.request(api, Fault::LoseAnswer),
            Trouble::Held(api) => {
                let time = Duration::from_millis(100 + self.random.below(2500));
                return self.request(api, Fault::Hold(time));
            }
            Trouble::Kill | Trouble::Joined | Trouble::Cut => {}
        }
        true
    }

    fn death(&mut self, step: &str) -> bool {
        let number = self.pick();
        self.members[number].kill();
        let pass = 1 + self.random.below(30);
        self.members[number] = self.process(number, Some(&format!("{step}:{pass}")));
        let died = self.members[number].ends_within(COMES_MAX).is_some();
        self.members[number].kill();
        self.start_again(number);
        died
    }

    fn request(&mut self, api: Api, fault: Fault) -> bool {
        let before = self.network.happened(api);
        self.network.fault(api, fault);
        let began = now();
        while self.network.happened(api) == before {
            if now() - began > COMES_MAX {
                return false;
            }
            pause(Duration::from_millis(2));
        }
        true
    }

    /// Waits until nothing is wrong any more, then for this long. Gives how late commits were at most.
    ///
    /// # Errors
    /// In words, if the group does not settle or partitions give no output.
    pub fn quiet(&mut self, time: Duration) -> Result<Duration, String> {
        self.settle()?;
        self.recovery()?;
        self.watch.reset();
        pause(time);
        Ok(self.watch.oldest())
    }

    /// Waits until the group knows the processes that there are, and no others.
    fn settle(&self) -> Result<(), String> {
        let (began, mut looks) = (now(), 0);
        while looks < SETTLED_LOOKS {
            if now() - began > COMES_MAX {
                return Err(format!("the group does not settle\n{}", self.app.last_words(0..PROCESSES, 40)));
            }
            let is_settled = self.broker.members(&self.app.name) == Some(PROCESSES);
            looks = if is_settled { looks + 1 } else { 0 };
            pause(LOOK_EVERY);
        }
        Ok(())
    }

    /// Ends the load and the processes, processes what is left, and judges it. Tells, too, which
    /// processes had ended though nothing told them to, or not as they should.
    ///
    /// # Errors
    /// In words, if something cannot be done.
    pub fn end(mut self) -> Result<(Verdict, Vec<String>), String> {
        if let Some(load) = self.load.take() {
            load.end();
        }
        for (number, member) in self.members.iter_mut().enumerate() {
            match member.terminate() {
                Some(0) => {}
                status => self.ended.push(format!("process {number} ended with {status:?} when told to")),
            }
        }
        self.app.drain()?;
        Ok((self.app.verify(&self.broker)?, self.ended))
    }

    fn recovery(&mut self) -> Result<Duration, String> {
        let (at, partitions) = (since_1970(), usize::try_from(PARTITIONS).expect("few"));
        let began = now();
        while now() - began < PATIENCE {
            if self.watch.until_after(at, partitions, Duration::from_secs(1)).is_some() {
                return Ok(now() - began);
            }
            self.count_ended();
        }
        Err(format!("no output for {PATIENCE:?}\n{}", self.app.last_words(0..PROCESSES, 40)))
    }

    /// Starts again what ended by itself, and remembers it.
    fn count_ended(&mut self) {
        for number in 0..self.members.len() {
            let Some(status) = self.members[number].ended() else { continue };
            let words = self.app.last_words([number], 12);
            self.ended.push(format!("process {number} ended with {status:?}\n{words}"));
            self.start_again(number);
        }
    }

    fn process(&self, number: usize, failpoint: Option<&str>) -> Member {
        let is_static = number == PROCESSES - 1;
        self.app.start_with(number, if is_static { &["--instance", "lasting"] } else { &[] }, failpoint)
    }

    fn start_again(&mut self, number: usize) {
        self.members[number] = self.process(number, None);
    }

    fn pick(&mut self) -> usize {
        self.random.below(PROCESSES as u64) as usize
    }

    fn pause(&mut self, millis: std::ops::Range<u64>) {
        pause(Duration::from_millis(millis.start + self.random.below(millis.end - millis.start)));
    }
}
