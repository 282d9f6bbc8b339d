//! Starts and rebalances of an app whose input has lost its beginning: to `DeleteRecords` or to retention, up
//! to what the group has committed or beyond it. None of them may end a process or leave a partition behind.

use std::fmt;
use std::time::Duration;

use crate::app::{Agents, App, Member};
use crate::clock::{now, pause, since_1970};
use crate::kafka::Broker;
use crate::load::{Load, Shape};
use crate::trouble::STUCK_AFTER;
use crate::watch::Watch;

const PARTITIONS: i32 = 12;
/// Events a second.
const RATE: u64 = 200;
/// Settings by which an input forgets by itself: after so many ms, of which a segment holds a small part.
const RETENTION: [(&str, &str); 2] = [("retention.ms", "6000"), ("segment.ms", "500")];
/// Longest time until retention has passed what it should.
const PASSES_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The party that deletes the beginning of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Records,
    Retention,
}

/// The offset up to which it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Up {
    /// The group has committed more.
    ToCommitted,
    /// The group's next events are gone.
    BeyondCommitted,
}

/// The results of the starts and rebalances.
#[derive(Debug, Default)]
pub struct Beginnings {
    /// Processes started.
    pub starts: usize,
    /// Processes that joined the others or left them.
    pub rebalances: usize,
    /// Processes that ended by themselves, or not as they should.
    pub died: Vec<String>,
    /// Times that a partition gave no output for [`STUCK_AFTER`].
    pub stuck: Vec<String>,
    /// The longest time until all partitions gave output.
    pub worst: Duration,
}

impl Beginnings {
    /// True if no process died and no partition was left behind.
    pub fn is_clean(&self) -> bool {
        self.died.is_empty() && self.stuck.is_empty()
    }
}

impl fmt::Display for Beginnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Beginnings { starts, rebalances, died, stuck, worst } = self;
        died.iter().chain(stuck).try_for_each(|words| writeln!(f, "{words}"))?;
        let (died, stuck, worst) = (died.len(), stuck.len(), worst.as_secs_f64());
        write!(
            f,
            "{starts} starts and {rebalances} rebalances on topics without their beginning: {died} processes died, \
             {stuck} times partitions were stuck, all had output after {worst:.1} s at most"
        )
    }
}

/// Runs so many starts and so many rebalances.
pub fn survive(broker: &Broker, starts: usize, rebalances: usize) -> Beginnings {
    let mut found = Beginnings::default();
    let ways = [By::Records, By::Retention];
    for (place, by) in ways.into_iter().enumerate() {
        // The first ways take the rest of the division.
        let share = |all: usize| (all + 1 - place) / ways.len();
        let mut scene = Scene::start(broker, by, &mut found);
        scene.starts(share(starts));
        scene.rebalances(share(rebalances));
    }
    found
}

struct Scene<'a> {
    broker: &'a Broker,
    by: By,
    app: App,
    watch: Watch,
    _load: Load,
    found: &'a mut Beginnings,
}

