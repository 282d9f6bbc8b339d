//! Which partition a record goes to: Java's partitioner, so that keys land where other clients of
//! the same topics put them.

/// The partition of a record: murmur2 of its key, or for a null key the partition whose `turn` it is.
pub fn partition_for(key: Option<&[u8]>, partitions: i32, turn: u32) -> i32 {
    debug_assert!(partitions > 0, "a topic has partitions");
    match key {
        Some(key) => (murmur2(key) & 0x7FFF_FFFF) % partitions,
        None => i32::try_from(turn % partitions.unsigned_abs()).expect("it is below the partition count"),
    }
}

/// `org.apache.kafka.common.utils.Utils.murmur2`.
pub fn murmur2(key: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_B28C;
    const M: u32 = 0x5BD1_E995;
    let mut hash = SEED ^ u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (at, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of Kafka's own `UtilsTest`.
    #[test]
    fn murmur2_is_javas() {
        let known: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key), hash, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn null_keys_take_turns() {
        assert_eq!([0, 1, 2, 3].map(|turn| partition_for(None, 3, turn)), [0, 1, 2, 0]);
    }
}
