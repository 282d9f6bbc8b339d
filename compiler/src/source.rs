//! The texts that are compiled, and places in them.
//!
//! Every stage up to `check` speaks of places as bytes ([`At`]); lines and columns are counted only where a human or
//! the plan needs them ([`Text::line_column`]).

use std::ops::Range;

/// A file of specs, named as the user gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name, for diagnostics and plans.
    pub name: String,
    /// Its bytes.
    /// Not yet text: a file that is no UTF-8 is a fault like any other (K0001).
    pub bytes: Vec<u8>,
}

/// A stretch of a file, in bytes.
///
/// Ordered by file, then start: diagnostics are sorted by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// The file's place in the list.
    /// In the list that [`crate::compile`] was given.
    pub file: usize,
    /// First byte.
    pub start: usize,
    /// The byte after the last.
    /// Equal to `start` for a place without extent. Both are boundaries of characters where the text is known.
    pub end: usize,
}

impl At {
    /// The bytes.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The place where it starts, without extent.
    ///
    /// Used for whole mappings and documents, where marking all lines would mark nothing.
    pub fn head(&self) -> At {
        At { end: self.start, ..self.clone() }
    }
}

/// Something, and where it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Spanned<T> {
    /// The thing.
    pub value: T,
    /// Its place.
    pub at: At,
}

/// A file's text with its lines counted, so that places are found without walking to them.
///
/// A lookup takes the logarithm of the number of lines. Without the table a file with a thousand faults would be
/// walked a thousand times.
#[derive(Clone, Debug)]
pub struct Text<'a> {
    /// The text.
    pub text: &'a str,
    /// Start of each line.
    lines: Vec<usize>,
}

impl<'a> Text<'a> {
    /// Counts the lines of a text.
    pub fn new(text: &'a str) -> Text<'a> {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Text { text, lines: std::iter::once(0).chain(ends).collect() }
    }

    /// Line and column of a byte, both from 1; columns count characters.
    ///
    /// A byte past the end counts as the end. A byte within a character belongs to the column behind that character.
    ///
    /// ```
    /// use kasprc::source::Text;
    ///
    /// let text = Text::new("name: ä\nx: 1\n");
    /// assert_eq!(text.line_column(6), (1, 7));    // the ä
    /// assert_eq!(text.line_column(8), (1, 8));    // behind it: it has two bytes and one column
    /// assert_eq!(text.line_column(9), (2, 1));
    /// ```
    pub fn line_column(&self, byte: usize) -> (u32, u32) {
        let byte = byte.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= byte);
        let before = &self.text.as_bytes()[self.lines[line - 1]..byte];
        // Lossy, because a place may have been cut within a character.
        let column = String::from_utf8_lossy(before).chars().count() + 1;
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    }

    /// The whole lines from the first of these bytes to the last, and the number of the first line.
    ///
    /// The number counts from 1. Of no bytes at all it is the first line.
    pub fn lines_around(&self, bytes: impl Iterator<Item = usize>) -> (Range<usize>, usize) {
        let lines: Vec<usize> = bytes.map(|byte| self.lines.partition_point(|start| *start <= byte)).collect();
        let first = lines.iter().copied().min().unwrap_or(1).max(1);
        let last = lines.iter().copied().max().unwrap_or(1);
        let end = self.lines.get(last).copied().unwrap_or(self.text.len());
        (self.lines[first - 1]..end, first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        assert_eq!(Text::new("a\näb").line_column(4), (2, 2));
        assert_eq!(Text::new("a\n").line_column(2), (2, 1));
        assert_eq!(Text::new("").line_column(9), (1, 1));
    }
}
