//! The one table of settings, from the strongest source to the weakest.
//!
//! Flag, then `KASPR_*`, then `K_*` (what the operator sets in pods), then the `KasprApp`'s config,
//! then the default.
//!
//! ```text
//! --from latest          ┐
//! KASPR_FROM=latest      │
//! K_FROM=latest          ├─▶ Settings: from = "latest" ─▶ Config: From::Latest
//! spec.config.from       │
//! default: earliest      ┘
//! ```
//!
//! Values stay text until [`Settings::config`] reads them, so an error can quote what was written. Settings of
//! Kafka's client are not here: they have no table, see `broker/kafka/config.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use kaspr_ir::plan::{App, OnError, Plan};

pub use crate::config::table::{SETTINGS, Setting};
use crate::config::{CALL_MAX, Config, From, Guarantee};

/// Prefixes of the variables that set settings, the stronger first: the program's own, and the operator's.
pub const PREFIXES: [&str; 2] = ["KASPR_", "K_"];

/// The error of a setting whose value makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the setting \"{name}\" is \"{value}\": {why}")]
pub struct SettingError {
    /// Its name.
    pub name: String,
    /// The value that it is set to.
    pub value: String,
    /// The reason for which that value is refused.
    pub why: String,
}

/// The resolved settings: values by name.
///
/// Made once by the command line, before anything is connected. A setting without a value and without a default has
/// no entry.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, String>,
    /// Settings that were given as flags.
    flags: BTreeSet<&'static str>,
}

impl Settings {
    /// Resolves every setting. `flags` are by name; `variable` reads the environment.
    ///
    /// Nothing is checked here: values that make no sense are found when they are read.
    pub fn resolve(
        flags: &BTreeMap<&'static str, String>,
        variable: &dyn Fn(&str) -> Option<String>,
        app: &App,
    ) -> Settings {
        let mut values = BTreeMap::new();
        for setting in SETTINGS {
            let from_app = || {
                // YAML makes numbers and mappings of some values; as JSON they are what a flag would have said.
                app.settings.get(setting.name).map(|value| match value {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                })
            };
            let [own, operators] = PREFIXES.map(|prefix| variable(&format!("{prefix}{}", setting.variable)));
            let places = [flags.get(setting.name).cloned(), own, operators, from_app()];
            // A place that is set to nothing counts as not set: the next one is asked.
            let value = places.into_iter().flatten().find(|value| !value.is_empty());
            let value = value.unwrap_or_else(|| setting.default.to_owned());
            if !value.is_empty() {
                values.insert(setting.name, value);
            }
        }
        let is_said = |name: &&'static str| flags.get(name).is_some_and(|value| !value.is_empty());
        Settings { values, flags: SETTINGS.map(|setting| setting.name).into_iter().filter(is_said).collect() }
    }

    /// True if a setting was given as a flag: it stands for the person who typed it, not for the place where the
    /// process runs.
    pub fn is_flag(&self, name: &str) -> bool {
        self.flags.contains(name)
    }

    /// The folder that outlives the process, if there is one: an absolute path, since user code may change
    /// the process's folder.
    ///
    /// `None`: tables live in memory, and crashes are not remembered.
    pub fn state_dir(&self) -> Option<PathBuf> {
        self.get("stateDir").map(|folder| std::path::absolute(folder).unwrap_or_else(|_| folder.into()))
    }

    /// A setting's value, if it has one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The worker's configuration. An app without a name is called `local` in local runs.
    ///
    /// Fails at the first value that makes no sense. `worker` is its number among the processes of the instance.
    pub fn config(&self, plan: &Plan, worker: u32) -> Result<Config, SettingError> {
        let app = self.get("app").or(plan.app.name.as_deref()).unwrap_or("local");
        let mut config = Config::new(app, self.get("instance").unwrap_or("local"), worker);
        if let Some(text) = self.get("from") {
            config.from =
                from(text).ok_or_else(|| error("from", text, "it is earliest, latest, or a time as ms since 1970"))?;
        }
        config.guarantee = match self.get("guarantee") {
            None | Some("exactly-once") => Guarantee::ExactlyOnce,
            Some("at-least-once") => Guarantee::AtLeastOnce,
            Some(text) => return Err(error("guarantee", text, "it is exactly-once or at-least-once")),
        };
        config.dead_letter_topic = self.get("deadLetterTopic").map(str::to_owned);
        if let Some(text) = self.get("onError") {
            config.on_error =
                OnError::from_setting(text).map_err(|fault| error("onError", text, &fault.to_string()))?;
        }
        if let Some(text) = self.get("timeout") {
            // Longer, the group would give the partitions away while the call runs.
            let timeout = duration(text).filter(|timeout| !timeout.is_zero() && *timeout <= CALL_MAX);
            config.timeout =
                timeout.ok_or_else(|| error("timeout", text, "a duration of at most 240s is needed: 30s"))?;
        }
        if let Some(text) = self.get("commitInterval") {
            config.commit_interval = duration(text).ok_or_else(|| {
                error("commitInterval", text, "a duration is a number and one of ms, s, m, h, d: 100ms")
            })?;
        }
        if let Some(text) = self.get("stallAfter") {
            // Not zero: the watch takes that for "never".
            let after = duration(text).filter(|after| !after.is_zero());
            config.stall_after = after.ok_or_else(|| error("stallAfter", text, "a duration is needed: 30s"))?;
        }
        Ok(config)
    }

