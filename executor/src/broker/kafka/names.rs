//! The names by which variables set Kafka's clients.
//!
//! ```text
//! KAFKA_SASL_USERNAME         sasl.username     librdkafka's own name, in capitals
//! KAFKA_SASL_PASSWORD_FILE    sasl.password     whose value stands in a file
//! KAFKA_AUTH_PASSWORD         sasl.password     the operator's name
//! KAFKALINGERMS               linger.ms         without the underscores, as the operator writes keys that it does not know
//! ```

use super::config::is_known;
use crate::config::variables::is_same;

/// Names that the operator gives settings, behind the prefix, and librdkafka's.
const OPERATORS: [(&str, &str); 8] = [
    ("KAFKA_SECURITY_PROTOCOL", "security.protocol"),
    ("KAFKA_SASL_MECHANISM", "sasl.mechanisms"),
    ("KAFKA_SASL_MECHANISMS", "sasl.mechanisms"),
    ("KAFKA_AUTH_USERNAME", "sasl.username"),
    ("KAFKA_AUTH_PASSWORD", "sasl.password"),
    ("KAFKA_AUTH_CAFILE", "ssl.ca.location"),
    ("KAFKA_AUTH_CAPATH", "ssl.ca.location"),
    ("KAFKA_AUTH_CADATA", "ssl.ca.pem"),
];
/// librdkafka's names of settings that can be written: what is alike in its letters means one of them.
const NAMES: &str = "\
    acks allow.auto.create.topics api.version.fallback.ms api.version.request api.version.request.timeout.ms \
    auto.commit.enable auto.commit.interval.ms auto.offset.reset batch.num.messages batch.size bootstrap.servers \
    broker.address.family broker.address.ttl broker.version.fallback builtin.features check.crcs \
    client.dns.lookup client.id client.rack client.software.name compression.codec compression.level \
    compression.type connections.max.idle.ms consume.callback.max.messages coordinator.query.interval.ms debug \
    delivery.report.only.error delivery.timeout.ms enable.auto.commit enable.auto.offset.store \
    enable.gapless.guarantee enable.idempotence enable.metrics.push enable.partition.eof enable.random.seed \
    enable.sasl.oauthbearer.unsecure.jwt enable.sparse.connections enable.ssl.certificate.verification \
    fetch.error.backoff.ms fetch.max.bytes fetch.message.max.bytes fetch.min.bytes fetch.queue.backoff.ms \
    fetch.wait.max.ms group.id group.instance.id group.protocol group.protocol.type group.remote.assignor \
    heartbeat.interval.ms https.ca.location https.ca.pem internal.termination.signal isolation.level linger.ms \
    log.connection.close log.queue log.thread.name max.in.flight max.in.flight.requests.per.connection \
    max.partition.fetch.bytes max.poll.interval.ms message.copy.max.bytes message.max.bytes \
    message.send.max.retries message.timeout.ms metadata.broker.list metadata.max.age.ms \
    metadata.recovery.rebootstrap.trigger.ms metadata.recovery.strategy metadata.request.timeout.ms \
    offset.store.method offset.store.path offset.store.sync.interval.ms partition.assignment.strategy \
    partitioner plugin.library.paths produce.offset.report queue.buffering.backpressure.threshold \
    queue.buffering.max.kbytes queue.buffering.max.messages queue.buffering.max.ms queued.max.messages.kbytes \
    queued.min.messages queuing.strategy receive.message.max.bytes reconnect.backoff.jitter.ms \
    reconnect.backoff.max.ms reconnect.backoff.ms request.required.acks request.timeout.ms retries \
    retry.backoff.max.ms retry.backoff.ms sasl.kerberos.keytab sasl.kerberos.kinit.cmd \
    sasl.kerberos.min.time.before.relogin sasl.kerberos.principal sasl.kerberos.service.name sasl.mechanism \
    sasl.mechanisms sasl.oauthbearer.assertion.algorithm sasl.oauthbearer.assertion.claim.aud \
    sasl.oauthbearer.assertion.claim.exp.seconds sasl.oauthbearer.assertion.claim.iss \
    sasl.oauthbearer.assertion.claim.jti.include sasl.oauthbearer.assertion.claim.nbf.seconds \
    sasl.oauthbearer.assertion.claim.sub sasl.oauthbearer.assertion.file \
    sasl.oauthbearer.assertion.jwt.template.file sasl.oauthbearer.assertion.private.key.file \
    sasl.oauthbearer.assertion.private.key.passphrase sasl.oauthbearer.assertion.private.key.pem \
    sasl.oauthbearer.client.credentials.client.id sasl.oauthbearer.client.credentials.client.secret \
    sasl.oauthbearer.client.id sasl.oauthbearer.client.secret sasl.oauthbearer.config \
    sasl.oauthbearer.extensions sasl.oauthbearer.grant.type sasl.oauthbearer.metadata.authentication.type \
    sasl.oauthbearer.method sasl.oauthbearer.scope sasl.oauthbearer.token.endpoint.url sasl.password \
    sasl.username security.protocol session.timeout.ms socket.blocking.max.ms socket.connection.setup.timeout.ms \
    socket.keepalive.enable socket.max.fails socket.nagle.disable socket.receive.buffer.bytes \
    socket.send.buffer.bytes socket.timeout.ms ssl.ca.certificate.stores ssl.ca.location ssl.ca.pem \
    ssl.certificate.location ssl.certificate.pem ssl.cipher.suites ssl.crl.location ssl.curves.list \
    ssl.endpoint.identification.algorithm ssl.engine.id ssl.engine.location ssl.key.location ssl.key.password \
    ssl.key.pem ssl.keystore.location ssl.keystore.password ssl.providers ssl.sigalgs.list \
    statistics.interval.ms sticky.partitioning.linger.ms topic.blacklist topic.metadata.propagation.max.ms \
    topic.metadata.refresh.fast.cnt topic.metadata.refresh.fast.interval.ms topic.metadata.refresh.interval.ms \
    topic.metadata.refresh.sparse transaction.timeout.ms transactional.id";
