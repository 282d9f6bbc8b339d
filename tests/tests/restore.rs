//! Tables that come back: from changelogs in the in-memory log, under a simulated clock, with code that
//! is a stub in Rust.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::os::fd::RawFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use kaspr_exec::broker::log::{Log, NewRecord};
use kaspr_exec::broker::{BrokerError, Changelog, OutgoingRecord, Producer, Watermarks};
use kaspr_exec::clock::SimulatedClock;
use kaspr_exec::code::{Called, Code, Encoded, Fault, Ticket, With};
use kaspr_exec::config::{Config, Guarantee};
use kaspr_exec::event::effects::{Scratch, TableWrite};
use kaspr_exec::event::kept::Kept;
use kaspr_exec::event::message::{Event, Header, TopicName, TopicPartition};
use kaspr_exec::run::assemble::{Assembly, Ends};
use kaspr_exec::tables::Tables;
use kaspr_exec::tables::restore::Restore;
use kaspr_exec::tables::store::{ChangelogPosition, DurableStore, Followed, MemoryStore, Store, StoreError};
use kaspr_exec::worker::{Stopped, Worker};
use kaspr_ir::plan::{Codec, FunctionId, OnError, Plan, TableId};

const TABLE: TableId = TableId(0);
const CHANGELOG: &str = "app-counts-changelog";

/// Counts how often each value came, where a function is given a table; global ones in partition 0.
struct Counter {
    tables: Rc<RefCell<Tables>>,
    is_global: bool,
}

impl Code for Counter {
    type Value = String;

    fn decode(&mut self, _: &Codec, bytes: Option<&[u8]>) -> Result<String, Fault> {
        Ok(String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned())
    }

    fn validate(&mut self, _: &Codec, _: Option<&[u8]>) -> Result<(), Fault> {
        Ok(())
    }

    fn encode(&mut self, _: &Codec, value: &String, out: &mut Vec<u8>) -> Result<Encoded, Fault> {
        out.extend_from_slice(value.as_bytes());
        Ok(Encoded::Bytes)
    }

    fn list(&mut self, values: Vec<String>) -> Result<String, Fault> {
        Ok(values.join("+"))
    }

    fn none(&self) -> String {
        "none".to_owned()
    }

    fn sent(&mut self, topic: &str, _: i32, _: i64) -> Result<String, Fault> {
        Ok(topic.to_owned())
    }

    fn is_none(&self, value: &String) -> bool {
        value == "none"
    }

    fn call(&mut self, _: FunctionId, value: &String, with: With<'_, String>) -> Called<String> {
        if with.tables.is_empty() {
            return Called::Value(value.clone());
        }
        let partition = if self.is_global { 0 } else { with.frame.partition.expect("one partition") };
        let mut scratch = with.frame.scratch.borrow_mut();
        let found = self.tables.borrow().get(TABLE, partition, value.as_bytes(), &scratch);
        let count = match found {
            Ok(count) => count.map_or(0, |count| number(&count)) + 1,
            Err(error) => return Called::Failed(Fault::new("Store", error.to_string())),
        };
        let key = Kept::from(value.as_str());
        scratch.write(TableWrite { table: TABLE, partition, key, value: Some(count.to_string().into()) });
        Called::Value(format!("{value}={count}"))
    }

    fn next(&mut self, _: &String, _: With<'_, String>) -> Called<String> {
        Called::End
    }

    fn release(&mut self, _: &Self::Value, _: With<'_, Self::Value>) -> Called<Self::Value> {
        Called::End
    }

    fn take(&mut self, _: Ticket) -> Option<Called<String>> {
        None
    }

    fn cancel(&mut self, _: Ticket) {}

    fn truth(&mut self, _: &String) -> Result<bool, Fault> {
        Ok(true)
    }

    fn topic(&mut self, value: &String) -> Result<TopicName, Fault> {
        Ok(value.as_str().into())
    }

    fn partition(&mut self, _: &String) -> Result<Option<i32>, Fault> {
        Ok(None)
    }

