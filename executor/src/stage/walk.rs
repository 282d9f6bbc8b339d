//! One event's way through its reader's program, depth first, with a place to wait at every call.
//!
//! The walk keeps its own stack, so that an event whose function awaits something can be put aside and
//! resumed where it was. All its effects go to its frame's scratch.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use kaspr_ir::plan::AgentId;
use tracing::warn;

use crate::broker::directory::Directory;
use crate::clock::{Clock, Stamp};
use crate::code::{Called, Code, Encoded, Fault, Ticket, Via, With};
use crate::event::fault::Parts;
use crate::event::frame::Frame;
use crate::event::message::{Header, TopicName};
use crate::event::tally::{Passage, Tally};
use crate::stage::program::{Address, Instruction, Program, SiteId, Target, Then};
use crate::status::counters::Counters;

/// The tools of a walk: the same for all events of a stage.
pub struct Machine<'a, C: Code> {
    /// The reader's instructions.
    pub program: &'a Program,
    /// The user's code.
    pub code: &'a mut C,
    /// Output topics.
    pub directory: &'a Directory,
    /// The table of counters.
    pub counters: &'a mut Counters,
    /// Tells the time.
    pub clock: &'a dyn Clock,
    /// The time of records.
    pub stamp: &'a mut Stamp,
    /// The number of events that the measured time of this one stands for; 0: it is not measured.
    pub sample: u32,
    /// A buffer to encode in.
    pub buffer: &'a mut Vec<u8>,
}

/// The ways in which a walk can rest.
#[derive(Debug)]
pub enum Outcome {
    /// All values arrived.
    Done,
    /// A call is not finished.
    Pending(Ticket),
    /// The event fails at this site.
    Failed(SiteId, Fault),
}

type Stop = Outcome;

/// A value that has further to go.
#[derive(Debug)]
enum Point<V> {
    /// A value before an instruction.
    Value { at: Address, value: V, via: Passed<V> },
    /// A generator whose values each go on from an instruction.
    Values(Steps<V>),
}

/// The key and headers that the last channel on a value's way gave it, if it gave any.
type Passed<V> = Option<Rc<Via<V>>>;

/// A generator that has further values.
#[derive(Debug)]
struct Steps<V> {
    /// The instruction at which each value goes on.
    at: Address,
    agent: AgentId,
    site: SiteId,
    values: V,
    via: Passed<V>,
}

/// An output on the way to its send.
#[derive(Debug)]
struct Draft<V> {
    topic: Option<TopicName>,
    key: Option<V>,
    value: Option<V>,
    partition: Option<i32>,
    headers: Option<Vec<Header>>,
}

impl<V> Default for Draft<V> {
    fn default() -> Draft<V> {
        Draft { topic: None, key: None, value: None, partition: None, headers: None }
    }
}

/// The receiver of a pending ticket's result.
#[derive(Debug)]
enum Waiting<V> {
    Call {
        at: Address,
        value: V,
        via: Passed<V>,
    },
    Values(Steps<V>),
    /// The clean-up of a generator: the event has failed already.
    Release {
        of: SiteId,
        site: SiteId,
        fault: Fault,
    },
}

/// One event's way through a program.
#[derive(Debug)]
pub struct Walk<V> {
    /// The event and its effects.
    pub frame: Rc<Frame>,
    /// Counts of the values on this way, by site.
    pub tally: Tally,
    /// The time at which it began, if its duration is measured.
    pub began: Option<Duration>,
    stack: Vec<Point<V>>,
    deferred: VecDeque<(Address, V, Passed<V>)>,
    draft: Draft<V>,
    waiting: Option<Waiting<V>>,
}

impl<V: Clone + std::fmt::Debug> Walk<V> {
    /// Makes a walk that starts at the first instruction, with the decoded value.
    pub fn new(frame: Rc<Frame>, value: V) -> Walk<V> {
        let stack = vec![Point::Value { at: 0, value, via: None }];
        let (deferred, draft) = (VecDeque::new(), Draft::default());
        Walk { frame, tally: Tally::default(), began: None, stack, deferred, draft, waiting: None }
    }

    /// Makes a finished walk ready for another event, keeping its allocations.
    pub fn restart(&mut self, frame: Rc<Frame>, value: V) {
        self.frame = frame;
        self.tally.clear();
        self.stack.clear();
        self.deferred.clear();
        // An event that failed between two selectors leaves half an output behind.
        self.draft = Draft::default();
        (self.waiting, self.began) = (None, None);
        self.stack.push(Point::Value { at: 0, value, via: None });
    }

