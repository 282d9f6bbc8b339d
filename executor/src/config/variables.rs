//! Variables of the environment as settings: how names are compared, and which of them are none.
//!
//! The operator makes a variable of each key of `spec.config` and keeps the words apart only in keys that it knows:
//! `onError` comes as `K_ONERROR`. So names are compared without underscores, and the exact one goes first.
//!
//! | a variable behind `KASPR_` or `K_` | is |
//! |---|---|
//! | whose value begins with `tcp://` | Kubernetes' word on a Service: no setting, whatever its name |
//! | of a setting, or one that only the reference runtime has | read, or named as one without effect |
//! | any other behind `KASPR_` | refused: it is misspelt |
//! | any other behind `K_` | the operator's own |

use crate::config::table::SETTINGS;

/// Prefixes of the variables that set settings, the stronger first: the program's own, and the operator's.
pub const PREFIXES: [&str; 2] = ["KASPR_", "K_"];

/// Variables of the reference runtime that change nothing here, by their names behind the prefix.
const WITHOUT_EFFECT: [&str; 5] =
    ["DATA_DIR", "WEB_BASE_PATH", "PRODUCER_ACKS", "APP_BUILDER_ENABLED", "AUTO.OFFSET.RESET"];
/// Beginnings of the names of others.
const FAMILIES_WITHOUT_EFFECT: [&str; 4] = ["BROKER_", "STREAM_", "STORE_ROCKSDB_", "SCHEDULER_"];

/// Variables that set settings, as the process was given them.
///
/// None of them is a secret: those of Kafka clients are kept elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Variables(Vec<(String, String)>);

impl Variables {
    /// Keeps those that may set a setting, in the order of their names.
    ///
    /// ```
    /// use kaspr_exec::config::variables::Variables;
    ///
    /// let variables = Variables::new([("K_ONERROR", "halt"), ("K_WEB_PORT", "tcp://10.0.0.1:80"), ("HOME", "/")]);
    /// assert_eq!(variables.get("ON_ERROR"), Some("halt"));
    /// assert_eq!(variables.get("WEB_PORT"), None);
    /// ```
    pub fn new<N: Into<String>, V: Into<String>>(all: impl IntoIterator<Item = (N, V)>) -> Variables {
        let all = all.into_iter().map(|(name, value)| (name.into(), value.into()));
        let mut kept: Vec<_> = all.filter(|(name, value)| is_setting(name) && is_meant(value)).collect();
        kept.sort();
        Variables(kept)
    }

    /// Adds the value of a setting that no variable sets.
    pub fn add_weakest(&mut self, setting: &str, value: &str) {
        if self.get(setting).is_none() && is_meant(value) {
            self.0.push((format!("{}{setting}", PREFIXES[1]), value.to_owned()));
        }
    }

    /// The value of a setting, by its name behind the prefix: `KASPR_…` before `K_…`, and of each the exact name first.
    pub fn get(&self, setting: &str) -> Option<&str> {
        let of = |prefix: &str| {
            let named = self.0.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
            let exact = named.clone().find(|(name, _)| *name == setting);
            exact.or_else(|| named.clone().find(|(name, _)| is_same(name, setting))).map(|(_, value)| value.as_str())
        };
        PREFIXES.iter().find_map(|prefix| of(prefix))
    }
}

/// True if two names differ in their underscores alone.
pub fn is_same(name: &str, other: &str) -> bool {
    let letters = |name: &str| name.chars().filter(|c| *c != '_').collect::<String>();
    letters(name) == letters(other)
}

/// True if a value may be a setting's: it is not empty, and no address that Kubernetes gives of a Service.
pub fn is_meant(value: &str) -> bool {
    !value.is_empty() && !is_address(value)
}

/// `tcp://10.0.0.1:9092`, which Kubernetes writes into `…_PORT` and `…_PORT_9092_TCP`.
fn is_address(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|protocol| value.starts_with(protocol))
}

/// True if a variable sets a setting: `KASPR_FROM`, `K_ONERROR`.
pub fn is_setting(name: &str) -> bool {
    behind_prefix(name).is_some_and(|name| SETTINGS.iter().any(|setting| is_same(setting.variable, name)))
}