    fn headers(&mut self, _: &String) -> Result<Vec<Header>, Fault> {
        Ok(Vec::new())
    }

    fn waits(&self, _: bool) -> bool {
        false
    }

    fn turn(&mut self, _: Duration, _: Option<RawFd>) {}
}

fn number(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).expect("a number")
}

/// An agent that counts the events of `in`, and one without tables that passes on those of `plain`.
fn specs(table: &str) -> Rc<Plan> {
    let text = format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {{name: counts}}\nspec: {{{table}}}\n---\n\
         apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: counter}}\nspec:\n  input: {{topic: {{name: in}}}}\n  \
         output: {{topics: [{{name: out}}]}}\n  processors:\n    pipeline: [count]\n    operations:\n      - name: count\n        \
         tables: [{{name: counts, paramName: counts}}]\n        map: {{python: \"def count(value, counts): return value\"}}\n---\n\
         apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: plain}}\nspec:\n  input: {{topic: {{name: plain}}}}\n  \
         output: {{topics: [{{name: passed}}]}}\n  processors:\n    pipeline: [pass]\n    operations:\n      - name: pass\n        \
         map: {{python: \"def pass_on(value): return value\"}}\n"
    );
    let file = kasprc::SourceFile { name: "agents.yaml".to_owned(), bytes: text.into_bytes() };
    let compiled = kasprc::compile(&[file], &kasprc::Options::default());
    Rc::new(compiled.plan.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics)))
}

fn config() -> Config {
    let mut config = Config::new("app", "test", 0);
    config.keeps_changelogs = true;
    config
}

/// A log, and what runs on it.
struct House {
    log: Log,
    plan: Rc<Plan>,
    clock: SimulatedClock,
}

impl House {
    fn new(partitions: i32, table: &str) -> House {
        let log = Log::new(partitions);
        ["in", "out", "plain", "passed"].iter().for_each(|name| log.create(name, partitions));
        log.create(CHANGELOG, if table.contains("global") { 1 } else { partitions });
        House { log, plan: specs(table), clock: SimulatedClock::default() }
    }

    fn worker(&self, store: Box<dyn Store>, config: Config) -> Worker<Counter> {
        let ends = Ends { changelog: Some(Box::new(self.log.changelog())), ..Ends::of_log(&self.log, &config) };
        let assembly = Assembly::new(&self.plan, config, Rc::new(self.clock.clone()), Box::new(self.log.admin()));
        let assembly = assembly.with_store(store);
        let code = Counter { tables: assembly.tables.clone(), is_global: self.plan[TABLE].global };
        assembly.start(&Rc::new(RefCell::new(code)), ends).expect("the worker starts")
    }

    fn in_memory(&self) -> Worker<Counter> {
        self.worker(Box::<MemoryStore>::default(), config())
    }

    fn disk(&self, folder: &Path) -> DurableStore {
        DurableStore::open(folder, 0, &["counts"], Rc::new(self.clock.clone())).expect("it opens")
    }

    fn send(&self, topic: &str, partition: i32, value: &str) {
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        let record = NewRecord { partition: Some(partition), value, ..NewRecord::default() };
        self.log.append(&topic.into(), record).expect("it is appended");
    }

    /// Turns until nothing is left to do.
    fn run(&self, worker: &mut Worker<Counter>) {
        for _ in 0..20 {
            worker.turn(Duration::ZERO).expect("it turns");
            self.clock.advance(Duration::from_millis(50));
        }
    }

    fn values(&self, topic: &str) -> Vec<String> {
        let partitions = self.log.topics().iter().find(|(name, _)| **name == *topic).map_or(0, |(_, count)| *count);
        let read = |partition| self.log.read(&topic.into(), partition, 0, usize::MAX).0;
        let events = (0..partitions).flat_map(read);
        events.map(|event| String::from_utf8_lossy(event.value.as_deref().unwrap_or_default()).into_owned()).collect()
    }

