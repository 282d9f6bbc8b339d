//! The pages that the Kubernetes operator asks for, in exactly the form that it reads.
//!
//! It spreads the status over an object of its own, so that no other key may stand in it. A process of several
//! workers gives one answer for all.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::answer::Answer;
use super::{Site, Worker};
use crate::status::snapshot::{Partitions, Snapshot, State};

/// `GET /`.
pub(super) fn root() -> Answer {
    Answer::json(StatusCode::OK, &json!({ "status": "OK" }))
}

/// `GET /status/`.
pub(super) fn status(site: &Site) -> Answer {
    let workers = site.look();
    let url = format!("http://{}:{}", site.web.host, site.web.listen.port());
    let changelogs = union(&workers, |snapshot| &snapshot.changelogs);
    let metadata: BTreeMap<String, Value> = [(url, json!(changelogs))].into();
    let (rebalancing, recovering) = moves(&workers);
    Answer::json(
        StatusCode::OK,
        &json!({
            "leader": workers.iter().any(|worker| worker.snapshot().is_leader),
            "rebalancing": rebalancing,
            "recovering": recovering,
            "assignment": { "actives": union(&workers, |snapshot| &snapshot.assignment), "standbys": {} },
            "table_metadata": metadata,
        }),
    )
}

/// Whether the process rebalances, and whether it recovers. One that only rebalances for long is deleted: so it
/// recovers only while no worker rebalances without recovering.
fn moves(workers: &[Worker]) -> (bool, bool) {
    let states = || workers.iter().map(|worker| worker.state);
    let is_stuck = states().any(|state| state.is_rebalancing() && !state.is_recovering());
    (states().any(State::is_rebalancing), !is_stuck && states().any(State::is_recovering))
}

fn union(workers: &[Worker], of: fn(&Snapshot) -> &Partitions) -> Partitions {
    let mut all = Partitions::new();
    for (topic, partitions) in workers.iter().flat_map(|worker| of(worker.snapshot())) {
        all.entry(topic.clone()).or_default().extend(partitions);
    }
    all
}

/// `POST /signal/rebalance`. What the worker makes of it shows in the log.
pub(super) fn rebalance(site: &Site) -> Answer {
    site.crew.ask_rebalance();
    Answer::json(StatusCode::OK, &json!({ "status": "ok", "message": "Rebalance requested" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::crew::Member;
    use crate::status::report::Report;

    #[test]
    fn several_workers_give_one_answer() {
        use State::{Joining, Loading, Restoring, Running};
        let worker =
            |state| Worker { state, member: Member { number: Some(0), report: Report::default(), restarts: 0 } };
        for (states, expected) in [
            (&[Running, Running][..], (false, false)),
            (&[Running, Restoring], (false, true)),
            (&[Running, Loading], (true, true)),
            (&[Restoring, Joining], (true, false)),
            (&[Loading, Joining], (true, false)),
        ] {
            let workers: Vec<Worker> = states.iter().copied().map(worker).collect();
            assert_eq!(moves(&workers), expected, "{states:?}");
        }
    }
}
