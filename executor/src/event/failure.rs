//! Events that could not be processed: what is recorded of them.

use serde::Serialize;

/// The line of `--failures` for one event. Payloads are not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailureRecord {
    /// The agent in which it failed.
    pub agent: String,
    /// The operation, or `output:{topic}`, `channel:{name}`, `sink:{name}`.
    pub operation: String,
    /// Where the event came from.
    pub topic: String,
    /// Where the event came from.
    pub partition: i32,
    /// Where the event came from.
    pub offset: i64,
    /// The exception's class, or one of the kinds of the formats page.
    pub kind: String,
    /// What the exception says, cut to [`MESSAGE_CHARACTERS_MAX`].
    pub message: String,
    /// `file:line` in the spec.
    pub at: String,
}

/// The longest message in logs and failure lines.
pub const MESSAGE_CHARACTERS_MAX: usize = 300;

/// `text`, cut to `max` characters.
pub fn cut(text: &str, max: usize) -> &str {
    text.char_indices().nth(max).map_or(text, |(end, _)| &text[..end])
}

/// `text`, cut to at most `max` bytes between two characters.
pub fn cut_bytes(text: &str, max: usize) -> &str {
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
}