    /// Records of a changelog, as some worker committed them, in one transaction.
    fn changes(&self, pairs: &[(&str, &str)]) {
        let mut producer = self.log.producer(Some("another"));
        producer.init_transactions().expect("it starts");
        producer.begin().expect("it begins");
        send_changes(&mut producer, pairs);
        producer.commit().expect("it commits");
    }

    fn restore(&self, tables: &mut Tables, config: &Config) -> Restore {
        let mut restore = Restore::new(&self.plan, config, Some(Box::new(self.log.changelog())));
        tables.follow_changelogs(restore.fed(), true);
        restore.want(&input(0));
        restore
    }
}

fn send_changes(producer: &mut dyn Producer, pairs: &[(&str, &str)]) {
    let topic: TopicName = CHANGELOG.into();
    for (key, value) in pairs {
        let value = Some(value.as_bytes()).filter(|value| !value.is_empty());
        let (key, headers) = (Some(key.as_bytes()), &[]);
        let record =
            OutgoingRecord { topic: &topic, partition: 0, timestamp_ms: 0, key, value, headers, tracked: true };
        producer.send(record, 0).expect("it is sent");
    }
}

fn input(partition: i32) -> TopicPartition {
    TopicPartition::new("in", partition)
}

fn get(tables: &Tables, key: &str) -> Option<String> {
    let found = tables.get(TABLE, 0, key.as_bytes(), &Scratch::default()).expect("it reads");
    found.map(|value| String::from_utf8_lossy(&value).into_owned())
}

#[test]
fn counts_go_on_after_a_restart() {
    let house = House::new(2, "");
    for round in 1..4 {
        let mut worker = house.in_memory();
        house.send("in", 0, "a");
        house.send("in", 1, "b");
        house.run(&mut worker);
        assert_eq!(house.values("out").last(), Some(&format!("b={round}")));
        // The next one begins after a crash, not after a stop.
        drop(worker);
    }
    assert_eq!(house.values("out"), ["a=1", "a=2", "a=3", "b=1", "b=2", "b=3"]);
}

#[test]
fn a_store_on_disk_has_nothing_to_read_after_a_crash() {
    let (house, folder) = (House::new(1, ""), tempfile::tempdir().expect("a folder"));
    let mut worker = house.worker(Box::new(house.disk(folder.path())), config());
    house.send("in", 0, "a");
    house.run(&mut worker);
    drop(worker);
    let mut tables = Tables::over(Box::new(house.disk(folder.path())));
    let mut restore = house.restore(&mut tables, &config());
    restore.turn(&mut tables, &house.clock).expect("it turns");
    assert!(restore.is_ready(&input(0)), "in one turn");
    assert_eq!(get(&tables, "a").as_deref(), Some("1"));
    let mut worker = house.worker(
        Box::new({
            drop(tables);
            house.disk(folder.path())
        }),
        config(),
    );
    house.send("in", 0, "a");
    house.run(&mut worker);
    assert_eq!(house.values("out"), ["a=1", "a=2"]);
}

#[test]
fn a_turn_restores_a_bounded_part() {
    let house = House::new(1, "");
    let pairs: Vec<(String, String)> = (0..100).map(|n| (n.to_string(), (n * 2).to_string())).collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    house.changes(&pairs);
    let mut config = config();
    config.bounds.restore_records_max = 10;
    let mut tables = Tables::over(Box::<MemoryStore>::default());
    let mut restore = house.restore(&mut tables, &config);
    let mut percents = Vec::new();
    for _ in 0..9 {
        restore.turn(&mut tables, &house.clock).expect("it turns");
        assert!(!restore.is_ready(&input(0)));
        percents.extend(restore.progress().iter().map(|part| part.percent));
    }
    assert_eq!(percents, [9, 19, 29, 39, 49, 59, 69, 79, 89]);
    restore.turn(&mut tables, &house.clock).expect("it turns");
    assert!(restore.is_ready(&input(0)) && !restore.is_restoring());
    assert_eq!(get(&tables, "99").as_deref(), Some("198"));
}

