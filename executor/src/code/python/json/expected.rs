//! Expected layout of the next object, learned from earlier ones. Events of a topic look alike, so what stands around
//! their values is compared and not read.
//!
//! ```text
//! {"id": 7, "place": {"site": "north", "floor": 2}, "hot": true}
//!  ─────    ──────────────────         ───────────  ─────────     compared, each in a step or two
//!       ─                     ───────             ─          ────   checked like any other value
//! ```

use std::ops::Range;

use super::keys::Text;
use super::parser::Parser;
use super::pick::Pick;

/// Most fields of an object that is decoded in part.
pub(super) const FIELDS_MAX: usize = 32;
/// Most values within an object that is compared.
const INNER_VALUES_MAX: usize = 64;
/// Most objects around such a value.
const INNER_DEPTH_MAX: u32 = 8;

/// A field that is expected after those before it.
pub(super) struct Expected {
    /// The text between the last value and this one.
    pub(super) start: Text,
    /// The place of the key in that text, with its quotes.
    key: Range<usize>,
    /// Its number among the fields that are decoded, if it is one.
    pub(super) field: Option<usize>,
    /// True if a field that follows another begins so when CPython writes it.
    pub(super) is_as_written: bool,
    /// If its value was an object: the texts before, between and behind the values in it, as CPython writes them.
    pub(super) inner: Vec<Text>,
}

impl Expected {
    /// The place of its key where the text between it and the last value begins at `start`.
    #[inline]
    pub(super) fn key_from(&self, start: usize) -> Range<usize> {
        start + self.key.start..start + self.key.end
    }

    /// Its key, with its quotes.
    pub(super) fn key(&self) -> &[u8] {
        &self.start.as_bytes()[self.key.clone()]
    }
}

impl Parser<'_, '_> {
    /// Returns the fields of a document that was just decoded in part, for the next ones like it.
    pub(super) fn expected(&mut self, pick: &Pick) -> Option<Vec<Expected>> {
        self.at = 0;
        self.next()?;
        self.at += 1;
        self.next()?;
        let mut expected: Vec<Expected> = Vec::new();
        let mut from = self.at;
        loop {
            self.next()?;
            let key = self.at..self.plain_text_end()?;
            self.at = key.end;
            self.colon()?;
            // Only the one space that CPython writes is expected; any more is skipped before the value.
            self.at += usize::from(self.peek()? == b' ');
            let text = &self.bytes[key.clone()];
            // With a key twice there is no expectation: `Parser::fields` relies on keys that differ.
            if expected.len() == FIELDS_MAX || expected.iter().any(|seen| seen.key() == text) {
                return None;
            }
            let (field, value) = (pick.place(text), self.at);
            let is_as_written = self.bytes[from..key.start] == *b", " && self.bytes[key.end..value] == *b": ";
            let start = Text::new(&self.bytes[from..value]);
            let is_value_as_written = self.pass(1)?;
            let end = self.at;
            let inner = if is_value_as_written && field.is_none() { self.inner_texts(value) } else { None };
            let inner = inner.unwrap_or_default();
            self.at = end;
            expected.push(Expected { start, key: key.start - from..key.end - from, field, is_as_written, inner });
            if !self.goes_on(b'}')? {
                return Some(expected);
            }
            from = end;
        }
    }

    /// Returns the texts around the values of the object at this place, which is as CPython writes it.
    fn inner_texts(&mut self, at: usize) -> Option<Vec<Text>> {
        // An empty object is a value like any other.
        self.bytes[at..].starts_with(b"{\"").then_some(())?;
        self.at = at;
        let (mut texts, mut from, mut depth) = (Vec::new(), at, 0);
        loop {
            // Before a value.
            if self.bytes[self.at..].starts_with(b"{\"") && depth < INNER_DEPTH_MAX {
                self.at += 1;
                depth += 1;
                self.inner_key()?;
                continue;
            }
            (texts.len() < INNER_VALUES_MAX).then_some(())?;
            texts.push(Text::new(&self.bytes[from..self.at]));
            self.pass(depth)?;
            from = self.at;
            // Behind a value.
            while self.peek()? == b'}' {
                self.at += 1;
                depth -= 1;
                if depth == 0 {
                    texts.push(Text::new(&self.bytes[from..self.at]));
                    return Some(texts);
                }
            }
            self.at += b", ".len();
            self.inner_key()?;
        }
    }

    /// Passes over a key and its colon, as CPython writes them.
    fn inner_key(&mut self) -> Option<()> {
        self.at = self.plain_text_end()? + b": ".len();
        Some(())
    }

    /// Passes over an object whose keys are as expected. True: it is written as CPython writes it. `None`: it
    /// differs from what was expected, or is not JSON.
    #[inline(always)]
    pub(super) fn pass_like(&mut self, inner: &[Text]) -> Option<bool> {
        let (last, before) = inner.split_last()?;
        let mut is_as_written = true;
        for text in before {
            self.at += text.begins(&self.bytes[self.at..])?;
            // A space here would be one more than CPython writes.
            (self.peek()? > b' ').then_some(())?;
            is_as_written &= self.pass(INNER_DEPTH_MAX)?;
        }
        self.at += last.begins(&self.bytes[self.at..])?;
        Some(is_as_written)
    }
}
