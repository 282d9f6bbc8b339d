//! Plan to timely: one straight walk over the readers.
//!
//! Every reader becomes `source → [batch window] → stage`; the effects of all stages meet in one place, where
//! they are staged by epoch, and a probe shows how far the frontier has come. An operator keeps one
//! capability of its own that follows its input frontier, so that what waits inside can be sent when its wait
//! is over and no epoch stays open meanwhile. Every epoch moves the frontier, so every operator gets its turn
//! in every epoch without being woken.

pub mod window;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use kaspr_ir::plan::{BatchScope, OnError, Plan, Policies, ReaderId};
use timely::communication::Allocator;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::{Capability, Concatenate, Input, Probe};
use timely::dataflow::{InputHandleVec, ProbeHandle, Scope, StreamVec};
use timely::progress::frontier::MutableAntichain;
use timely::worker::Worker;

use crate::code::Code;
use crate::config::Bounds;
use crate::dataflow::window::Window;
use crate::event::effects::{Effects, Epoch, StagedEpochs};
use crate::event::failure::FailureRecord;
use crate::event::frame::Given;
use crate::guard::Row;
use crate::stage::Stage;
use crate::stage::lane::InFlight;
use crate::stage::program::{Program, lower};
use crate::stage::shared::Shared;
use crate::status::counters::StepCounters;

/// A reader as it runs.
pub struct ReaderRun<C: Code> {
    /// The reader in the plan.
    pub id: ReaderId,
    /// Its agent's name.
    pub name: String,
    /// The dataflow input that its events enter through.
    pub input: InputHandleVec<Epoch, Given>,
    /// True if events came for it since the last epoch.
    pub was_given: bool,
    /// Its windows, if it has `take`.
    pub window: Option<Rc<RefCell<Window<C>>>>,
    /// Its stage.
    pub stage: Rc<RefCell<Stage<C>>>,
}

/// The dataflow of an app.
pub struct Dataflow<C: Code> {
    /// Its readers, in the plan's order.
    pub readers: Vec<ReaderRun<C>>,
    /// Effects that have been staged.
    pub staged: StagedEpochs,
    /// True for one epoch: windows hand over what they hold.
    pub hand_over: Rc<Cell<bool>>,
    timely: Worker,
    /// The probe behind all stages: it shows how far the frontier has come.
    probe: ProbeHandle<Epoch>,
    /// The epoch that runs, or ran last.
    epoch: Epoch,
}

impl<C: Code> Dataflow<C> {
    /// Builds the dataflow of a plan. The counters get one row per site.
    pub fn start(plan: &Plan, policies: &Policies, bounds: &Bounds, shared: &Rc<Shared<C>>) -> Dataflow<C> {
        let mut timely = Worker::new(timely::WorkerConfig::default(), Allocator::Thread(Default::default()), None);
        let staged: StagedEpochs = Rc::default();
        let hand_over = Rc::new(Cell::new(false));
        let collect = staged.clone();
        let (readers, probe) = timely.dataflow::<Epoch, _, _>(|scope| {
            let mut readers = Vec::new();
            let mut effects = Vec::new();
            for number in 0..plan.readers.len() {
                let id = ReaderId(u32::try_from(number).expect("a plan counts readers in u32"));
                // Lowered before `count` adds the program's rows: the length of the table now is the number of its
                // first row.
                let program = Rc::new(lower(plan, id, policies, shared.counters.borrow().steps.len()));
                count(&program, shared);
                shared.watch.name_reader(id, &plan[plan[id].agents[0]].name);
                let (reader, stream) = reader(scope, plan, id, program, policies, bounds, shared, &hand_over);
                readers.push(reader);
                effects.push(stream);
            }
            let probe = ProbeHandle::new();
            let all = scope.concatenate(effects);
            stage_by_epoch(all, collect).probe_with(&probe);
            (readers, probe)
        });
        Dataflow { readers, staged, hand_over, timely, probe, epoch: 0 }
    }

