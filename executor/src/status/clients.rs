//! Figures of the clients that talk to brokers, as the clients give them now and then.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientFigures {
    /// Its kind: `consumer`, `producer`.
    pub client: String,
    /// Brokers that it knows and needs.
    pub brokers: Vec<BrokerFigures>,
    /// Requests so far, by kind.
    pub requests: BTreeMap<String, u64>,
    /// Requests that failed or timed out, by what happened.
    pub errors: BTreeMap<String, u64>,
    /// Bytes so far, sent and received.
    pub bytes: (u64, u64),
    /// Records that wait to be sent, and their bytes; `None` of a client that sends none.
    pub queued: Option<(u64, u64)>,
}

/// A broker, as a client sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BrokerFigures {
    /// `host:port`.
    pub broker: String,
    /// True if the connection works.
    pub is_up: bool,
    /// Connections so far, those that failed among them.
    pub connects: u64,
    /// Quantiles of the time from a request to its answer, in seconds.
    pub rtt: Vec<(String, f64)>,
    /// Quantiles of the time for which the broker had the client wait, in seconds.
    pub throttle: Vec<(String, f64)>,
}
