//! Eight bytes at a time: where a run of plain ASCII ends.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Bytes of a word that end a run of plain ASCII in JSON text, as the high bits of those bytes: a
/// quote, a backslash, a control character, or a part of a longer character. Below the first true
/// stop no bit is set by mistake: borrows only travel upwards.
#[inline(always)]
pub fn stops(word: u64) -> u64 {
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    is(word, b'"') | is(word, b'\\') | control | (word & HIGH)
}

/// As [`stops`], with the one character more that `json.dumps` escapes: DEL.
#[inline(always)]
pub fn escapes(word: u64) -> u64 {
    stops(word) | is(word, 0x7F)
}

#[inline(always)]
fn is(word: u64, byte: u8) -> u64 {
    let zero = word ^ (ONES * u64::from(byte));
    zero.wrapping_sub(ONES) & !zero & HIGH
}

/// The first byte from `at` on that is no plain ASCII of a string.
#[inline]
pub fn plain_end(bytes: &[u8], at: usize) -> Option<usize> {
    end(bytes, at, stops)
}

/// The first byte from `at` on that ends a run of what `json.dumps` writes as it is.
#[inline]
pub fn written_end(bytes: &[u8], at: usize) -> Option<usize> {
    end(bytes, at, escapes)
}

#[inline(always)]
fn end(bytes: &[u8], mut at: usize, stops: impl Fn(u64) -> u64) -> Option<usize> {
    while let Some(chunk) = bytes.get(at..at + 8) {
        let stops = stops(u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
        if stops != 0 {
            return Some(at + (stops.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    // Spaces, which stop nothing, fill the last word.
    let mut last = [b' '; 8];
    let rest = bytes.get(at..)?;
    last[..rest.len()].copy_from_slice(rest);
    let stops = stops(u64::from_le_bytes(last));
    (stops != 0).then(|| at + (stops.trailing_zeros() / 8) as usize)
}

/// Copies bytes, mostly few: without a call where they are fewer than a line of the cache.
#[inline(always)]
pub fn copy(from: &[u8], to: &mut [u8]) {
    if from.len() > 64 {
        return to.copy_from_slice(from);
    }
    match (from.last_chunk::<8>(), to.len() == from.len()) {
        (Some(last), true) => {
            for (from, to) in from.as_chunks::<8>().0.iter().zip(to.as_chunks_mut::<8>().0) {
                *to = *from;
            }
            *to.last_chunk_mut().expect("both are as long") = *last;
        }
        _ => from.iter().zip(to).for_each(|(from, to)| *to = *from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stop_is_found_in_every_place() {
        for stop in [b'"', b'\\', 0, 0x1F, 0x80, 0xFF] {
            for place in 0..20 {
                let mut bytes = [b' '; 24];
                bytes[place] = stop;
                bytes[23] = b'"';
                assert_eq!(plain_end(&bytes, 0), Some(place));
            }
        }
        assert_eq!(plain_end(b"no end in sight", 0), None);
        assert_eq!(escapes(u64::from_le_bytes(*b"abc\x7f\"efg")).trailing_zeros() / 8, 3);
        assert_eq!(escapes(u64::from_le_bytes(*b"abc ~#[]")), 0);
    }
}
