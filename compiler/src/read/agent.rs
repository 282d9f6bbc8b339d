//! A `KasprAgent`'s spec to its AST.
//!
//! One function a mapping, in the order in which the specs are usually written. Each asks for its fields by name
//! and ends with `finish`, which reports the rest; see [`super::fields`]. Nothing is judged here but the kinds of
//! values: that an input has both a topic and a channel, say, is for `check` to find.

use std::num::NonZeroU32;

use super::fields::Fields;
use super::numbers;
use crate::ast::{
    Agent, ChannelOutput, Creation, Input, InputTopic, OnError, Operation, SinkOutput, TableParameter, Take, Text,
    TopicOutput, TopicSettings,
};
use crate::source::{At, Spanned};

/// Reads an agent.
///
/// `spec` are its fields: the resource's `spec`, or the entry of `agents` itself. `at` is where the agent is said to
/// stand: the place of its name, or of the document where it has none. `app` is the label of its resource.
pub fn agent(mut spec: Fields<'_>, at: At, name: Option<Text>, app: Option<Text>) -> Agent {
    // Later on an agent stands where its name does.
    spec.stands_at(&at);
    let mut agent = Agent {
        at,
        name,
        app,
        description: spec.text("description"),
        isolated_partitions: spec.boolean("isolatedPartitions"),
        concurrency: concurrency(&mut spec),
        input: spec.map("input").map(input),
        outputs: Vec::new(),
        channels: Vec::new(),
        sinks: Vec::new(),
        pipeline: Vec::new(),
        init: None,
        operations: Vec::new(),
        on_error: spec.map("onError").map(on_error),
        timeout: spec.text("timeout"),
    };
    if let Some(mut output) = spec.map("output") {
        agent.outputs = output.each("topics", topic_output);
        agent.channels = output.each("channels", channel_output);
        agent.sinks = output.each("sinks", sink_output);
        output.finish();
    }
    if let Some(mut processors) = spec.map("processors") {
        agent.pipeline = processors.texts("pipeline");
        agent.init = processors.code("init");
        agent.operations = processors.each("operations", operation);
        processors.finish();
    }
    // The caller has read it and compared it with `metadata.name`.
    spec.known(&["name"]);
    spec.finish();
    agent
}

/// `spec.concurrency`.
fn concurrency(spec: &mut Fields<'_>) -> Option<Spanned<NonZeroU32>> {
    let written: Spanned<u32> = spec.whole("concurrency", numbers::CONCURRENCY)?;
    NonZeroU32::new(written.value).map(|value| Spanned { value, at: written.at })
}

/// `spec.input`.
fn input(mut fields: Fields<'_>) -> Input {
    let at = fields.at();
    let topic = fields.map("topic").map(|mut topic| {
        let at = topic.at();
        let read =
            InputTopic { at, name: topic.text("name"), pattern: topic.text("pattern"), settings: settings(&mut topic) };
        topic.finish();
        read
    });
    let channel = fields.map("channel").map(|mut channel| {
        let name = channel.text("name");
        let is_faulty = channel.is_faulty("name");
        channel.finish();
        (name, is_faulty)
    });
    // A channel whose name is faulty is a channel all the same: the input does not lack its source.
    if let Some((None, true)) = channel {
        fields.mark("channel");
    }
    let channel = channel.and_then(|(name, _)| name);
    let take = fields.map("take").map(|mut take| {
        let read = Take { at: take.at(), max: take.whole("max", numbers::TAKE), within: take.text("within") };
        take.finish();
        read
    });
    let read = Input { at, topic, channel, take, declare: fields.boolean("declare") };
    fields.finish();
    read
}

/// Serializers and creation of a topic, which stand beside its name.
fn settings(fields: &mut Fields<'_>) -> TopicSettings {
    TopicSettings {
        key_codec: fields.text("keySerializer"),
        value_codec: fields.text("valueSerializer"),
        creation: creation(fields),
    }
}

