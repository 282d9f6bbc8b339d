//! Health: is the process alive, and is it ready? Each answer that says no says why.

use hyper::StatusCode;
use serde_json::json;

use super::Site;
use super::answer::Answer;
use crate::config::serving::START_MAX;
use crate::status::snapshot::State;

/// `GET /health/live`: 503 where only a new process would help. Brokers do not matter: none of them would come
/// back for it.
pub(super) fn live(site: &Site) -> Answer {
    let (seen, _) = site.look();
    let is_loading = seen.snapshot.state == State::Loading && seen.up < START_MAX;
    if is_loading || seen.turn_age < site.turn_age_max {
        return Answer::json(StatusCode::OK, &json!({ "live": true }));
    }
    let since = format!("the worker's thread has not come round for {} s", seen.turn_age.as_secs());
    let why = match site.running() {
        Some(running) => format!("{since}: it is in {running}"),
        None => since,
    };
    Answer::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "live": false, "why": why }))
}

/// `GET /health/ready`: 200 while all partitions of the assignment have started, until the process is asked to
/// stop.
pub(super) fn ready(site: &Site) -> Answer {
    let (seen, state) = site.look();
    if state.is_ready() {
        return Answer::json(StatusCode::OK, &json!({ "ready": true, "state": state.name() }));
    }
    let why = match state {
        State::Stopping => "asked to stop",
        State::Loading | State::Joining | State::Restoring | State::Running | State::Idle => {
            seen.snapshot.why.as_deref().unwrap_or("loading user code and joining the group")
        }
    };
    let body = json!({ "ready": false, "state": state.name(), "why": why });
    Answer::json(StatusCode::SERVICE_UNAVAILABLE, &body)
}
