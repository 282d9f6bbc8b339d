//! A reader's plan as instructions: what a stage walks through for every value.
//!
//! Lowering is the first half of rendering. Each agent of the reader becomes a straight run of
//! instructions: its pipeline, its topic outputs, its channels, its sinks. Whatever would be asked
//! of every event (which policy, which function, where to go when a predicate says no) is decided
//! here once, so that the walk only follows.

use std::rc::Rc;
use std::time::Duration;

use kaspr_ir::plan::{
    Action, Agent, AgentId, ChannelId, Codec, FunctionId, OnError, Place, Plan, Policies, Policy, ReaderId,
    TableParameter, TopicChoice, TopicOutput,
};

use crate::event::message::TopicName;

/// A place in a program.
pub type Address = usize;

/// The place of a failure and a counter: an operation, output, channel or sink of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteId(pub usize);

/// What is known of a site.
#[derive(Clone, Debug)]
pub struct Site {
    /// The agent.
    pub agent: AgentId,
    /// Its name.
    pub agent_name: Rc<str>,
    /// As failure records name it.
    pub operation: String,
    /// `file:line` in the spec.
    pub at: String,
    /// What happens to an event that fails here.
    pub on_error: OnError,
    /// Its row in the table of counters.
    pub counter: usize,
    /// The longest time of one call here.
    pub limit: Duration,
}

/// What to do with the result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is the value from now on; a generator's values go on one by one.
    Replace,
    /// Truth lets the value go on.
    Keep,
    /// A lie leads past the output.
    Unless(Address),
    /// It is the output's topic.
    Topic,
    /// It is the output's key.
    Key,
    /// It is what the output sends.
    Value,
    /// It is the output's partition.
    Partition,
    /// It is the output's headers.
    Headers,
    /// It is of no use.
    Discard,
}

/// One step of a walk.
#[derive(Clone, Debug)]
pub enum Instruction {
    /// Counts a value that reaches a site.
    Enter(SiteId),
    /// Calls a function of the user.
    Call {
        /// Whose call it is.
        site: SiteId,
        /// The agent whose function it is.
        agent: AgentId,
        /// The function.
        function: FunctionId,
        /// Tables by keyword.
        tables: Rc<[TableParameter]>,
        /// What to do with the result.
        then: Then,
        /// The function sees what the output sends instead of the value (a sink behind a
        /// value selector).
        of_draft: bool,
    },
    /// Encodes and stages the output that the calls before it have drafted.
    Send {
        /// Whose output it is.
        site: SiteId,
        /// Where and how.
        target: Rc<Target>,
    },
    /// The value is what `topicSend` with `ack` passes on: the metadata of the record just staged.
    Metadata(SiteId),
    /// The value is nothing from now on.
    Nothing,
    /// Goes on elsewhere.
    Jump(Address),
    /// Gives the value to every agent behind a channel before it goes on here.
    Fork {
        /// Whose output it is.
        site: SiteId,
        /// Where those agents begin, in agent-name order.
        entries: Rc<[Address]>,
    },
    /// What follows is done when all else of the event is encoded.
    Defer,
    /// The value has arrived.
    End,
}

/// Where an output sends to, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// `None`: the name selector's result.
    pub topic: Option<TopicName>,
    /// How keys are written.
    pub key_codec: Codec,
    /// How values are written.
    pub value_codec: Codec,
    /// The event's own bytes leave.
    pub forwards: bool,
}

/// The instructions of a reader.
#[derive(Debug)]
pub struct Program {
    /// All agents' runs; the first agent's begins at 0.
    pub instructions: Vec<Instruction>,
    /// Where failures and counters belong.
    pub sites: Vec<Site>,
    /// The site of decoding, under the first agent's policy.
    pub decoding: SiteId,
    /// Some instruction looks at the value: it must be decoded, not only validated.
    pub needs_value: bool,
    /// How keys are read.
    pub key_codec: Codec,
    /// How values are read.
    pub value_codec: Codec,
}

