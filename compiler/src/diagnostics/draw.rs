//! Faults as rustc draws them: the code, the message, the text of the YAML with labels under it.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Severity};
use crate::source::{At, SourceFile};

/// The faults as text for people, and a line that counts them.
pub fn render(diagnostics: &[Diagnostic], files: &[SourceFile], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let texts: Vec<_> = files.iter().map(|file| String::from_utf8_lossy(&file.bytes)).collect();
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&renderer.render(&[group(diagnostic, files, &texts)]));
        out.push_str("\n\n");
    }
    out.push_str(&count(diagnostics));
    out
}

fn group<'a>(diagnostic: &'a Diagnostic, files: &'a [SourceFile], texts: &'a [std::borrow::Cow<'_, str>]) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(&diagnostic.message).id(diagnostic.code.name()));
    let labels = std::iter::once((&diagnostic.at, diagnostic.under.as_deref(), AnnotationKind::Primary))
        .chain(diagnostic.labels.iter().map(|(at, text)| (at, Some(text.as_str()), AnnotationKind::Context)));
    let mut by_file: Vec<(usize, Vec<_>)> = Vec::new();
    for (at, text, kind) in labels {
        match by_file.iter_mut().find(|(file, _)| *file == at.file) {
            Some((_, labels)) => labels.push((at, text, kind)),
            None => by_file.push((at.file, vec![(at, text, kind)])),
        }
    }
    for (file, labels) in by_file {
        let source = texts[file].as_ref();
        let annotations = labels.into_iter().map(|(at, text, kind)| kind.span(span(at, source)).label(text));
        group = group.element(Snippet::source(source).path(&files[file].name).annotations(annotations));
    }
    for hint in &diagnostic.hints {
        group = group.element(Level::HELP.message(hint));
    }
    group
}

/// The span on character boundaries, ending with its first line: a label is one line high.
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
