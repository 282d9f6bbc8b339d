//! Faults as rustc draws them: the code, the message, the text of the YAML with labels under it.
//!
//! ```text
//! error[K0306]: the tables "totals" and "limits" of one agent have different partition counts
//!   --> broken.yaml:39:15
//!    |
//! 32 |   partitions: 6
//!    |               - 6 here                 a further label
//! ...
//! 39 |   partitions: 4
//!    |               ^ 4 here                 the fault's own place, with its text
//!    |
//!    = help: give both as many partitions as the topic has that feeds them, or omit "partitions"
//! ```

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Severity};
use crate::source::{At, SourceFile, Text};

/// Labels further apart than this are drawn apart: what is drawn is cut out of the file first, so
/// that a fault in a large file costs no more than one in a small file.
const LINES_TOGETHER: u32 = 50;

/// The faults as text for people, and a line that counts them.
///
/// `files` are those that were compiled, in the same order: places name them by number. With `colour` there are
/// escape sequences for a terminal. No faults give no text at all.
pub fn render(diagnostics: &[Diagnostic], files: &[SourceFile], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let texts: Vec<_> = files.iter().map(|file| String::from_utf8_lossy(&file.bytes)).collect();
    let texts: Vec<Text<'_>> = texts.iter().map(|text| Text::new(text)).collect();
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&renderer.render(&[group(diagnostic, files, &texts)]));
        out.push_str("\n\n");
    }
    out.push_str(&count(diagnostics));
    out
}

/// A label: where it stands, its text, and whether it is the fault's own.
type Label<'a> = (&'a At, Option<&'a str>, AnnotationKind);

/// One fault as the library draws it, with a snippet for each group of labels that stand near each other.
fn group<'a>(diagnostic: &'a Diagnostic, files: &'a [SourceFile], texts: &[Text<'a>]) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(&diagnostic.message).id(diagnostic.code.name()));
    let labels = std::iter::once((&diagnostic.at, diagnostic.under.as_deref(), AnnotationKind::Primary))
        .chain(diagnostic.labels.iter().map(|(at, text)| (at, Some(text.as_str()), AnnotationKind::Context)));
    let mut snippets: Vec<Vec<Label<'_>>> = Vec::new();
    for label in labels {
        let line = |at: &At| texts[at.file].line_column(at.start).0;
        // Near to any label of the snippet, so a chain of near labels is drawn together.
        let is_near =
            |(at, ..): &Label<'_>| at.file == label.0.file && line(at).abs_diff(line(label.0)) <= LINES_TOGETHER;
        match snippets.iter_mut().find(|labels| labels.iter().any(is_near)) {
            Some(labels) => labels.push(label),
            None => snippets.push(vec![label]),
        }
    }
    for labels in snippets {
        let file = labels[0].0.file;
        // Cut out of the file, places moved by as much: the library's cost grows with the text it is given.
        let (window, line) = texts[file].lines_around(labels.iter().map(|(at, ..)| at.start));
        let source = &texts[file].text[window.clone()];
        let annotations = labels.into_iter().map(|(at, text, kind)| {
            let within =
                At { file, start: at.start.saturating_sub(window.start), end: at.end.saturating_sub(window.start) };
            kind.span(span(&within, source)).label(text)
        });
        let snippet = Snippet::source(source).line_start(line).path(&files[file].name);
        group = group.element(snippet.annotations(annotations));
    }
    // Hints stand below all snippets, in the order in which checks added them.
    for hint in &diagnostic.hints {
        group = group.element(Level::HELP.message(hint));
    }
    group
}

/// Something to say of a file that is no spec: it has no code.
///
/// See [`crate::places`].
#[derive(Clone, Debug)]
pub struct Remark {
    /// The fault, in a sentence.
    pub message: String,
    /// Its place.
    pub at: At,
    /// The remedy, where there is one.
    pub hints: Vec<String>,
}

/// Remarks as text for people, drawn as faults of specs are, and a line that counts them.
///
/// All are errors. Places must be of `file`.
pub fn render_remarks(remarks: &[Remark], file: &SourceFile, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let text = String::from_utf8_lossy(&file.bytes);
    let text = Text::new(&text);
    let mut out = String::new();
    for Remark { message, at, hints } in remarks {
        let (window, line) = text.lines_around(std::iter::once(at.start));
        let source = &text.text[window.clone()];
        let within =
            At { file: 0, start: at.start.saturating_sub(window.start), end: at.end.saturating_sub(window.start) };
        let snippet = Snippet::source(source).line_start(line).path(&file.name);
        let mark = AnnotationKind::Primary.span(span(&within, source));
        let mut group = Group::with_title(Level::ERROR.primary_title(message)).element(snippet.annotation(mark));
        for hint in hints {
            group = group.element(Level::HELP.message(hint));
        }
        out.push_str(&renderer.render(&[group]));
        out.push_str("\n\n");
    }
    out.push_str(&format!("{} error{}\n", remarks.len(), if remarks.len() == 1 { "" } else { "s" }));
    out
}

/// The span on character boundaries, ending with its first line: a label is one line high.
///
/// Places come from parsers and are cut to the snippet, so neither end is sure to be a boundary.
fn span(at: &At, source: &str) -> std::ops::Range<usize> {
    let floor = |mut byte: usize| {
        byte = byte.min(source.len());
        while !source.is_char_boundary(byte) {
            byte -= 1;
        }
        byte
    };
    let (start, end) = (floor(at.start), floor(at.end));
    let first_line = source[start..end.max(start)].find('\n').map_or(end, |line| start + line);
    start..first_line.max(start)
}

/// The last line: `2 errors, 1 warning`.
fn count(diagnostics: &[Diagnostic]) -> String {
    let of = |severity| diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    match (of(Severity::Error), of(Severity::Warning)) {
        (0, 0) => String::new(),
        (0, warnings) => format!("{}\n", plural(warnings, "warning")),
        (errors, 0) => format!("{}\n", plural(errors, "error")),
        (errors, warnings) => format!("{}, {}\n", plural(errors, "error"), plural(warnings, "warning")),
    }
}