/// Fields that say how a topic is created. They stand beside `topic` in `onError` too.
fn creation(fields: &mut Fields<'_>) -> Creation {
    Creation {
        declare: fields.boolean("declare"),
        partitions: fields.whole("partitions", numbers::PARTITIONS),
        replicas: fields.whole("replicas", numbers::REPLICAS),
        retention: fields.whole("retention", numbers::RETENTION),
        compacting: fields.boolean("compacting"),
        deleting: fields.boolean("deleting"),
        config: fields.pairs("config"),
    }
}

/// One of `output.topics`.
fn topic_output(mut fields: Fields<'_>) -> TopicOutput {
    let output = topic_output_fields(&mut fields);
    fields.finish();
    output
}

/// The fields that `output.topics[]` and `topicSend` have in common; the caller finishes the mapping.
fn topic_output_fields(fields: &mut Fields<'_>) -> TopicOutput {
    TopicOutput {
        at: fields.at(),
        name: fields.text("name"),
        name_selector: fields.code("nameSelector"),
        settings: settings(fields),
        key_selector: fields.code("keySelector"),
        value_selector: fields.code("valueSelector"),
        partition_selector: fields.code("partitionSelector"),
        headers_selector: fields.code("headersSelector"),
        predicate: fields.code("predicate"),
        ack: fields.boolean("ack"),
        // Only `topicSend` has it; its caller reads it.
        pass_through: None,
    }
}

/// One of `output.channels`.
fn channel_output(mut fields: Fields<'_>) -> ChannelOutput {
    let output = ChannelOutput {
        at: fields.at(),
        name: fields.text("name"),
        predicate: fields.code("predicate"),
        key_selector: fields.code("keySelector"),
        value_selector: fields.code("valueSelector"),
        headers_selector: fields.code("headersSelector"),
    };
    fields.finish();
    output
}

/// One of `output.sinks`, whose code block is the mapping itself.
fn sink_output(mut fields: Fields<'_>) -> SinkOutput {
    let sink = SinkOutput {
        at: fields.at(),
        name: fields.text("name"),
        code: fields.code_here(),
        predicate: fields.code("predicate"),
        value_selector: fields.code("valueSelector"),
    };
    fields.finish();
    sink
}

/// One of `processors.operations`. Any number of `map`, `filter` and `topicSend` is read: `check` demands one.
fn operation(mut fields: Fields<'_>) -> Operation {
    let send = fields.map("topicSend").map(|mut send| {
        let mut output = topic_output_fields(&mut send);
        output.pass_through = send.boolean("passThrough");
        send.finish();
        output
    });
    let operation = Operation {
        at: fields.at(),
        name: fields.text("name"),
        map: fields.code("map"),
        filter: fields.code("filter"),
        send,
        tables: fields.each("tables", |mut table| {
            let read = TableParameter { at: table.at(), name: table.text("name"), parameter: table.text("paramName") };
            table.finish();
            read
        }),
        on_error: fields.map("onError").map(on_error),
        timeout: fields.text("timeout"),
    };
    fields.finish();
    operation
}

/// A policy, of an agent or an operation. Fields of other actions than its own are read too, so that `check` can
/// warn that they have no effect.
fn on_error(mut fields: Fields<'_>) -> OnError {
    let mut read = OnError {
        at: fields.at(),
        action: fields.text("action"),
        topic: fields.text("topic"),
        creation: creation(&mut fields),
        attempts: fields.whole("attempts", numbers::ATTEMPTS),
        then: fields.text("then"),
        initial: None,
        max: None,
        factor: None,
        jitter: None,
    };
    if let Some(mut backoff) = fields.map("backoff") {
        read.initial = backoff.text("initial");
        read.max = backoff.text("max");
        read.factor = backoff.between("factor", numbers::FACTOR);
        read.jitter = backoff.between("jitter", numbers::JITTER);
        backoff.finish();
    }
    fields.finish();
    read
}
