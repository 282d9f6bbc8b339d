//! Whether what a store holds of a table may be trusted.

use kaspr_ir::plan::Plan;

use crate::broker::Watermarks;
use crate::event::message::TopicName;
use crate::tables::changelog;
use crate::tables::store::Followed;

/// Kafka's default of `delete.retention.ms`: so long a deleted key is told of in a compacted topic.
const DELETIONS_KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// A table, as far as restoring needs it.
pub struct Kept {
    /// Its name.
    pub name: String,
    /// The topic of its changelog.
    pub topic: TopicName,
    /// Whole on every worker.
    pub is_global: bool,
    /// How long its changelog tells of a deleted key.
    pub deletions_kept_ms: i64,
}

/// Why what a store holds is not to be trusted, if anything is against it.
pub fn doubt(followed: &Followed, ends: Watermarks, topic: &str, now_ms: i64, kept: &Kept) -> Option<String> {
    let Followed { offset, seen_ms, topic: known } = followed;
    let Watermarks { low, high } = ends;
    if known != topic {
        return Some("its changelog was made anew".to_owned());
    }
    // The marker of its last transaction may not have reached the log yet.
    if *offset > high + 1 {
        return Some(format!("it stands at offset {offset} of its changelog, which ends at {high}"));
    }
    if *offset < low {
        return Some(format!("it stands at offset {offset} of its changelog, which begins at {low}"));
    }
    let is_old = now_ms.saturating_sub(*seen_ms) > kept.deletions_kept_ms / 2;
    (is_old && *offset < high).then(|| "it is so old that deletions may be missing from its changelog".to_owned())
}

/// The tables of a plan, in its order.
pub fn kept(plan: &Plan, app: &str) -> Vec<Kept> {
    let kept = plan.tables.iter().map(|table| {
        let deletions_kept = table.topic_config.get("delete.retention.ms").and_then(|text| text.parse().ok());
        Kept {
            name: table.name.clone(),
            topic: changelog(app, &table.name).as_str().into(),
            is_global: table.global,
            deletions_kept_ms: deletions_kept.unwrap_or(DELETIONS_KEPT_MS),
        }
    });
    kept.collect()
}