/// Changelogs that count the questions for their ends; for the partition `silent` no broker answers.
struct Counted<C> {
    log: C,
    asked: Rc<Cell<usize>>,
    silent: Rc<Cell<Option<i32>>>,
}

impl<C: Changelog> Changelog for Counted<C> {
    fn ends(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Watermarks>>, BrokerError> {
        self.asked.set(self.asked.get() + 1);
        let ends = self.log.ends(partitions)?;
        let told = |(partition, ends): (&TopicPartition, Option<Watermarks>)| {
            ends.filter(|_| Some(partition.partition) != self.silent.get())
        };
        Ok(partitions.iter().zip(ends).map(told).collect())
    }

    fn stable_end(&mut self, partition: &TopicPartition) -> Result<i64, BrokerError> {
        self.log.stable_end(partition)
    }

    fn identity(&mut self, topic: &TopicName) -> Result<String, BrokerError> {
        self.asked.set(self.asked.get() + 1);
        self.log.identity(topic)
    }

    fn start(&mut self, at: &[(TopicPartition, i64)]) -> Result<(), BrokerError> {
        self.log.start(at)
    }

    fn stop(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        self.log.stop(partition)
    }

    fn poll(&mut self, max: usize, into: &mut Vec<Event>) -> Result<(), BrokerError> {
        self.log.poll(max, into)
    }

    fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.log.position(partition)
    }
}

#[test]
fn many_tables_begin_with_one_question_and_wait_for_none_that_is_silent() {
    const PARTITIONS: i32 = 100;
    let house = House::new(PARTITIONS, "");
    house.changes(&[("a", "7")]);
    let (asked, silent) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(Some(3))));
    let changelog = Counted { log: house.log.changelog(), asked: asked.clone(), silent: silent.clone() };
    let mut tables = Tables::over(Box::<MemoryStore>::default());
    let mut restore = Restore::new(&house.plan, &config(), Some(Box::new(changelog)));
    (0..PARTITIONS).for_each(|partition| restore.want(&input(partition)));
    let waiting = |restore: &Restore| -> Vec<i32> {
        (0..PARTITIONS).filter(|partition| !restore.is_ready(&input(*partition))).collect()
    };
    restore.turn(&mut tables, &house.clock).expect("it turns");
    assert_eq!((asked.get(), waiting(&restore)), (2, vec![3]), "ends and identity of the topic");
    assert_eq!(get(&tables, "a").as_deref(), Some("7"));
    restore.turn(&mut tables, &house.clock).expect("it turns");
    assert_eq!(asked.get(), 2, "it is not asked for at every turn");
    silent.set(None);
    house.clock.advance(Duration::from_secs(1));
    restore.turn(&mut tables, &house.clock).expect("it turns");
    assert_eq!((asked.get(), waiting(&restore)), (4, vec![]));
}

#[test]
fn partitions_without_tables_go_on_while_others_wait_for_theirs() {
    let house = House::new(1, "");
    house.changes(&[[("a", "40"), ("a", "41")]; 10].concat());
    let mut config = config();
    config.bounds.restore_records_max = 1;
    config.bounds.start_wait_max = Duration::ZERO;
    let mut worker = house.worker(Box::<MemoryStore>::default(), config);
    house.send("in", 0, "a");
    house.send("plain", 0, "p");
    for _ in 0..6 {
        worker.turn(Duration::ZERO).expect("it turns");
        house.clock.advance(Duration::from_millis(100));
    }
    assert_eq!(worker.restoring().len(), 1);
    assert_eq!((house.values("passed"), house.values("out")), (vec!["p".to_owned()], vec![]));
    house.run(&mut worker);
    assert_eq!(house.values("out"), ["a=42"]);
}

