//! Policies: what becomes of an event that fails, how long a call may take, and which of what the spec and the
//! app say counts where.
//!
//! ```text
//! step.on_error  ──else──▶  agent.on_error  ──else──▶  setting onError         the same for timeouts
//! ```

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AgentId, Creation, Plan, ReaderId};

/// The longest time of one call, and of all calls of one event together, in ms.
///
/// A worker that is silent for longer would lose its partitions to another, and both would process the event.
pub const CALL_MS_MAX: u64 = 240_000;

/// Policy for events that fail ("Failures" in `docs/semantics.md`).
///
/// The same type for a spec's policy and the setting's; a plan has only what specs say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
// Tagged by `action`, so that the plan's JSON reads like the spec.
#[serde(rename_all = "camelCase", tag = "action")]
pub enum OnError {
    /// Record the failure, count the event as complete, go on.
    Skip,
    /// Send the original event to a topic. `None`: the app's `deadLetterTopic`.
    DeadLetter {
        /// The topic.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        topic: Option<String>,
        /// The creation of the topic. In a plan what is said of a named topic stands in the plan's topics, and
        /// this is what is said of the app's.
        #[serde(skip_serializing_if = "Creation::is_empty", default)]
        creation: Creation,
    },
    /// Commit what is complete before the event, then stop with exit status 1.
    Halt,
    /// Try again while the partition waits.
    Retry {
        /// All tries together.
        /// At least 1; the first try counts.
        attempts: u32,
        /// The waits between them.
        backoff: Backoff,
        /// Policy after the last try: never `Retry`.
        then: Box<OnError>,
    },
}

impl OnError {
    /// Tries of `retry` where none are written.
    pub const ATTEMPTS: u32 = 3;
    /// Least and greatest number of tries.
    pub const TRIES: (i64, i64) = (1, u32::MAX as i64);

    /// The policy when no further try is left.
    ///
    /// Never `Retry`.
    pub fn last_resort(&self) -> &OnError {
        // All are named, without `_`: a new policy must say here whether it is a last one.
        match self {
            OnError::Retry { then, .. } => then,
            OnError::Skip | OnError::DeadLetter { .. } | OnError::Halt => self,
        }
    }

    /// With the app's topic for dead letters where none is named.
    ///
    /// ```text
    /// DeadLetter { topic: None }, default dead   ⇒   DeadLetter { topic: dead }
    /// ```
    fn with_topic(&self, default: Option<&String>) -> OnError {
        match self {
            OnError::DeadLetter { topic, creation } => {
                OnError::DeadLetter { topic: topic.as_ref().or(default).cloned(), creation: creation.clone() }
            }
            OnError::Retry { attempts, backoff, then } => OnError::Retry {
                attempts: *attempts,
                backoff: backoff.clone(),
                // A retry ends with a policy of its own, which may send dead letters too.
                then: Box::new(then.with_topic(default)),
            },
            OnError::Skip | OnError::Halt => self.clone(),
        }
    }
}

/// Waits between tries.
///
/// ```text
/// wait before try n + 1  =  min(initial_ms · factor^(n-1), max_ms) · (1 ± up to jitter)
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backoff {
    /// The first wait in ms.
    pub initial_ms: u64,
    /// The longest wait in ms.
    pub max_ms: u64,
    /// Each wait is the one before times this.
    // A float, although waits are whole: 1.5 is a common factor.
    pub factor: f64,
    /// Each wait is changed at random by up to this share of it.
    pub jitter: f64,
}

impl Backoff {
    /// Least and greatest factor: a back-off does not shrink.
    pub const FACTOR: (f64, f64) = (1.0, 1000.0);
    /// Least and greatest share of a wait that is left to chance.
    pub const JITTER: (f64, f64) = (0.0, 1.0);
}

// The defaults of specs and of the setting alike; `docs/semantics.md` names them.
impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { initial_ms: 1000, max_ms: 60_000, factor: 2.0, jitter: 0.2 }
    }
}

/// An app's settings, which count where its specs say nothing.
///
/// Known only at the start, so no plan has them.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The policy.
    pub on_error: OnError,
    /// The topic of `deadLetter`.
    pub dead_letter_topic: Option<String>,
    /// The longest time of one call.
    pub timeout: Duration,
    /// Units of each partition that may be in flight at once.
    pub concurrency: NonZeroU32,
}

/// The policy and the time limit that count at a place of a plan.
///
/// Nothing in it is open any more but a topic of dead letters that neither specs nor settings name.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// For events that fail there, with the topic of its dead letters.
    pub on_error: OnError,
    /// The longest time of one call there.
    pub limit: Duration,
}

/// The policies of each agent and each of its steps: a step's own word goes before its agent's, and that before
/// the app's.
///
/// Made at the start by [`Plan::policies`] and asked by place; nothing else in the executor resolves policies.
#[derive(Clone, Debug)]
pub struct Policies {
    app: Policy,
    // By agent, then by step, as the plan lists them.
    agents: Vec<(Policy, Vec<Policy>)>,
    overlaps: Vec<NonZeroU32>,
}

impl Policies {
    /// The app's policy, which counts where neither agent nor step says anything.
    pub fn of_app(&self) -> &Policy {
        &self.app
    }

    /// The policy of an agent outside its steps: of its decoding, outputs, channels and sinks.
    pub fn of_agent(&self, agent: AgentId) -> &Policy {
        &self.agents[agent.index()].0
    }

    /// All policies of the plan's agents and steps.
    ///
    /// For checks at the start: which topics of dead letters must exist.
    pub fn all(&self) -> impl Iterator<Item = &Policy> {
        self.agents.iter().flat_map(|(of_agent, of_steps)| std::iter::once(of_agent).chain(of_steps))
    }

    /// The policies of the steps of an agent, in order.
    pub fn of_steps(&self, agent: AgentId) -> &[Policy] {
        &self.agents[agent.index()].1
    }

    /// The number of units of each partition of a reader that may be in flight at once.
    pub fn in_flight(&self, reader: ReaderId) -> NonZeroU32 {
        self.overlaps[reader.index()]
    }
}

impl Plan {
    /// Resolves what counts where, once.
    ///
    /// The policy and the time go each their own way: a step may have the one and inherit the other.
    pub fn policies(&self, defaults: &Defaults) -> Policies {
        // The topic of dead letters is filled in wherever a policy is written, since any may leave it open.
        let policy = |own: Option<&OnError>, own_timeout: Option<u64>, above: &Policy| Policy {
            on_error: own
                .map_or_else(|| above.on_error.clone(), |own| own.with_topic(defaults.dead_letter_topic.as_ref())),
            limit: own_timeout.map_or(above.limit, Duration::from_millis),
        };
        let app = Policy {
            on_error: defaults.on_error.with_topic(defaults.dead_letter_topic.as_ref()),
            limit: defaults.timeout,
        };
        let agents = self.agents.iter().map(|agent| {
            let of_agent = policy(agent.on_error.as_ref(), agent.timeout_ms, &app);
            let steps = agent.steps.iter().map(|step| policy(step.on_error.as_ref(), step.timeout_ms, &of_agent));
            let of_steps = steps.collect();
            (of_agent, of_steps)
        });
        let overlaps = self.readers.iter().map(|reader| reader.overlap.units(defaults.concurrency)).collect();
        Policies { agents: agents.collect(), app, overlaps }
    }
}
