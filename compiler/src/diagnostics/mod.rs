//! Faults of specs: what is wrong, where it is written and what to do.
//!
//! Every stage up to `check` reports into one [`Sink`] and goes on, so one run shows all faults. At its end they are
//! sorted by place, stripped of those that the specs allow ([`allow`]), and shown:
//!
//! ```text
//! Diagnostic { code: K0201, at, message,   ─draw─▶  error[K0201]: the pipeline names an operation "enrch" that …
//!   under, labels, hints }                            --> agent.yaml:9:18
//!                                          ─json─▶  {"code":"K0201","line":9,…}
//! ```
//!
//! Wording: the message is lower case and names the thing in the user's words, in quotes where it is his own; a label
//! says what stands at a place; a hint says what to do.

pub mod allow;
mod code;
mod draw;
mod explain;
mod json;
mod near;

pub use code::{Code, Page};
pub use draw::{Remark, render, render_remarks};
pub use explain::{code, explain};
pub use json::{note_to_json, to_json};
pub use near::{nearest, nearest_within};

use std::collections::HashSet;

use crate::source::At;

/// Severity of a fault: an error stops the compile.
///
/// Decided by the code ([`Code::severity`]); a few checks raise a warning to an error where the specs hold the
/// app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// No plan comes out.
    Error,
    /// A person should look.
    Warning,
}

/// One fault.
///
/// Built in one expression: `Diagnostic::new(code, message, at).hint("…")`, then pushed into the [`Sink`].
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// Its stable code.
    pub code: Code,
    /// Its severity: an error stops the compile.
    pub severity: Severity,
    /// The fault, in lower case, naming the thing in the user's words.
    pub message: String,
    /// Its place.
    pub at: At,
    /// Text under that place.
    /// Drawn behind the mark, as `first here`.
    pub under: Option<String>,
    /// Further places.
    /// With what is to be seen at each. They may be in other files.
    pub labels: Vec<(At, String)>,
    /// Advice.
    /// Each is a line behind `= help:`.
    pub hints: Vec<String>,
}

/// A message on one line, without what a terminal would obey: names in it are the user's.
fn escaped(message: String) -> String {
    if !message.contains(char::is_control) {
        return message;
    }
    let escape = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    message.chars().map(escape).collect()
}

impl Diagnostic {
    /// A fault at a place, as severe as its code says.
    pub fn new(code: Code, message: impl Into<String>, at: At) -> Diagnostic {
        let (severity, message) = (code.severity(), escaped(message.into()));
        Diagnostic { code, severity, message, at, under: None, labels: Vec::new(), hints: Vec::new() }
    }

    /// With a text under its place.
    pub fn under(mut self, text: impl Into<String>) -> Diagnostic {
        self.under = Some(escaped(text.into()));
        self
    }

    /// With a further place.
    pub fn label(mut self, at: At, text: impl Into<String>) -> Diagnostic {
        self.labels.push((at, escaped(text.into())));
        self
    }

    /// With what to do.
    pub fn hint(mut self, text: impl Into<String>) -> Diagnostic {
        self.hints.push(escaped(text.into()));
        self
    }

    /// With "did you mean", where a name is close.
    ///
    /// Nothing is added where none is; so it can be called in any case.
    pub fn near<'a>(self, name: &str, names: impl IntoIterator<Item = &'a str>) -> Diagnostic {
        match nearest(name, names) {
            Some(near) => self.hint(format!("did you mean \"{near}\"?")),
            None => self,
        }
    }

    /// As severe as `severity` whatever its code says.
    pub fn with_severity(mut self, severity: Severity) -> Diagnostic {
        self.severity = severity;
        self
    }
}

/// Most faults of a run that are kept; the others are counted.
///
/// A file of a million faults would otherwise cost the memory of a million, and no person reads on.
pub const FAULTS_MAX: usize = 1000;

/// Collects faults: all of them, in a stable order at the end.
///
/// Made for a compile and consumed by [`Sink::into_sorted`].
#[derive(Debug, Default)]
pub struct Sink {
    diagnostics: Vec<Diagnostic>,
    /// True once an error was pushed, kept or not.
    has_errors: bool,
    /// Faults beyond [`FAULTS_MAX`], which are only counted.
    more: usize,
    /// The specs reach the pods through Kubernetes.
    is_for_operator: bool,
    /// Notes: worth knowing and no fault.
    notes: Vec<String>,
    /// Fields that stand in a mapping, faulty: where it starts, and their names.
    marked: HashSet<(usize, usize, String)>,
    /// Some code block is empty: its lines may stand where fields are expected.
    has_empty_block: bool,
    /// Blocks of Python in quotes or folded.
    quoted: Vec<Quoted>,
}

/// A block of Python in quotes or folded.
#[derive(Debug)]
struct Quoted {
    at: At,
    name: String,
    /// The number of each line that is not empty, and its start in the file.
    rows: Vec<(usize, usize)>,
}

