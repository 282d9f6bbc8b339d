//! Names of the fields of records and failures in `tests.yaml`.

/// Fields of a record, in the order in which new ones are written.
pub(super) const RECORD: [&str; 10] =
    ["topic", "partition", "offset", "timestamp", "key", "value", "valueText", "valueBase64", "tombstone", "headers"];
/// The field of an expected record that holds a part of its value.
pub(super) const PART: &str = "valueHas";
/// The field that says by how much numbers may differ.
pub(super) const APPROX: &str = "approx";
/// Fields of them that hold a value; a record with none of them is a tombstone.
pub(super) const VALUES: [&str; 3] = ["value", "valueText", "valueBase64"];
/// Fields of a failure.
pub(super) const FAILURE: [&str; 8] = ["agent", "operation", "topic", "partition", "offset", "kind", "message", "at"];
