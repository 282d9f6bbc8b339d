//! Faults for programs: one JSON object a line.
//!
//! Editors and CI read it, so its names are part of the command line: the help of `--message-format` lists them.

use serde_json::{Value, json};

use super::{Diagnostic, Severity};
use crate::source::{At, SourceFile, Text};

/// The faults, each as one line of JSON:
/// `{"code","severity","message","file","line","column","endLine","endColumn","label","labels","hints"}`.
///
/// `line` and `column` count from 1, columns in characters; `endLine` and `endColumn` are those of the place behind
/// the last character. `label` is null where there is none; each of `labels` has its own place and a `text`.
pub fn to_json(diagnostics: &[Diagnostic], files: &[SourceFile]) -> String {
    let texts: Vec<_> = files.iter().map(|file| String::from_utf8_lossy(&file.bytes)).collect();
    let texts: Vec<Text<'_>> = texts.iter().map(|text| Text::new(text)).collect();
    diagnostics.iter().map(|diagnostic| line(diagnostic, files, &texts) + "\n").collect()
}

/// One fault as a line of JSON, without its line break.
fn line(diagnostic: &Diagnostic, files: &[SourceFile], texts: &[Text<'_>]) -> String {
    let place = |at: &At| {
        let (line, column) = texts[at.file].line_column(at.start);
        let (end_line, end_column) = texts[at.file].line_column(at.end);
        json!({
            "file": files[at.file].name, "line": line, "column": column, "endLine": end_line, "endColumn": end_column,
        })
    };
    let mut line = place(&diagnostic.at);
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let labels: Vec<Value> = diagnostic
        .labels
        .iter()
        .map(|(at, text)| {
            let mut label = place(at);
            label["text"] = json!(text);
            label
        })
        .collect();
    line["code"] = json!(diagnostic.code.name());
    line["severity"] = json!(severity);
    line["message"] = json!(diagnostic.message);
    line["label"] = json!(diagnostic.under);
    line["labels"] = json!(labels);
    line["hints"] = json!(diagnostic.hints);
    line.to_string()
}

/// A note as one line of JSON, of severity `note`.
///
/// It has no code and no place.
pub fn note_to_json(note: &str) -> String {
    json!({ "severity": "note", "message": note }).to_string()
}