    /// Opens the next epoch: events given until now belong to the one before.
    pub fn next_epoch(&mut self) -> Epoch {
        self.epoch += 1;
        self.epoch
    }

    /// Counts the readers that have something to run. Events given are counted once.
    pub fn count_busy(&mut self) -> u32 {
        let has_work =
            |reader: &mut ReaderRun<C>| std::mem::take(&mut reader.was_given) || reader.stage.borrow().is_busy();
        self.readers.iter_mut().map(|reader| u32::from(has_work(reader))).sum()
    }

    /// Steps until the frontier has passed all epochs before this one: everything handed over has run.
    pub fn run(&mut self) {
        for reader in &mut self.readers {
            reader.input.advance_to(self.epoch);
        }
        // Each step lets every operator have its turn once; a window and its stage need more than one.
        while self.probe.less_than(&self.epoch) {
            self.timely.step();
        }
    }

    /// The failure for which a reader has halted.
    pub fn halted(&self) -> Option<FailureRecord> {
        self.readers.iter().find_map(|reader| reader.stage.borrow().halted().cloned())
    }

    /// Counts the events before which readers have halted.
    pub fn count_halted(&self) {
        self.readers.iter().for_each(|reader| reader.stage.borrow_mut().count_halted());
    }
}

#[allow(clippy::too_many_arguments, reason = "the parts of one reader, named once")]
fn reader<'scope, C: Code>(
    scope: Scope<'scope, Epoch>,
    plan: &Plan,
    id: ReaderId,
    program: Rc<Program>,
    policies: &Policies,
    bounds: &Bounds,
    shared: &Rc<Shared<C>>,
    hand_over: &Rc<Cell<bool>>,
) -> (ReaderRun<C>, StreamVec<'scope, Epoch, Effects>) {
    let source = &plan[id];
    let name = plan[source.agents[0]].name.clone();
    let (input, mut stream) = scope.new_input::<Vec<Given>>();
    let scope_of_batches = source.window.as_ref().map(|window| batch_scope(window.scope, &program, policies));
    let window = source.window.as_ref().zip(scope_of_batches).map(|(window, scope)| {
        let codec = source.value_codec.clone();
        Rc::new(RefCell::new(Window::new(window, scope, codec, bounds.window_bytes_max, shared.clone())))
    });
    if let Some(window) = &window {
        stream = window_operator(stream, &name, window.clone(), hand_over.clone());
    }
    let units_max = usize::try_from(policies.in_flight(id).get()).unwrap_or(1);
    let in_flight = InFlight { units_max, bytes_max: bounds.overlap_bytes_max };
    // Only where units run ahead: elsewhere a write has no reader whose copy could be old.
    if in_flight.overlaps() {
        shared.tables.borrow_mut().keep_versions();
    }
    let stage = Stage::new(plan, id, program, scope_of_batches, in_flight, shared.clone());
    let stage = Rc::new(RefCell::new(stage));
    let effects = stage_operator(stream, &name, stage.clone());
    (ReaderRun { id, name, input, was_given: false, window, stage }, effects)
}

/// Decides the batch scope that the plan leaves to the app's settings: with `retry`, batches are per
/// partition.
fn batch_scope(scope: BatchScope, program: &Program, policies: &Policies) -> BatchScope {
    let retries = |policy: &OnError| matches!(policy, OnError::Retry { .. });
    match scope {
        BatchScope::MixedUnlessRetry if retries(&policies.of_app().on_error) => BatchScope::Partition,
        BatchScope::MixedUnlessRetry => BatchScope::Mixed,
        BatchScope::Mixed if program.sites.iter().any(|site| retries(&site.on_error)) => BatchScope::Partition,
        decided => decided,
    }
}

fn count<C: Code>(program: &Program, shared: &Shared<C>) {
    let rows = program.sites.iter().map(|site| StepCounters {
        agent: site.agent_name.to_string(),
        operation: site.operation.clone(),
        ..StepCounters::default()
    });
    shared.counters.borrow_mut().steps.extend(rows);
    shared.watch.name_rows(program.sites.iter().map(|site| Row {
        agent: site.agent_name.to_string(),
        operation: site.operation.clone(),
        limit: site.limit,
    }));
}

