//! Faults of a text that is no YAML: in the words of its author, at the line that is to be mended.
//!
//! The parser says where it gave up, which is often the line after the fault, or the end of the file. Four faults
//! make up most of what goes wrong in specs, and each is looked for in the lines around that place:
//!
//! ```text
//! what was written                       what is said, and where
//! ⇥name: in                              "the line begins with a tab", at the tab
//! name: "in                              "the quote is never closed", at the quote that opens
//! description some text                  "a name is needed here, and a colon behind it", at the text
//! python: |                              the same, with "the block above ends here: its lines are
//!     def f(v):                          indented by 4 spaces or more"
//!   return v
//! ```
//!
//! Of the rest, what the parser says in terms of its own is said in plainer words ([`PLAINER`]).

use crate::diagnostics::{Code, Diagnostic};
use crate::source::At;

/// The lines of a text around a place.
///
/// Only so many as a fault may need, because a fault must cost no more in a large file than in a small one.
struct Lines<'a> {
    /// Lines in order, each with the byte of the file where it starts, and without its line break.
    lines: Vec<(usize, &'a str)>,
    /// The number of the line with the place.
    /// 0 in an empty text, where it is the number of no line.
    current: usize,
}

/// Lines before a place that are looked at, and bytes: a file may be one line, or a million.
const LINES_BACK: usize = 200;
const BYTES_BACK: usize = 16 << 10;
/// Bytes behind a place that are looked at.
// The line after the place can hold the tab, so something behind it is looked at too.
const BYTES_ON: usize = 1 << 10;

