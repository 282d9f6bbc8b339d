//! The pages that the Kubernetes operator asks for, in exactly the form that it reads.
//!
//! It spreads the status over an object of its own, so that no other key may stand in it.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Site;
use super::answer::Answer;

/// `GET /`.
pub(super) fn root() -> Answer {
    Answer::json(StatusCode::OK, &json!({ "status": "OK" }))
}

/// `GET /status/`.
pub(super) fn status(site: &Site) -> Answer {
    let (seen, state) = site.look();
    let snapshot = &seen.snapshot;
    let url = format!("http://{}:{}", site.web.host, site.web.listen.port());
    let metadata: BTreeMap<String, Value> = [(url, json!(snapshot.changelogs))].into();
    Answer::json(
        StatusCode::OK,
        &json!({
            "leader": snapshot.is_leader,
            "rebalancing": state.is_rebalancing(),
            "recovering": state.is_recovering(),
            "assignment": { "actives": snapshot.assignment, "standbys": {} },
            "table_metadata": metadata,
        }),
    )
}

/// `POST /signal/rebalance`. What the worker makes of it shows in the log.
pub(super) fn rebalance(site: &Site) -> Answer {
    site.board.ask_rebalance();
    Answer::json(StatusCode::OK, &json!({ "status": "ok", "message": "Rebalance requested" }))
}
