//! The only source of chance in a simulation.
//!
//! It is not a crate's, so a seed means the same whatever versions are linked.

use std::time::Duration;

/// A small generator (SplitMix64, Steele, Lea and Flood 2014): the same seed, the same numbers.
///
/// ```text
/// Seed::new(7) ─ draw, draw, … ─▶ the same numbers wherever it runs
/// ```
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// A generator that begins at `seed`.
    pub fn new(seed: u64) -> Seed {
        Seed(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    ///
    /// The numbers are nearly even: `end` is small against 2^64.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % end as u64).expect("it is below a usize")
    }

    /// True in so many of a thousand cases.
    ///
    /// 0 never hits, 1000 always does. A number is drawn in either case.
    pub fn hits(&mut self, per_mille: u32) -> bool {
        self.draw() % 1000 < u64::from(per_mille)
    }

    /// A time in whole milliseconds, both ends included.
    ///
    /// `least` is not above `most`.
    pub fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.draw() % (most - least + 1))
    }

    /// Picks one of them.
    ///
    /// A value that is listed several times comes as much more often. The list is not empty.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_differs_from_the_next() {
        let draw = |seed| {
            let mut seed = Seed::new(seed);
            (0..4).map(|_| seed.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