impl<'a> Lines<'a> {
    /// The lines around a byte. The first may be cut: it starts where the bytes that are looked at do.
    fn around(text: &'a str, at: usize) -> Lines<'a> {
        let from = text.floor_char_boundary(at.saturating_sub(BYTES_BACK));
        let to = text.floor_char_boundary((at + BYTES_ON).min(text.len()));
        let mut lines = Vec::new();
        let mut start = from;
        for line in text[from..to].split_inclusive('\n') {
            lines.push((start, line.trim_end_matches(['\n', '\r'])));
            start += line.len();
        }
        // A place behind the last line break belongs to the last line that there is.
        let current = lines.partition_point(|(start, _)| *start <= at).saturating_sub(1);
        Lines { lines, current }
    }

    /// The last line up to the current that holds something; for a place at the end of the text.
    fn last_with_text(&self) -> Option<(usize, &'a str)> {
        self.lines.get(..=self.current)?.iter().rev().find(|(_, line)| !line.trim().is_empty()).copied()
    }
}

/// The fault of a text at the byte where the parser gave up.
///
/// `reason` is the parser's, in its own words. Some words in it decide here what is looked for, so an update of
/// the parser must keep them; `specs/errors/` shows if it does not.
pub fn fault(text: &str, reason: &str, at: At) -> Diagnostic {
    let lines = Lines::around(text, at.start);
    let not_yaml =
        |reason: &str, at: At| Diagnostic::new(Code::K0001, format!("the file is not well-formed YAML: {reason}"), at);
    let file = at.file;
    let point = |start: usize, length: usize| At { file, start, end: start + length };
    // First, because a tab makes the parser give up with many different reasons.
    if let Some(tab) = tab(&lines) {
        return not_yaml("the line begins with a tab", point(tab, 1)).hint("YAML indents with spaces");
    }
    if reason.contains("quoted scalar")
        && let Some(quote) = quote(text, at.start)
    {
        return not_yaml("the quote is never closed", point(quote, 1))
            .hint("close it, or write it twice where the text has one");
    }
    let pair = [("flow mapping", b"{}"), ("flow sequence", b"[]")].into_iter().find(|(kind, _)| reason.contains(kind));
    if let Some((_, &[open, close])) = pair
        && let (Some(bracket), Some((_, reason, hint))) = (unclosed(text, at.start, open, close), plainer(reason))
    {
        return not_yaml(reason, point(bracket, 1)).hint(hint);
    }
    let is_no_key = reason.contains("simple key expect");
    let at = match lines.last_with_text() {
        // The parser has read on to the next line, or to the end.
        Some((start, line)) if is_no_key => {
            let indent = line.len() - line.trim_start().len();
            point(start + indent, line.trim().len())
        }
        _ => at,
    };
    let fault = match plainer(reason) {
        Some((_, reason, hint)) => not_yaml(reason, at.clone()).hint(hint),
        None if is_no_key => not_yaml("a name is needed here, and a colon behind it", at.clone()),
        None => not_yaml(reason, at.clone()),
    };
    // Looked for at the mended place: the parser may have read lines past it.
    match block_that_ends(&Lines::around(text, at.start), is_no_key) {
        Some(indent) => {
            fault.hint(format!("the block above ends here: its lines are indented by {indent} spaces or more"))
        }
        None => fault,
    }
}

/// The parser's words, or a part of them; what they mean, and what helps.
const PLAINER: [(&str, &str, &str); 6] = [
    ("block mapping, did not find expected key", OUT_OF_LINE, AS_THE_OTHERS),
    ("block collection, did not find expected '-'", OUT_OF_LINE, AS_THE_OTHERS),
    ("flow mapping, did not find expected", "the brace is never closed", "close it: }, with a comma between two names"),
    (
        "flow sequence, did not find expected",
        "the bracket is never closed",
        "close it: ], with a comma between two entries",
    ),
    (
        "mapping values are not allowed",
        "a colon has no place here",
        "the line above may lack its colon; a text with a colon stands in quotes",
    ),
    (
        "illegal placement of ':'",
        "a colon has no place here",
        "a bracket before it may lack its end; a text with a colon stands in quotes",
    ),
];
const OUT_OF_LINE: &str = "the line fits no block above it";
const AS_THE_OTHERS: &str = "indent it as the lines of the block that it belongs to";

/// A tab in the indentation of the line, or of one beside it.
///
/// The parser may stop before the line with the tab or behind it, so the neighbours are looked at too. Lines of
/// nothing but space are allowed to hold tabs.
fn tab(lines: &Lines<'_>) -> Option<usize> {
    let beside = [lines.current, lines.current + 1, lines.current.saturating_sub(1)];
    beside.into_iter().filter_map(|number| lines.lines.get(number)).find_map(|(start, line)| {
        let indent = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
        let is_text = !line.trim().is_empty();
        indent.find('\t').filter(|_| is_text).map(|tab| start + tab)
    })
}

/// The quote at a byte, or the last one before it.
///
/// The parser names the byte where the scalar began, as a rule; else the last quote is the best guess.
fn quote(text: &str, at: usize) -> Option<usize> {
    let is_quote = |byte: &u8| matches!(byte, b'"' | b'\'');
    match text.as_bytes().get(at) {
        Some(byte) if is_quote(byte) => Some(at),
        _ => text.as_bytes()[..at.min(text.len())].iter().rposition(is_quote),
    }
}

/// The parser's words in the words of its author, and what helps.
fn plainer(reason: &str) -> Option<(&'static str, &'static str, &'static str)> {
    PLAINER.into_iter().find(|(jargon, ..)| reason.contains(jargon))
}

/// The last opening bracket before a byte that has no closing one between them.
///
/// `a: {b: {c: 1}` → the first brace. Brackets in quotes and comments count too: a guess, for a fault that the parser
/// has found.
fn unclosed(text: &str, before: usize, open: u8, close: u8) -> Option<usize> {
    let mut closed = 0_usize;
    for (at, byte) in text.as_bytes()[..before.min(text.len())].iter().enumerate().rev() {
        match *byte {
            byte if byte == close => closed += 1,
            byte if byte == open && closed == 0 => return Some(at),
            byte if byte == open => closed -= 1,
            _ => {}
        }
    }
    None
}

/// The literal or folded block that the current line ends by standing further left: the indentation
/// of its text. A line that is no key (`is_no_key`) was meant for the block wherever it
/// stands.
///
/// `None` where no block stands above, or the line does not end it. Looks back over 200 lines at most.
fn block_that_ends(lines: &Lines<'_>, is_no_key: bool) -> Option<usize> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let here = indent(lines.lines.get(lines.current)?.1);
    let mut least = usize::MAX;
    for (_, line) in lines.lines[..lines.current].iter().rev().take(LINES_BACK) {
        // Empty lines belong to a block whatever their indentation.
        if line.trim().is_empty() {
            continue;
        }
        let header = line.trim_end().trim_end_matches(['+', '-']);
        let is_header = header.ends_with(": |") || header.ends_with(": >");
        // A key that stands no further left than the header is simply the next key, and no accident.
        if is_header && least != usize::MAX {
            return (here < least && (is_no_key || here > indent(line))).then_some(least);
        }
        least = least.min(indent(line));
        // Some line stands as far left as this one: no block around both of them ends here.
        if least <= here {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::diagnostics::Sink;
    use crate::source::Text;

    /// Message, with line and column.
    fn said(text: &str) -> Vec<(u32, u32, String)> {
        let mut sink = Sink::default();
        crate::yaml::parse(0, text, &mut sink);
        let lines = Text::new(text);
        let of = |fault: &crate::Diagnostic| {
            let (line, column) = lines.line_column(fault.at.start);
            (line, column, fault.message.clone())
        };
        sink.into_sorted().0.iter().map(of).collect()
    }

    const NOT: &str = "the file is not well-formed YAML: ";

    #[test]
    fn tabs_and_quotes_are_named_where_they_stand() {
        assert_eq!(said("a:\n  b: 1\n\tc: 2\n"), [(3, 1, format!("{NOT}the line begins with a tab"))]);
        assert_eq!(said("a:\n  b:\n  \tc: 2\n"), [(3, 3, format!("{NOT}the line begins with a tab"))]);
        assert_eq!(said("a:\n  b: \"x\n  c: 2\n"), [(2, 6, format!("{NOT}the quote is never closed"))]);
    }

    #[test]
    fn faults_are_told_in_words_of_the_writer() {
        for (text, line, words) in [
            ("a:\n  b:\n     - 1\n    - 2\n", 4, "the line fits no block above it"),
            ("a:\n  - b: 1\n    c: 2\n   d: 3\n", 4, "the line fits no block above it"),
            ("a: {b: 1\nc: 2\n", 1, "the brace is never closed"),
            ("a: b: c\n", 1, "a colon has no place here"),
        ] {
            let said = said(text);
            assert_eq!((said[0].0, said[0].2.as_str()), (line, format!("{NOT}{words}").as_str()), "{text}");
        }
    }

    #[test]
    fn a_line_that_fell_out_of_its_block_is_pointed_at() {
        let text = "a:\n  b: |\n    def f(v):\n        return v\n   return w\nc: 1\n";
        assert_eq!(said(text)[0].0, 5, "{:?}", said(text));
    }

    #[test]
    fn a_second_document_without_a_marker_is_one_fault() {
        let text = "apiVersion: a\nkind: b\nx: 1\napiVersion: a\nkind: c\nx: 2\n";
        assert_eq!(said(text), [(4, 1, "duplicate key \"apiVersion\"".to_owned())]);
        assert_eq!(said("a: 1\na: 2\nb: 1\nb: 2\n").len(), 2);
    }
}
