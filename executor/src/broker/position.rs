//! Readers' positions, as they travel in the metadata of a committed offset.
//!
//! The offset that is committed for a partition is the least `done` of its readers. Readers that
//! are ahead, and what a successor must know, stand in the metadata:
//! `1;{transactional id};{partition count at the first start};{reader set};{reader}=+{ahead};…`.
//! A reader is named by eight hex digits of its agent's name, the set by those of all names.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// Kafka's limit on the metadata of an offset (`offset.metadata.max.bytes`).
pub const METADATA_BYTES_MAX: usize = 4096;

/// Eight hex digits that stand for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameHash(u32);

impl NameHash {
    /// Of an agent's name.
    pub fn of(name: &str) -> NameHash {
        let digest = Sha256::digest(name.as_bytes());
        NameHash(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]))
    }

    /// Of a set of agents' names, whatever their order.
    pub fn of_all<'a>(names: impl Iterator<Item = &'a str>) -> NameHash {
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

/// What stands in the metadata of a committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Whose producer committed.
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
    /// The text, at most [`METADATA_BYTES_MAX`] long.
    pub fn encode(&self) -> String {
        use std::fmt::Write;
        let mut text = format!("1;{};{};{}", self.transactional_id, self.partitions_at_start, self.readers);
        for (reader, ahead) in &self.ahead {
            write!(text, ";{reader}=+{ahead}").expect("writing to a string never fails");
        }
        text
    }

    /// Reads the text; `None` where it is not ours.
    pub fn decode(text: &str) -> Option<Metadata> {
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
    fn foreign_metadata_is_not_ours() {
        for text in ["", "2;a;1;00000000", "1;a;x;00000000", "hello", "1;a;1;00000000;zz"] {
            assert_eq!(Metadata::decode(text), None, "{text}");
        }
    }

    #[test]
    fn two_hundred_readers_fit() {
        let ahead = (0..200).map(|n| (NameHash::of(&n.to_string()), 1_000_000)).collect();
        let readers = NameHash::of("x");
        let metadata = Metadata { transactional_id: "a".repeat(120), partitions_at_start: 1000, readers, ahead };
        assert!(metadata.encode().len() <= METADATA_BYTES_MAX);
    }
}
