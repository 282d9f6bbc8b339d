//! Readers' positions, as they travel in the metadata of a committed offset.
//!
//! Kafka keeps one offset per partition and group, and an app may have several readers of a topic. So the offset
//! that is committed for a partition is the least `done` of its readers. Readers that are ahead, and what a
//! successor must know, stand in the metadata, a text that Kafka keeps beside the offset:
//!
//! ```text
//! 1;{transactional id};{partition count at the first start};{reader set};{reader}=+{ahead};…
//! ```
//!
//! A reader is named by eight hex digits of its agent's name, the set by those of all names. Readers that stand at
//! the offset itself are not listed. So with readers a at 117 and b at 100, where the topic had 12 partitions:
//!
//! ```text
//! offset 100, metadata 1;shop.pod-1.0;12;{hash of "a\nb"};{hash of "a"}=+17
//! ```
//!
//! The first field is the version of the format. A worker that finds another version, or another program's text,
//! knows the offset alone: all its readers begin there.

use std::collections::BTreeMap;

use kaspr_ir::topics::TOPIC_READERS_MAX;
use sha2::{Digest, Sha256};

/// Kafka's limit on the metadata of an offset (`offset.metadata.max.bytes`).
pub const METADATA_BYTES_MAX: usize = 4096;

/// The longest `transactional.id` that metadata has room for.
pub const TRANSACTIONAL_ID_MAX: usize = 290;

/// Bytes before the readers, without the id: `1;`, `;` and a partition count of up to ten digits, `;` and
/// eight hex digits.
const HEAD_BYTES_MAX: usize = 2 + 1 + 10 + 1 + HASH_DIGITS;
/// A reader without its digits: `;`, eight hex digits and `=+`.
const READER_BYTES: usize = 1 + HASH_DIGITS + 2;
/// Hex digits that stand for a name.
const HASH_DIGITS: usize = 8;
/// Digits of a distance that all readers of a topic but the slowest may have at once, however many the
/// topic may have. With the bounds below the metadata takes 22 + 290 + 199 × 19 = 4,093 bytes at most.
const LEAD_DIGITS_MIN: usize = 8;

const _: () = assert!(
    HEAD_BYTES_MAX + TRANSACTIONAL_ID_MAX + (TOPIC_READERS_MAX - 1) * (READER_BYTES + LEAD_DIGITS_MIN)
        <= METADATA_BYTES_MAX
);

/// The farthest that a reader of a topic may be ahead of its slowest, so that metadata fits if all others are as
/// far ahead: 99,999,999 offsets where a topic has the most readers, any number up to 126 of them.
///
/// It is 10^n - 1, for the n digits that each reader gets of the room behind the id, and `i64::MAX` where that
/// is more than an `i64` holds. The assignment gives a reader no event that would take it further ahead.
pub fn lead_max(readers: usize, transactional_id: &str) -> i64 {
    let room = METADATA_BYTES_MAX.saturating_sub(HEAD_BYTES_MAX + transactional_id.len());
    // The slowest reader is at the offset and takes no room; a reader alone on its topic divides by 1, not 0.
    let each = room / readers.saturating_sub(1).max(1);
    let digits = u32::try_from(each.saturating_sub(READER_BYTES)).unwrap_or(u32::MAX);
    10_i64.checked_pow(digits).map_or(i64::MAX, |bound| bound - 1)
}

/// Eight hex digits that stand for a name.
///
/// The first four bytes of SHA-256, big-endian: the same in every release, since it is kept in the group's
/// offsets. Two names of one app that collide would share a position; with 200 readers that is one chance in
/// some 200,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameHash(u32);

impl NameHash {
    /// Hashes an agent's name.
    pub fn of(name: &str) -> NameHash {
        let digest = Sha256::digest(name.as_bytes());
        NameHash(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]))
    }

    /// Of a set of agents' names, whatever their order.
    pub fn of_all<'a>(names: impl Iterator<Item = &'a str>) -> NameHash {
        // Sorted: two workers may load the agents in different orders and must write the same digits.
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        NameHash::of(&names.join("\n"))
    }
}

impl std::fmt::Display for NameHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The metadata of a committed offset.
///
/// Made by [`crate::assignment`] at every commit, encoded by the connector, and read by the worker that takes the
/// partition over. The count of partitions is handed on unchanged from commit to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The transactional id of the producer that committed.
    pub transactional_id: String,
    /// Partitions that the topic had when the group first started on it: those below this number
    /// without a commit start at their beginning.
    pub partitions_at_start: i32,
    /// The readers that the committer knew.
    pub readers: NameHash,
    /// Readers that are ahead of the offset, by how much.
    pub ahead: BTreeMap<NameHash, i64>,
}