/// Begins all names.
const PREFIX: &str = "KAFKA_";
/// A setting of the program, in spite of its prefix.
const SERVERS: &str = "KAFKA_BOOTSTRAP_SERVERS";
/// The end of a variable's name that says that its value is the name of a file.
const FILE: &str = "_FILE";

/// The way in which a variable gives a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// It is the variable's.
    Value,
    /// It stands in the file that the variable names.
    File,
}

/// The setting that a variable names, by its own name behind `KASPR_` or `K_`; `None`: it is not meant for Kafka's
/// clients. librdkafka need not know the setting.
///
/// ```
/// use kaspr_exec::broker::kafka::names::{NamedBy, setting_of};
///
/// assert_eq!(setting_of("KAFKA_LINGER_MS"), Some(("linger.ms".to_owned(), NamedBy::Value)));
/// assert_eq!(setting_of("KAFKA_AUTH_PASSWORD_FILE"), Some(("sasl.password".to_owned(), NamedBy::File)));
/// assert_eq!(setting_of("KAFKA_BOOTSTRAP_SERVERS"), None);
/// ```
pub fn setting_of(name: &str) -> Option<(String, NamedBy)> {
    if is_same(name, SERVERS) {
        return None;
    }
    if let Some(setting) = of_operator(name) {
        return Some((setting.to_owned(), NamedBy::Value));
    }
    if let Some(setting) = without_file(name).and_then(of_operator) {
        return Some((setting.to_owned(), NamedBy::File));
    }
    let own = name.strip_prefix(PREFIX).filter(|own| !own.is_empty());
    if let Some(known) = own.map(dotted).filter(|own| is_known(own)) {
        return Some((known, NamedBy::Value));
    }
    if let Some(known) = own.and_then(|own| own.strip_suffix(FILE)).map(dotted).filter(|own| is_known(own)) {
        return Some((known, NamedBy::File));
    }
    if let Some(alike) = alike(name) {
        return Some((alike.to_owned(), NamedBy::Value));
    }
    if let Some(alike) = without_file(name).and_then(alike) {
        return Some((alike.to_owned(), NamedBy::File));
    }
    // Nobody's name: the client says so.
    let own = own?;
    match own.strip_suffix(FILE) {
        Some(own) => Some((dotted(own), NamedBy::File)),
        None => Some((dotted(own), NamedBy::Value)),
    }
}

