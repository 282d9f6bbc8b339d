//! An app under load, and the troubles that strike it, one after the other.

use std::fmt;
use std::time::Duration;

use super::stage::Stage;
use super::{INSTANCE, Trouble};
use crate::app::{Agents, App, Member};
use crate::clock::{now, pause, since_1970};
use crate::load::{Load, Shape};
use crate::proxy::{Api, Fault};
use crate::random::Random;
use crate::verify::Verdict;
use crate::watch::Watch;

/// A partition that stands still for longer is stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(60);
/// Longest time until all partitions give output again once the processes of stuck ones were replaced.
const PATIENCE: Duration = Duration::from_secs(180);
/// Longest time until a process dies at its failpoint, or a request comes.
const COMES_MAX: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 12;
/// Time between two looks at the group, and the looks in a row in which it must be settled: between the two
/// halves of a rebalance it looks settled for a moment.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const SETTLED_LOOKS: u32 = 4;
/// The setting of a scene.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Brokers: one, or three.
    pub brokers: usize,
    /// Processes at the start; the last is a static member of the group.
    pub processes: usize,
    /// True if they come through networks that can break.
    pub has_networks: bool,
    /// Events a second.
    pub rate: u64,
    /// The seed of all that is random.
    pub seed: u64,
}

/// An app under load, with brokers, networks and processes of its own.
pub struct Scene {
    /// The app.
    pub app: App,
    /// The output as its readers see it.
    pub watch: Watch,
    load: Option<Load>,
    members: Vec<Member>,
    stage: Stage,
    random: Random,
    ended: Vec<String>,
    stuck: Vec<String>,
}

/// The result of one trouble.
pub struct Survived {
    /// Times that it was done.
    pub count: usize,
    /// From its end until all partitions gave output of events that were sent after it.
    pub recovery: Duration,
    /// The longest time without output of any partition, from its beginning on.
    pub standstill: Duration,
}

/// The result at the end.
pub struct Outcome {
    /// The verdict of the judge.
    pub verdict: Verdict,
    /// Processes that ended though nothing asked them to, or not as they should.
    pub ended: Vec<String>,
    /// Partitions that stood still for longer than [`STUCK_AFTER`].
    pub stuck: Vec<String>,
}

impl Outcome {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.ended.is_empty() && self.stuck.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "processes that ended by themselves: {}", self.ended.len())?;
        self.ended.iter().try_for_each(|words| writeln!(f, "{words}"))?;
        writeln!(f, "times that partitions stood still for longer than {STUCK_AFTER:?}: {}", self.stuck.len())?;
        self.stuck.iter().try_for_each(|words| writeln!(f, "{words}"))?;
        self.verdict.fmt(f)
    }
}

impl Scene {
    /// Starts brokers, networks, processes and load.
    ///
    /// # Errors
    /// In words, if there is no output.
    pub fn start(setting: Setting) -> Result<Scene, String> {
        let Setting { brokers, processes, has_networks, rate, seed } = setting;
        let stage = Stage::start(brokers);
        let mut app = App::new(stage.brokers(), Agents::All, PARTITIONS);
        if has_networks {
            app = app.at(stage.through_networks());
        }
        let app = app.with_kafka("session.timeout.ms=4000").with_kafka("heartbeat.interval.ms=500");
        let servers = &stage.brokers().servers;
        let watch = Watch::start(servers, app.output(), PARTITIONS);
        let shape = Shape { rate, waits_every: rate * 3 + 1, ..Shape::default() };
        let load = Some(Load::start(servers, &app.input, shape, u64::MAX));
        let (random, members) = (Random::new(seed), Vec::new());
        let mut scene = Scene { app, watch, load, members, stage, random, ended: Vec::new(), stuck: Vec::new() };
        scene.members = (0..processes).map(|number| scene.process(number, number + 1 == processes, None)).collect();
        scene.recovery()?;
        Ok(scene)
    }

