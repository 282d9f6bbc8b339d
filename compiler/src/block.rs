//! Code blocks in their files: from places in the Python to places in the YAML.
//!
//! The parser of Python speaks of bytes of the block's text, the user of lines of his file. YAML has taken the
//! indentation off, and folded or unescaped the rest, so the way back depends on the scalar's style:
//!
//! ```text
//! agent.yaml                     the block's text          the x, at byte 21 of the text:
//! 12:   python: |                def f(v):                 row 1, column 11, both from 0
//! 13:     def f(v):                  return x              behind an indentation of 4
//! 14:         return x                                     ⇒ line 14, column 16, both from 1
//! ```
//!
//! For literal blocks the way back is exact. For folded and quoted ones each line is looked for in the file, which
//! finds the right line or one near it; a place is never outside the block's lines.

use kaspr_ir::plan::LineMap;

use crate::ast::Code;
use crate::source::{At, Text};

/// Finds the place in the file of a byte of a block's Python.
///
/// `file` is the text of the file that the block stands in. Past the end of a line it is the line's end, past the
/// last line the end of the block.
pub fn place(code: &Code, file: &str, byte: usize) -> usize {
    let Some(starts) = line_starts(code, file) else { return code.at.start };
    let byte = byte.min(code.text.len());
    let before = &code.text.as_bytes()[..byte];
    let row = before.iter().filter(|&&b| b == b'\n').count();
    let column = byte - before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let Some(&start) = starts.get(row) else { return code.at.end };
    let start = file.floor_char_boundary(start);
    let line_end = file[start..].find('\n').map_or(file.len(), |end| start + end);
    (start + column).min(line_end)
}

/// The stretch of the file that a range of a block's Python stands in.
///
/// The range is of bytes of `code.text`, as the parser of Python gives it.
pub fn at(code: &Code, file: &str, range: &std::ops::Range<usize>) -> At {
    let start = place(code, file, range.start);
    let end = place(code, file, range.end).max(start);
    At { file: code.at.file, start, end }
}

/// The lines of a block for the plan.
///
/// The executor uses it to put the file's lines into tracebacks. All numbers count from 1.
pub fn line_map(code: &Code, file: &Text<'_>) -> LineMap {
    if code.literal {
        let (start, indent) = first_line(code, file.text);
        let (line, column) = (file.line_column(start).0, u32::try_from(indent + 1).unwrap_or(u32::MAX));
        return LineMap::Literal { line, column };
    }
    let starts = line_starts(code, file.text).unwrap_or_default();
    let count = code.text.lines().count().max(1);
    let place = |row: usize| file.line_column(starts.get(row).copied().unwrap_or(code.at.start));
    LineMap::Each((0..count).map(place).collect())
}

/// The lines of a block's Python that are not empty: the number of each, from 1, and its start in the file.
pub fn starts(code: &Code, file: &str) -> Vec<(usize, usize)> {
    let starts = line_starts(code, file).unwrap_or_default();
    let rows = code.text.split('\n').zip(starts).enumerate();
    // An empty line has no text by which it could be found.
    rows.filter(|(_, (text, _))| !text.trim().is_empty()).map(|(row, (_, start))| (row + 1, start)).collect()
}

/// Finds the start of each line of the Python in the file, if its lines can be followed there.
///
/// One entry for each line of the Python, without the file's indentation.
fn line_starts(code: &Code, file: &str) -> Option<Vec<usize>> {
    if !code.literal {
        return Some(follow(code, file));
    }
    let (mut line, indent) = first_line(code, file);
    let mut starts = Vec::new();
    for _ in code.text.split('\n') {
        // The last line may end the file without a line break.
        line = file.floor_char_boundary(line);
        let rest = &file[line..];
        let length = rest.find('\n').unwrap_or(rest.len());
        // A line that is shorter than the indentation is empty: it starts at its own end.
        starts.push(line + indent.min(length));
        line += length + 1;
    }
    Some(starts)
}

/// Finds the start of the first line of a literal block, and the indent of its lines. The parser says
/// that it stands about where its first text is: empty lines before that are lines of the Python too.
fn first_line(code: &Code, file: &str) -> (usize, usize) {
    let line_start = |at: usize| file[..at].rfind('\n').map_or(0, |at| at + 1);
    // Empty lines above the first text belong to the block, and the parser's place is behind them.
    let mut line = line_start(code.at.start);
    while let Some(before) = line.checked_sub(1).map(line_start)
        && file[before..line].trim().is_empty()
    {
        line = before;
    }
    let indent_of_first = |text: &str| {
        let first = text.lines().find(|line| !line.trim().is_empty());
        first.map_or(0, |line| line.len() - line.trim_start().len())
    };
    // The first line of the Python may be indented further than the block: only the difference is the file's.
    (line, indent_of_first(&file[line..]).saturating_sub(indent_of_first(&code.text)))
}

/// Folded and quoted scalars: each line is looked for behind the one before it.
///
/// The first word of each line is the landmark: it survives folding and quoting. A line whose word is not found is
/// said to start where the search stands, so later lines are still looked for behind it.
fn follow(code: &Code, file: &str) -> Vec<usize> {
    let end = code.at.end.min(file.len());
    let mut from = code.at.start.min(end);
    let mut starts = Vec::new();
    for line in code.text.split('\n') {
        let word = line.split_whitespace().next().unwrap_or_default();
        if let (false, Some(found)) = (word.is_empty(), file[from..end].find(word)) {
            let indent = line.len() - line.trim_start().len();
            starts.push((from + found).saturating_sub(indent).max(code.at.start));
            from += found + word.len();
        } else {
            starts.push(from);
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lines_before_the_first_text_are_counted() {
        let file = "python: |\n\n\n  def f(v):\n      return v\n";
        let node = crate::yaml::parse(0, file, &mut crate::diagnostics::Sink::default()).remove(0);
        let python = node.get("python").expect("it is there");
        let text = python.text().expect("it is a scalar").to_owned();
        let code = Code { at: python.at.clone(), text, literal: true, entrypoint: None };
        assert_eq!(line_map(&code, &Text::new(file)), LineMap::Literal { line: 2, column: 3 });
        let def = code.text.find("def").expect("it is there");
        assert_eq!(place(&code, file, def), file.find("def").expect("it is there"));
    }
}
