//! `GET /kaspr/status`: what SIGUSR1 prints, and what the process is.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::answer::Answer;
use super::disk::Disk;
use super::{Site, Worker, state_of};
use crate::config::serving::SNAPSHOT_AGE_MAX;

/// The page. Its form is `docs/status.schema.json`.
pub(super) fn page(site: &Site, disk: &Disk) -> Answer {
    let workers = site.look();
    let fault = disk.look(site).and_then(|disk| workers.iter().find_map(|worker| disk.fault_for(worker)));
    let body = json!({
        "version": site.facts.version,
        "revision": site.facts.revision,
        "state": state_of(&workers).name(),
        "stateDir": site.facts.state_dir,
        "stateDirFault": fault,
        "leader": workers.iter().any(|worker| worker.snapshot().is_leader),
        "since": workers.iter().map(|worker| worker.report().since_ms).max(),
        "workers": workers.iter().map(|worker| describe(site, worker)).collect::<Vec<_>>(),
    });
    Answer::json(StatusCode::OK, &body)
}

fn describe(site: &Site, worker: &Worker) -> Value {
    let (snapshot, report) = (worker.snapshot(), worker.report());
    let mut described = snapshot.to_json();
    if !site.shows_messages {
        hide_messages(&mut described);
    }
    // Nothing of a worker that is kept by a call is newer than its snapshot, but for what keeps it.
    let running = report.running.as_ref().filter(|_| report.age > SNAPSHOT_AGE_MAX);
    described["state"] = json!(worker.state.name());
    described["why"] = json!(snapshot.why);
    described["turnAge"] = json!(report.turn_age.as_secs_f64());
    described["running"] = json!(running);
    described["commitAge"] = json!(report.commit_age().as_secs_f64());
    described["generation"] = json!(snapshot.generation);
    described["assignment"] = json!(snapshot.assignment);
    described["stalled"] = json!(snapshot.stalled);
    described["restarts"] = json!(worker.member.restarts);
    let restoring = snapshot.restoring.iter();
    described["restoring"] = restoring
        .map(|part| json!({ "table": part.table, "partition": part.partition, "percent": part.percent }))
        .collect();
    described
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
