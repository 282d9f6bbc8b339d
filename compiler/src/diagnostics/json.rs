//! Faults for programs: one JSON object a line.

use serde_json::{Value, json};

use super::{Diagnostic, Severity};
use crate::source::{At, SourceFile, line_column};

/// The fault as one line of JSON:
/// `{"code","severity","message","file","line","column","endLine","endColumn","label","labels","hints"}`.
pub fn to_json(diagnostic: &Diagnostic, files: &[SourceFile]) -> String {
    let mut line = place(&diagnostic.at, files);
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let labels: Vec<Value> = diagnostic
        .labels
        .iter()
        .map(|(at, text)| {
            let mut label = place(at, files);
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

fn place(at: &At, files: &[SourceFile]) -> Value {
    let text = String::from_utf8_lossy(&files[at.file].bytes);
    let ((line, column), (end_line, end_column)) = (line_column(&text, at.start), line_column(&text, at.end));
    json!({
        "file": files[at.file].name, "line": line, "column": column, "endLine": end_line, "endColumn": end_column,
    })
}
