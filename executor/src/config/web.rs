//! The settings of the HTTP server, as they are meant.
//!
//! ```text
//! WEB_PORT=6065 WEB_HOST=shop-2.shop WEB_METRICS_BASE_PATH=/internal
//!   ─▶ listens at [::]:6065, is http://shop-2.shop:6065 to others, metrics at /internal/metrics, number 2
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kaspr_ir::addresses::local_address;

use crate::config::settings::{SettingError, Settings, error};

/// The HTTP server of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// Address and port that it listens at. `[::]` stands for all addresses of both families.
    pub listen: SocketAddr,
    /// The name by which others reach it, which need not be an address of this machine.
    pub host: String,
    /// The path of metrics: `/metrics`, or behind a base path.
    pub metrics_path: String,
    /// True if metrics have the reference runtime's names too.
    pub has_old_names: bool,
    /// The number of this process among those of the app, for the label `worker_name`.
    pub ordinal: u32,
}

impl Settings {
    /// The HTTP server that the settings ask for; `None`: no port is set, so there is none.
    ///
    /// `host_name` is the machine's. Without an address all of them are listened at, as a pod needs it; only loopback
    /// in local runs, and where the port was typed.
    ///
    /// # Errors
    ///
    /// The first of its settings that makes no sense.
    pub fn web(&self, is_local: bool, host_name: &str) -> Result<Option<Web>, SettingError> {
        let Some(text) = self.get("webPort") else { return Ok(None) };
        let port = text.trim().parse().ok().filter(|&port| port > 0);
        let port: u16 = port.ok_or_else(|| error("webPort", text, "a port is a number from 1 to 65535"))?;
        let address = match self.get("webBind") {
            Some(text) => local_address(text).ok_or_else(|| {
                error("webBind", text, "an address of this machine is needed: 0.0.0.0, 127.0.0.1, or [::] for all")
            })?,
            // A person who types a port has not asked to be reached from outside; the settings of a pod have.
            None if is_local || self.is_flag("webPort") => IpAddr::V4(Ipv4Addr::LOCALHOST),
            None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Ok(Some(Web {
            listen: SocketAddr::new(address, port),
            host: self.get("webHost").unwrap_or(host_name).to_owned(),
            metrics_path: metrics_path(self.get("webMetricsBasePath").unwrap_or_default()),
            has_old_names: self.truth("metricsCompat")?,
            ordinal: self.ordinal(host_name)?,
        }))
    }

    /// The number of this process among those of the app: the setting, else that at the end of the host's name, as a
    /// StatefulSet gives it, else 0.
    ///
    /// # Errors
    ///
    /// The setting is no number.
    pub fn ordinal(&self, host_name: &str) -> Result<u32, SettingError> {
        match self.get("workerOrdinalNumber") {
            Some(text) => text.trim().parse().map_err(|_| {
                error("workerOrdinalNumber", text, "a whole number is needed, as at the end of a pod's name")
            }),
            // A guess, since any host's name may end in a number; it is only the label of metrics, so a wrong one
            // does no harm.
            None => Ok(host_name.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)),
        }
    }
}

/// The name of this machine, which is that of the pod; empty where the system does not tell.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// `internal/` → `/internal/metrics`; nothing or `/` → `/metrics`.
fn metrics_path(base: &str) -> String {
    match base.trim().trim_matches('/') {
        "" => "/metrics".to_owned(),
        base => format!("/{base}/metrics"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kaspr_ir::plan::App;

    use super::*;
    use crate::config::variables::Variables;

    fn settings(flags: &[(&'static str, &str)], variables: &[(&str, &str)]) -> Settings {
        let flags: BTreeMap<_, _> = flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Settings::resolve(&flags, &Variables::new(variables.iter().copied()), &App::default())
    }

    #[test]
    fn a_pod_serves_where_its_operator_says() {
        let variables =
            [("K_WEB_PORT", "6065"), ("K_WEB_HOST", "shop-2.shop"), ("K_WEB_METRICS_BASE_PATH", "/internal/")];
        let web = settings(&[], &variables).web(false, "shop-2");
        let expected = Web {
            listen: "[::]:6065".parse().expect("an address"),
            host: "shop-2.shop".to_owned(),
            metrics_path: "/internal/metrics".to_owned(),
            has_old_names: true,
            ordinal: 2,
        };
        assert_eq!(web, Ok(Some(expected)));
        assert_eq!(settings(&[], &[("K_WEB_BIND", "::")]).web(false, "shop-2"), Ok(None), "no port, no server");
    }

    #[test]
    fn a_port_that_was_typed_is_served_to_this_machine_alone() {
        let listen = |settings: Settings, is_local| {
            settings.web(is_local, "laptop").map(|web| web.expect("there is a port").listen.to_string())
        };
        assert_eq!(listen(settings(&[("webPort", "80")], &[]), false), Ok("127.0.0.1:80".to_owned()));
        assert_eq!(listen(settings(&[], &[("K_WEB_PORT", "80")]), true), Ok("127.0.0.1:80".to_owned()));
        for (bind, expected) in [("[::]", "[::]:80"), ("::1", "[::1]:80"), ("0.0.0.0", "0.0.0.0:80")] {
            let said = settings(&[("webPort", "80"), ("webBind", bind)], &[]);
            assert_eq!(listen(said, true), Ok(expected.to_owned()));
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (name, variable, value) in [
            ("webPort", "K_WEB_PORT", "0"),
            ("webPort", "K_WEB_PORT", "65536"),
            ("webBind", "K_WEB_BIND", "shop-2.shop"),
            ("metricsCompat", "K_METRICS_COMPAT", "maybe"),
            ("workerOrdinalNumber", "K_WORKER_ORDINAL_NUMBER", "two"),
        ] {
            let fault = settings(&[], &[("KASPR_WEB_PORT", "80"), (variable, value)]).web(false, "shop");
            let fault = match variable {
                "K_WEB_PORT" => settings(&[], &[(variable, value)]).web(false, "shop"),
                _ => fault,
            };
            let fault = fault.expect_err("it makes no sense");
            assert_eq!((fault.name.as_str(), fault.value.as_str()), (name, value));
        }
    }

    #[test]
    fn the_number_of_a_process_is_said_or_at_the_end_of_its_name() {
        for (host, expected) in [("shop-12", 12), ("shop", 0), ("shop-7f9c", 0), ("", 0)] {
            assert_eq!(settings(&[], &[]).ordinal(host), Ok(expected), "{host}");
        }
        assert_eq!(settings(&[], &[("K_WORKER_ORDINAL_NUMBER", "3")]).ordinal("shop-12"), Ok(3));
    }
}