/// Lowers a reader. `first_counter` is the number of its first row in the table of counters.
pub fn lower(plan: &Plan, reader: ReaderId, policies: &Policies, first_counter: usize) -> Program {
    let source = &plan[reader];
    let program = Program {
        instructions: Vec::new(),
        sites: Vec::new(),
        decoding: SiteId(0),
        needs_value: false,
        key_codec: source.key_codec.clone(),
        value_codec: source.value_codec.clone(),
    };
    let mut lowering = Lowering { plan, policies, first_counter, program, entries: Vec::new() };
    let first = &plan[source.agents[0]];
    lowering.program.decoding = lowering.site(source.agents[0], "decode".to_owned(), first.place);
    for &agent in &source.agents {
        lowering.agent(agent);
    }
    lowering.link_channels();
    let program = lowering.program;
    let needs_value = program.instructions.iter().any(|instruction| match instruction {
        Instruction::Call { .. } | Instruction::Fork { .. } => true,
        Instruction::Send { target, .. } => !target.forwards,
        _ => false,
    });
    Program { needs_value, ..program }
}

struct Lowering<'a> {
    plan: &'a Plan,
    policies: &'a Policies,
    first_counter: usize,
    program: Program,
    /// Where each agent begins, and the channel that it reads.
    entries: Vec<(AgentId, Address)>,
}

