//! The functions of the simulated app in Rust, doing what their Python does.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use kaspr_exec::broker::log::sim::World;
use kaspr_exec::clock::Clock;
use kaspr_exec::code::{Called, Code, Encoded, Fault, Ticket, With};
use kaspr_exec::event::effects::TableWrite;
use kaspr_exec::event::frame::Frame;
use kaspr_exec::event::kept::Kept;
use kaspr_exec::event::message::{Header, TopicName};
use kaspr_exec::tables::Tables;
use kaspr_ir::plan::{Codec, FunctionId, Plan, TableId};

/// Values that a sink was given.
pub type Told = Rc<RefCell<Vec<String>>>;

/// A value of the stub.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing.
    None,
    /// Text.
    Text(Rc<str>),
    /// A generator's values that are left.
    Values(Rc<RefCell<VecDeque<Rc<str>>>>),
}

/// The end of a pending call.
#[derive(Debug)]
enum Later {
    /// It gives its value.
    Give(Value),
    /// It writes the count of its key, which it has read before it waited.
    Count { frame: Rc<Frame>, table: TableId, before: Option<Kept>, value: String },
}

/// The functions, and what waits in them.
pub struct Stub {
    world: World,
    names: Vec<String>,
    tables: Rc<RefCell<Tables>>,
    told: Told,
    drags: bool,
    tries: BTreeMap<String, u32>,
    /// The end of each pending call, if it has one, and what it does then.
    pending: BTreeMap<Ticket, (Option<Duration>, Later)>,
    tickets: u64,
}

impl Stub {
    /// The functions of a plan.
    pub fn new(world: &World, plan: &Plan, tables: Rc<RefCell<Tables>>, told: Told, drags: bool) -> Stub {
        let names = plan.functions.iter().map(|function| function.name.clone()).collect();
        let world = world.clone();
        Stub { world, names, tables, told, drags, tries: BTreeMap::new(), pending: BTreeMap::new(), tickets: 0 }
    }

    fn wait(&mut self, is_endless: bool, later: Later) -> Called<Value> {
        let due = (!is_endless).then(|| self.world.clock.now() + self.world.draw(|seed| seed.millis(1, 4000)));
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.pending.insert(ticket, (due, later));
        Called::Pending(ticket)
    }

    /// Reads the count of the event's key, and writes it at once or after a while.
    fn count(&mut self, value: &str, with: With<'_, Value>) -> Called<Value> {
        let event = &with.frame.unit.events()[0];
        let (table, key) = (with.tables[0].table, event.key.clone().unwrap_or_default());
        let scratch = with.frame.scratch.borrow();
        let before = self.tables.borrow().get(table, event.partition, &key, &scratch).expect("memory can be read");
        drop(scratch);
        let later = Later::Count { frame: with.frame.clone(), table, before, value: value.to_owned() };
        if value.contains('w') { self.wait(false, later) } else { later.end() }
    }
}

impl Later {
    fn end(self) -> Called<Value> {
        let (frame, table, before, value) = match self {
            Later::Give(value) => return Called::Value(value),
            Later::Count { frame, table, before, value } => (frame, table, before, value),
        };
        let event = &frame.unit.events()[0];
        let (key, partition) = (Kept::from(event.key.as_deref().unwrap_or_default()), event.partition);
        let mut scratch = frame.scratch.borrow_mut();
        let count = if value.contains('z') {
            if before.is_some() {
                scratch.write(TableWrite { table, partition, key, value: None });
            }
            0
        } else {
            let before = before.map(|bytes| String::from_utf8_lossy(&bytes).parse::<u64>().expect("a count"));
            let count = before.unwrap_or(0) + 1;
            let written = Some(Kept::from(count.to_string()));
            scratch.write(TableWrite { table, partition, key, value: written });
            count
        };
        drop(scratch);
        let values = (0..=value.matches('g').count()).map(|place| format!("{value}:{count}:{place}").into());
        Called::Values(Value::Values(Rc::new(RefCell::new(values.collect()))))
    }
}

fn text(value: &Value) -> &str {
    match value {
        Value::Text(text) => text,
        Value::None | Value::Values(_) => "",
    }
}

fn failed() -> Called<Value> {
    Called::Failed(Fault::new("ValueError", "told to fail"))
}

