//! Outputs: topics, channels and custom sinks.
//!
//! Each selector is a code block of its own, called with the value alone. Its role, by which the plan names it, is
//! the output's with the field behind it:
//!
//! ```text
//! output:demo-output keySelector        operation "send" topicSend:audit predicate
//! channel:checked valueSelector         sink:warehouse
//! ```

use kaspr_ir::plan::{ChannelId, ChannelOutput, FunctionId, SinkOutput, TopicChoice, TopicOutput};

use super::Checker;
use super::blocks::{Call, Purpose, Scope};
use super::values::creation;
use crate::ast::{self, Code as Written};
use crate::diagnostics::{Code, Diagnostic, nearest};

impl Checker<'_> {
    /// The function of a selector, if the field is there and its block is sound.
    ///
    /// `owner` is the role of the output, `name` the field's.
    fn selector(
        &mut self,
        scope: &Scope,
        owner: &str,
        name: &'static str,
        code: &Option<Written>,
    ) -> Option<FunctionId> {
        let call = Call::new(format!("{owner} {name}"), Purpose::Selector(name));
        code.as_ref().and_then(|code| self.call(scope, code, &call))
    }

    /// An output to a topic. `prefix` is `output` or the operation that sends.
    ///
    /// `None` where its topic is faulty (K0401, K0402); all selectors have been checked by then.
    pub(super) fn topic_output(
        &mut self,
        scope: &Scope,
        output: &ast::TopicOutput,
        prefix: &str,
    ) -> Option<TopicOutput> {
        let role = match &output.name {
            Some(name) => format!("{prefix}:{}", name.value),
            None => format!("{prefix}:nameSelector"),
        };
        let topic = match (&output.name, &output.name_selector) {
            (Some(name), Some(selector)) => {
                let diagnostic =
                    Diagnostic::new(Code::K0401, "the output has both name and nameSelector", selector.at.head());
                self.fault(diagnostic.label(name.at.clone(), "the name").hint("remove one of them"));
                None
            }
            (None, None) if self.is_faulty(&output.at, &["name", "nameSelector"]) => None,
            (None, None) => {
                let diagnostic =
                    Diagnostic::new(Code::K0402, "the output has neither name nor nameSelector", output.at.head());
                self.fault(diagnostic.hint("name: the topic, or nameSelector: a function that returns it"));
                None
            }
            (Some(name), None) => {
                self.check_written_topic(&name.value, &name.at);
                self.note_topic(&name.value, &creation(&output.settings.creation));
                Some(TopicChoice::Name(name.value.clone()))
            }
            (None, selector) => self.selector(scope, &role, "nameSelector", selector).map(TopicChoice::Selector),
        };
        let (of_keys, of_values) = self.codecs.clone();
        let key_codec = self.codec(&output.settings.key_codec, of_keys);
        let value_codec = self.codec(&output.settings.value_codec, of_values);
        self.check_codec_is_built(&key_codec, &output.settings.key_codec);
        self.check_codec_is_built(&value_codec, &output.settings.value_codec);
        // A faulty topic ends the function only below: it must not keep the selectors from being checked.
        let predicate = self.selector(scope, &role, "predicate", &output.predicate);
        let key_selector = self.selector(scope, &role, "keySelector", &output.key_selector);
        let value_selector = self.selector(scope, &role, "valueSelector", &output.value_selector);
        let partition_selector = self.selector(scope, &role, "partitionSelector", &output.partition_selector);
        let headers_selector = self.selector(scope, &role, "headersSelector", &output.headers_selector);
        Some(TopicOutput {
            place: self.place(&output.at),
            topic: topic?,
            key_codec,
            value_codec,
            predicate,
            key_selector,
            value_selector,
            partition_selector,
            headers_selector,
            ack: output.ack.as_ref().is_some_and(|ack| ack.value),
            // Decided by the rule `forward`.
            forwards: false,
        })
    }

    /// An output to a channel.
    ///
    /// The channel exists, because its writers make it.
    pub(super) fn channel_output(&mut self, scope: &Scope, output: &ast::ChannelOutput) -> Option<ChannelOutput> {
        let name = self.required(&output.name, "output.channels[].name", &output.at)?;
        let channel = self.channel(&name.value)?;
        self.warn_unread(name, channel);
        let role = format!("channel:{}", name.value);
        Some(ChannelOutput {
            place: self.place(&output.at),
            channel,
            predicate: self.selector(scope, &role, "predicate", &output.predicate),
            key_selector: self.selector(scope, &role, "keySelector", &output.key_selector),
            value_selector: self.selector(scope, &role, "valueSelector", &output.value_selector),
            headers_selector: self.selector(scope, &role, "headersSelector", &output.headers_selector),
        })
    }

    /// Warns of a channel without a reader: values that are sent to it are gone.
    ///
    /// K0112. Nothing is said where the reader may be in a document that could not be read.
    fn warn_unread(&mut self, name: &ast::Text, channel: ChannelId) {
        if self.is_partial || !self.channels[channel.index()].readers.is_empty() {
            return;
        }
        // The reader's own fault names what it meant.
        let unwritten = self.read_channels.iter().filter(|read| self.channel(read).is_none());
        if nearest(&name.value, unwritten.map(String::as_str)).is_some() {
            return;
        }
        let message = format!("no agent of the app reads the channel \"{}\"", name.value);
        let fault = Diagnostic::new(Code::K0112, message, name.at.clone());
        let hint = "what is sent there vanishes: let an agent read it (input.channel.name), or send to a topic";
        self.fault(fault.hint(hint));
    }

    /// A custom sink.
    ///
    /// Always with a warning (K0409): its author must know that it may run again.
    pub(super) fn sink_output(&mut self, scope: &Scope, sink: &ast::SinkOutput) -> Option<SinkOutput> {
        let name = self.required(&sink.name, "output.sinks[].name", &sink.at)?;
        let role = format!("sink:{}", name.value);
        let message = format!("the custom sink \"{}\" is outside the transaction", name.value);
        let warning = Diagnostic::new(Code::K0409, message, name.at.clone());
        self.fault(warning.hint("it may run again after a crash: make it idempotent"));
        let call = Call::new(role.clone(), Purpose::Sink);
        let predicate = self.selector(scope, &role, "predicate", &sink.predicate);
        let value_selector = self.selector(scope, &role, "valueSelector", &sink.value_selector);
        let function = sink.code.as_ref().and_then(|code| self.call(scope, code, &call));
        Some(SinkOutput {
            name: name.value.clone(),
            place: self.place(&sink.at),
            function: function?,
            predicate,
            value_selector,
        })
    }
}