impl Lowering<'_> {
    fn agent(&mut self, id: AgentId) {
        let agent = &self.plan[id];
        self.entries.push((id, self.here()));
        for (step, policy) in agent.steps.iter().zip(self.policies.of_steps(id)) {
            let site = self.site_with(id, step.operation.clone(), step.place, policy);
            self.emit(Instruction::Enter(site));
            match &step.action {
                Action::Map(function) => self.call(site, *function, &step.tables, Then::Replace),
                Action::Filter(function) => self.call(site, *function, &step.tables, Then::Keep),
                Action::TopicSend { output, pass_through } => self.topic_send(site, output, *pass_through),
            }
        }
        for output in &agent.outputs {
            let name = match &output.topic {
                TopicChoice::Name(name) => format!("output:{name}"),
                TopicChoice::Selector(function) => {
                    format!("output:{}()", self.plan[*function].name)
                }
            };
            let site = self.site(id, name, output.place);
            self.emit(Instruction::Enter(site));
            let veto = self.output(site, output);
            self.land(veto);
        }
        self.channels(id, agent);
        self.sinks(id, agent);
        self.emit(Instruction::End);
    }

    /// Predicate, selectors and the send, in the order of the semantics page, section 6. Gives the
    /// call whose lie leads past the output.
    fn output(&mut self, site: SiteId, output: &TopicOutput) -> Option<Address> {
        let veto = self.predicate(site, output.predicate);
        if let TopicChoice::Selector(function) = output.topic {
            self.call(site, function, &[], Then::Topic);
        }
        let selectors = [
            (output.key_selector, Then::Key),
            (output.value_selector, Then::Value),
            (output.partition_selector, Then::Partition),
            (output.headers_selector, Then::Headers),
        ];
        for (selector, then) in selectors {
            if let Some(function) = selector {
                self.call(site, function, &[], then);
            }
        }
        let target = Target {
            topic: match &output.topic {
                TopicChoice::Name(name) => Some(name.as_str().into()),
                TopicChoice::Selector(_) => None,
            },
            key_codec: output.key_codec.clone(),
            value_codec: output.value_codec.clone(),
            forwards: output.forwards,
        };
        self.emit(Instruction::Send { site, target: Rc::new(target) });
        veto
    }

    fn topic_send(&mut self, site: SiteId, output: &TopicOutput, pass_through: bool) {
        let veto = self.output(site, output);
        if pass_through {
            self.land(veto);
            return;
        }
        if output.ack {
            self.emit(Instruction::Metadata(site));
            let past = self.emit(Instruction::Jump(0));
            self.land(veto);
            self.emit(Instruction::Nothing);
            let here = self.here();
            self.program.instructions[past] = Instruction::Jump(here);
        } else {
            self.land(veto);
            self.emit(Instruction::Nothing);
        }
    }

    fn channels(&mut self, id: AgentId, agent: &Agent) {
        for output in &agent.channel_outputs {
            let name = format!("channel:{}", self.plan[output.channel].name);
            let site = self.site(id, name, output.place);
            self.emit(Instruction::Enter(site));
            let veto = self.predicate(site, output.predicate);
            let selectors = [
                (output.key_selector, Then::Key),
                (output.value_selector, Then::Value),
                (output.headers_selector, Then::Headers),
            ];
            for (selector, then) in selectors {
                if let Some(function) = selector {
                    self.call(site, function, &[], then);
                }
            }
            // The entries are known when all agents are lowered.
            let entries = Rc::new([output.channel.index()]);
            self.emit(Instruction::Fork { site, entries });
            self.land(veto);
        }
    }

    fn sinks(&mut self, id: AgentId, agent: &Agent) {
        if agent.sinks.is_empty() {
            return;
        }
        self.emit(Instruction::Defer);
        for sink in &agent.sinks {
            let site = self.site(id, format!("sink:{}", sink.name), sink.place);
            self.emit(Instruction::Enter(site));
            let veto = self.predicate(site, sink.predicate);
            if let Some(function) = sink.value_selector {
                self.call(site, function, &[], Then::Value);
            }
            self.call(site, sink.function, &[], Then::Discard);
            self.land(veto);
        }
    }

    fn predicate(&mut self, site: SiteId, predicate: Option<FunctionId>) -> Option<Address> {
        predicate.map(|function| {
            let here = self.here();
            self.call(site, function, &[], Then::Unless(0));
            here
        })
    }

    fn call(&mut self, site: SiteId, function: FunctionId, tables: &[TableParameter], then: Then) {
        let agent = self.program.sites[site.0].agent;
        let of_draft = then == Then::Discard;
        self.emit(Instruction::Call { site, agent, function, tables: tables.into(), then, of_draft });
    }

    /// Lets a veto lead to the instruction that comes next.
    fn land(&mut self, veto: Option<Address>) {
        let here = self.here();
        if let Some(Instruction::Call { then, .. }) = veto.map(|at| &mut self.program.instructions[at]) {
            *then = Then::Unless(here);
        }
    }

    fn link_channels(&mut self) {
        let begins = |channel: ChannelId| -> Rc<[Address]> {
            let readers = &self.plan[channel].readers;
            readers.iter().filter_map(|reader| self.entries.iter().find(|(id, _)| id == reader)).map(|e| e.1).collect()
        };
        for instruction in &mut self.program.instructions {
            if let Instruction::Fork { entries, .. } = instruction {
                let channel = u32::try_from(entries[0]).expect("it came from a channel's number");
                *entries = begins(ChannelId(channel));
            }
        }
    }

    /// A site outside the steps: the agent's policy counts.
    fn site(&mut self, agent: AgentId, operation: String, place: Place) -> SiteId {
        self.site_with(agent, operation, place, self.policies.of_agent(agent))
    }

    fn site_with(&mut self, agent: AgentId, operation: String, place: Place, policy: &Policy) -> SiteId {
        let site = Site {
            agent,
            agent_name: self.plan[agent].name.as_str().into(),
            operation,
            at: format!("{}:{}", self.plan[place.file], place.line),
            on_error: policy.on_error.clone(),
            counter: self.first_counter + self.program.sites.len(),
            limit: policy.limit,
        };
        self.program.sites.push(site);
        SiteId(self.program.sites.len() - 1)
    }

    fn here(&self) -> Address {
        self.program.instructions.len()
    }

    fn emit(&mut self, instruction: Instruction) -> Address {
        self.program.instructions.push(instruction);
        self.here() - 1
    }
}