    fn at(&mut self, site: SiteId) -> &mut Passage {
        self.tally.at(site.0)
    }

    /// Goes on until all values have arrived, a call is pending or the event has failed.
    pub fn run<C: Code<Value = V>>(&mut self, machine: &mut Machine<'_, C>) -> Outcome {
        match self.go_on(machine) {
            Outcome::Failed(site, fault) => self.fail(machine, site, fault),
            outcome => outcome,
        }
    }

    /// Fails the event: generators that have further values are closed, the innermost first, before another
    /// event begins.
    fn fail<C: Code<Value = V>>(&mut self, machine: &mut Machine<'_, C>, site: SiteId, fault: Fault) -> Outcome {
        // Sinks act on the outside world: those of an event that fails never run.
        self.deferred.clear();
        while let Some(point) = self.stack.pop() {
            let Point::Values(Steps { agent, site: of, values, via, .. }) = point else { continue };
            let (limit, row) = (machine.program.sites[of.0].limit, machine.program.sites[of.0].counter);
            let with = With { agent, tables: &[], frame: &self.frame, via: via.as_ref(), limit, row };
            match machine.code.release(&values, with) {
                Called::Pending(ticket) => {
                    self.waiting = Some(Waiting::Release { of, site, fault });
                    return Outcome::Pending(ticket);
                }
                called => released(machine.program, of, &called),
            }
        }
        Outcome::Failed(site, fault)
    }

    /// Gives up the pending call: the event fails there, if it has not failed already.
    pub fn give_up<C: Code<Value = V>>(&mut self, machine: &mut Machine<'_, C>, site: SiteId, fault: Fault) -> Outcome {
        match self.waiting.take() {
            Some(Waiting::Release { site, fault, .. }) => self.fail(machine, site, fault),
            _ => self.fail(machine, site, fault),
        }
    }

    fn go_on<C: Code<Value = V>>(&mut self, machine: &mut Machine<'_, C>) -> Outcome {
        loop {
            let stopped = match self.stack.pop() {
                Some(Point::Value { at, value, via }) => self.follow(machine, at, value, via),
                Some(Point::Values(steps)) => {
                    let site = &machine.program.sites[steps.site.0];
                    let (limit, row, via) = (site.limit, site.counter, steps.via.as_ref());
                    let with = With { agent: steps.agent, tables: &[], frame: &self.frame, via, limit, row };
                    let called = machine.code.next(&steps.values, with);
                    self.next(steps, called)
                }
                // Only now is everything encoded, so that nothing can fail between a sink and the end but a sink.
                None => match self.deferred.pop_front() {
                    Some((at, value, via)) => {
                        self.stack.push(Point::Value { at, value, via });
                        Ok(())
                    }
                    None => return Outcome::Done,
                },
            };
            if let Err(outcome) = stopped {
                return outcome;
            }
        }
    }

    /// The site of the pending call, if there is one.
    pub fn pending_site(&self, program: &Program) -> Option<SiteId> {
        match self.waiting.as_ref()? {
            Waiting::Values(steps) => Some(steps.site),
            Waiting::Release { of, .. } => Some(*of),
            Waiting::Call { at, .. } => match &program.instructions[*at] {
                Instruction::Call { site, .. } => Some(*site),
                _ => None,
            },
        }
    }

    /// Goes on with the result of the pending call.
    pub fn resume<C: Code<Value = V>>(&mut self, machine: &mut Machine<'_, C>, called: Called<V>) -> Outcome {
        let stopped = match self.waiting.take().expect("a walk is resumed when its ticket is finished") {
            Waiting::Call { at, value, via } => match self.settle(machine, at, value, &via, called) {
                Ok(Some((at, value))) => self.follow(machine, at, value, via),
                Ok(None) => Ok(()),
                Err(outcome) => Err(outcome),
            },
            Waiting::Values(steps) => self.next(steps, called),
            Waiting::Release { of, site, fault } => {
                released(machine.program, of, &called);
                Err(Outcome::Failed(site, fault))
            }
        };
        match stopped {
            Ok(()) => self.run(machine),
            Err(Outcome::Failed(site, fault)) => self.fail(machine, site, fault),
            Err(outcome) => outcome,
        }
    }

