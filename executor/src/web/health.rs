//! Health: is the process alive, and is it ready? Each answer that says no says why.

use hyper::StatusCode;
use serde_json::json;

use super::answer::Answer;
use super::{Site, Worker, state_of};
use crate::config::serving::START_MAX;
use crate::status::snapshot::State;

/// `GET /health/live`: 503 where only a new process would help. Brokers do not matter: none of them would come
/// back for it. Nor does a worker that its supervisor starts again.
pub(super) fn live(site: &Site) -> Answer {
    match site.look().iter().find_map(|worker| why_dead(site, worker)) {
        None => Answer::json(StatusCode::OK, &json!({ "live": true })),
        Some(why) => Answer::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "live": false, "why": why })),
    }
}

fn why_dead(site: &Site, worker: &Worker) -> Option<String> {
    let report = worker.report();
    let is_loading = report.snapshot.state == State::Loading && report.up < START_MAX;
    if is_loading || report.turn_age < site.turn_age_max {
        return None;
    }
    let since = format!("the worker's thread has not come round for {} s", report.turn_age.as_secs());
    Some(worker.named(&match &report.running {
        Some(running) => format!("{since}: it is in {running}"),
        None => since,
    }))
}

/// `GET /health/ready`: 200 while all partitions of the assignment have started, until the process is asked to
/// stop. All workers must be ready.
pub(super) fn ready(site: &Site) -> Answer {
    let workers = site.look();
    let state = state_of(&workers);
    let Some(worker) = workers.iter().find(|worker| !worker.state.is_ready()) else {
        return Answer::json(StatusCode::OK, &json!({ "ready": true, "state": state.name() }));
    };
    let why = match worker.state {
        State::Stopping => "asked to stop".to_owned(),
        State::Loading | State::Joining | State::Restoring | State::Running | State::Idle => {
            worker.named(worker.snapshot().why.as_deref().unwrap_or("it starts"))
        }
    };
    let body = json!({ "ready": false, "state": state.name(), "why": why });
    Answer::json(StatusCode::SERVICE_UNAVAILABLE, &body)
}
