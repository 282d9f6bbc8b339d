//! Names at the start what a plan can say and this executor cannot run yet: it is never dropped in silence.
//!
//! The compiler takes everything that the format can say. So the gap between the two is listed here, in one
//! place, and shrinks. Such a plan is refused as a whole, before user code is loaded.

use kaspr_ir::plan::{Action, AgentId, Codec, OnError, Place, Plan, Policies, Topics};

/// Something in a plan that cannot be run yet. One line on the terminal, behind `error:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The thing, in the user's words.
    pub what: String,
    /// `file:line` in the spec.
    ///
    /// With the column.
    pub at: String,
}

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is not supported yet\n  --> {}", self.what, self.at)
    }
}

/// Everything in the plan that cannot be run yet, or not with these settings. In the order of the plan:
/// readers, agents with their steps and outputs, tables. Empty: it can run. `policies` are those of the
/// settings it will run with, since a dead letter's topic may come from there.
pub fn unsupported(plan: &Plan, policies: &Policies) -> Vec<Unsupported> {
    let mut found = Finder { plan, found: Vec::new() };
    for reader in &plan.readers {
        let place = plan[reader.agents[0]].place;
        let topics = match &reader.topics {
            Topics::Names(names) => names.join(", "),
            Topics::Pattern(pattern) => pattern.clone(),
        };
        found.codec(&reader.key_codec, &format!("of keys of \"{topics}\""), place);
        found.codec(&reader.value_codec, &format!("of values of \"{topics}\""), place);
    }
    for (id, agent) in (0..).map(AgentId).zip(&plan.agents) {
        found.policy(&policies.of_agent(id).on_error, agent.place);
        for (step, policy) in agent.steps.iter().zip(policies.of_steps(id)) {
            // A step without a policy of its own has its agent's, which is looked at above: one line is
            // enough.
            if step.on_error.is_some() {
                found.policy(&policy.on_error, step.place);
            }
            if let Action::TopicSend { output, .. } = &step.action {
                found.codec(&output.key_codec, "of an output's keys", output.place);
                found.codec(&output.value_codec, "of an output's values", output.place);
            }
        }
        for output in &agent.outputs {
            found.codec(&output.key_codec, "of an output's keys", output.place);
            found.codec(&output.value_codec, "of an output's values", output.place);
        }
    }
    for table in &plan.tables {
        found.codec(&table.key_codec, &format!("of keys of the table \"{}\"", table.name), table.place);
        found.codec(&table.value_codec, &format!("of values of the table \"{}\"", table.name), table.place);
        if table.window.is_some() {
            found.add(&format!("the window of the table \"{}\"", table.name), table.place);
        }
    }
    found.found
}

/// Collects, so that all of it is shown at once.
struct Finder<'a> {
    plan: &'a Plan,
    found: Vec<Unsupported>,
}

impl Finder<'_> {
    fn add(&mut self, what: &str, place: Place) {
        let at = format!("{}:{}:{}", self.plan[place.file], place.line, place.column);
        self.found.push(Unsupported { what: what.to_owned(), at });
    }

    /// Notes a serializer that the executor has no code for: `pickle`, `yaml` and chains.
    fn codec(&mut self, codec: &Codec, of: &str, place: Place) {
        if !matches!(codec, Codec::Raw | Codec::Json | Codec::Binary) {
            self.add(&format!("the serializer \"{codec}\" {of}"), place);
        }
    }

    /// A dead letter needs a topic from somewhere. One that is tried first and ends in a dead letter counts
    /// too.
    fn policy(&mut self, policy: &OnError, place: Place) {
        if let OnError::DeadLetter { topic: None, .. } = policy.last_resort() {
            self.add("\"deadLetter\" without a topic (name it in onError, or with --dead-letter-topic)", place);
        }
    }
}
