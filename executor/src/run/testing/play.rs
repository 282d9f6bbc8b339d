//! One test: a worker over a log of its own, under a clock that moves from event to event.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use kaspr_ir::plan::{Codec, Plan, TableId};

use super::suite::Case;
use crate::broker::log::{Log, NewRecord};
use crate::broker::partitioner::partition_for;
use crate::clock::{Clock, SimulatedClock};
use crate::code::python::{Interpreter, Pending, PythonCode, Rehearsal};
use crate::config::Config;
use crate::event::effects::TableWrite;
use crate::event::failure::FailureRecord;
use crate::run::assemble::{Assembly, Ends};
use crate::run::local::table_lines;
use crate::run::record;
use crate::tables::Tables;
use crate::tables::store::{MemoryStore, Store};
use crate::worker::Worker;

/// Longest real time, in ms, that a test waits for what user code awaits.
const AWAIT_MAX: u32 = 60_000;
/// Longest real time, in ms, that a test waits for a silent socket before it moves the clock.
const SILENT_MAX: u32 = 1000;
/// Records read from the log at once.
const RECORDS_MAX: usize = 1 << 20;

/// The results of a test.
#[derive(Debug, Default)]
pub struct Came {
    /// Records by topic, by partition and offset, as lines.
    pub topics: BTreeMap<String, Vec<String>>,
    /// Pairs by table, as lines.
    pub tables: BTreeMap<String, Vec<String>>,
    /// Failures, in order.
    pub failures: Vec<FailureRecord>,
}

/// Plays a test. The error is the user's: of the test's file, or of code that does not load.
pub fn play(
    interpreter: &Interpreter,
    plan: &Rc<Plan>,
    config: &Config,
    settings: &BTreeMap<String, String>,
    (case, folder): (&Case, &Path),
) -> Result<Came, String> {
    let clock = SimulatedClock::default();
    let log = Log::new(1);
    // Another agent reads what one agent writes at the same moment of the clock.
    let config = &Config { commit_interval: Duration::ZERO, ..config.clone() };
    for topic in &plan.topics {
        log.create(&topic.name, topic.partitions.and_then(|count| i32::try_from(count).ok()).unwrap_or(1));
    }
    let mocks = case.mock.iter().map(|(name, outcome)| (name.clone(), outcome.get().to_owned())).collect();
    let assembly = Assembly::new(plan, config.clone(), Rc::new(clock.clone()), Box::new(log.admin()))
        .with_store(Box::new(store(plan, &log, case)?))
        .with_rehearsal(Rehearsal { clock: clock.clone(), mocks });
    let code = assembly.python(interpreter, settings.clone()).map_err(|error| error.to_string())?;
    let (code, tables) = (Rc::new(RefCell::new(code)), assembly.tables.clone());
    let worker = assembly.start(&code, Ends::of_log(&log, config));
    let worker = worker.map_err(|error| error.to_string())?;
    let mut stage = Stage { worker, code: code.clone(), clock, log };
    let played = stage.play(case, folder);
    let mut came = Came { failures: stage.worker.take_failures(), ..Came::default() };
    code.borrow_mut().close();
    played?;
    came.topics = topics(&stage.log);
    came.tables = contents(plan, &tables.borrow());
    Ok(came)
}

struct Stage {
    worker: Worker<PythonCode>,
    code: Rc<RefCell<PythonCode>>,
    clock: SimulatedClock,
    log: Log,
}

impl Stage {
    fn play(&mut self, case: &Case, folder: &Path) -> Result<(), String> {
        let mut last = Duration::ZERO;
        self.settle()?;
        for event in case.events(folder)? {
            self.until(event.at)?;
            last = event.at;
            let topic = event.record.topic.as_deref().unwrap_or_default().into();
            let record = NewRecord {
                partition: event.record.partition,
                timestamp_ms: event.record.timestamp_ms.unwrap_or_else(|| self.clock.wall_ms()),
                key: event.record.key,
                value: event.record.value,
                headers: event.record.headers,
            };
            self.log.append(&topic, record).map_err(|error| error.to_string())?;
            self.settle()?;
        }
        self.until(last + case.advance()?)?;
        self.drain()
    }

    /// Moves the clock on, to each moment at which something is due.
    fn until(&mut self, at: Duration) -> Result<(), String> {
        loop {
            self.settle()?;
            let now = self.clock.now();
            if now >= at {
                return Ok(());
            }
            // A moment that has passed is the next turn's to see: the clock only moves forward.
            let due = self.due().filter(|due| *due > now).map_or(at, |due| due.min(at));
            self.clock.advance(due - now);
        }
    }

