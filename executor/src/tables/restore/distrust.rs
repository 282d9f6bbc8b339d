//! Distrust of a store's copy of a table: the reasons to wipe it and to restore it from its changelog.
//!
//! Wiping costs time, trusting a wrong copy costs data. So each reason that could be true is enough.

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
    /// The time for which its changelog keeps the record that deletes a key. A copy that was last up to date
    /// longer ago than half of it is not trusted.
    pub deletions_kept_ms: i64,
}

/// The reason not to trust the store's copy of a partition, if there is one.
///
/// `topic` is the id of the changelog now, `ends` its ends, `now_ms` the time since 1970.
///
/// ```text
/// followed 120, ends 0..=140, same topic   →  None: read 120 to 140
/// followed 120, ends 0..=90                →  it stands at offset 120 of its changelog, which ends at 90
/// ```
pub fn distrust(followed: &Followed, ends: Watermarks, topic: &str, now_ms: i64, kept: &Kept) -> Option<String> {
    let Followed { offset, seen_ms, topic: known } = followed;
    let Watermarks { low, high } = ends;
    // Two empty ids are equal: a broker that reports none gives no reason.
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
    // Compaction may have removed a deletion that an old copy has not seen: its key would live on. Half of
    // the time, because the broker's clock, its cleaner and this machine's clock need not agree.
    let is_old = now_ms.saturating_sub(*seen_ms) > kept.deletions_kept_ms / 2;
    (is_old && *offset < high).then(|| "it is so old that deletions may be missing from its changelog".to_owned())
}

/// The tables of a plan, in its order. A setting of the topic in the spec goes before Kafka's default. The
/// broker's own default is not asked for.
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
