//! The simulated app: agents that each test one thing, the events that they get, and what must come
//! of each event.
//!
//! An event's value is its number, a bar and flags that tell the code how to behave. What an agent
//! makes of it carries the number, so that the checker can tell whose effect a record is.

use kaspr_exec::broker::log::sim::Seed;

/// Partitions of every input begin with so many.
pub const PARTITIONS: i32 = 2;
/// The app's name, which is the group's.
pub const APP: &str = "app";
/// The topic that most readers read.
pub const INPUT: &str = "in";
/// The topic between two agents.
pub const CHAIN: &str = "chain";
/// The changelog of the table.
pub const CHANGELOG: &str = "app-counts-changelog";
/// The topic of dead letters.
pub const DEAD: &str = "dead";

/// An agent, or agents that belong together, by what it tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A batch window of ten minutes.
    Batcher,
    /// Retries with a back-off, then a dead letter.
    Patient,
    /// Awaits, some of them for ever.
    Waiter,
    /// A table that some events write after a while, a generator and two outputs, the second of which may fail.
    Counter,
    /// A topic that another reader reads.
    Echo,
    /// Reads what the echo writes.
    Second,
    /// A sink, outside the transaction.
    Teller,
    /// A channel behind which events may fail into a dead letter.
    Opener,
}

/// Kinds from which a seed chooses; [`Kind::Second`] comes with the echo.
pub const KINDS: [Kind; 7] =
    [Kind::Counter, Kind::Batcher, Kind::Echo, Kind::Patient, Kind::Waiter, Kind::Teller, Kind::Opener];

impl Kind {
    /// The agent's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Batcher => "batcher",
            Kind::Patient => "patient",
            Kind::Waiter => "waiter",
            Kind::Counter => "counter",
            Kind::Echo => "echo",
            Kind::Second => "second",
            Kind::Teller => "teller",
            Kind::Opener => "opener",
        }
    }

    /// The topic that it reads.
    pub fn topic(self) -> &'static str {
        if self == Kind::Second { CHAIN } else { INPUT }
    }

    fn spec(self) -> &'static str {
        match self {
            Kind::Batcher => BATCHER,
            Kind::Patient => PATIENT,
            Kind::Waiter => WAITER,
            Kind::Counter => COUNTER,
            Kind::Echo => ECHO,
            Kind::Second => SECOND,
            Kind::Teller => TELLER,
            Kind::Opener => OPENER,
        }
    }
}

/// The specs of some agents.
pub fn specs(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.spec()).collect()
}

/// Topics that are written, and their partitions.
pub const OUTPUTS: [(&str, i32); 10] = [
    ("batches", 1),
    ("kept", 2),
    ("slowly", 1),
    ("ones", 2),
    ("twos", 1),
    (CHAIN, PARTITIONS),
    ("last", 1),
    ("opened", 1),
    ("behind", 2),
    (DEAD, 1),
];

const BATCHER: &str = r#"
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {name: batcher}
spec:
  input:
    topic: {name: in, valueSerializer: raw}
    take: {max: 7, within: 10m}
  output:
    topics: [{name: batches, valueSerializer: raw}]
  processors:
    pipeline: [join]
    operations:
      - name: join
        map: {python: "def join(values): return b'+'.join(values)"}
---"#;

const PATIENT: &str = r#"
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {name: patient}
spec:
  onError: {action: retry, attempts: 4, backoff: {initial: 1s, max: 20s}, then: deadLetter, topic: dead}
  input:
    topic: {name: in, valueSerializer: raw}
  output:
    topics:
      - name: kept
        valueSerializer: raw
        keySelector: {python: "def key_of(value): return context['event'].key"}
  processors:
    pipeline: [patient]
    init:
      python: |
        tries = {}
    operations:
      - name: patient
        map:
          python: |
            def patient(value):
                tries[value] = tries.get(value, 0) + 1
                if b"R" in value or b"r" in value and tries[value] <= 2:
                    raise ValueError("told to fail")
                return value
---"#;

const WAITER: &str = r#"
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {name: waiter}
spec:
  timeout: 30s
  input:
    topic: {name: in, valueSerializer: raw}
  output:
    topics: [{name: slowly, valueSerializer: raw}]
  processors:
    pipeline: [slow]
    operations:
      - name: slow
        map:
          python: |
            import asyncio
            async def slow(value):
                if b"W" in value:
                    await asyncio.Event().wait()
                if b"w" in value:
                    await asyncio.sleep(0)
                return value
---"#;

const COUNTER: &str = r#"
apiVersion: kaspr.io/v1alpha1
kind: KasprTable
metadata: {name: counts}
spec: {name: counts, keySerializer: raw, valueSerializer: raw}
---
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {name: counter}
spec:
  input:
    topic: {name: in, valueSerializer: raw}
  output:
    topics:
      - name: ones
        valueSerializer: raw
        keySelector: {python: "def key_of(value): return context['event'].key"}
      - name: twos
        valueSerializer: raw
        valueSelector:
          python: |
            def checked(value):
                if b"x" in value:
                    raise ValueError("told to fail")
                return value
  processors:
    pipeline: [count]
    operations:
      - name: count
        tables: [{name: counts, paramName: counts}]
        map:
          python: |
            import asyncio
            async def count(value, counts):
                key = context["event"].key
                before = int(counts.get(key, b"0"))
                if b"w" in value:
                    await asyncio.sleep(0)
                if b"z" in value:
                    counts.pop(key, None)
                    n = 0
                else:
                    n = before + 1
                    counts[key] = b"%d" % n
                for i in range(1 + value.count(b"g")):
                    yield value + b":%d:%d" % (n, i)
