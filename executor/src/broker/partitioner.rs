//! Java's partitioner: decides which partition a record goes to, so that keys land where other clients of the
//! same topics put them.
//!
//! Two producers that place keys differently break every join and every table that is built by key: the same key
//! would be in two partitions. So keys are hashed as Java's default partitioner hashes them, and topics that are
//! read are watched for keys that are placed in some other way ([`Placing`]).

/// The partition of a record: murmur2 of its key, or for a null key the partition whose `turn` it is.
///
/// ```text
/// key "21", 7 partitions:  murmur2 = -973932308, without its sign bit 1173551340, % 7 = 3
/// null keys, 3 partitions: turns 0, 1, 2, 3 go to 0, 1, 2, 0
/// ```
///
/// Java's own producer sends records without a key in batches to one partition after the other (KIP-480); here
/// each of them takes its turn.
pub fn partition_for(key: Option<&[u8]>, partitions: i32, turn: u32) -> i32 {
    debug_assert!(partitions > 0, "a topic has partitions");
    match key {
        // Kafka's `toPositive`: it clears the sign, where the absolute value of i32::MIN would stay negative.
        Some(key) => (murmur2(key) & 0x7FFF_FFFF) % partitions,
        None => i32::try_from(turn % partitions.unsigned_abs()).expect("it is below the partition count"),
    }
}

/// `org.apache.kafka.common.utils.Utils.murmur2`.
///
/// The 32-bit hash of Austin Appleby with Kafka's seed; Java's `int`, so the result has a sign.
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
    // Up to three bytes are left. Java's code falls through a `switch` here: with none, nothing is mixed.
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

/// The placing of a topic's keys as it seems: by a partitioner that has explained the partition of
/// every key so far. Java's and librdkafka's default ones are known.
///
/// A table's state lies beside the partitions of its inputs. Between two looks at the topics, which are some
/// seconds apart, a key in an unexpected partition is the first sign that an input has got more of them. A topic
/// whose keys fit neither partitioner is not judged again until the next look makes a new value.
#[derive(Clone, Debug)]
pub struct Placing {
    partitions: i32,
    murmur2: bool,
    crc32: bool,
}

impl Placing {
    /// Nothing speaks against any partitioner yet.
    pub fn new(partitions: i32) -> Placing {
        Placing { partitions, murmur2: partitions > 0, crc32: partitions > 0 }
    }

    /// Takes a key and its partition. True: it contradicts what explained all keys before it, so that the
    /// topic has other partitions by now, or else keys are placed in a way that is not known here.
    ///
    /// True at most once in the life of a value. Costs a hash or two of the key.
    pub fn contradicts(&mut self, key: &[u8], partition: i32) -> bool {
        if !self.murmur2 && !self.crc32 {
            return false;
        }
        self.murmur2 &= partition_for(Some(key), self.partitions, 0) == partition;
        // The slower of the two hashes is left out once it has been ruled out.
        self.crc32 = self.crc32 && crc32(key) % self.partitions.unsigned_abs() == partition.unsigned_abs();
        !self.murmur2 && !self.crc32
    }
}

/// CRC-32 as librdkafka's `consistent` partitioner takes it (IEEE 802.3, reflected, table by bytes).
///
/// ```text
/// crc32(b"123456789") = 0xCBF43926
/// ```
pub fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let (mut value, mut bit) = (byte as u32, 0);
            while bit < 8 {
                value = if value & 1 == 1 { 0xEDB8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[byte] = value;
            byte += 1;
        }
        table
    };
    let step = |crc: u32, &byte: &u8| TABLE[((crc ^ u32::from(byte)) & 0xFF) as usize] ^ (crc >> 8);
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the CRC catalogue.
    #[test]
    fn crc32_is_the_common_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_key_that_moved_contradicts_what_explained_the_others() {
        let keys: Vec<String> = (0..50).map(|n| format!("k-{n}")).collect();
        let place = |key: &str, partitions| partition_for(Some(key.as_bytes()), partitions, 0);
        let mut placing = Placing::new(2);
        assert!(keys.iter().all(|key| !placing.contradicts(key.as_bytes(), place(key, 2))));
        let moved = keys.iter().find(|key| place(key, 2) != place(key, 3)).expect("some move");
        assert!(placing.contradicts(moved.as_bytes(), place(moved, 3)));
        assert!(!placing.contradicts(moved.as_bytes(), place(moved, 3)), "that is asked once");
        let mut placing = Placing::new(2);
        let place = |key: &str| i32::try_from(crc32(key.as_bytes()) % 2).expect("0 or 1");
        assert!(keys.iter().all(|key| !placing.contradicts(key.as_bytes(), place(key))));
    }

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
