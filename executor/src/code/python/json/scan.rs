//! Finds the end of plain ASCII in a string, sixteen bytes at a time.

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
    end::<false>(bytes, at)
}

/// The first byte from `at` on that ends a run of what `json.dumps` writes as it is.
#[inline]
pub fn written_end(bytes: &[u8], at: usize) -> Option<usize> {
    end::<true>(bytes, at)
}

/// As [`plain_end`], or as [`written_end`] if DEL ends a run too.
#[inline(always)]
fn end<const DEL: bool>(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let rest = bytes.get(at..)?;
        let Some(chunk) = rest.first_chunk() else {
            // Spaces, which stop nothing, fill the last chunk.
            let mut last = [b' '; CHUNK];
            last[..rest.len()].copy_from_slice(rest);
            return first_stop::<DEL>(&last).map(|stop| at + stop);
        };
        if let Some(stop) = first_stop::<DEL>(chunk) {
            return Some(at + stop);
        }
        at += CHUNK;
    }
}

/// Bytes that are looked at in one step.
const CHUNK: usize = 16;

/// The place of the first byte that ends a run.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn first_stop<const DEL: bool>(chunk: &[u8; CHUNK]) -> Option<usize> {
    use std::arch::x86_64 as simd;
    // SAFETY: every processor of this kind has SSE2, and the load reads the chunk's sixteen bytes, wherever they lie.
    let stops = unsafe {
        let bytes = simd::_mm_loadu_si128(chunk.as_ptr().cast());
        let is = |byte: u8| simd::_mm_cmpeq_epi8(bytes, simd::_mm_set1_epi8(byte.cast_signed()));
        // As a signed number, a part of a longer character is less than a space, too.
        let odd = simd::_mm_cmplt_epi8(bytes, simd::_mm_set1_epi8(b' '.cast_signed()));
        let stops = simd::_mm_or_si128(odd, simd::_mm_or_si128(is(b'"'), is(b'\\')));
        simd::_mm_movemask_epi8(if DEL { simd::_mm_or_si128(stops, is(0x7F)) } else { stops })
    };
    (stops != 0).then(|| stops.trailing_zeros() as usize)
}

/// The place of the first byte that ends a run.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn first_stop<const DEL: bool>(chunk: &[u8; CHUNK]) -> Option<usize> {
    for (at, word) in chunk.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let stops = if DEL { escapes(word) } else { stops(word) };
        if stops != 0 {
            return Some(8 * at + (stops.trailing_zeros() / 8) as usize);
        }
    }
    None
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