impl Sink {
    /// Collects faults, those that only Kubernetes would find too where the operator brings the specs.
    ///
    /// [`Sink::default`] is one for specs that arrive as they are written.
    pub fn new(is_for_operator: bool) -> Sink {
        Sink { is_for_operator, ..Sink::default() }
    }

    /// Notes a fault that only Kubernetes would find.
    pub fn push_for_operator(&mut self, diagnostic: Diagnostic) {
        // In files the same spec is fine, so there is nothing to say.
        if self.is_for_operator {
            self.push(diagnostic);
        }
    }

    /// Notes what is worth knowing and no fault.
    ///
    /// Shown only where nothing but faults is asked for (`kasprc check`).
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Gives the notes so far.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Remembers that a field of the mapping at a place stands there and is faulty, so that it is
    /// not called missing.
    ///
    /// `field` is its name in the Kubernetes form, which both `read` and `check` know.
    pub fn mark(&mut self, mapping: &At, field: &str) {
        self.marked.insert((mapping.file, mapping.start, field.to_owned()));
    }

    /// Tells a field that was marked.
    pub fn is_marked(&self, mapping: &At, field: &str) -> bool {
        self.marked.contains(&(mapping.file, mapping.start, field.to_owned()))
    }

    /// Remembers a code block that is empty.
    pub fn note_empty_block(&mut self) {
        self.has_empty_block = true;
    }

    /// Tells whether a code block is empty.
    pub fn has_empty_block(&self) -> bool {
        self.has_empty_block
    }

    /// Remembers a block of Python that is in quotes or folded: its faults name the block and its line too, since
    /// a user whose specs the operator mounts never sees the file.
    pub fn note_quoted(&mut self, at: &At, name: String, rows: Vec<(usize, usize)>) {
        self.quoted.push(Quoted { at: at.clone(), name, rows });
    }

    /// `orders/count line 3`, where a place is in a block in quotes.
    fn line_of_block(&self, at: &At) -> Option<String> {
        let is_around = |block: &At| block.file == at.file && (block.start..block.end).contains(&at.start);
        let Quoted { name, rows, .. } = self.quoted.iter().find(|block| is_around(&block.at))?;
        let row = rows.iter().take_while(|(_, start)| *start <= at.start).last().map_or(1, |(row, _)| *row);
        Some(format!("{name} line {row}"))
    }

    /// Takes over what another sink was told of a file, as if this one had been told.
    pub fn absorb(&mut self, other: Sink) {
        let Sink { diagnostics, has_errors, more, is_for_operator: _, notes, marked, has_empty_block, quoted } = other;
        diagnostics.into_iter().for_each(|diagnostic| self.push(diagnostic));
        self.has_errors |= has_errors;
        self.more += more;
        self.notes.extend(notes);
        self.marked.extend(marked);
        self.has_empty_block |= has_empty_block;
        self.quoted.extend(quoted);
    }

    /// Notes a fault.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.has_errors |= diagnostic.severity == Severity::Error;
        if self.diagnostics.len() < FAULTS_MAX {
            self.diagnostics.push(diagnostic);
            return;
        }
        self.more += 1;
        // An error must be seen, however many warnings came before it: it takes the place of the last of them.
        if diagnostic.severity == Severity::Error
            && let Some(at) = self.diagnostics.iter().rposition(|kept| kept.severity != Severity::Error)
        {
            self.diagnostics[at] = diagnostic;
        }
    }

    /// A fault that stops the compile was noted.
    pub fn has_errors(&self) -> bool {
        self.has_errors
    }

    /// All faults, in the order of their places, each once; and how many were only counted.
    ///
    /// Equal faults come from functions of init that several fields name.
    pub fn into_sorted(mut self) -> (Vec<Diagnostic>, usize) {
        for number in 0..self.diagnostics.len() {
            if let Some(line) = self.line_of_block(&self.diagnostics[number].at) {
                self.diagnostics[number].hints.push(format!("it is {line}"));
            }
        }
        // The message last, so that the order is the same in every run.
        self.diagnostics.sort_by(|a, b| (&a.at, a.code, &a.message).cmp(&(&b.at, b.code, &b.message)));
        self.diagnostics.dedup();
        (self.diagnostics, self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_behind_a_thousand_warnings_is_kept() {
        let at = |start| At { file: 0, start, end: start };
        let mut sink = Sink::default();
        (0..FAULTS_MAX + 7).for_each(|start| sink.push(Diagnostic::new(Code::K0507, "a warning", at(start))));
        sink.push(Diagnostic::new(Code::K0103, "an error", at(5000)));
        let (kept, more) = sink.into_sorted();
        assert_eq!((kept.len(), more), (FAULTS_MAX, 8));
        assert_eq!(kept.iter().filter(|fault| fault.severity == Severity::Error).count(), 1);
    }
}