    /// Takes the next value of a generator; the generator waits below it on the stack.
    fn next(&mut self, steps: Steps<V>, called: Called<V>) -> Result<(), Stop> {
        match called {
            // A generator that a generator gives is a value like any other: only what a function returns fans out.
            Called::Value(value) | Called::Values(value) => {
                self.at(steps.site).given += 1;
                let (at, via) = (steps.at, steps.via.clone());
                self.stack.push(Point::Values(steps));
                self.stack.push(Point::Value { at, value, via });
            }
            Called::End => {}
            Called::Pending(ticket) => {
                self.waiting = Some(Waiting::Values(steps));
                return Err(Outcome::Pending(ticket));
            }
            Called::Failed(fault) => return Err(Outcome::Failed(steps.site, fault)),
        }
        Ok(())
    }

    /// Carries a value through the instructions until it arrives or splits.
    fn follow<C: Code<Value = V>>(
        &mut self,
        machine: &mut Machine<'_, C>,
        mut at: Address,
        mut value: V,
        via: Passed<V>,
    ) -> Result<(), Stop> {
        let program = machine.program;
        loop {
            match &program.instructions[at] {
                Instruction::Enter(site) => self.at(*site).taken += 1,
                Instruction::Call { site, agent, function, tables, of_draft, .. } => {
                    // Only sinks take the drafted value: other selectors see the value itself.
                    let given = match &self.draft.value {
                        Some(drafted) if *of_draft => drafted,
                        _ => &value,
                    };
                    let (limit, row) = (program.sites[site.0].limit, program.sites[site.0].counter);
                    let with = With { agent: *agent, tables, frame: &self.frame, via: via.as_ref(), limit, row };
                    let called = timed(machine, *site, |machine| machine.code.call(*function, given, with));
                    match self.settle(machine, at, value, &via, called)? {
                        Some(next) => (at, value) = next,
                        None => return Ok(()),
                    }
                    continue;
                }
                Instruction::Send { site, target } => {
                    let draft = std::mem::take(&mut self.draft);
                    self.send(machine, target, draft, &value).map_err(|fault| Outcome::Failed(*site, fault))?;
                    let passed = self.at(*site);
                    (passed.given, passed.records) = (passed.given + 1, passed.records + 1);
                }
                Instruction::Metadata(site) => {
                    value = self.metadata(machine).map_err(|fault| Outcome::Failed(*site, fault))?;
                }
                Instruction::Nothing => value = machine.code.none(),
                Instruction::Jump(to) => {
                    at = *to;
                    continue;
                }
                // The same object goes to every agent behind the channel: copies are the user's to make.
                Instruction::Fork { site, entries } => {
                    let Draft { key, value: drafted, headers, .. } = std::mem::take(&mut self.draft);
                    let passed = drafted.unwrap_or_else(|| value.clone());
                    let behind = (key.is_some() || headers.is_some()).then(|| Rc::new(Via { key, headers }));
                    self.at(*site).given += 1;
                    self.stack.push(Point::Value { at: at + 1, value, via });
                    // Pushed in reverse: the stack gives the first agent its value first.
                    for &entry in entries.iter().rev() {
                        self.stack.push(Point::Value { at: entry, value: passed.clone(), via: behind.clone() });
                    }
                    return Ok(());
                }
                Instruction::Defer => {
                    self.deferred.push_back((at + 1, value, via));
                    return Ok(());
                }
                Instruction::End => return Ok(()),
            }
            at += 1;
        }
    }

    /// Uses the result of a call as its instruction says. Returns where the value goes on, if it does.
    fn settle<C: Code<Value = V>>(
        &mut self,
        machine: &mut Machine<'_, C>,
        at: Address,
        value: V,
        via: &Passed<V>,
        called: Called<V>,
    ) -> Result<Option<(Address, V)>, Stop> {
        let Instruction::Call { site, agent, then, .. } = &machine.program.instructions[at] else {
            unreachable!("only calls are settled");
        };
        let (site, agent, then) = (*site, *agent, *then);
        let failed = |fault| Outcome::Failed(site, fault);
        let result = match called {
            Called::Value(result) => result,
            Called::Values(values) if then == Then::Replace => {
                self.stack.push(Point::Values(Steps { at: at + 1, agent, site, values, via: via.clone() }));
                return Ok(None);
            }
            // Of the results only that of a map fans out. Elsewhere a generator is an object, and as a predicate's
            // it is true.
            Called::Values(result) => result,
            Called::End => machine.code.none(),
            Called::Pending(ticket) => {
                self.waiting = Some(Waiting::Call { at, value, via: via.clone() });
                return Err(Outcome::Pending(ticket));
            }
            Called::Failed(fault) => return Err(failed(fault)),
        };
        match then {
            Then::Replace => {
                self.at(site).given += 1;
                return Ok(Some((at + 1, result)));
            }
            Then::Keep if !machine.code.truth(&result).map_err(failed)? => {
                self.at(site).filtered += 1;
                return Ok(None);
            }
            Then::Keep => self.at(site).given += 1,
            Then::Unless(past) if !machine.code.truth(&result).map_err(failed)? => {
                self.at(site).filtered += 1;
                return Ok(Some((past, value)));
            }
            Then::Unless(_) => {}
            Then::Topic => self.draft.topic = Some(machine.code.topic(&result).map_err(failed)?),
            Then::Key => self.draft.key = Some(result),
            Then::Value => self.draft.value = Some(result),
            Then::Partition => self.draft.partition = machine.code.partition(&result).map_err(failed)?,
            Then::Headers => self.draft.headers = Some(machine.code.headers(&result).map_err(failed)?),
            Then::Discard => {
                self.draft.value = None;
                self.at(site).given += 1;
            }
        }
        Ok(Some((at + 1, value)))
    }