    /// Makes a trouble, and waits until all is well again.
    ///
    /// # Errors
    /// In words, if that takes too long.
    pub fn survive(&mut self, trouble: Trouble, times: usize) -> Result<Survived, String> {
        self.watch.reset();
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
                let mut more = self.process(number, false, None);
                self.pause(500..4000);
                more.terminate();
                1
            }
            Trouble::Cut => {
                for _ in 0..times {
                    self.stage.cut();
                    self.pause(50..700);
                }
                times
            }
            once => usize::from(self.once(once)),
        };
        self.stage.clear();
        let recovery = self.recovery()?;
        self.count_ended();
        let standstill = self.watch.partitions().values().map(|partition| partition.gap).max().unwrap_or_default();
        if standstill > STUCK_AFTER {
            let words = self.app.last_words(0..self.members.len(), 40);
            self.stuck.push(format!("{}: {standstill:.1?}\n{words}", trouble.name()));
        }
        Ok(Survived { count, recovery, standstill })
    }

    /// Makes a trouble once. False: it could not be made.
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
            Trouble::BrokerKilled(role) => {
                // On three brokers others take over from one that is away for longer than its session of 9 s.
                let away = self.time(if self.stage.is_cluster() { 0..12_000 } else { 0..2000 });
                self.stage.kill(role, &self.app, &mut self.random, away);
            }
            Trouble::BrokerFrozen(role) => {
                let time = self.time(if self.stage.is_cluster() { 500..12_000 } else { 500..9000 });
                self.stage.freeze(role, &self.app, &mut self.random, time);
            }
            Trouble::RollingRestart => self.stage.restart_each(),
            Trouble::Reassigned(role) => self.stage.reassign(role, &self.app, &mut self.random),
            Trouble::NoNetwork => {
                self.stage.refuse(true);
                self.pause(500..8000);
                self.stage.refuse(false);
            }
            Trouble::SlowNetwork => {
                self.stage.delay(Duration::from_millis(20 + self.random.below(130)));
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
        self.members[number] = self.member(number, Some(&format!("{step}:{pass}")));
        let died = self.members[number].ends_within(COMES_MAX).is_some();
        self.members[number].kill();
        self.start_again(number);
        died
    }

    fn request(&mut self, api: Api, fault: Fault) -> bool {
        let before = self.stage.happened(api);
        self.stage.fault(api, fault);
        let began = now();
        while self.stage.happened(api) == before {
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
                return Err(format!("the group does not settle\n{}", self.app.last_words(0..self.members.len(), 40)));
            }
            let is_settled = self.stage.brokers().members(&self.app.name) == Some(self.members.len());
            looks = if is_settled { looks + 1 } else { 0 };
            pause(LOOK_EVERY);
        }
        Ok(())
    }

    /// Ends the load and the processes, processes what is left, and judges it.
    ///
    /// # Errors
    /// In words, if something cannot be done.
    pub fn end(mut self) -> Result<Outcome, String> {
        self.stage.wait_until_whole();
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
        let verdict = self.app.verify(self.stage.brokers())?;
        Ok(Outcome { verdict, ended: self.ended, stuck: self.stuck })
    }

    /// Waits until all partitions give output of events that are sent from now on. Processes that hold
    /// partitions back for too long are replaced.
    fn recovery(&mut self) -> Result<Duration, String> {
        let (at, partitions) = (since_1970(), usize::try_from(PARTITIONS).expect("few"));
        let (began, mut is_replaced) = (now(), false);
        while now() - began < STUCK_AFTER + PATIENCE {
            if self.watch.until_after(at, partitions, Duration::from_secs(1)).is_some() {
                return Ok(now() - began);
            }
            self.count_ended();
            if now() - began > STUCK_AFTER && !is_replaced {
                let (silent, words) = (self.watch.silent_since(at), self.app.last_words(0..self.members.len(), 40));
                self.stuck.push(format!("no output for {STUCK_AFTER:?}, processes are replaced\n{silent}{words}"));
                for number in 0..self.members.len() {
                    self.members[number].kill();
                    self.start_again(number);
                }
                is_replaced = true;
            }
        }
        let words = self.app.last_words(0..self.members.len(), 40);
        Err(format!("no output for {:?}\n{words}", STUCK_AFTER + PATIENCE))
    }

    /// Starts processes again that ended by themselves, and remembers them.
    fn count_ended(&mut self) {
        for number in 0..self.members.len() {
            let Some(status) = self.members[number].ended() else { continue };
            let words = self.app.last_words([number], 12);
            self.ended.push(format!("process {number} ended with {status:?}\n{words}"));
            self.start_again(number);
        }
    }

    /// Starts a process that was there at the beginning.
    fn member(&self, number: usize, failpoint: Option<&str>) -> Member {
        self.process(number, number + 1 == self.members.len(), failpoint)
    }

    fn process(&self, number: usize, is_static: bool, failpoint: Option<&str>) -> Member {
        self.app.start_with(number, if is_static { &["--instance", INSTANCE] } else { &[] }, failpoint)
    }

    fn start_again(&mut self, number: usize) {
        self.members[number] = self.member(number, None);
    }

    fn pick(&mut self) -> usize {
        usize::try_from(self.random.below(self.members.len() as u64)).expect("few")
    }

    fn time(&mut self, millis: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(millis.start + self.random.below(millis.end - millis.start))
    }

    fn pause(&mut self, millis: std::ops::Range<u64>) {
        pause(self.time(millis));
    }
}
