//! The folder of specs that the operator mounts into a pod, which may come after the process.
//!
//! Each change of the operator's image, configuration or templates first rolls out pods without any definitions. Such
//! a process stays up, without a plan and outside of its group, until there are some.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::info;

use super::served::Idle;
use super::stop::{Signals, Stop};
use crate::clock::{Clock as _, SystemClock};
use crate::config::settings::Settings;
use crate::wake::Wake;

/// Time between two looks at the folder.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Time between two log lines on why nothing runs.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The folder whose specs are loaded where no path was typed.
///
/// # Errors
///
/// No setting names one.
pub fn definitions_dir(settings: &Settings) -> Result<PathBuf, Stop> {
    settings.get("definitionsDir").map(PathBuf::from).ok_or_else(|| {
        Stop::refused("which specs? PATH names files or folders, or KASPR_DEFINITIONS_DIR the folder that holds them")
    })
}

/// The end of a wait for definitions.
#[derive(Debug)]
pub enum Waited {
    /// There are some. Where a port was served meanwhile it is still.
    Found(Option<Idle>),
    /// The process was asked to stop.
    Stopped,
}

/// Waits until there are specs in the folder.
///
/// `missing` says why there are none, and `None` where there are some. `served` are the settings whose port is served
/// meanwhile, where they name one: the process is ready then, and its state is `idle`.
///
/// # Errors
///
/// The process has no descriptors left, or the port cannot be had.
pub fn wait_for_definitions(
    folder: &Path,
    (served, signals): (Option<&Settings>, &Signals),
    missing: &dyn Fn() -> Option<String>,
) -> Result<Waited, Stop> {
    let mut idle = None;
    let clock = SystemClock::start();
    let wake = Wake::new().ok_or_else(|| Stop::fault("no descriptors are left"))?;
    let mut told: Option<Duration> = None;
    while let Some(why) = missing() {
        if let (None, Some(settings)) = (&idle, served) {
            idle = Idle::serve(settings, signals)?;
        }
        idle.iter().for_each(|idle: &Idle| idle.note(&why));
        let now = clock.now();
        if told.is_none_or(|told| now >= told + TELL_EVERY) {
            info!(folder = %folder.display(), "nothing runs yet: {why}; looking again every {} s", LOOK_EVERY.as_secs());
            told = Some(now);
        }
        // Nothing rings: the end of patience is what a signal brings here.
        signals.patience.wait(LOOK_EVERY, |look| {
            wake.wait(Some(look));
            None::<()>
        });
        if signals.asked_to_stop() {
            return Ok(Waited::Stopped);
        }
    }
    if told.is_some() {
        info!(folder = %folder.display(), "the definitions are there");
    }
    Ok(Waited::Found(idle))
}
