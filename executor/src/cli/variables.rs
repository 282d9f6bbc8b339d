//! Variables of the environment that look like settings of the program, and are none.
//!
//! The prefix `KASPR_` is the program's alone: a misspelt name there is refused, with the nearest one. Behind `K_` the
//! operator has variables of its own, so nothing there is judged but those of the reference runtime: its scheduler is
//! refused, and what has no effect is named in one line.

use super::stop::Stop;
use crate::broker::kafka::names::setting_of;
use crate::config::settings::{SETTINGS, truth};
use crate::config::variables::{PREFIXES, is_of_a_service, is_same, is_setting, is_without_effect};

/// The prefix of the program's own variables. Those behind `K_` are the operator's, which has more of them.
const OWN: &str = "KASPR_";
/// Variables that are no settings: the step at which a test ends the process, and the file of the last error.
const OTHERS: [&str; 2] = ["KASPR_FAILPOINT", super::last_words::VARIABLE];
/// Parts of the reference runtime that there are not here, by the variables that switch them on.
const SCHEDULER: [&str; 2] = ["SCHEDULER_ENABLED", "SCHEDULER_CRON_ENABLED"];

/// Variables that are no settings, by what is said of them. None of their values is kept: it may be a secret.
#[derive(Clone, Debug, Default)]
pub(super) struct Strangers {
    /// Misspelt ones.
    unknown: Vec<String>,
    /// Variables of the reference runtime that change nothing.
    without_effect: Vec<String>,
    /// Variables that ask for the scheduler.
    scheduler: Vec<String>,
}

impl Strangers {
    /// Judges one variable. One that is set to nothing counts as not set.
    pub fn judge(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let rest = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
        let list = match rest {
            Some(rest) if SCHEDULER.iter().any(|known| is_same(known, rest)) => {
                if truth(value) == Some(false) {
                    return;
                }
                &mut self.scheduler
            }
            Some(_) if is_without_effect(name) => &mut self.without_effect,
            Some(_) if is_unknown(name, value) => &mut self.unknown,
            _ => return,
        };
        list.push(name.to_owned());
        list.sort();
    }

    /// Says in one line which of the reference runtime's variables have no effect; `None`: none is set.
    pub fn without_effect(&self) -> Option<String> {
        let names = self.without_effect.join(", ");
        (!names.is_empty())
            .then(|| format!("warning: these variables of the reference runtime have no effect: {names}"))
    }

    /// Refuses misspelt variables, and the scheduler.
    ///
    /// # Errors
    ///
    /// A text with each of them, and the nearest name that there is.
    pub fn refuse(&self, nearest: &dyn Fn(&str, &[String]) -> Option<String>) -> Result<(), Stop> {
        let known: Vec<String> = SETTINGS.iter().map(|setting| setting.variable.to_owned()).collect();
        let unknown = self.unknown.iter().map(|name| {
            // Their common prefix would bring all names near each other.
            let hint = match nearest(name.strip_prefix(OWN).unwrap_or(name), &known) {
                Some(near) => format!("did you mean {OWN}{near}?"),
                None => "`kaspr-exec run --help` lists the settings".to_owned(),
            };
            format!("error: the variable {name} is no setting of kaspr-exec\n  = help: {hint}")
        });
        let scheduler = self.scheduler.iter().map(|name| {
            format!("error: {name} asks for the scheduler, which there is not: messages that are sent to it would be lost\n  = help: remove the setting, or keep this app on the reference runtime")
        });
        match unknown.chain(scheduler).collect::<Vec<_>>() {
            said if said.is_empty() => Ok(()),
            said => Err(Stop(super::stop::REFUSED, said.join("\n"))),
        }
    }
}

/// True if a variable is meant for the program, and the program does not know it.
///
/// ```text
/// KASPR_COMIT_INTERVAL  →  true      KASPR_APP_SERVICE_HOST  →  false: Kubernetes sets it
/// ```
fn is_unknown(name: &str, value: &str) -> bool {
    // A run judges settings of the Kafka clients by librdkafka's names.
    let is_of_clients = name.strip_prefix(OWN).and_then(setting_of).is_some();
    let is_known = is_setting(name) || is_of_clients || OTHERS.contains(&name);
    name.starts_with(OWN) && !is_known && !is_of_a_service(name, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(variables: &[(&str, &str)]) -> Strangers {
        let mut strangers = Strangers::default();
        variables.iter().for_each(|(name, value)| strangers.judge(name, value));
        strangers
    }

    fn refused(variables: &[(&str, &str)]) -> String {
        judged(variables).refuse(&|_, _| None).err().map_or_else(String::new, |Stop(_, text)| text)
    }

    #[test]
    fn only_what_is_meant_for_the_program_is_unknown() {
        for name in [
            "KASPR_COMIT_INTERVAL",
            "KASPR_ALLOW_PICKLE",
            "KASPR_",
            "KASPR_KAFKA",
            "KASPR_KAFKANONE",
            "KASPR_PORT_FROM",
        ] {
            assert!(is_unknown(name, "x"), "{name}");
        }
        for name in ["KASPR_COMMIT_INTERVAL", "KASPR_KAFKA_SASL_USERNAME", "K_COMIT_INTERVAL", "PATH", OTHERS[0]] {
            assert!(!is_unknown(name, "x"), "{name}");
        }
        for setting in SETTINGS {
            assert!(!is_unknown(&format!("{OWN}{}", setting.variable), "x"), "{}", setting.name);
        }
        for name in ["KASPR_ONERROR", "KASPR_KAFKALINGERMS", "KASPR_KAFKA_NONE"] {
            assert!(!is_unknown(name, "x"), "names are compared without underscores: {name}");
        }
        assert!(!is_unknown("KASPR_KAFKA_PORT", "tcp://10.0.0.1:9092"));
    }

    #[test]
    fn the_scheduler_is_refused_where_it_is_on() {
        for (name, value) in [("K_SCHEDULER_ENABLED", "True"), ("KASPR_SCHEDULER_CRON_ENABLED", "1")] {
            assert!(refused(&[(name, value)]).contains(&format!("error: {name} asks for the scheduler")), "{name}");
        }
        assert_eq!(refused(&[("K_SCHEDULER_ENABLED", "False"), ("K_SCHEDULER_CRON_ENABLED", "no")]), "");
    }

    #[test]
    fn what_has_no_effect_is_named_in_one_line() {
        let strangers = judged(&[
            ("K_STREAM_BUFFER_MAXSIZE", "5"),
            ("K_DATA_DIR", "/x"),
            ("K_CONFIG_HASH", "ab"),
            ("K_DATADIR", ""),
        ]);
        let said = strangers.without_effect().expect("two are set");
        assert!(said.ends_with("have no effect: K_DATA_DIR, K_STREAM_BUFFER_MAXSIZE"), "{said}");
        assert!(strangers.refuse(&|_, _| None).is_ok());
        assert_eq!(judged(&[("K_POD_NAME", "x")]).without_effect(), None);
    }
}
