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
const CHANNEL: &str = "put a topic between the agents, or mount the specs into the pod yourself";
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
        if let Some(first) = agent.channels.first() {
            self.dropped("output.channels", &first.at, CHANNEL);
        }
        if let Some(first) = agent.sinks.first() {
            self.dropped("output.sinks", &first.at, SINK);
        }
    }

    /// Warns of one field.
    fn dropped(&mut self, field: &str, at: &At, hint: &str) {
        let message = format!("the operator in use today drops \"spec.{field}\"");
        self.fault(Diagnostic::new(Code::K0602, message, at.head()).hint(hint));
    }
}
