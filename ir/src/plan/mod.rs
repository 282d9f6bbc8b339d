//! The plan: everything the executor needs to run an app, flat, ordered and versioned.
//!
//! A plan is *what is true* of an app once every name is resolved and every default filled in. It
//! is listed in dependency order (blocks, functions, tables, channels, agents, readers), so that
//! rendering is one straight walk that never looks anything up by name. What can be derived from
//! the plan is not stored in it, and it holds nothing of a deployment: no brokers, no secrets.
//!
//! ```text
//! readers[0] ─ agents: [0, 1] ─▶ agents[0] ─ steps: [{ action: Map(3) }] ─▶ functions[3] ─ block: 2 ─▶ blocks[2]
//!            └ topics: [orders]          └─ channel_outputs: [{ channel: 0 }] ─▶ channels[0] ─ readers: [1]
//! ```
//!
//! Life cycle: `schedule` in the compiler makes it and seals it ([`Plan::seal`]); it passes to the executor in memory
//! or as JSON ([`Plan::to_json`], [`Plan::from_json`]); it never changes after that. Every id in it is a place in one
//! of its lists and lies within it: the executor indexes without asking, because a plan whose bytes were changed does
//! not pass its seal.
//!
//! A field that may be absent is left out of the JSON where it is. So a new optional field changes no revision of plans
//! that do not use it.

mod agent;
mod block;
mod codec;
mod creation;
mod place;
mod policy;
mod reader;
mod seal;
mod setting;
mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use agent::{
    Action, Agent, Channel, ChannelOutput, Init, Input, SinkOutput, Step, Topic, TopicChoice, TopicOutput,
};
pub use block::{Block, FieldUse, Function, Shape};
pub use codec::{Codec, UnknownCodec};
pub use creation::{Creation, topic_config};
pub use place::{LineMap, Place};
pub use policy::{Backoff, CALL_MS_MAX, Defaults, OnError, Policies, Policy};
pub use reader::{Assignor, BatchScope, BatchWindow, Overlap, Part, Reader, Topics, Track};
pub use seal::PlanError;
pub use setting::{PolicyFault, is_python_mapping};
pub use table::{RelativeTo, Table, TableParameter, TableWindow};

/// The version of the plan's shape. The executor refuses every other.
///
/// To be raised when an older executor would misread a plan. Unknown fields are refused in any case.
pub const PLAN_VERSION: u32 = 1;

// An id is a type of its own, so that a block's number cannot be used for a function's; in JSON it is the bare number.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident => $field:ident: $of:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The place in the plan's list that this names.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl std::ops::Index<$name> for Plan {
            type Output = $of;
            // Panics for an id of another plan, which no path through the programs can bring here.
            fn index(&self, id: $name) -> &$of {
                &self.$field[id.index()]
            }
        }
    )*};
}

ids! {
    /// A file of the app, by its place in [`Plan::files`].
    FileId => files: String;
    /// A code block, by its place in [`Plan::blocks`].
    BlockId => blocks: Block;
    /// A function of a code block, by its place in [`Plan::functions`].
    FunctionId => functions: Function;
    /// A table, by its place in [`Plan::tables`].
    TableId => tables: Table;
    /// A channel, by its place in [`Plan::channels`].
    ChannelId => channels: Channel;
    /// An agent, by its place in [`Plan::agents`].
    AgentId => agents: Agent;
    /// A reader, by its place in [`Plan::readers`].
    ReaderId => readers: Reader;
}

/// A whole app, ready to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_VERSION`] of the compiler that made it.
    pub plan_version: u32,
    /// SHA-256, in hex, of the plan as compact JSON with this field empty.
    /// It names the plan in dead letters and in the marks of crashed events.
    pub revision: String,
    /// The app as a whole, as the specs describe it.
    pub app: App,
    /// Files of the specs, named as they were given to the compiler.
    pub files: Vec<String>,
    /// Every code block, in the order in which the agents use them.
    /// Those of operations that no pipeline names are among them.
    pub blocks: Vec<Block>,
    /// Every function that the executor calls.
    /// One for each field of the specs that names a function.
    pub functions: Vec<Function>,
    /// Tables in name order, whether an agent uses them or not.
    pub tables: Vec<Table>,
    /// Channels in name order.
    pub channels: Vec<Channel>,
    /// Topics that the specs name, in name order, with what they say of them.
    /// Inputs, outputs and named topics of dead letters; selectors and patterns name none.
    pub topics: Vec<Topic>,
    /// Agents in name order.
    pub agents: Vec<Agent>,
    /// One for every agent with a topic input, in name order.
    pub readers: Vec<Reader>,
}

impl Plan {
    /// Makes a plan of nothing: no agents, no tables, no revision.
    pub fn empty() -> Plan {
        Plan {
            plan_version: PLAN_VERSION,
            revision: String::new(),
            app: App::default(),
            files: Vec::new(),
            blocks: Vec::new(),
            functions: Vec::new(),
            tables: Vec::new(),
            channels: Vec::new(),
            topics: Vec::new(),
            agents: Vec::new(),
            readers: Vec::new(),
        }
    }
}

/// The app as a whole, as the specs describe it. Flags and the environment come before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct App {
    /// The app's name as far as the specs give one: a `KasprApp`'s, the agents' common label, or
    /// the only agent's (see "Settings" in `docs/operations.md`). `None`: a flag must name it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// `spec.config` of the `KasprApp`, only settings that concern running.
    /// By name, as they are written; the executor judges the values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Division of the partitions by Kafka's group protocol.
    pub assignor: Assignor,
}