    /// Encodes a drafted output and stages it in the scratch.
    fn send<C: Code<Value = V>>(
        &self,
        machine: &mut Machine<'_, C>,
        target: &Target,
        draft: Draft<V>,
        value: &V,
    ) -> Result<(), Fault> {
        let topic = draft.topic.as_ref().or(target.topic.as_ref()).expect("an output has a name or a name selector");
        // Encoding may run user code, and that may send: so the scratch is not borrowed until it is done.
        machine.buffer.clear();
        // A key that is `None` is Kafka's null, whatever the serializer would make of it.
        let key = draft.key.as_ref().filter(|key| !machine.code.is_none(key));
        let key_length = match key {
            Some(key) => match machine.code.encode(&target.key_codec, key, machine.buffer)? {
                Encoded::Bytes => Some(machine.buffer.len()),
                Encoded::Null => None,
            },
            None => None,
        };
        let split = machine.buffer.len();
        let has_value = if target.forwards {
            let bytes = self.frame.unit.events()[0].value.as_deref();
            machine.buffer.extend_from_slice(bytes.unwrap_or_default());
            bytes.is_some()
        } else {
            let value = draft.value.as_ref().unwrap_or(value);
            machine.code.encode(&target.value_codec, value, machine.buffer)? == Encoded::Bytes
        };
        let (key, value) = machine.buffer.split_at(split);
        let key = key_length.map(|_| key);
        let value = has_value.then_some(value);
        let partition = machine.directory.place(topic, draft.partition, key)?;
        let headers = draft.headers.unwrap_or_default();
        machine.directory.check_size(topic, key, value, &headers)?;
        let timestamp_ms = machine.stamp.wall_ms(machine.clock);
        self.frame.scratch.borrow_mut().send(topic, partition, timestamp_ms, (key, value), headers);
        Ok(())
    }

    fn metadata<C: Code<Value = V>>(&self, machine: &mut Machine<'_, C>) -> Result<V, Fault> {
        let scratch = self.frame.scratch.borrow();
        let sent = scratch.outgoing().last().expect("it follows a send");
        // Its offset is not known before the transaction commits: the metadata says -1.
        let (topic, partition, timestamp_ms) = (sent.topic.clone(), sent.partition, sent.timestamp_ms);
        drop(scratch);
        machine.code.sent(&topic, partition, timestamp_ms)
    }
}

/// Logs a generator that failed while it was closed: its event fails in any case.
fn released<V>(program: &Program, of: SiteId, called: &Called<V>) {
    if let Called::Failed(fault) = called {
        let Parts { kind, message, .. } = &**fault;
        let site = &program.sites[of.0];
        let (agent, operation) = (&*site.agent_name, &*site.operation);
        warn!(agent, operation, kind, error = %message, "a generator failed while it was closed");
    }
}

fn timed<R, C: Code>(machine: &mut Machine<'_, C>, site: SiteId, call: impl FnOnce(&mut Machine<'_, C>) -> R) -> R {
    if machine.sample == 0 {
        return call(machine);
    }
    // Two looks at the clock take as long as a short function, so only few calls are measured.
    let before = machine.clock.now();
    let result = call(machine);
    let time: Duration = (machine.clock.now() - before) * machine.sample;
    machine.counters.steps[machine.program.sites[site.0].counter].time += time;
    result
}