/// Collects the lines of the log.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_table_beside_a_group_without_commits_is_told_of_though_its_partition_starts_last() {
    let house = House::new(2, "");
    let mut other = house.log.producer(Some("another"));
    other.init_transactions().expect("it starts");
    other.begin().expect("it begins");
    send_changes(&mut other, &[("a", "41")]);
    let mut config = config();
    config.bounds.start_wait_max = Duration::ZERO;
    let heard = Heard::default();
    let log = tracing_subscriber::fmt().with_writer({
        let heard = heard.clone();
        move || heard.clone()
    });
    tracing::subscriber::with_default(log.finish(), move || {
        let mut worker = house.worker(Box::<MemoryStore>::default(), config);
        house.send("in", 1, "b");
        for _ in 0..6 {
            worker.turn(Duration::ZERO).expect("it turns");
            house.clock.advance(Duration::from_millis(100));
        }
        assert_eq!(worker.restoring().len(), 1);
        assert_eq!(house.values("out"), ["b=1"], "the empty partition has started, and committed");
        other.commit().expect("it commits");
        house.run(&mut worker);
        assert!(worker.restoring().is_empty());
    });
    let words = String::from_utf8(heard.0.lock().expect("no writer panics").clone()).expect("it is text");
    assert_eq!(words.matches("has no committed offsets").count(), 1, "{words}");
}

#[test]
fn what_an_open_transaction_hides_is_waited_for() {
    for commits in [true, false] {
        let house = House::new(1, "");
        house.changes(&[("a", "1"), ("b", "1")]);
        let mut dead = house.log.producer(Some("dead"));
        dead.init_transactions().expect("it starts");
        dead.begin().expect("it begins");
        send_changes(&mut dead, &[("a", "2"), ("b", "")]);
        let mut tables = Tables::over(Box::<MemoryStore>::default());
        let mut restore = house.restore(&mut tables, &config());
        let mut blocked = 0;
        for _ in 0..30 {
            blocked += u32::from(restore.turn(&mut tables, &house.clock).expect("it turns").is_blocked);
            house.clock.advance(Duration::from_millis(100));
        }
        assert!(!restore.is_ready(&input(0)));
        assert_eq!(blocked, 2, "logged once a second");
        if commits {
            dead.commit().expect("it commits");
        } else {
            dead.abort().expect("it aborts");
        }
        restore.turn(&mut tables, &house.clock).expect("it turns");
        assert!(restore.is_ready(&input(0)));
        let expected = if commits { (Some("2"), None) } else { (Some("1"), Some("1")) };
        assert_eq!((get(&tables, "a").as_deref(), get(&tables, "b").as_deref()), expected);
    }
}

/// A store that holds the key `stale` at a position, and what it holds after it was restored.
fn restored_from(house: &House, position: Option<i64>, topic: &str, after: Duration) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = house.disk(folder.path());
    store.follow(TABLE, 0, topic);
    let stale = TableWrite { table: TABLE, partition: 0, key: "stale".into(), value: Some("1".into()) };
    let position: Vec<_> =
        position.map(|offset| ChangelogPosition { table: TABLE, partition: 0, offset }).into_iter().collect();
    store.apply(&[&[stale]], &position).expect("it writes");
    house.clock.advance(after);
    let mut tables = Tables::over(Box::new(store));
    let mut restore = house.restore(&mut tables, &config());
    restore.turn(&mut tables, &house.clock).expect("it turns");
    assert!(restore.is_ready(&input(0)));
    assert_eq!(
        get(&tables, "a").as_deref(),
        if position.is_empty() || get(&tables, "stale").is_none() { Some("1") } else { None }
    );
    get(&tables, "stale")
}

#[test]
fn a_store_in_doubt_is_wiped() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let house = House::new(1, "");
    house.changes(&[("a", "1")]);
    // The record stands at 0, its marker at 1: the log ends at 2.
    for (position, topic, after, keeps) in [
        (Some(2), "", Duration::ZERO, true),
        (Some(3), "", Duration::ZERO, true),
        (Some(1), "", Duration::ZERO, true),
        (Some(2), "", DAY, true),
        (None, "", Duration::ZERO, false),
        (Some(4), "", Duration::ZERO, false),
        (Some(2), "another topic", Duration::ZERO, false),
        (Some(1), "", DAY, false),
    ] {
        let stale = restored_from(&house, position, topic, after);
        assert_eq!(stale.is_some(), keeps, "{position:?} {topic:?} {after:?}");
    }
    house.changes(&[("a", "1")]);
    house.log.forget_before(&TopicPartition::new(CHANGELOG, 0), 2);
    assert_eq!(restored_from(&house, Some(1), "", Duration::ZERO), None, "a part of the log is gone");
}

