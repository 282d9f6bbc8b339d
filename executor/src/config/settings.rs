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
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use kaspr_ir::addresses::brokers;
use kaspr_ir::plan::{App, OnError, Overlap, Plan, is_python_mapping};

pub use crate::config::table::{SETTINGS, Setting};
use crate::config::variables::Variables;
use crate::config::{CALL_MAX, Config, From, GroupTimes, Guarantee, NewTopics, POLL_MIN};

/// The most worker processes of one supervisor.
pub const WORKERS_MAX: u32 = 1000;

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
    /// Resolves every setting. `flags` are by name.
    ///
    /// Nothing is checked here: values that make no sense are found when they are read.
    pub fn resolve(flags: &BTreeMap<&'static str, String>, variables: &Variables, app: &App) -> Settings {
        let mut values = BTreeMap::new();
        for setting in SETTINGS {
            let from_app = || {
                // YAML makes numbers and mappings of some values; as JSON they are what a flag would have said.
                app.settings.get(setting.name).map(|value| match value {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                })
            };
            let variable = variables.get(setting.variable).map(str::to_owned);
            let places = [flags.get(setting.name).cloned(), variable, from_app()];
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
        self.get("stateDir")
            .or(self.get("tableDir"))
            .map(|folder| std::path::absolute(folder).unwrap_or_else(|_| folder.into()))
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
        self.refuse_mappings()?;
        config.new_topics = self.new_topics()?;
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
        if let Some(text) = self.get("concurrency") {
            let units = text.parse::<NonZeroU32>().ok().filter(|units| units.get() <= Overlap::MAX);
            config.concurrency =
                units.ok_or_else(|| error("concurrency", text, "a whole number from 1 to 1000 is needed: 100"))?;
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

    /// Refuses mappings as Python prints them, which is how the operator writes a mapping of `spec.config` into a
    /// variable.
    fn refuse_mappings(&self) -> Result<(), SettingError> {
        match self.values.iter().find(|(_, text)| is_python_mapping(text)) {
            Some((name, text)) => Err(error(
                name,
                text,
                "it is no JSON: the operator writes a mapping as Python prints it, so put the mapping in quotes as JSON: '{\"action\": \"retry\"}'",
            )),
            None => Ok(()),
        }
    }

    /// Creation of topics, where specs say nothing.
    fn new_topics(&self) -> Result<NewTopics, SettingError> {
        let most = u32::try_from(i32::MAX).unwrap_or(u32::MAX);
        Ok(NewTopics {
            may_create: self.truth("topicAllowDeclare")?,
            // Kafka's protocol counts partitions in 32 signed bits and replicas in 16.
            partitions: self.whole("topicPartitions", (1, most))?,
            replicas: self.whole("topicReplicationFactor", (1, u32::try_from(i16::MAX).unwrap_or(u32::MAX)))?,
        })
    }

    /// Times of the member of the group. The time between polls is never shorter than the session, nor than a call of
    /// user code allows: a lower one counts as that.
    ///
    /// # Errors
    ///
    /// The first of them that is no number of seconds, and heartbeats that are rarer than the session allows.
    pub fn group_times(&self) -> Result<GroupTimes, SettingError> {
        let default = GroupTimes::default();
        let session = self.seconds("brokerSessionTimeout", 3600)?.unwrap_or(default.session);
        let heartbeat = self.seconds("brokerHeartbeatInterval", 3600)?.unwrap_or(default.heartbeat.min(session / 3));
        let poll = self.seconds("brokerMaxPollInterval", 86_400)?.unwrap_or(default.poll);
        if heartbeat >= session {
            // The group would count the member as dead between two heartbeats, again and again.
            let text = self.get("brokerHeartbeatInterval").unwrap_or_default();
            let why = format!("heartbeats come more often than the session times out ({session:?})");
            return Err(error("brokerHeartbeatInterval", text, &why));
        }
        Ok(GroupTimes {
            session,
            heartbeat,
            // librdkafka refuses a session that is longer than the time between polls.
            poll: poll.max(POLL_MIN).max(session),
        })
    }

    /// A setting in seconds, `60` or `7.5`; `None` where it is not set.
    fn seconds(&self, name: &str, most: u32) -> Result<Option<Duration>, SettingError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        // Rust reads "nan" and "inf" as numbers: no comparison holds for the one, and the upper bound stops the
        // other.
        let seconds = text.trim().parse().ok().filter(|seconds: &f64| *seconds >= 0.001 && *seconds <= f64::from(most));
        let seconds = seconds.ok_or_else(|| error(name, text, &format!("a number of seconds up to {most} is needed")));
        seconds.map(|seconds| Some(Duration::from_secs_f64(seconds)))
    }

    /// The number of worker processes.
    ///
    /// # Errors
    ///
    /// It is no number from 1 to [`WORKERS_MAX`].
    pub fn workers(&self) -> Result<u32, SettingError> {
        Ok(self.whole("workers", (1, WORKERS_MAX))?.unwrap_or(1))
    }

    /// The brokers, as clients take them; `None`: none are named.
    ///
    /// # Errors
    ///
    /// One of them has no place in such a list: see [`brokers`].
    pub fn servers(&self) -> Result<Option<String>, SettingError> {
        let Some(text) = self.get("bootstrapServers") else { return Ok(None) };
        // A user may stand in it, with a password.
        let shown = if text.contains('@') { "***" } else { text };
        brokers(text).map(Some).map_err(|why| error("bootstrapServers", shown, &why))
    }

    /// A setting that is a whole number within bounds; `None` where it is not set.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub fn whole(&self, name: &str, (least, most): (u32, u32)) -> Result<Option<u32>, SettingError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.trim().parse().ok().filter(|number| (least..=most).contains(number));
        let number = number.ok_or_else(|| error(name, text, &format!("it is a whole number from {least} to {most}")));
        number.map(Some)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::resolve(&BTreeMap::new(), &Variables::new(variables.iter().copied()), &App::default())
    }

    #[test]
    fn a_flag_that_is_set_to_nothing_hides_no_variable() {
        let flags = [("from", String::new())].into();
        let settings = Settings::resolve(&flags, &Variables::new([("K_FROM", "latest")]), &App::default());
        assert_eq!(settings.get("from"), Some("latest"));
        assert!(!settings.is_flag("from"));
    }

    #[test]
    fn a_mapping_as_python_prints_it_is_refused() {
        let refused = settings(&[("K_ONERROR", "{'action': 'retry', 'attempts': 5}")]).refuse_mappings();
        let fault = refused.expect_err("it is no JSON");
        assert!(fault.name == "onError" && fault.why.contains("in quotes as JSON"), "{fault}");
        assert_eq!(settings(&[("K_ONERROR", r#"{"action": "retry"}"#)]).refuse_mappings(), Ok(()));
    }

    #[test]
    fn truths_are_as_python_and_yaml_write_them() {
        for (text, expected) in [
            ("True", true),
            ("true", true),
            ("yes", true),
            ("1", true),
            ("False", false),
            ("false", false),
            ("no", false),
            ("0", false),
        ] {
            let topics = settings(&[("K_TOPIC_ALLOW_DECLARE", text)]).new_topics().expect("it is one");
            assert_eq!(topics.may_create, expected, "{text}");
        }
        let fault = settings(&[("K_TOPIC_ALLOW_DECLARE", "None")]).new_topics().expect_err("it is none");
        assert_eq!(fault.name, "topicAllowDeclare");
    }

    #[test]
    fn brokers_are_named_in_all_spellings() {
        for (text, expected) in [
            ("a:9092,b:9093", "a:9092,b:9093"),
            ("kafka://a;kafka://b", "a:9092,b:9092"),
            (" a:1 , b ", "a:1,b:9092"),
            ("[::1]:9092 [fe80::2]", "[::1]:9092,[fe80::2]:9092"),
            ("kafka://a:9094/", "a:9094"),
            ("10.0.0.1,", "10.0.0.1:9092"),
        ] {
            assert_eq!(brokers(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["tcp://10.0.0.1:9092", "a:0", "a:70000", "::1", "[::1", "a:9092:9093", "http://a", ","] {
            assert!(brokers(text).is_err(), "{text}");
        }
        let fault = settings(&[("K_KAFKA_BOOTSTRAP_SERVERS", "kafka://bob:hunter2@a:9092")]).servers();
        assert!(!fault.expect_err("it has a user").to_string().contains("hunter2"));
    }

    #[test]
    fn times_of_the_group_are_seconds_and_leave_room_for_a_call() {
        let times = |variables: &[(&str, &str)]| settings(variables).group_times();
        let seconds = |times: GroupTimes| [times.session, times.heartbeat, times.poll].map(|time| time.as_secs_f64());
        assert_eq!(times(&[]).map(seconds), Ok([30.0, 1.0, 300.0]));
        let set = [
            ("K_BROKER_SESSION_TIMEOUT", "60.0"),
            ("K_BROKER_HEARTBEAT_INTERVAL", "2.5"),
            ("K_BROKER_MAX_POLL_INTERVAL", "1000"),
        ];
        assert_eq!(times(&set).map(seconds), Ok([60.0, 2.5, 1000.0]));
        assert_eq!(times(&[("K_BROKER_MAX_POLL_INTERVAL", "60")]).map(seconds), Ok([30.0, 1.0, 300.0]));
        assert_eq!(times(&[("K_BROKER_SESSION_TIMEOUT", "600")]).map(seconds), Ok([600.0, 1.0, 600.0]));
        assert!(times(&[("K_BROKER_SESSION_TIMEOUT", "1m")]).is_err());
    }

    #[test]
    fn the_state_dir_is_the_table_dir_where_none_is_named() {
        let dir = |variables: &[(&str, &str)]| settings(variables).state_dir();
        assert_eq!(dir(&[("K_TABLE_DIR", "/tables")]), Some("/tables".into()));
        assert_eq!(dir(&[("K_TABLE_DIR", "/tables"), ("K_STATE_DIR", "/state")]), Some("/state".into()));
        assert_eq!(dir(&[]), None);
    }
}
