//! The names by which variables set Kafka's clients.
//!
//! ```text
//! KAFKA_SASL_USERNAME         sasl.username     librdkafka's own name, in capitals
//! KAFKA_SASL_PASSWORD_FILE    sasl.password     whose value stands in a file
//! KAFKA_AUTH_PASSWORD         sasl.password     the operator's name
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
    let of_operator = |name: &str| OPERATORS.iter().find(|(known, _)| is_same(known, name)).map(|(_, own)| *own);
    if is_same(name, SERVERS) {
        return None;
    }
    if let Some(setting) = of_operator(name) {
        return Some((setting.to_owned(), NamedBy::Value));
    }
    if let Some(setting) = name.strip_suffix(FILE).or_else(|| name.strip_suffix("FILE")).and_then(of_operator) {
        return Some((setting.to_owned(), NamedBy::File));
    }
    let dotted = |name: &str| name.to_ascii_lowercase().replace('_', ".");
    let own = name.strip_prefix(PREFIX).filter(|own| !own.is_empty())?;
    match own.strip_suffix(FILE).filter(|_| !is_known(&dotted(own))) {
        Some(own) => Some((dotted(own), NamedBy::File)),
        None => Some((dotted(own), NamedBy::Value)),
    }
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
            ("KAFKA_NO_SUCH_THING", "no.such.thing", NamedBy::Value),
        ] {
            assert_eq!(setting_of(name), Some((setting.to_owned(), by)), "{name}");
        }
        for name in ["KAFKA_BOOTSTRAP_SERVERS", "KAFKABOOTSTRAPSERVERS", "KAFKA_", "APP_NAME"] {
            assert_eq!(setting_of(name), None, "{name}");
        }
    }
}
