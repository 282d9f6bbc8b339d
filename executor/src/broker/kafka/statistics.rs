//! Statistics that librdkafka gives of each client every few seconds, where a port is served: the part of them
//! that metrics show.
//!
//! The text has hundreds of fields, most of them for each partition; all others are passed over.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use tracing::debug;

use crate::status::clients::{BrokerFigures, ClientFigures};

/// The time between two of them, in milliseconds.
pub const EVERY_MS: &str = "5000";
/// Microseconds of a second, the unit of round trips.
const MICROS: f64 = 1e6;
/// Milliseconds of a second, the unit of throttling.
const MILLIS: f64 = 1e3;

/// The last figures of each client of a worker.
#[derive(Debug, Default)]
pub struct Statistics {
    clients: Mutex<BTreeMap<String, ClientFigures>>,
}

impl Statistics {
    /// Notes what a client says.
    pub fn note(&self, text: &[u8]) {
        match serde_json::from_slice::<Said>(text) {
            Ok(said) => {
                let figures = said.figures();
                let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
                // By the type of the client: a producer that has replaced another takes over its figures, too.
                clients.insert(figures.client.clone(), figures);
            }
            Err(error) => debug!(%error, "the client's statistics cannot be read"),
        }
    }

    /// The last figures of each client.
    pub fn all(&self) -> Vec<ClientFigures> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[derive(Deserialize)]
struct Said {
    r#type: String,
    #[serde(default)]
    tx_bytes: u64,
    #[serde(default)]
    rx_bytes: u64,
    #[serde(default)]
    msg_cnt: u64,
    #[serde(default)]
    msg_size: u64,
    #[serde(default)]
    brokers: BTreeMap<String, SaidOfBroker>,
}

#[derive(Deserialize)]
struct SaidOfBroker {
    #[serde(default)]
    nodename: String,
    nodeid: i64,
    #[serde(default)]
    source: String,
    state: String,
    #[serde(default)]
    txerrs: u64,
    #[serde(default)]
    rxerrs: u64,
    #[serde(default)]
    req_timeouts: u64,
    #[serde(default)]
    connects: i64,
    rtt: Option<Window>,
    throttle: Option<Window>,
    #[serde(default)]
    req: BTreeMap<String, u64>,
}

/// Quantiles of the last few seconds.
#[derive(Deserialize)]
struct Window {
    cnt: i64,
    p50: f64,
    p95: f64,
    p99: f64,
}

impl Window {
    /// Its quantiles in seconds.
    fn seconds(&self, unit: f64) -> Vec<(String, f64)> {
        let quantiles = [("0.5", self.p50), ("0.95", self.p95), ("0.99", self.p99)];
        quantiles.map(|(name, value)| (name.to_owned(), value / unit)).to_vec()
    }
}

impl Said {
    fn figures(&self) -> ClientFigures {
        let mut figures = ClientFigures {
            client: self.r#type.clone(),
            bytes: (self.tx_bytes, self.rx_bytes),
            // These count what waits to be sent; of a consumer they are always 0.
            queued: (self.r#type == "producer").then_some((self.msg_cnt, self.msg_size)),
            ..ClientFigures::default()
        };
        for broker in self.brokers.values() {
            // librdkafka lists every request that it knows, and a worker makes few of them.
            for (kind, count) in broker.req.iter().filter(|(_, count)| **count > 0) {
                *figures.requests.entry(kind.clone()).or_insert(0) += count;
            }
            let errors = [("send", broker.txerrs), ("receive", broker.rxerrs), ("timeout", broker.req_timeouts)];
            errors.iter().for_each(|(kind, count)| *figures.errors.entry((*kind).to_owned()).or_insert(0) += count);
        }
        // The addresses that were given stand beside the brokers that they turned out to be.
        let is_learned = self.brokers.values().any(|broker| broker.nodeid >= 0 && broker.source == "learned");
        let shown = self.brokers.values().filter(|broker| {
            broker.source != "logical" && broker.state != "INIT" && (broker.nodeid >= 0 || !is_learned)
        });
        figures.brokers = shown.map(SaidOfBroker::figures).collect();
        figures
    }
}

impl SaidOfBroker {
    fn figures(&self) -> BrokerFigures {
        BrokerFigures {
            broker: self.nodename.clone(),
            is_up: self.state == "UP",
            connects: u64::try_from(self.connects).unwrap_or(0),
            // Nothing where nothing was asked. A throttle is only measured where there is one, and else it is 0.
            rtt: self.rtt.iter().filter(|window| window.cnt > 0).flat_map(|window| window.seconds(MICROS)).collect(),
            throttle: self.throttle.iter().flat_map(|window| window.seconds(MILLIS)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut from what librdkafka says.
    const SAID: &str = r#"{"name":"shop.0#consumer-1","client_id":"shop.0","type":"consumer","ts":1,"time":2,
        "tx_bytes":10,"rx_bytes":20,"msg_cnt":3,"msg_size":30,"brokers":{
        "GroupCoordinator":{"name":"GroupCoordinator","nodeid":1,"nodename":"k:9092","source":"logical","state":"UP",
            "req":{"Heartbeat":5}},
        "k:9092/bootstrap":{"name":"k:9092/bootstrap","nodeid":-1,"nodename":"k:9092","source":"configured","state":"DOWN",
            "connects":1,"req":{"Metadata":1}},
        "k:9093/2":{"name":"k:9093/2","nodeid":2,"nodename":"k:9093","source":"learned","state":"INIT","req":{"Fetch":0}},
        "k:9092/1":{"name":"k:9092/1","nodeid":1,"nodename":"k:9092","source":"learned","state":"UP","txerrs":1,"rxerrs":2,
            "req_timeouts":3,"connects":2,"rtt":{"min":1,"max":9,"cnt":4,"p50":2000,"p75":1,"p90":1,"p95":3000,"p99":4000},
            "throttle":{"cnt":0,"p50":0,"p95":0,"p99":0},"req":{"Fetch":7,"Metadata":2}}}}"#;

    #[test]
    fn what_a_client_says_becomes_figures() {
        let statistics = Statistics::default();
        statistics.note(SAID.as_bytes());
        statistics.note(b"nonsense");
        let all = statistics.all();
        let [consumer] = all.as_slice() else { panic!("one client: {all:?}") };
        assert_eq!((consumer.client.as_str(), consumer.bytes, consumer.queued), ("consumer", (10, 20), None));
        assert_eq!(
            consumer.requests,
            [("Fetch".to_owned(), 7), ("Heartbeat".to_owned(), 5), ("Metadata".to_owned(), 3)].into()
        );
        let errors = [("send", 1), ("receive", 2), ("timeout", 3)].map(|(kind, count)| (kind.to_owned(), count));
        assert_eq!(consumer.errors, errors.into());
        let broker = BrokerFigures {
            broker: "k:9092".to_owned(),
            is_up: true,
            connects: 2,
            rtt: [("0.5", 0.002), ("0.95", 0.003), ("0.99", 0.004)]
                .map(|(name, time)| (name.to_owned(), time))
                .to_vec(),
            throttle: ["0.5", "0.95", "0.99"].map(|name| (name.to_owned(), 0.0)).to_vec(),
        };
        assert_eq!(consumer.brokers, [broker], "no name twice, and none that is not needed");
    }

    #[test]
    fn without_any_broker_the_addresses_that_were_given_are_shown() {
        let said = r#"{"type":"producer","brokers":{"k:9092/bootstrap":{"nodeid":-1,"nodename":"k:9092",
            "source":"configured","state":"TRY_CONNECT"}}}"#;
        let statistics = Statistics::default();
        statistics.note(said.as_bytes());
        let all = statistics.all();
        assert_eq!(
            all[0].brokers.iter().map(|broker| (broker.broker.as_str(), broker.is_up)).collect::<Vec<_>>(),
            [("k:9092", false)]
        );
        assert_eq!(all[0].queued, Some((0, 0)));
    }
}
