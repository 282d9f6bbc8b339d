//! `GET /kaspr/status`: what SIGUSR1 prints, and what the process is.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Site;
use super::answer::Answer;
use crate::config::serving::SNAPSHOT_AGE_MAX;

/// The page. Its form is `docs/status.schema.json`.
pub(super) fn page(site: &Site) -> Answer {
    let (seen, state) = site.look();
    let snapshot = &seen.snapshot;
    let mut worker = snapshot.to_json();
    if !site.shows_messages {
        hide_messages(&mut worker);
    }
    // Nothing of a worker that is kept by a call is newer than its snapshot, but for what keeps it.
    let running = (seen.age > SNAPSHOT_AGE_MAX).then(|| site.running()).flatten();
    worker["state"] = json!(state.name());
    worker["why"] = json!(snapshot.why);
    worker["turnAge"] = json!(seen.turn_age.as_secs_f64());
    worker["running"] = json!(running.map(|running| json!({ "what": running.what, "on": running.on })));
    worker["assignment"] = json!(snapshot.assignment);
    worker["stalled"] = json!(snapshot.stalled);
    let restoring = snapshot.restoring.iter();
    worker["restoring"] = restoring
        .map(|part| json!({ "table": part.table, "partition": part.partition, "percent": part.percent }))
        .collect();
    let body = json!({
        "version": site.facts.version,
        "revision": site.facts.revision,
        "state": state.name(),
        "stateDir": site.facts.state_dir,
        "leader": snapshot.is_leader,
        "since": seen.since_ms,
        "workers": [worker],
    });
    Answer::json(StatusCode::OK, &body)
}

/// Takes the messages of failures out: exceptions quote payloads.
fn hide_messages(worker: &mut Value) {
    for failure in worker["failures"].as_array_mut().into_iter().flatten() {
        if let Some(failure) = failure.as_object_mut() {
            failure.remove("message");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_failures_are_hidden() {
        let mut worker = json!({ "failures": [{ "kind": "KeyError", "message": "'card number'" }] });
        hide_messages(&mut worker);
        assert_eq!(worker, json!({ "failures": [{ "kind": "KeyError" }] }));
    }
}