---"#;

const ECHO: &str = r#"
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {name: echo}
spec:
  input:
    topic: {name: in, valueSerializer: raw}
  output:
    topics:
      - name: chain
        valueSerializer: raw
        keySelector: {python: "def key_of(value): return context['event'].key"}
        predicate: {python: "def wanted(value): return b'f' not in value"}
  processors:
    pipeline: [same]
    operations:
      - name: same
        map: {python: "def same(value): return value"}
---"#;

const SECOND: &str = r#"
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {name: second}
spec:
  input:
    topic: {name: chain, valueSerializer: raw}
  output:
    topics: [{name: last, valueSerializer: raw}]
  processors:
    pipeline: [same]
    operations:
      - name: same
        map: {python: "def same(value): return value"}
---"#;

const TELLER: &str = r#"
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {name: teller}
spec:
  input:
    topic: {name: in, valueSerializer: raw}
  output:
    sinks:
      - name: told
        python: |
          def tell(value): pass
  processors:
    pipeline: [same]
    operations:
      - name: same
        map: {python: "def same(value): return value"}
---"#;

const OPENER: &str = r#"
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {name: opener}
spec:
  input:
    topic: {name: in, valueSerializer: raw}
  output:
    topics: [{name: opened, valueSerializer: raw}]
    channels: [{name: inner}]
  processors:
    pipeline: [same]
    operations:
      - name: same
        map: {python: "def same(value): return value"}
---
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {name: stricter}
spec:
  onError: {action: deadLetter, topic: dead}
  input:
    channel: {name: inner}
  output:
    topics:
      - name: behind
        valueSerializer: raw
        keySelector: {python: "def key_of(value): return context['event'].key"}
  processors:
    pipeline: [checked]
    operations:
      - name: checked
        map:
          python: |
            def checked(value):
                if b"x" in value:
                    raise ValueError("told to fail")
                return value
---"#;

/// An event of the input.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its key.
    pub key: String,
    /// Its number and flags.
    pub value: String,
}

impl Input {
    /// An event with this number, flags as the seed has them.
    pub fn draw(number: usize, refuses: bool, seed: &mut Seed) -> Input {
        let mut flags = String::new();
        if refuses && seed.hits(60) {
            flags.push('q');
        }
        for (flag, per_mille) in
            [('r', 60), ('R', 25), ('w', 150), ('W', 15), ('x', 80), ('f', 100), ('g', 250), ('g', 250), ('z', 60)]
        {
            if seed.hits(per_mille) {
                flags.push(flag);
            }
        }
        Input { key: format!("k{}", seed.below(3)), value: format!("{number}|{flags}") }
    }

    /// True if it has this flag.
    pub fn is(&self, flag: char) -> bool {
        self.value.contains(flag)
    }
}

/// True if the broker refuses this value in this topic.
pub fn is_refused(topic: &str, value: &[u8]) -> bool {
    topic != DEAD && value.contains(&b'q')
}

/// The number in a value.
pub fn number(value: &str) -> Option<usize> {
    value.split('|').next()?.parse().ok()
}

/// The effects that an event must have in a reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Topics and values of its records, in order.
    pub records: Vec<(&'static str, String)>,
    /// It fails, and its failure is recorded.
    pub fails: bool,
}

/// The effects that an event must have. `counts` is the counter's table before it, and changes as it must.
pub fn effects(kind: Kind, input: &Input, counts: &mut std::collections::BTreeMap<String, u64>) -> Effects {
    let value = || input.value.clone();
    let sent = |topic| Effects { records: vec![(topic, value())], fails: false };
    let failed = |letters: &[&'static str]| Effects {
        records: letters.iter().map(|topic| (*topic, value())).collect(),
        fails: true,
    };
    let sends = match kind {
        Kind::Patient => !input.is('R'),
        Kind::Waiter => !input.is('W'),
        Kind::Echo => !input.is('f'),
        Kind::Counter | Kind::Opener => !input.is('x'),
        Kind::Batcher | Kind::Second | Kind::Teller => false,
    };
    match kind {
        Kind::Patient if sends && input.is('q') => failed(&[DEAD]),
        _ if sends && input.is('q') => failed(&[]),
        Kind::Batcher => sent("batches"),
        Kind::Patient if input.is('R') => failed(&[DEAD]),
        Kind::Patient => sent("kept"),
        Kind::Waiter if input.is('W') => failed(&[]),
        Kind::Waiter => sent("slowly"),
        Kind::Counter if input.is('x') => failed(&[]),
        Kind::Counter => Effects { records: count(input, counts), fails: false },
        Kind::Echo if input.is('f') => Effects::default(),
        Kind::Echo => sent(CHAIN),
        Kind::Second => sent("last"),
        Kind::Teller => Effects::default(),
        Kind::Opener if input.is('x') => failed(&[DEAD]),
        // Topics come before channels.
        Kind::Opener => Effects { records: vec![("opened", value()), ("behind", value())], fails: false },
    }
}

fn count(input: &Input, counts: &mut std::collections::BTreeMap<String, u64>) -> Vec<(&'static str, String)> {
    let count = if input.is('z') {
        counts.remove(&input.key);
        0
    } else {
        let count = counts.entry(input.key.clone()).or_insert(0);
        *count += 1;
        *count
    };
    let values = (0..=input.value.matches('g').count()).map(|place| format!("{}:{count}:{place}", input.value));
    values.flat_map(|value| [("ones", value.clone()), ("twos", value)]).collect()
}
