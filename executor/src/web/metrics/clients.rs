//! The families of Kafka's clients.

use super::rows::{Labels, Writer, labels};
use crate::status::clients::{BrokerFigures, ClientFigures};

/// Writes them.
pub(super) fn write(clients: &[ClientFigures], writer: &mut Writer) {
    brokers(clients, writer);
    let requests = clients.iter().flat_map(|client| {
        let of = |(kind, count): (&String, &u64)| (labels([("client", &client.client), ("kind", kind)]), *count as f64);
        client.requests.iter().map(of)
    });
    writer.counters("kaspr_kafka_requests", "Requests of the client", requests);
    let errors = clients.iter().flat_map(|client| {
        let of = |(kind, count): (&String, &u64)| (labels([("client", &client.client), ("kind", kind)]), *count as f64);
        client.errors.iter().map(of)
    });
    writer.counters("kaspr_kafka_request_errors", "Requests that failed or timed out", errors);
    let bytes = clients.iter().flat_map(|client| {
        let (sent, received) = client.bytes;
        [("out", sent), ("in", received)]
            .map(|(direction, bytes)| (labels([("client", &client.client), ("direction", direction)]), bytes as f64))
    });
    writer.counters("kaspr_kafka_bytes", "Bytes that the client has sent and received", bytes);
    let queued = |of: fn((u64, u64)) -> u64| {
        let rows = clients.iter().filter_map(move |client| {
            let queued = client.queued.map(of)?;
            Some((labels([("client", &client.client), ("direction", "out")]), queued as f64))
        });
        rows.collect::<Vec<(Labels, f64)>>()
    };
    let help = "Records that wait in the client, or for their acknowledgement";
    writer.gauges("kaspr_kafka_queue_messages", help, queued(|(messages, _)| messages));
    writer.gauges("kaspr_kafka_queue_bytes", "Bytes of these records", queued(|(_, bytes)| bytes));
}

fn brokers(clients: &[ClientFigures], writer: &mut Writer) {
    let all = || clients.iter().flat_map(|client| client.brokers.iter().map(move |broker| (client, broker)));
    let of = |(client, broker): (&ClientFigures, &BrokerFigures)| {
        labels([("client", &client.client), ("broker", &broker.broker)])
    };
    let up = all().map(|(client, broker)| (of((client, broker)), f64::from(u8::from(broker.is_up))));
    writer.gauges("kaspr_kafka_broker_up", "1 while the connection to a broker that is needed works", up);
    let connects = all().map(|(client, broker)| (of((client, broker)), broker.connects as f64));
    writer.counters("kaspr_kafka_broker_connects", "Connections, those that failed among them", connects);
    let quantiles = |quantiles: fn(&BrokerFigures) -> &[(String, f64)]| {
        let rows = all().flat_map(move |(client, broker)| {
            let row = move |(quantile, seconds): &(String, f64)| {
                let mut at = labels([("client", &client.client), ("broker", &broker.broker)]);
                at.push(("quantile", quantile.clone()));
                (at, *seconds)
            };
            quantiles(broker).iter().map(row)
        });
        rows.collect::<Vec<(Labels, f64)>>()
    };
    let help = "Time from a request to its answer";
    writer.quantiles("kaspr_kafka_broker_rtt_seconds", help, quantiles(|broker| &broker.rtt));
    let help = "Time for which the broker had the client wait";
    writer.quantiles("kaspr_kafka_broker_throttle_seconds", help, quantiles(|broker| &broker.throttle));
}
