//! Names of topics: those that Kafka can hold, and those that it keeps for itself; and how many readers
//! one topic may have.
//!
//! Both programs ask here, so that a name which `kasprc check` passes is never refused at a start.

/// The longest name of a topic, in bytes (`Topic.MAX_NAME_LENGTH` of Kafka).
pub const TOPIC_NAME_MAX: usize = 249;

/// Topics that only Kafka writes (`Topic.isInternal` of Kafka, and the log of its controllers).
///
/// A spec may read them; one that writes them is refused (K0109).
pub const INTERNAL_TOPICS: [&str; 4] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"];

/// The most readers of one topic: the positions of those that are ahead of the slowest stand in the
/// metadata of one offset, which Kafka bounds (`offset.metadata.max.bytes`, 4,096).
///
/// That leaves 20 bytes for each.
pub const TOPIC_READERS_MAX: usize = 200;

/// The rule for names, in words.
pub const TOPIC_NAME_RULE: &str = "up to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-'";

/// True if a topic can have this name: 1 to 249 of the characters `a-z`, `A-Z`, `0-9`, `.`, `_` and `-`,
/// but neither `.` nor `..`. So it is also the name of a file that leads to no other folder.
///
/// ```
/// use kaspr_ir::topics::is_topic_name;
///
/// assert!(is_topic_name("orders.v1"));
/// assert!(!is_topic_name("orders/v1") && !is_topic_name(".."));
/// ```
pub fn is_topic_name(name: &str) -> bool {
    // Bytes are enough: a character beyond ASCII has none that is legal.
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !matches!(name, "" | "." | "..") && name.len() <= TOPIC_NAME_MAX && name.bytes().all(is_legal)
}

/// True if only Kafka itself writes the topic.
pub fn is_internal(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_kafka_judges_them() {
        for name in ["a", "orders.v1_x-Y", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert!(is_topic_name(name), "{name}");
        }
        for name in ["", ".", "..", "../evil", "/tmp/evil", "a b", "a\0b", "ü", "a\nb", &"x".repeat(250)] {
            assert!(!is_topic_name(name), "{name}");
        }
        assert!(is_internal("__consumer_offsets") && !is_internal("__mine"));
    }
}
