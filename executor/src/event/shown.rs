//! Text from payloads and from the outside world as it may be shown in logs and errors.
//!
//! A log line is one line: the producer of a topic, an exception's text or a key must not be able to begin
//! another line, to move the cursor of a terminal, or to fill the disk.

use std::fmt::{Display, Formatter, Result, Write};

/// The longest text of a message or field in the log, in bytes.
pub const SHOWN_BYTES_MAX: usize = 1024;

/// The longest traceback in the log, in bytes.
pub const TRACEBACK_BYTES_MAX: usize = 8 * 1024;

/// The longest name that an error quotes, in bytes: as long as a topic's may be.
pub const NAME_BYTES_MAX: usize = kaspr_ir::topics::TOPIC_NAME_MAX;

/// A text with its control characters escaped, and cut to so many bytes (before they are escaped).
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a str, pub usize);

/// A name, as errors quote it.
pub fn name(name: &str) -> Shown<'_> {
    Shown(name, NAME_BYTES_MAX)
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut bounded = Bounded::new(f, self.1);
        bounded.write_str(self.0)?;
        bounded.finish()
    }
}

/// Escapes and cuts what is written through it.
pub struct Bounded<'a> {
    out: &'a mut dyn Write,
    left: usize,
    given: usize,
    written: usize,
}

impl<'a> Bounded<'a> {
    /// Lets `max` bytes through.
    pub fn new(out: &'a mut dyn Write, max: usize) -> Bounded<'a> {
        Bounded { out, left: max, given: 0, written: 0 }
    }

    /// Writes how much there was, if something was cut.
    pub fn finish(self) -> Result {
        match self.written == self.given {
            true => Ok(()),
            false => write!(self.out, "… ({} bytes)", self.given),
        }
    }
}

impl Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> Result {
        let shown = cut_bytes(text, self.left);
        self.given += text.len();
        self.written += shown.len();
        // Text after a cut is cut too.
        self.left = if shown.len() == text.len() { self.left - shown.len() } else { 0 };
        shown.chars().try_for_each(|character| match breaks_line(character) {
            true => write!(self.out, "{}", character.escape_default()),
            false => self.out.write_char(character),
        })
    }
}

/// True if a character ends a line, controls a terminal or changes the direction of what follows.
fn breaks_line(character: char) -> bool {
    character.is_control()
        // Line ends and direction marks of Unicode, which are no control characters by its own tables.
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text`, cut to `max` characters.
pub fn cut(text: &str, max: usize) -> &str {
    text.char_indices().nth(max).map_or(text, |(end, _)| &text[..end])
}

/// `text`, cut to at most `max` bytes between two characters.
pub fn cut_bytes(text: &str, max: usize) -> &str {
    // At most three steps back: a character has four bytes at most.
    let end = (0..=max.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!((cut("größe", 3), cut("ab", 3)), ("grö", "ab"));
        assert_eq!((cut_bytes("größe", 3), cut_bytes("größe", 4)), ("gr", "grö"));
    }

    #[test]
    fn shown_text_stays_on_its_line_and_within_its_bound() {
        assert_eq!(Shown("größe", 100).to_string(), "größe");
        assert_eq!(
            Shown("a\nb\r\u{1b}[2J\0\u{85}\u{2028}\u{202e}", 100).to_string(),
            r"a\nb\r\u{1b}[2J\u{0}\u{85}\u{2028}\u{202e}"
        );
        assert_eq!(Shown("größer", 4).to_string(), "grö… (8 bytes)");
        let mut out = String::new();
        let mut bounded = Bounded::new(&mut out, 5);
        ["ab", "cdef", "g"].into_iter().try_for_each(|part| bounded.write_str(part)).expect("a string takes all");
        bounded.finish().expect("a string takes all");
        assert_eq!(out, "abcde… (7 bytes)");
    }
}
