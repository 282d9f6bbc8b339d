//! Fields that the Kubernetes operator in use today does not know and so drops from a spec before
//! the pod sees it; most have a setting that takes their place.
//!
//! Only with `--target operator`. Nothing fails when the operator drops a field: the agent starts and runs, with
//! another policy than its spec says. That is worth a warning (K0602) at each field.

use super::Checker;
use crate::ast;
use crate::diagnostics::{Code, Diagnostic};
use crate::source::At;

// Hints name what reaches the pod all the same: variables of its environment, or specs mounted by hand.
const ON_ERROR: &str =
    "set it for the whole app: the environment variable K_ON_ERROR, an action's name or the mapping as JSON";
const TIMEOUT: &str = "set it for the whole app: the environment variable K_TIMEOUT, for example 30s";
const CONCURRENCY: &str = "set it for the whole app: the environment variable K_CONCURRENCY, for example 10";
const CHANNEL: &str = "put a topic between the agents, or mount the specs into the pod yourself";
const DECLARE: &str = "create the topic before the app starts, or let the agent that writes it declare it";
const CONFIG: &str = "create the topic with these settings before the app starts: the API server drops the keys";
const OPTIONS: &str = "remove it: it has no effect on this executor either";
const SINK: &str = "write to the sink from an operation, or mount the specs into the pod yourself";

impl Checker<'_> {
    /// Warns of every field of an agent that would not arrive.
    ///
    /// Policies and timeouts are named one by one, since each needs its own place; channels and sinks once.
    pub(super) fn check_for_operator(&mut self, agent: &ast::Agent) {
        let policies =
            agent.operations.iter().map(|operation| ("processors.operations[].onError", &operation.on_error));
        for (field, policy) in std::iter::once(("onError", &agent.on_error)).chain(policies) {
            policy.iter().for_each(|policy| self.dropped(field, &policy.at, ON_ERROR));
        }
        let timeouts = agent.operations.iter().map(|operation| ("processors.operations[].timeout", &operation.timeout));
        for (field, timeout) in std::iter::once(("timeout", &agent.timeout)).chain(timeouts) {
            timeout.iter().for_each(|timeout| self.dropped(field, &timeout.at, TIMEOUT));
        }
        if let Some(concurrency) = &agent.concurrency {
            self.dropped("concurrency", &concurrency.at, CONCURRENCY);
        }
        if let Some(first) = agent.channels.first() {
            self.dropped("output.channels", &first.at, CHANNEL);
        }
        if let Some(first) = agent.sinks.first() {
            self.dropped("output.sinks", &first.at, SINK);
        }
        if let Some(topic) = agent.input.as_ref().and_then(|input| input.topic.as_ref()) {
            topic
                .settings
                .creation
                .declare
                .iter()
                .for_each(|declare| self.dropped("input.topic.declare", &declare.at, DECLARE));
            self.dropped_keys("input.topic.config", &topic.settings.creation.config);
        }
        for output in &agent.outputs {
            self.dropped_keys("output.topics[].config", &output.settings.creation.config);
        }
        for output in agent.operations.iter().filter_map(|operation| operation.send.as_ref()) {
            self.dropped_keys("processors.operations[].topicSend.config", &output.settings.creation.config);
        }
    }

    /// The same of a table.
    pub(super) fn check_table_for_operator(&mut self, table: &ast::Table) {
        self.dropped_keys("extraTopicConfigs", &table.config);
        table.options.iter().for_each(|first| self.dropped("options", first, OPTIONS));
    }

    /// Warns of a mapping whose keys the API server drops: its schema names none.
    fn dropped_keys(&mut self, field: &str, config: &[(ast::Text, ast::Text)]) {
        if let Some((first, _)) = config.first() {
            self.dropped(field, &first.at, CONFIG);
        }
    }

    /// Warns of one field.
    fn dropped(&mut self, field: &str, at: &At, hint: &str) {
        let message = format!("the operator in use today drops \"spec.{field}\"");
        self.fault(Diagnostic::new(Code::K0602, message, at.head()).hint(hint));
    }
}
