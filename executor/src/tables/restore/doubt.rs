//! Doubts about a store's copy of a table: reasons not to trust it.

use kaspr_ir::plan::Plan;

use crate::broker::Watermarks;
use crate::event::message::TopicName;
use crate::tables::changelog;
use crate::tables::store::Followed;

/// Kafka's default of `delete.retention.ms`: for so long a compacted topic keeps the record that deletes a
/// key.
const DELETIONS_KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// The part of a table that restoring needs.
pub struct Kept {
    /// Its name.
    pub name: String,
    /// The topic of its changelog.
    pub topic: TopicName,
    /// True if the table is whole on every worker.
    pub is_global: bool,
    /// The time for which its changelog keeps the record that deletes a key.
    pub deletions_kept_ms: i64,
}

/// The reason not to trust the store's copy of a partition, if there is one.
pub fn doubt(followed: &Followed, ends: Watermarks, topic: &str, now_ms: i64, kept: &Kept) -> Option<String> {
    let Followed { offset, seen_ms, topic: known } = followed;
    let Watermarks { low, high } = ends;
    if known != topic {
        return Some("its changelog was recreated".to_owned());
    }
    // One past the end is fine: the marker of its last transaction may not have reached the log yet.
    if *offset > high + 1 {
        return Some(format!("it stands at offset {offset} of its changelog, which ends at {high}"));
    }
    if *offset < low {
        return Some(format!("it stands at offset {offset} of its changelog, which begins at {low}"));
    }
    // Compaction may have removed a deletion that an old copy has not seen: its key would live on.
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
