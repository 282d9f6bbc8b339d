//! Policies: `onError` of agents and operations.
//!
//! ```text
//! onError: {action: retry, attempts: 5, backoff: {initial: 1s}, then: deadLetter, topic: dead}
//!   ⇒  Retry { attempts: 5, backoff: Backoff { initial_ms: 1000, … defaults },
//!              then: DeadLetter { topic: "dead" } }
//! ```
//!
//! A policy that is not written stays `None`, because the app's setting counts then, and that is known at the start.
//! The setting itself is read by `OnError::from_setting`, with the same defaults and bounds.

use kaspr_ir::plan::{Backoff, Creation, OnError};

use super::Checker;
use super::values::creation;
use crate::ast::{self, Text};
use crate::diagnostics::{Code, Diagnostic};
use crate::source::{At, Spanned};

const ACTIONS: [&str; 4] = ["skip", "retry", "deadLetter", "halt"];

impl Checker<'_> {
    /// The policy of an agent or an operation; `None` where none is written, or its action is faulty.
    pub(super) fn on_error(&mut self, on_error: &Option<ast::OnError>) -> Option<OnError> {
        let on_error = on_error.as_ref()?;
        let action = self.required(&on_error.action, "onError.action", &on_error.at)?;
        let policy = self.policy(action, on_error, false);
        if let Some(policy) = &policy {
            self.warn_without_effect(policy, &action.value, on_error);
        }
        policy
    }

    /// The policy of an action. `is_last` is true for `then`, which cannot be `retry` again (K0406).
    fn policy(&mut self, action: &Spanned<String>, written: &ast::OnError, is_last: bool) -> Option<OnError> {
        match action.value.as_str() {
            "skip" => Some(OnError::Skip),
            "halt" => Some(OnError::Halt),
            "deadLetter" => Some(self.dead_letter(action, written)),
            // `then` is what follows the last try, so it cannot try again.
            "retry" if !is_last => Some(self.retry(written)),
            other => {
                let field = if is_last { "onError.then" } else { "onError.action" };
                let allowed: &[&str] = if is_last { &["skip", "deadLetter", "halt"] } else { &ACTIONS };
                let message = format!("\"{field}\" must be one of {}, found \"{other}\"", allowed.join(", "));
                let diagnostic = Diagnostic::new(Code::K0406, message, action.at.clone());
                self.fault(diagnostic.near(other, allowed.iter().copied()));
                None
            }
        }
    }

    /// Warns of fields that the action does not ask.
    ///
    /// K0412, at each such field: it was written for a reason, and does nothing.
    fn warn_without_effect(&mut self, policy: &OnError, action: &str, written: &ast::OnError) {
        if !matches!(policy, OnError::Retry { .. }) {
            let hint = match action {
                "deadLetter" => "action: retry tries again, and then: deadLetter is what follows",
                _ => "action: retry tries again, and \"then\" is what follows",
            };
            for (field, at) in of_tries(written) {
                let message = format!("\"onError.{field}\" has no effect: the action is {action}");
                self.fault(Diagnostic::new(Code::K0412, message, at.clone()).hint(hint));
            }
        }
        if !matches!(policy.last_resort(), OnError::DeadLetter { .. }) {
            for (field, at) in of_letters(written) {
                let message = format!("\"onError.{field}\" has no effect: no dead letters are sent");
                let fault = Diagnostic::new(Code::K0412, message, at.clone());
                self.fault(fault.hint("action: deadLetter sends them, or then: deadLetter after action: retry"));
            }
        }
    }

    /// Notes a topic that is named here; what is said of the creation of the app's goes with the policy.
    ///
    /// Without a topic the app's `deadLetterTopic` counts; where neither is named, K0407.
    fn dead_letter(&mut self, action: &Spanned<String>, written: &ast::OnError) -> OnError {
        let creation = creation(&written.creation);
        let Some(topic) = &written.topic else {
            if !self.names_dead_letters {
                let fault = Diagnostic::new(Code::K0407, "the dead letter topic is not named", action.at.clone());
                self.app_should_say(
                    fault.hint("name it: onError: {action: deadLetter, topic: …}, or let the app set deadLetterTopic"),
                );
            }
            return OnError::DeadLetter { topic: None, creation };
        };
        self.check_written_topic(&topic.value, &topic.at);
        self.note_topic(&topic.value, &creation);
        // The topic has been noted with its creation, which must not stand in the plan twice.
        OnError::DeadLetter { topic: Some(topic.value.clone()), creation: Creation::default() }
    }

    /// The policy `retry` with its defaults: 3 tries, waits from 1 s to 1 min that double, 20 % of each left to chance.
    fn retry(&mut self, written: &ast::OnError) -> OnError {
        let mut ms =
            |text: &Option<Text>, default| text.as_ref().and_then(|text| self.duration(text)).unwrap_or(default);
        let default = Backoff::default();
        let (initial_ms, max_ms) = (ms(&written.initial, default.initial_ms), ms(&written.max, default.max_ms));
        let then = match &written.then {
            // A faulty `then` has been reported; skip stands in for it.
            Some(then) => self.policy(then, written, true).unwrap_or(OnError::Skip),
            None => OnError::Skip,
        };
        OnError::Retry {
            attempts: written.attempts.as_ref().map_or(OnError::ATTEMPTS, |attempts| attempts.value),
            backoff: Backoff {
                initial_ms,
                max_ms,
                factor: written.factor.as_ref().map_or(default.factor, |factor| factor.value),
                jitter: written.jitter.as_ref().map_or(default.jitter, |jitter| jitter.value),
            },
            then: Box::new(then),
        }
    }
}

/// Fields that only `retry` asks, where they are written.
///
/// For the warning that they have no effect; `topic` and its creation are the other half, see [`of_letters`].
fn of_tries(written: &ast::OnError) -> impl Iterator<Item = (&'static str, &At)> {
    given([
        ("attempts", at(&written.attempts)),
        ("then", at(&written.then)),
        ("backoff.initial", at(&written.initial)),
        ("backoff.max", at(&written.max)),
        ("backoff.factor", at(&written.factor)),
        ("backoff.jitter", at(&written.jitter)),
    ])
}

/// Fields that only dead letters ask, where they are written.
fn of_letters(written: &ast::OnError) -> impl Iterator<Item = (&'static str, &At)> {
    let creation = &written.creation;
    given([
        ("topic", at(&written.topic)),
        ("declare", at(&creation.declare)),
        ("partitions", at(&creation.partitions)),
        ("replicas", at(&creation.replicas)),
        ("retention", at(&creation.retention)),
        ("compacting", at(&creation.compacting)),
        ("deleting", at(&creation.deleting)),
        ("config", creation.config.first().map(|(name, _)| &name.at)),
    ])
}

/// Leaves out fields that are not written.
fn given<'a, const N: usize>(
    fields: [(&'static str, Option<&'a At>); N],
) -> impl Iterator<Item = (&'static str, &'a At)> {
    fields.into_iter().filter_map(|(field, at)| Some((field, at?)))
}

/// The place of a field, if it is written.
fn at<T>(field: &Option<Spanned<T>>) -> Option<&At> {
    field.as_ref().map(|field| &field.at)
}
