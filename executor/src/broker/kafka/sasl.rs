//! Finds out why a broker refuses the client where users prove their identity: the client's own words name
//! neither the setting nor, where it has no user at all, that one is asked for.
//!
//! ```text
//! the client has a user, and is refused ─▶ explain_refusal: the mechanism, the protocol or the password
//! the client has none, and nothing answers ─▶ explain_missing: tries a user that no broker has
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, ProducerContext};

use super::config::ClientSettings;
use super::context::Health;
use super::tls::is_reachable;
use super::tokens;

/// The client's words where the broker does not know a mechanism, or knows none at all.
const HANDSHAKE: &str = "mechanism handshake failed";
const UNSUPPORTED: &str = "Unsupported SASL mechanism";
const SUPPORTED: &str = "supported mechanisms:";

/// A mechanism that sends no password, for a user that no broker has.
const MECHANISM: &str = "SCRAM-SHA-512";
const NOBODY: &str = "kaspr-exec-without-user";
/// Longest wait for the answer to it.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);
const ANSWER_TURN: Duration = Duration::from_millis(50);

/// Explains what to set where a broker has refused the client's user, from the client's words.
///
/// `None`: the client names no user, or the words are not understood.
pub fn explain_refusal(settings: &ClientSettings, reason: &str) -> Option<String> {
    let (servers, mechanism) = (&settings.servers, settings.mechanism());
    let (protocol, is_tls, with_users) = settings.protocol();
    if !with_users {
        return None;
    }
    // Before the handshake's words, which stand in the same text.
    if reason.contains(UNSUPPORTED) {
        let known = mechanisms(reason)?;
        let first = known.split(',').next().unwrap_or_default();
        return Some(format!(
            "the brokers of {servers} let users in by the mechanisms {known}, and sasl.mechanisms is {mechanism}: connect with --kafka sasl.mechanisms={first}"
        ));
    }
    if reason.contains(HANDSHAKE) {
        let other = if is_tls { "ssl" } else { "plaintext" };
        return Some(format!(
            "the brokers of {servers} ask for no user, and security.protocol is {protocol}: connect with --kafka security.protocol={other}, or to another port of the broker"
        ));
    }
    let is_aws = settings.user.get(tokens::METHOD).is_some_and(|method| method.expose() == tokens::MSK);
    let what = match mechanism.to_ascii_uppercase().as_str() {
        "OAUTHBEARER" if is_aws => "the credentials of AWS, the region, and the policy (kafka-cluster:Connect)",
        "OAUTHBEARER" => "the settings sasl.oauthbearer.*",
        "GSSAPI" => "the ticket, and sasl.kerberos.*",
        _ => "sasl.username and sasl.password",
    };
    Some(format!("authentication failed at {servers} (mechanism {mechanism}): {reason}: look at {what}"))
}

/// Explains what to set where a broker asks for a user and the client names none: the client itself says
/// nothing, since it takes the connections that end for idle ones.
///
/// `None`: the brokers ask for none, or nothing is reachable. Takes up to [`ANSWER_WAIT_MAX`].
pub fn explain_missing(settings: &ClientSettings) -> Option<String> {
    let (protocol, is_tls, with_users) = settings.protocol();
    if with_users || !is_reachable(&settings.servers) {
        return None;
    }
    let other = if is_tls { "sasl_ssl" } else { "sasl_plaintext" };
    let refusal = refusal(settings, other)?;
    let known = match (refusal.contains(UNSUPPORTED), refusal.contains(HANDSHAKE)) {
        (true, _) => mechanisms(&refusal)?,
        // The broker knows no users.
        (false, true) => return None,
        (false, false) => MECHANISM,
    };
    Some(format!(
        "the brokers of {} ask for a user (mechanisms {known}), and security.protocol is {protocol}: connect with --kafka security.protocol={other} --kafka sasl.mechanisms={}, and with sasl.username and sasl.password",
        settings.servers,
        known.split(',').next().unwrap_or_default(),
    ))
}

/// Mechanisms of the broker, in the client's words on a handshake.
///
/// `… supported mechanisms: PLAIN,SCRAM-SHA-512 (after …` → `PLAIN,SCRAM-SHA-512`.
fn mechanisms(reason: &str) -> Option<&str> {
    let (_, known) = reason.split_once(SUPPORTED)?;
    let known = known.split([' ', '(', ';']).find(|part| !part.is_empty())?;
    Some(known.trim_end_matches(','))
}

/// Connects as a user that no broker has; gives the client's words on the refusal. `None`: there was none.
///
/// The refusal names the mechanisms that the broker has.
fn refusal(settings: &ClientSettings, protocol: &str) -> Option<String> {
    let mut config = settings.plain();
    config.remove("sasl.mechanism");
    config.set("security.protocol", protocol).set("sasl.mechanisms", MECHANISM);
    config.set("sasl.username", NOBODY).set("sasl.password", NOBODY);
    let ear = Ear::default();
    let client: BaseProducer<Ear> = config.create_with_context(ear.clone()).ok()?;
    for _ in 0..ANSWER_WAIT_MAX.as_millis() / ANSWER_TURN.as_millis() {
        client.poll(ANSWER_TURN);
        let heard = ear.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if heard.is_some() {
            return heard;
        }
    }
    None
}

/// Collects refusals of users.
///
/// The first one is kept.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Option<String>>>);

impl ClientContext for Ear {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Health::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error.rdkafka_error_code(), Some(Code::Authentication | Code::SaslAuthenticationFailed)) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
        }
    }
}

impl ProducerContext for Ear {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &rdkafka::message::DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mechanisms_are_read_out_of_the_clients_words() {
        let words = "sasl_plaintext://127.0.0.1:1/bootstrap: SASL SCRAM-SHA-256 mechanism handshake failed: Broker: \
                     Unsupported SASL mechanism: broker's supported mechanisms: PLAIN,SCRAM-SHA-512 (after 1ms in state \
                     AUTH_HANDSHAKE)";
        assert_eq!(mechanisms(words), Some("PLAIN,SCRAM-SHA-512"));
        assert_eq!(mechanisms("Broker: something else"), None);
    }
}