impl<'a> Scene<'a> {
    /// An app that has committed some of an input that goes on.
    fn start(broker: &'a Broker, by: By, found: &'a mut Beginnings) -> Scene<'a> {
        let settings: &[(&str, &str)] = if by == By::Retention { &RETENTION } else { &[] };
        let input = broker.topic_with("in", PARTITIONS, settings);
        let app = App::reading(broker, input, Agents::One, PARTITIONS);
        let app = app.with_kafka("session.timeout.ms=4000").with_kafka("heartbeat.interval.ms=500");
        let watch = Watch::start(&broker.servers, app.output(), PARTITIONS);
        let load = Load::start(&broker.servers, &app.input, Shape { rate: RATE, ..Shape::default() }, u64::MAX);
        let mut scene = Scene { broker, by, app, watch, _load: load, found };
        let mut first = scene.app.start(0);
        scene.has_output(&mut [&mut first]);
        scene.ends(&mut first);
        scene
    }

    fn starts(&mut self, count: usize) {
        for start in 0..count {
            self.delete(if start.is_multiple_of(2) { Up::ToCommitted } else { Up::BeyondCommitted });
            let mut member = self.app.start(0);
            self.has_output(&mut [&mut member]);
            self.ends(&mut member);
            self.found.starts += 1;
        }
    }

    /// Two processes go on; another joins them and leaves again.
    fn rebalances(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let (mut first, mut second) = (self.app.start(1), self.app.start(2));
        self.has_output(&mut [&mut first, &mut second]);
        let mut third: Option<Member> = None;
        for _ in 0..count {
            // Processes that run read on meanwhile, so their next events cannot be gone for long.
            if self.by == By::Records {
                self.delete(Up::ToCommitted);
            }
            match third.take() {
                None => third = Some(self.app.start(3)),
                Some(mut third) => self.ends(&mut third),
            }
            let mut all: Vec<&mut Member> = [&mut first, &mut second].into_iter().chain(&mut third).collect();
            self.has_output(&mut all);
            self.found.rebalances += 1;
        }
        for mut member in [first, second].into_iter().chain(third) {
            self.ends(&mut member);
        }
    }

    /// Deletes the beginning of the input.
    fn delete(&self, up: Up) {
        let committed: Vec<i64> = self.committed();
        let target = |(partition, ends): (usize, (i64, i64))| match up {
            Up::ToCommitted => committed[partition],
            Up::BeyondCommitted => ends.1,
        };
        let began = now();
        // The load goes on: the next events come to each partition.
        let is_there = |committed: i64, (low, high): (i64, i64)| match (self.by, up) {
            (By::Records, Up::ToCommitted) => true,
            (By::Records, Up::BeyondCommitted) => high > committed,
            (By::Retention, Up::ToCommitted) => low > 0,
            (By::Retention, Up::BeyondCommitted) => low > committed,
        };
        let is_everywhere = |ends: &[(i64, i64)]| ends.iter().zip(&committed).all(|(&ends, &at)| is_there(at, ends));
        let mut ends = self.broker.ends(&self.app.input);
        while !is_everywhere(&ends) {
            assert!(now() - began < PASSES_MAX, "{:?} {up:?}: {ends:?}, committed {committed:?}", self.by);
            pause(LOOK_EVERY);
            ends = self.broker.ends(&self.app.input);
        }
        if self.by == By::Records {
            let before: Vec<i64> = ends.into_iter().enumerate().map(target).collect();
            self.broker.delete_before(&self.app.input, &before);
        }
    }

    fn committed(&self) -> Vec<i64> {
        let committed = self.broker.committed(&self.app.name, &self.app.input);
        committed.into_iter().map(|committed| committed.map_or(0, |(offset, _)| offset)).collect()
    }

    /// Waits until all partitions give output of events that are sent from now on.
    fn has_output(&mut self, members: &mut [&mut Member]) {
        let (at, began) = (since_1970(), now());
        let partitions = usize::try_from(PARTITIONS).expect("few");
        while self.watch.until_after(at, partitions, LOOK_EVERY).is_none() {
            let ended = members.iter_mut().filter_map(|member| member.ended()).next();
            let words = || self.app.last_words(0..4, 12);
            if let Some(status) = ended {
                self.found.died.push(format!("by {:?}: ended with {status:?}\n{}", self.by, words()));
                return;
            }
            if now() - began > STUCK_AFTER {
                let silent = self.watch.silent_since(at);
                self.found.stuck.push(format!("by {:?}: no output\n{silent}{}", self.by, words()));
                return;
            }
        }
        self.found.worst = self.found.worst.max(now() - began);
    }

    /// Asks a process to end; one that has ended by itself was counted.
    fn ends(&mut self, member: &mut Member) {
        if member.id() == 0 {
            return;
        }
        let status = member.terminate();
        if status != Some(0) {
            let words = self.app.last_words(0..4, 12);
            self.found.died.push(format!("by {:?}: ended with {status:?} when told to\n{words}", self.by));
        }
    }
}