/// A disk that is full after some writes.
struct Filling {
    store: MemoryStore,
    left: Rc<Cell<u32>>,
    reads: Rc<Cell<bool>>,
}

impl Store for Filling {
    fn get(&self, table: TableId, partition: i32, key: &[u8]) -> Result<Option<Kept>, StoreError> {
        if !self.reads.get() {
            return Err(StoreError("input/output error".to_owned()));
        }
        self.store.get(table, partition, key)
    }

    fn pairs(&self, table: TableId, partition: i32) -> Result<Vec<(Kept, Kept)>, StoreError> {
        self.store.pairs(table, partition)
    }

    fn partitions(&self, table: TableId) -> Vec<i32> {
        self.store.partitions(table)
    }

    fn apply(&mut self, writes: &[&[TableWrite]], positions: &[ChangelogPosition]) -> Result<(), StoreError> {
        let left = self.left.get().checked_sub(1).ok_or(StoreError("no space left on device".to_owned()))?;
        self.left.set(left);
        self.store.apply(writes, positions)
    }

    fn followed(&self, table: TableId, partition: i32) -> Result<Option<Followed>, StoreError> {
        self.store.followed(table, partition)
    }

    fn follow(&mut self, table: TableId, partition: i32, topic: &str) {
        self.store.follow(table, partition, topic);
    }

    fn touch(&mut self, table: TableId, partition: i32) -> Result<(), StoreError> {
        self.store.touch(table, partition)
    }

    fn clear(&mut self, table: TableId, partition: i32) -> Result<(), StoreError> {
        self.store.clear(table, partition)
    }

    fn release(&mut self, table: TableId, partition: i32) {
        self.store.release(table, partition);
    }

    fn discard(&mut self) {
        self.store.discard();
    }
}

#[test]
fn a_full_disk_loses_nothing_and_stops_nobody() {
    for writes in 0..12 {
        let house = House::new(2, "");
        let (left, reads) = (Rc::new(Cell::new(writes)), Rc::new(Cell::new(true)));
        let mut worker = house.worker(Box::new(Filling { store: MemoryStore::default(), left, reads }), config());
        for _ in 0..10 {
            house.send("in", 0, "a");
            house.send("in", 1, "b");
            house.send("plain", 0, "p");
            house.run(&mut worker);
        }
        let expected = ["a", "b"].iter().flat_map(|key| (1..11).map(move |n| format!("{key}={n}")));
        assert_eq!(house.values("out"), expected.collect::<Vec<_>>(), "after {writes} writes");
        assert_eq!(house.values("passed").len(), 10);
    }
}

#[test]
fn a_store_that_cannot_be_read_is_built_again_while_the_worker_runs() {
    for guarantee in [Guarantee::ExactlyOnce, Guarantee::AtLeastOnce] {
        let house = House::new(2, "");
        let (left, reads) = (Rc::new(Cell::new(1000)), Rc::new(Cell::new(true)));
        let store = Box::new(Filling { store: MemoryStore::default(), left, reads: reads.clone() });
        let mut worker = house.worker(store, Config { guarantee, ..config() });
        house.send("in", 0, "a");
        house.send("in", 1, "b");
        house.run(&mut worker);
        reads.set(false);
        house.send("plain", 0, "p");
        house.send("in", 0, "a");
        house.send("in", 1, "b");
        house.run(&mut worker);
        assert_eq!(house.values("out"), ["a=1", "a=2", "b=1", "b=2"], "{guarantee:?}");
        assert_eq!(house.values("passed"), ["p"]);
        assert!(worker.take_failures().is_empty(), "what only the store has failed is no failure");
    }
}