/// Makes an operator with one input, one output and a capability that follows its input frontier. `logic`
/// takes the containers that came and returns what to send now.
fn following_operator<'scope, I, O>(
    stream: StreamVec<'scope, Epoch, I>,
    name: String,
    mut logic: impl FnMut(&mut Vec<I>) -> Vec<O> + 'static,
) -> StreamVec<'scope, Epoch, O>
where
    I: Clone + 'static,
    O: Clone + 'static,
{
    let mut builder = OperatorBuilder::new(name, stream.scope());
    let mut input = builder.new_input(stream, Pipeline);
    let (output, out) = builder.new_output::<Vec<O>>();
    let mut output = OutputBuilder::from(output);
    builder.build(move |mut capabilities| {
        let mut own = capabilities.pop();
        let mut came = Vec::new();
        move |frontiers: &[MutableAntichain<Epoch>]| {
            // The messages' own capabilities are let go: what leaves may have waited here, so it goes out under the
            // operator's.
            input.for_each(|_, units| came.append(units));
            let mut sent = logic(&mut came);
            if let (Some(own), false) = (&own, sent.is_empty()) {
                output.activate().session(own).give_container(&mut sent);
            }
            follow(&mut own, frontiers);
        }
    });
    out
}

fn follow(own: &mut Option<Capability<Epoch>>, frontiers: &[MutableAntichain<Epoch>]) {
    match frontiers[0].frontier().first() {
        Some(time) => {
            if let Some(own) = own {
                // An older capability would keep the frontier from passing, and the worker from committing.
                own.downgrade(time);
            }
        }
        None => *own = None,
    }
}

fn window_operator<'scope, C: Code>(
    stream: StreamVec<'scope, Epoch, Given>,
    name: &str,
    window: Rc<RefCell<Window<C>>>,
    hand_over: Rc<Cell<bool>>,
) -> StreamVec<'scope, Epoch, Given> {
    following_operator(stream, format!("window of {name}"), move |came| {
        let mut window = window.borrow_mut();
        let mut batches = Vec::new();
        for event in came.drain(..).flat_map(Given::into_events) {
            // Before windows that are due: an event that comes in the same epoch still joins its batch.
            batches.extend(window.accept(event));
        }
        batches.extend(window.take_due());
        if hand_over.get() {
            batches.extend(window.take_all());
        }
        batches.into_iter().map(Given::Unit).collect()
    })
}

fn stage_operator<'scope, C: Code>(
    stream: StreamVec<'scope, Epoch, Given>,
    name: &str,
    stage: Rc<RefCell<Stage<C>>>,
) -> StreamVec<'scope, Epoch, Effects> {
    following_operator(stream, format!("stage of {name}"), move |came| {
        let mut stage = stage.borrow_mut();
        for given in came.drain(..) {
            stage.accept(given);
        }
        stage.run();
        let effects = stage.take_effects();
        // An idle stage sends nothing: an empty message would wake the collector in every epoch.
        if effects.is_empty() { Vec::new() } else { vec![effects] }
    })
}

/// Keeps effects by the epoch that they carry. Its output carries nothing but the frontier.
fn stage_by_epoch<'scope>(
    stream: StreamVec<'scope, Epoch, Effects>,
    staged: StagedEpochs,
) -> StreamVec<'scope, Epoch, ()> {
    let mut builder = OperatorBuilder::new("stage effects".to_owned(), stream.scope());
    let mut input = builder.new_input(stream, Pipeline);
    let (_, out) = builder.new_output::<Vec<()>>();
    builder.build(move |_| {
        move |_: &[MutableAntichain<Epoch>]| {
            input.for_each(|capability, effects| {
                let epoch = *capability.stamp().expect_singleton();
                // Kept apart by epoch: the worker takes them once the frontier has passed it, never half of one.
                staged.borrow_mut().entry(epoch).or_default().append(effects);
            });
        }
    });
    out
}