/// True if a variable is one of the reference runtime that changes nothing here: `K_STREAM_BUFFER_MAXSIZE`.
pub fn is_without_effect(name: &str) -> bool {
    let Some(rest) = behind_prefix(name) else { return false };
    let is_family = FAMILIES_WITHOUT_EFFECT.iter().any(|family| rest.starts_with(family));
    !is_setting(name) && (is_family || WITHOUT_EFFECT.iter().any(|known| is_same(known, rest)))
}

/// True if Kubernetes sets the variable in pods beside a Service of this name: `KASPR_KAFKA_SERVICE_HOST`,
/// `KASPR_KAFKA_PORT_9092_TCP_ADDR`.
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.
pub fn is_of_a_service(name: &str, value: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    let is_port = |word: &str| word.parse::<u16>().is_ok();
    let is_protocol = |word: &str| matches!(word, "TCP" | "UDP" | "SCTP");
    // A service `kaspr-port` gives KASPR_PORT_PORT, so the words are matched from the end.
    match words.as_slice() {
        [.., "SERVICE", "HOST"] => true,
        [.., "PORT", port, protocol] | [.., "PORT", port, protocol, "ADDR" | "PROTO" | "PORT"]
            if is_port(port) && is_protocol(protocol) =>
        {
            true
        }
        [.., "SERVICE", "PORT"] => true,
        [.., "PORT"] => is_address(value),
        _ => name.contains("_SERVICE_PORT_"),
    }
}

/// The name behind `KASPR_` or `K_`; `None`: it has neither.
pub fn behind_prefix(name: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_underscores_and_the_exact_one_goes_first() {
        let variables =
            Variables::new([("K_ONERROR", "halt"), ("K_COMMITINTERVAL", "5s"), ("K_COMMIT_INTERVAL", "7s")]);
        assert_eq!(variables.get("ON_ERROR"), Some("halt"));
        assert_eq!(variables.get("COMMIT_INTERVAL"), Some("7s"));
        let variables = Variables::new([("K_ON_ERROR", "halt"), ("KASPR_ONERROR", "skip")]);
        assert_eq!(variables.get("ON_ERROR"), Some("skip"), "the program's own prefix is the stronger one");
    }

    #[test]
    fn a_variable_that_is_set_to_nothing_hides_no_other() {
        let variables = Variables::new([("KASPR_FROM", ""), ("K_FROM", "latest")]);
        assert_eq!(variables.get("FROM"), Some("latest"));
    }

    #[test]
    fn variables_of_the_reference_are_known() {
        for name in [
            "K_DATA_DIR",
            "K_DATADIR",
            "K_AUTO.OFFSET.RESET",
            "K_BROKER_REQUEST_TIMEOUT",
            "K_STREAM_BUFFER_MAXSIZE",
            "K_STORE_ROCKSDB_WRITE_BUFFER_SIZE",
            "K_SCHEDULER_TOPIC_PARTITIONS",
            "KASPR_PRODUCER_ACKS",
            "K_WEB_BASE_PATH",
            "K_APP_BUILDER_ENABLED",
        ] {
            assert!(is_without_effect(name), "{name}");
        }
        for name in ["K_BROKER_SESSION_TIMEOUT", "K_CONFIG_HASH", "K_POD_NAME", "STREAM_X"] {
            assert!(!is_without_effect(name), "{name}");
        }
    }

    #[test]
    fn what_kubernetes_says_of_services_is_no_setting() {
        for name in [
            "KASPR_SERVICE_HOST",
            "KASPR_KAFKA_SERVICE_HOST",
            "KASPR_APP_SERVICE_PORT",
            "KASPR_APP_SERVICE_PORT_HTTP",
            "KASPR_KAFKA_PORT_9092_TCP",
            "KASPR_APP_PORT_6066_TCP_ADDR",
            "KASPR_APP_PORT_6066_TCP_PORT",
            "KASPR_APP_PORT_6066_UDP_PROTO",
        ] {
            assert!(is_of_a_service(name, "x"), "{name}");
        }
        assert!(is_of_a_service("KASPR_KAFKA_PORT", "tcp://10.0.0.1:9092"));
        assert!(!is_of_a_service("KASPR_WEP_PORT", "6065"), "a misspelt one");
        assert!(!is_of_a_service("KASPR_PORT_FROM", "x"));
    }
}