#[test]
fn a_store_that_cannot_be_read_halts_nobody() {
    let mut house = House::new(1, "");
    let mut plan = (*house.plan).clone();
    plan.agents.iter_mut().for_each(|agent| agent.on_error = Some(OnError::Halt));
    house.plan = Rc::new(plan);
    let (left, reads) = (Rc::new(Cell::new(1000)), Rc::new(Cell::new(true)));
    let mut worker =
        house.worker(Box::new(Filling { store: MemoryStore::default(), left, reads: reads.clone() }), config());
    house.send("in", 0, "a");
    house.run(&mut worker);
    reads.set(false);
    house.send("in", 0, "a");
    house.run(&mut worker);
    assert_eq!(house.values("out"), ["a=1", "a=2"]);
}

#[test]
fn a_table_whose_topics_get_other_partitions_stops_the_worker() {
    for grown in ["in", CHANGELOG] {
        let house = House::new(2, "");
        let mut worker = house.in_memory();
        house.send("in", 0, "a");
        house.run(&mut worker);
        house.log.grow(grown, 3);
        let stopped = (0..1000).find_map(|_| {
            house.clock.advance(Duration::from_millis(100));
            worker.turn(Duration::ZERO).err()
        });
        let Some(Stopped::Topics(why)) = stopped else { panic!("{grown}: {stopped:?}") };
        assert!(why.contains("and needs"), "{why}");
    }
    let house = House::new(2, "global: true");
    let mut worker = house.in_memory();
    house.log.grow("in", 3);
    house.run(&mut worker);
    house.send("in", 2, "a");
    house.run(&mut worker);
    assert_eq!(house.values("out"), ["a=1"], "a global table has no partitions of its own");
}

#[test]
fn a_global_table_is_whole_on_every_worker() {
    let house = House::new(2, "global: true");
    let named = |name: &str| {
        let mut config = Config::new("app", name, 0);
        config.keeps_changelogs = true;
        config
    };
    let mut workers = [
        house.worker(Box::<MemoryStore>::default(), named("one")),
        house.worker(Box::<MemoryStore>::default(), named("two")),
    ];
    for count in 1..6 {
        // Both count the same key, one after the other: each sees what the other has committed.
        for partition in 0..2 {
            house.send("in", partition, "a");
            for _ in 0..3 {
                workers.iter_mut().for_each(|worker| house.run(worker));
            }
        }
        let last: Vec<String> = (0..2).map(|n| format!("a={}", 2 * count - 1 + n)).collect();
        let values = house.values("out");
        assert!(last.iter().all(|value| values.contains(value)), "{last:?} in {values:?}");
    }
    drop(workers);
    let mut late = house.in_memory();
    house.send("in", 1, "a");
    house.run(&mut late);
    assert!(house.values("out").contains(&"a=11".to_owned()), "{:?}", house.values("out"));
}

#[test]
fn a_partition_that_goes_before_its_table_is_whole_comes_back_later() {
    let house = House::new(2, "");
    house.changes(&[("a", "1"), ("a", "2"), ("a", "3")]);
    let named = |name: &str, records: usize| {
        let mut config = Config::new("app", name, 0);
        config.keeps_changelogs = true;
        config.bounds.restore_records_max = records;
        config
    };
    let mut first = house.worker(Box::<MemoryStore>::default(), named("one", 1));
    first.turn(Duration::ZERO).expect("it turns");
    first.turn(Duration::ZERO).expect("it turns");
    assert!(!first.restoring().is_empty());
    let mut second = house.worker(Box::<MemoryStore>::default(), named("two", 1));
    for _ in 0..3 {
        house.run(&mut first);
        house.run(&mut second);
    }
    house.send("in", 0, "a");
    house.run(&mut first);
    house.run(&mut second);
    drop(second);
    house.send("in", 0, "a");
    house.run(&mut first);
    drop(first);
    let mut third = house.in_memory();
    house.send("in", 0, "a");
    house.run(&mut third);
    let mut values = house.values("out");
    values.sort();
    assert_eq!(values, ["a=4", "a=5", "a=6"]);
}
