//! A reader's plan as instructions: what a stage walks through for every value.
//!
//! Lowering is the first half of rendering. Each agent of the reader becomes a straight run of instructions:
//! its pipeline, its topic outputs, its channels, its sinks. Every question that would be asked of each event
//! (which policy, which function, where to go if a predicate says no) is answered here once, so that the walk
//! only follows.

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

/// The facts about a site.
#[derive(Clone, Debug)]
pub struct Site {
    /// The agent.
    pub agent: AgentId,
    /// Its name.
    pub agent_name: Rc<str>,
    /// The operation's name, as failure records have it.
    pub operation: String,
    /// `file:line` in the spec.
    pub at: String,
    /// The policy for an event that fails here.
    pub on_error: OnError,
    /// Its row in the table of counters.
    pub counter: usize,
    /// The longest time of one call here.
    pub limit: Duration,
}

/// The use of a call's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The result replaces the value; a generator's values go on one by one.
    Replace,
    /// A truthy result lets the value go on.
    Keep,
    /// A falsy result jumps to this address, past the output.
    Unless(Address),
    /// The result is the output's topic.
    Topic,
    /// The result is the output's key.
    Key,
    /// The result is the value that the output sends.
    Value,
    /// The result is the output's partition.
    Partition,
    /// The result is the output's headers.
    Headers,
    /// The result is dropped.
    Discard,
}

/// One step of a walk.
#[derive(Clone, Debug)]
pub enum Instruction {
    /// Counts a value that reaches a site.
    Enter(SiteId),
    /// Calls a function of the user.
    Call {
        /// The site of the call.
        site: SiteId,
        /// The agent that the function belongs to.
        agent: AgentId,
        /// The function.
        function: FunctionId,
        /// Tables by keyword.
        tables: Rc<[TableParameter]>,
        /// The use of the result.
        then: Then,
        /// The function gets the output's value instead of the walk's (a sink behind a value selector).
        of_draft: bool,
    },
    /// Encodes and stages the output that the calls before it have drafted.
    Send {
        /// The site of the output.
        site: SiteId,
        /// The topic and the codecs.
        target: Rc<Target>,
    },
    /// Replaces the value by the metadata of the record just staged: `topicSend` with `ack` passes that on.
    Metadata(SiteId),
    /// Replaces the value by nothing.
    Nothing,
    /// Goes on at another address.
    Jump(Address),
    /// Gives the value to every agent behind a channel before it goes on here.
    Fork {
        /// The site of the output.
        site: SiteId,
        /// The first instruction of each of those agents, in agent-name order.
        entries: Rc<[Address]>,
    },
    /// Puts off what follows until everything else of the event is encoded.
    Defer,
    /// Ends the value's way.
    End,
}

/// The destination of an output: topic and codecs.
#[derive(Clone, Debug)]
pub struct Target {
    /// The topic; `None`: the name selector's result.
    pub topic: Option<TopicName>,
    /// The codec that writes keys.
    pub key_codec: Codec,
    /// The codec that writes values.
    pub value_codec: Codec,
    /// True if the event's own bytes are sent, unchanged.
    pub forwards: bool,
}

/// The instructions of a reader.
#[derive(Debug)]
pub struct Program {
    /// All agents' runs; the first agent's begins at 0.
    pub instructions: Vec<Instruction>,
    /// The places that failures and counters belong to.
    pub sites: Vec<Site>,
    /// The site of decoding, under the first agent's policy.
    pub decoding: SiteId,
    /// True if some instruction looks at the value: then it must be decoded, not only validated.
    pub needs_value: bool,
    /// The codec that reads keys.
    pub key_codec: Codec,
    /// The codec that reads values.
    pub value_codec: Codec,
    /// `file:line` of the key's serializer in the spec.
    pub key_at: Option<String>,
    /// `file:line` of the value's.
    pub value_at: Option<String>,
}

/// Lowers a reader. `first_counter` is the number of its first row in the table of counters.
pub fn lower(plan: &Plan, reader: ReaderId, policies: &Policies, first_counter: usize) -> Program {
    let source = &plan[reader];
    let at = |place: Place| format!("{}:{}", plan[place.file], place.line);
    let program = Program {
        instructions: Vec::new(),
        sites: Vec::new(),
        decoding: SiteId(0),
        needs_value: false,
        key_codec: source.key_codec.clone(),
        value_codec: source.value_codec.clone(),
        key_at: source.key_place.map(at),
        value_at: source.value_place.map(at),
    };
    let mut lowering = Lowering { plan, policies, first_counter, program, entries: Vec::new() };
    let first = &plan[source.agents[0]];
    // Decoding comes before all agents of the reader: the first one answers for it.
    lowering.program.decoding = lowering.site(source.agents[0], "decode".to_owned(), first.place);
    for &agent in &source.agents {
        lowering.agent(agent);
    }
    lowering.link_channels();
    let program = lowering.program;
    // A channel's readers may call functions, whatever this agent does: a fork counts as a look.
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
    /// The first instruction of each agent.
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
            self.patch_jump(veto);
        }
        self.channels(id, agent);
        self.sinks(id, agent);
        self.emit(Instruction::End);
    }

    /// Emits predicate, selectors and the send, in the order of the semantics page, section 6. Returns the
    /// address of the predicate's call, which must still learn where the output ends.
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
            self.patch_jump(veto);
            return;
        }
        // Behind a predicate that said no there is no record: that way meets no metadata.
        if output.ack {
            self.emit(Instruction::Metadata(site));
            let past = self.emit(Instruction::Jump(0));
            self.patch_jump(veto);
            self.emit(Instruction::Nothing);
            let here = self.here();
            self.program.instructions[past] = Instruction::Jump(here);
        } else {
            self.patch_jump(veto);
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
            // A placeholder: the entries are known once all agents are lowered ([`Lowering::link_channels`]).
            let entries = Rc::new([output.channel.index()]);
            self.emit(Instruction::Fork { site, entries });
            self.patch_jump(veto);
        }
    }

    fn sinks(&mut self, id: AgentId, agent: &Agent) {
        if agent.sinks.is_empty() {
            return;
        }
        // One `Defer` for all: sinks of an agent run in their order, behind all outputs of the event.
        self.emit(Instruction::Defer);
        for sink in &agent.sinks {
            let site = self.site(id, format!("sink:{}", sink.name), sink.place);
            self.emit(Instruction::Enter(site));
            let veto = self.predicate(site, sink.predicate);
            if let Some(function) = sink.value_selector {
                self.call(site, function, &[], Then::Value);
            }
            self.call(site, sink.function, &[], Then::Discard);
            self.patch_jump(veto);
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

    /// Makes a falsy result of the predicate jump to the instruction that comes next.
    fn patch_jump(&mut self, veto: Option<Address>) {
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

    /// A site outside the steps: the agent's policy applies.
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
