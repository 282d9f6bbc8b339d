//! User code as the worker sees it: functions over values, whatever language they are written in.
//!
//! The worker never looks into a value. It asks the code to decode bytes, to call a function, to
//! step a generator, to encode a result; and it keeps what must wait (a *ticket*) until the code
//! says that it is finished. Python is one such code; a stub in Rust serves the simulator.

pub mod python;

use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use kaspr_ir::plan::{AgentId, Codec, FunctionId, ReaderId, TableParameter};

pub use crate::event::fault::{Fault, Trace};
use crate::event::frame::Frame;
use crate::event::message::{Header, TopicName};

/// Something that user code has not finished yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The result of a call, or of a step of a generator.
#[derive(Debug)]
pub enum Called<V> {
    /// A value.
    Value(V),
    /// A generator, sync or async: each of its values goes on by itself. Step it with
    /// [`Code::next`].
    Values(V),
    /// The generator has no more values.
    End,
    /// Not finished: ask for the ticket later.
    Pending(Ticket),
    /// The code raised an exception.
    Failed(Fault),
}

/// The place where a record that was encoded ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// Bytes were appended.
    Bytes,
    /// The value is Kafka's null; nothing was appended.
    Null,
}

/// User code and its values.
pub trait Code: 'static {
    /// A value on its way. Cloning shares it: every output sees the same object.
    type Value: Clone + std::fmt::Debug + 'static;

    /// Decodes bytes to a value; `None` is Kafka's null. Bytes that do not decode are a fault of the kind
    /// `Decode`.
    fn decode(&mut self, codec: &Codec, bytes: Option<&[u8]>) -> Result<Self::Value, Fault>;

    /// As [`Code::decode`], for a value that goes nowhere but through this reader's program: fields that, by
    /// the plan, no function there uses need not be decoded.
    fn decode_for(&mut self, _reader: ReaderId, codec: &Codec, bytes: Option<&[u8]>) -> Result<Self::Value, Fault> {
        self.decode(codec, bytes)
    }

    /// Checks that [`Code::decode`] would accept the bytes.
    fn validate(&mut self, codec: &Codec, bytes: Option<&[u8]>) -> Result<(), Fault>;

    /// Appends a value's bytes.
    fn encode(&mut self, codec: &Codec, value: &Self::Value, out: &mut Vec<u8>) -> Result<Encoded, Fault>;

    /// The values of a batch as one value.
    fn list(&mut self, values: Vec<Self::Value>) -> Result<Self::Value, Fault>;

    /// The value that stands for nothing.
    fn none(&self) -> Self::Value;

    /// True if it is that value.
    fn is_none(&self, value: &Self::Value) -> bool;

    /// The value that `topicSend` with `ack` passes on.
    fn sent(&mut self, topic: &str, partition: i32, timestamp_ms: i64) -> Result<Self::Value, Fault>;

    /// Calls a function with a value, and tables by keyword.
    fn call(&mut self, function: FunctionId, value: &Self::Value, with: With<'_, Self::Value>) -> Called<Self::Value>;

    /// The next value of a generator that a call gave.
    fn next(&mut self, values: &Self::Value, with: With<'_, Self::Value>) -> Called<Self::Value>;

    /// Lets go of a generator that has further values: its clean-up runs, and values that it still gives are
    /// dropped.
    fn release(&mut self, values: &Self::Value, with: With<'_, Self::Value>) -> Called<Self::Value>;

    /// Takes the result of a ticket, once: `None` while it is pending.
    fn take(&mut self, ticket: Ticket) -> Option<Called<Self::Value>>;

    /// Gives a ticket up: whatever its call still does has no effect.
    fn cancel(&mut self, ticket: Ticket);

    /// Decides truth, as an `if` does.
    fn truth(&mut self, value: &Self::Value) -> Result<bool, Fault>;

    /// Reads the result of a name selector as a topic.
    fn topic(&mut self, value: &Self::Value) -> Result<TopicName, Fault>;

    /// Reads the result of a partition selector; `None`: the key decides.
    fn partition(&mut self, value: &Self::Value) -> Result<Option<i32>, Fault>;

    /// Reads the result of a headers selector.
    fn headers(&mut self, value: &Self::Value) -> Result<Vec<Header>, Fault>;

    /// True if something waits inside the code for time to pass or the world to answer; if the worker
    /// `is_busy`, true if some of it may go on now.
    fn waits(&self, is_busy: bool) -> bool;

    /// Lets waiting calls go on: until some ticket is finished, `wake` is readable or `wait` is over.
    fn turn(&mut self, wait: Duration, wake: Option<RawFd>);

    /// Runs something that waits outside the code, while the code's other threads go on.
    fn detached(&self, wait: &mut dyn FnMut()) {
        wait();
    }
}

/// The surroundings of a call: the event, and the agent whose code it is.
pub struct With<'a, V> {
    /// The agent whose function it is.
    pub agent: AgentId,
    /// Tables to give by keyword.
    pub tables: &'a [TableParameter],
    /// The event or batch, its scratch, and what `context["event"]` shows.
    pub frame: &'a Rc<Frame>,
    /// Key and headers as the channel gave them that the value came through.
    pub via: Option<&'a Rc<Via<V>>>,
    /// The longest time of the call.
    pub limit: Duration,
    /// The call's row in the table of counters.
    pub row: usize,
}

// Not derived: that would ask for `V: Clone`, though only references are copied.
impl<V> Clone for With<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for With<'_, V> {}

/// Key and headers that the selectors of a channel gave: what `context["event"]` shows behind it in
/// the place of the event's own.
#[derive(Debug)]
pub struct Via<V> {
    /// The result of the key selector.
    pub key: Option<V>,
    /// The result of the headers selector.
    pub headers: Option<Vec<Header>>,
}