impl Code for Stub {
    type Value = Value;

    fn decode(&mut self, _: &Codec, bytes: Option<&[u8]>) -> Result<Value, Fault> {
        Ok(Value::Text(String::from_utf8_lossy(bytes.unwrap_or_default()).into()))
    }

    fn validate(&mut self, _: &Codec, _: Option<&[u8]>) -> Result<(), Fault> {
        Ok(())
    }

    fn encode(&mut self, _: &Codec, value: &Value, out: &mut Vec<u8>) -> Result<Encoded, Fault> {
        out.extend_from_slice(text(value).as_bytes());
        Ok(Encoded::Bytes)
    }

    fn list(&mut self, values: Vec<Value>) -> Result<Value, Fault> {
        Ok(Value::Text(values.iter().map(text).collect::<Vec<_>>().join("+").into()))
    }

    fn none(&self) -> Value {
        Value::None
    }

    fn is_none(&self, value: &Value) -> bool {
        matches!(value, Value::None)
    }

    fn sent(&mut self, _: &str, _: i32, _: i64) -> Result<Value, Fault> {
        Ok(Value::None)
    }

    fn call(&mut self, function: FunctionId, value: &Value, with: With<'_, Value>) -> Called<Value> {
        if self.world.draw(|seed| seed.hits(50)) {
            self.world.takes(1, 25);
        }
        if self.drags {
            self.world.takes(16_000, 40_000);
        }
        let given = text(value);
        match self.names[function.index()].as_str() {
            "patient" => {
                let tries = self.tries.entry(given.to_owned()).or_default();
                *tries += 1;
                let fails = given.contains('R') || given.contains('r') && *tries <= 2;
                if fails { failed() } else { Called::Value(value.clone()) }
            }
            "slow" if given.contains(['w', 'W']) => self.wait(given.contains('W'), Later::Give(value.clone())),
            "count" => self.count(given, with),
            "checked" if given.contains('x') => failed(),
            "wanted" => Called::Value(if given.contains('f') { Value::None } else { value.clone() }),
            "key_of" => {
                let key = with.frame.unit.events()[0].key.clone().unwrap_or_default();
                Called::Value(Value::Text(String::from_utf8_lossy(&key).into()))
            }
            "tell" => {
                self.told.borrow_mut().push(given.to_owned());
                Called::Value(Value::None)
            }
            "same" | "slow" | "checked" | "join" => Called::Value(value.clone()),
            unknown => panic!("the stub has no function {unknown}"),
        }
    }

    fn next(&mut self, values: &Value, _: With<'_, Value>) -> Called<Value> {
        let Value::Values(values) = values else { return Called::End };
        values.borrow_mut().pop_front().map_or(Called::End, |value| Called::Value(Value::Text(value)))
    }

    fn release(&mut self, _: &Self::Value, _: With<'_, Self::Value>) -> Called<Self::Value> {
        Called::End
    }

    fn take(&mut self, ticket: Ticket) -> Option<Called<Value>> {
        let (due, _) = self.pending.get(&ticket)?;
        if due.is_none_or(|due| due > self.world.clock.now()) {
            return None;
        }
        self.pending.remove(&ticket).map(|(_, later)| later.end())
    }

    fn cancel(&mut self, ticket: Ticket) {
        self.pending.remove(&ticket);
    }

    fn truth(&mut self, value: &Value) -> Result<bool, Fault> {
        Ok(!matches!(value, Value::None))
    }

    fn topic(&mut self, value: &Value) -> Result<TopicName, Fault> {
        Ok(text(value).into())
    }

    fn partition(&mut self, _: &Value) -> Result<Option<i32>, Fault> {
        Ok(None)
    }

    fn headers(&mut self, _: &Value) -> Result<Vec<Header>, Fault> {
        Ok(Vec::new())
    }

    fn waits(&self, _: bool) -> bool {
        !self.pending.is_empty()
    }

    fn turn(&mut self, wait: Duration, _: Option<RawFd>) {
        let now = self.world.clock.now();
        let due = self.pending.values().filter_map(|(due, _)| *due).min();
        self.world.passes(due.map_or(wait, |due| due.saturating_sub(now).min(wait)));
    }
}