    /// The next moment at which something is due: in the worker, or in the event loop of user code.
    fn due(&self) -> Option<Duration> {
        let timer = self.code.borrow().pending().due.and_then(|left| self.clock.now().checked_add(left));
        [self.worker.next_deadline(), timer].into_iter().flatten().min()
    }

    /// Turns until nothing can go on without time passing.
    fn settle(&mut self) -> Result<(), String> {
        let (mut quiet, mut waited, mut silent) = (0, 0, 0);
        // A turn may do what neither polls nor commits, such as starting a partition, and the next one acts on it.
        while quiet < 3 {
            let goes_on = self.worker.awaits() && goes_on(self.code.borrow().pending(), silent);
            let wait = if goes_on { Duration::from_millis(1) } else { Duration::ZERO };
            let turn = self.worker.turn(wait).map_err(|error| error.to_string())?;
            silent = if turn.polled > 0 || turn.committed { 0 } else { silent + 1 };
            if goes_on {
                waited += 1;
                if waited > AWAIT_MAX {
                    return Err("a call still awaits something after a minute".to_owned());
                }
            }
            // A turn may be quiet although something has become due: it takes a further one to run it.
            let is_over = self.worker.next_deadline().is_some_and(|due| due <= self.clock.now());
            quiet = if turn.polled > 0 || turn.committed || goes_on || is_over { 0 } else { quiet + 1 };
        }
        Ok(())
    }

    /// Ends the input: events that wait run, windows are handed over, all is committed.
    fn drain(&mut self) -> Result<(), String> {
        loop {
            self.settle()?;
            if !self.worker.is_settled() {
                let now = self.clock.now();
                let due = self.due().filter(|due| *due > now);
                self.clock.advance(due.map_or(Duration::from_millis(1), |due| due - now));
                continue;
            }
            self.worker.flush().map_err(|error| error.to_string())?;
            if !self.worker.is_drained().map_err(|error| error.to_string())? {
                continue;
            }
            if !self.worker.has_open_windows() {
                return Ok(());
            }
            self.worker.hand_over_windows().map_err(|error| error.to_string())?;
        }
    }
}

/// True if a call that awaits something can go on before the clock moves: at once, or when the world outside
/// answers, for which real time must pass. With a timer ahead, a socket that is silent for a while may be one that
/// is only kept open.
fn goes_on(pending: Pending, silent: u32) -> bool {
    let only_timer = pending.due.is_some() && !pending.in_threads && (!pending.has_files || silent > SILENT_MAX);
    pending.is_ready || !only_timer
}

/// Stores what tables hold at the start. A key lies in the partition that its topic's key would have.
fn store(plan: &Plan, log: &Log, case: &Case) -> Result<MemoryStore, String> {
    let mut store = MemoryStore::default();
    let partitions = log.topics().iter().map(|(_, count)| *count).max().unwrap_or(1);
    for (name, pairs) in &case.tables {
        let number = plan.tables.iter().position(|table| table.name == *name);
        let number = number.ok_or_else(|| format!("the app has no table \"{name}\""))?;
        let (id, table) = (TableId(u32::try_from(number).map_err(|error| error.to_string())?), &plan.tables[number]);
        for (key, value) in pairs {
            let key_bytes = match table.key_codec {
                Codec::Json => serde_json::to_string(key).map_err(|error| error.to_string())?,
                _ => key.clone(),
            };
            let partition = if table.global { 0 } else { partition_for(Some(key.as_bytes()), partitions, 0) };
            let value = match table.value_codec {
                Codec::Json => value.get().to_owned(),
                _ => serde_json::from_str(value.get()).map_err(|_| format!("the table \"{name}\" holds texts"))?,
            };
            let (key, value) = (key_bytes.into(), Some(value.into()));
            let write = TableWrite { table: id, partition, key, value };
            store.apply(&[&[write]], &[]).map_err(|error| error.to_string())?;
        }
    }
    Ok(store)
}

fn topics(log: &Log) -> BTreeMap<String, Vec<String>> {
    let mut topics: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (topic, partitions) in log.topics() {
        let lines = topics.entry(topic.to_string()).or_default();
        for partition in 0..partitions {
            for event in log.read_sent(&topic, partition, 0, RECORDS_MAX).0 {
                let mut line = Vec::new();
                record::write_event(&event, &mut line);
                lines.push(String::from_utf8_lossy(&line).into_owned());
            }
        }
    }
    topics
}

fn contents(plan: &Plan, tables: &Tables) -> BTreeMap<String, Vec<String>> {
    let ids = (0..).map(TableId).zip(&plan.tables);
    let text = |line: Vec<u8>| String::from_utf8_lossy(&line).into_owned();
    ids.map(|(id, table)| (table.name.clone(), table_lines(tables, id).map(text).collect())).collect()
}