    /// The name of the app where it must have one: on Kafka it is the group's.
    pub fn app(&self, plan: &Plan) -> Result<String, SettingError> {
        let app = self.get("app").or(plan.app.name.as_deref());
        app.map(str::to_owned).ok_or_else(|| {
            error("app", "", "on Kafka the app needs a name, which is its consumer group's: --app NAME, KASPR_APP_NAME, a KasprApp, or the agents' common label kaspr.io/app")
        })
    }

    /// A setting that is a duration.
    pub fn duration(&self, name: &str) -> Result<Duration, SettingError> {
        let text = self.get(name).unwrap_or_default();
        duration(text).ok_or_else(|| error(name, text, "a duration is a number and one of ms, s, m, h, d: 100ms"))
    }

    /// A setting that is true or false: `True False true false 1 0 yes no`, as Python and YAML write them. False
    /// where it is not set.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub fn truth(&self, name: &str) -> Result<bool, SettingError> {
        let text = self.get(name).unwrap_or("false");
        truth(text).ok_or_else(|| error(name, text, "it is true or false"))
    }

    /// The settings for `context["app"].conf`: names as Python writes them.
    ///
    /// `bootstrapServers` is `bootstrap_servers` there; `app` and `name` are the app's name, whatever its source.
    pub fn for_python(&self, config: &Config) -> BTreeMap<String, String> {
        let mut values: BTreeMap<String, String> =
            self.values.iter().map(|(name, value)| (snake(name), value.clone())).collect();
        values.insert("app".to_owned(), config.app.clone());
        values.insert("name".to_owned(), config.app.clone());
        values
    }
}

pub(super) fn error(name: &str, value: &str, why: &str) -> SettingError {
    SettingError { name: name.to_owned(), value: value.to_owned(), why: why.to_owned() }
}

/// `commitInterval` → `commit_interval`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(character.to_ascii_lowercase());
    }
    text
}

/// `earliest`, `latest`, or a time in ms since 1970: `1700000000000`. `None`: it is none of them.
fn from(text: &str) -> Option<From> {
    match text {
        "earliest" => Some(From::Earliest),
        "latest" => Some(From::Latest),
        _ => text.parse().ok().filter(|&time| time >= 0).map(From::Timestamp),
    }
}

/// `True` → true, `no` → false; `None`: it is neither.
pub fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Some(true),
        "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// A duration as users write it.
///
/// `100ms`, `1.5m`, `2h`; `None`: it is no duration. Rounded to whole milliseconds as in specs.
pub fn duration(text: &str) -> Option<Duration> {
    kaspr_ir::duration::parse(text).map(Duration::from_millis)
}

/// True if a variable sets a setting: `KASPR_FROM`, `K_FROM`.
pub fn is_variable(name: &str) -> bool {
    let rest = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
    rest.is_some_and(|rest| SETTINGS.iter().any(|setting| setting.variable == rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_set_to_nothing_hides_no_other() {
        let app = App::default();
        let variable = |name: &str| match name {
            "KASPR_FROM" => Some(String::new()),
            "K_FROM" => Some("latest".to_owned()),
            _ => None,
        };
        assert_eq!(Settings::resolve(&BTreeMap::new(), &variable, &app).get("from"), Some("latest"));
        let flags = [("from", String::new())].into();
        assert_eq!(Settings::resolve(&flags, &variable, &app).get("from"), Some("latest"));
    }
}