/// True if a variable, by its name behind the prefix, is written with all its underscores: of several that differ in
/// them alone it counts.
pub fn is_exact(name: &str) -> bool {
    let is_one = |name: &str| {
        let is_librdkafkas = name.strip_prefix(PREFIX).is_some_and(|own| is_known(&dotted(own)));
        is_librdkafkas || OPERATORS.iter().any(|(known, _)| *known == name)
    };
    is_one(name) || name.strip_suffix(FILE).is_some_and(is_one)
}

fn of_operator(name: &str) -> Option<&'static str> {
    OPERATORS.iter().find(|(known, _)| is_same(known, name)).map(|(_, own)| *own)
}

/// The name before the end that says that the value stands in a file.
fn without_file(name: &str) -> Option<&str> {
    name.strip_suffix(FILE).or_else(|| name.strip_suffix("FILE"))
}

fn dotted(own: &str) -> String {
    own.to_ascii_lowercase().replace('_', ".")
}

/// The setting of librdkafka whose name differs in its dots alone.
fn alike(name: &str) -> Option<&'static str> {
    let letters = |name: &str| name.chars().filter(|c| !matches!(c, '_' | '.')).collect::<String>();
    let written = letters(name).to_ascii_lowercase();
    let written = written.strip_prefix("kafka")?;
    NAMES.split_whitespace().find(|known| letters(known) == written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_settings() {
        for (name, setting, by) in [
            ("KAFKA_SASL_USERNAME", "sasl.username", NamedBy::Value),
            ("KAFKA_SASL_PASSWORD_FILE", "sasl.password", NamedBy::File),
            ("KAFKA_SASL_OAUTHBEARER_ASSERTION_FILE", "sasl.oauthbearer.assertion.file", NamedBy::Value),
            ("KAFKA_SASL_MECHANISM", "sasl.mechanisms", NamedBy::Value),
            ("KAFKA_AUTH_CAFILE", "ssl.ca.location", NamedBy::Value),
            ("KAFKA_AUTH_CAPATH", "ssl.ca.location", NamedBy::Value),
            ("KAFKA_AUTH_CADATA", "ssl.ca.pem", NamedBy::Value),
            ("KAFKA_AUTH_CADATA_FILE", "ssl.ca.pem", NamedBy::File),
            ("KAFKAAUTHPASSWORD", "sasl.password", NamedBy::Value),
            ("KAFKA_SESSIONTIMEOUTMS", "session.timeout.ms", NamedBy::Value),
            ("KAFKALINGERMS", "linger.ms", NamedBy::Value),
            ("KAFKASSLKEYLOCATION", "ssl.key.location", NamedBy::Value),
            ("KAFKASASLUSERNAME_FILE", "sasl.username", NamedBy::File),
            ("KAFKASSLKEYPASSWORDFILE", "ssl.key.password", NamedBy::File),
            ("KAFKASASLOAUTHBEARERASSERTIONFILE", "sasl.oauthbearer.assertion.file", NamedBy::Value),
            ("KAFKA_NO_SUCH_THING", "no.such.thing", NamedBy::Value),
        ] {
            assert_eq!(setting_of(name), Some((setting.to_owned(), by)), "{name}");
        }
        for name in ["KAFKA_BOOTSTRAP_SERVERS", "KAFKABOOTSTRAPSERVERS", "KAFKA_", "KAFKANOSUCHTHING", "APP_NAME"] {
            assert_eq!(setting_of(name), None, "{name}");
        }
    }

    #[test]
    fn names_are_exact_with_all_their_underscores() {
        for name in ["KAFKA_LINGER_MS", "KAFKA_SASL_PASSWORD_FILE", "KAFKA_AUTH_CADATA", "KAFKA_AUTH_CADATA_FILE"] {
            assert!(is_exact(name), "{name}");
        }
        for name in ["KAFKA_LINGERMS", "KAFKALINGER_MS", "KAFKA_AUTHCADATA", "KAFKA_SASLPASSWORD_FILE", "KAFKA_"] {
            assert!(!is_exact(name), "{name}");
        }
    }

    #[test]
    fn librdkafka_knows_all_names() {
        let unknown: Vec<_> = NAMES.split_whitespace().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "librdkafka does not know {unknown:?}");
    }

    #[test]
    fn no_two_names_are_alike() {
        for name in NAMES.split_whitespace() {
            let capitals = name.to_ascii_uppercase().replace('.', "");
            assert_eq!(alike(&format!("KAFKA{capitals}")), Some(name));
        }
    }
}
