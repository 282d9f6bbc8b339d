//! Variables of the environment that look like settings of the program, and are none.
//!
//! A misspelt variable is ignored in silence by most programs. Here it gives one warning, with the nearest
//! name. The prefix `KASPR_` is the program's alone; behind `K_` the operator has variables of its own, so
//! nothing there is judged.

use crate::config::settings::{SETTINGS, is_variable};

/// The prefix of the program's own variables. Those behind `K_` are the operator's, which has more of them.
const OWN: &str = "KASPR_";
/// The prefix of settings of the Kafka clients, which a run judges by librdkafka's names.
const CLIENTS: &str = "KASPR_KAFKA_";
/// A variable that only tests set.
const FAILPOINT: &str = "KASPR_FAILPOINT";

/// True if a variable is meant for the program, and the program does not know it.
///
/// ```text
/// KASPR_COMIT_INTERVAL  →  true      KASPR_APP_SERVICE_HOST  →  false: Kubernetes sets it
/// ```
pub(super) fn is_unknown(name: &str) -> bool {
    let is_known = is_variable(name) || name.starts_with(CLIENTS) || name == FAILPOINT;
    name.starts_with(OWN) && !is_known && !is_of_a_service(name)
}

/// True if Kubernetes sets the variable in pods beside a service of this name, `KASPR_APP_SERVICE_HOST`:
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.
fn is_of_a_service(name: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    let is_port = |word: &str| word.parse::<u16>().is_ok();
    let is_protocol = |word: &str| matches!(word, "TCP" | "UDP" | "SCTP");
    // A service `kaspr-port` gives KASPR_PORT_PORT, so the words are matched from the end.
    match words.as_slice() {
        [.., "SERVICE", "HOST"] | [.., "PORT"] => true,
        [.., "PORT", port, protocol] => is_port(port) && is_protocol(protocol),
        [.., "PORT", port, protocol, "ADDR" | "PROTO"] => is_port(port) && is_protocol(protocol),
        _ => name.contains("_SERVICE_PORT_"),
    }
}

/// The warning of a variable. Its value is not in it: it may be a secret.
///
/// `nearest` finds the known name that is near enough to be meant.
pub(super) fn warning(name: &str, nearest: &dyn Fn(&str, &[String]) -> Option<String>) -> String {
    let known: Vec<String> = SETTINGS.iter().map(|setting| setting.variable.to_owned()).collect();
    // Their common prefix would bring all names near each other.
    let hint = match nearest(name.strip_prefix(OWN).unwrap_or(name), &known) {
        Some(near) => format!("did you mean {OWN}{near}?"),
        None => "`kaspr-exec run --help` lists the settings".to_owned(),
    };
    format!("warning: the variable {name} is no setting of kaspr-exec\n  = help: {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_for_the_program_is_unknown() {
        for name in ["KASPR_COMIT_INTERVAL", "KASPR_ALLOW_PICKLE", "KASPR_", "KASPR_KAFKA", "KASPR_PORT_FROM"] {
            assert!(is_unknown(name), "{name}");
        }
        for name in ["KASPR_COMMIT_INTERVAL", "KASPR_KAFKA_SASL_USERNAME", "K_COMIT_INTERVAL", "PATH", FAILPOINT] {
            assert!(!is_unknown(name), "{name}");
        }
        for setting in SETTINGS {
            assert!(!is_unknown(&format!("{OWN}{}", setting.variable)), "{}", setting.name);
        }
    }

    #[test]
    fn what_kubernetes_says_of_services_is_no_setting() {
        for name in [
            "KASPR_SERVICE_HOST",
            "KASPR_APP_SERVICE_PORT",
            "KASPR_APP_SERVICE_PORT_HTTP",
            "KASPR_APP_PORT",
            "KASPR_APP_PORT_6066_TCP",
            "KASPR_APP_PORT_6066_TCP_ADDR",
            "KASPR_APP_PORT_6066_UDP_PROTO",
        ] {
            assert!(!is_unknown(name), "{name}");
        }
    }
}