impl Metadata {
    /// The text, at most [`METADATA_BYTES_MAX`] long where no reader is further ahead than [`lead_max`].
    ///
    /// ```text
    /// {"shop.a.0", 12, 9f86d081, {2c26b46b: 17}}  ──▶  1;shop.a.0;12;9f86d081;2c26b46b=+17
    /// ```
    pub fn encode(&self) -> String {
        use std::fmt::Write;
        let mut text = format!("1;{};{};{}", self.transactional_id, self.partitions_at_start, self.readers);
        for (reader, ahead) in &self.ahead {
            write!(text, ";{reader}=+{ahead}").expect("writing to a string never fails");
        }
        text
    }

    /// The length of the text in bytes.
    ///
    /// Counted without writing it, since the worker asks before each commit.
    pub fn bytes(&self) -> usize {
        // Neither number is negative, so there is no sign to count; 0 has a digit and no logarithm.
        let digits = |number: i64| number.checked_ilog10().unwrap_or(0) as usize + 1;
        let head = "1;;;".len() + self.transactional_id.len() + digits(self.partitions_at_start.into()) + HASH_DIGITS;
        head + self.ahead.values().map(|&ahead| READER_BYTES + digits(ahead)).sum::<usize>()
    }

    /// Reads the text; `None` where another program wrote it.
    ///
    /// Every field must be well-formed: half of a position would be worse than none.
    pub fn decode(text: &str) -> Option<Metadata> {
        // A transactional id has no semicolon: app and instance may only have characters of topics' names.
        let mut fields = text.split(';');
        if fields.next()? != "1" {
            return None;
        }
        let transactional_id = fields.next()?.to_owned();
        let partitions_at_start = fields.next()?.parse().ok()?;
        let readers = NameHash(u32::from_str_radix(fields.next()?, 16).ok()?);
        let ahead = fields.map(decode_reader).collect::<Option<_>>()?;
        Some(Metadata { transactional_id, partitions_at_start, readers, ahead })
    }
}

fn decode_reader(field: &str) -> Option<(NameHash, i64)> {
    let (name, ahead) = field.split_once("=+")?;
    Some((NameHash(u32::from_str_radix(name, 16).ok()?), ahead.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_makes_the_round_trip() {
        let metadata = Metadata {
            transactional_id: "shop.a.0".into(),
            partitions_at_start: 12,
            readers: NameHash::of_all(["b", "a"].into_iter()),
            ahead: [(NameHash::of("a"), 17)].into(),
        };
        let text = metadata.encode();
        assert_eq!(Metadata::decode(&text), Some(metadata));
        assert!(text.starts_with("1;shop.a.0;12;"), "{text}");
    }

    #[test]
    fn the_length_is_known_without_the_text() {
        for (partitions_at_start, ahead) in
            [(0, vec![]), (9, vec![1]), (10, vec![9, 10, 99]), (i32::MAX, vec![i64::MAX])]
        {
            let (transactional_id, readers) = ("shop.a.0".to_owned(), NameHash::of("a"));
            let ahead = ahead.iter().enumerate().map(|(number, &ahead)| (NameHash::of(&number.to_string()), ahead));
            let metadata = Metadata { transactional_id, partitions_at_start, readers, ahead: ahead.collect() };
            assert_eq!(metadata.bytes(), metadata.encode().len(), "{metadata:?}");
        }
    }

    #[test]
    fn foreign_metadata_is_not_ours() {
        for text in ["", "2;a;1;00000000", "1;a;x;00000000", "hello", "1;a;1;00000000;zz"] {
            assert_eq!(Metadata::decode(text), None, "{text}");
        }
    }

    #[test]
    fn metadata_fits_however_many_readers_are_as_far_ahead_as_they_may() {
        for (readers, id) in [(2, 1), (126, 290), (127, 290), (128, 290), (150, 30), (200, 1), (200, 290)] {
            let id = "a".repeat(id);
            let lead = lead_max(readers, &id);
            assert!(lead >= 99_999_999, "{readers} readers: {lead}");
            let ahead = (1..readers).map(|n| (NameHash::of(&n.to_string()), lead)).collect();
            let readers = NameHash::of("x");
            let metadata = Metadata { transactional_id: id, partitions_at_start: i32::MAX, readers, ahead };
            assert!(metadata.encode().len() <= METADATA_BYTES_MAX);
        }
        assert_eq!(lead_max(126, &"a".repeat(290)), i64::MAX);
    }
}
