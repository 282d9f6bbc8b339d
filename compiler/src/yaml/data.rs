//! YAML files that are no specs, as JSON text: what stands beside specs is written in YAML too.

use super::{Kind, Node, Style, boolean, parse};
use crate::diagnostics::{Sink, render};
use crate::source::SourceFile;

/// The first document of a file as JSON text, in the spelling of Python's `json.dumps`; numbers keep
/// their digits. The error is what is wrong with the file, drawn for people.
pub fn to_json(file: &SourceFile) -> Result<String, String> {
    let mut sink = Sink::default();
    let documents = match std::str::from_utf8(&file.bytes) {
        Ok(text) => parse(0, text, &mut sink),
        Err(_) => return Err(format!("{} is not UTF-8", file.name)),
    };
    if sink.has_errors() {
        return Err(render(&sink.into_sorted().0, std::slice::from_ref(file), false));
    }
    Ok(documents.first().map_or_else(|| "null".to_owned(), json))
}

/// A node as JSON text.
pub(crate) fn json(node: &Node) -> String {
    let mut json = String::new();
    write(node, &mut json);
    json
}

fn write(node: &Node, out: &mut String) {
    match &node.kind {
        Kind::List(nodes) => {
            out.push('[');
            for (number, node) in nodes.iter().enumerate() {
                out.push_str(if number == 0 { "" } else { ", " });
                write(node, out);
            }
            out.push(']');
        }
        Kind::Map(pairs) => {
            out.push('{');
            for (number, (key, value)) in pairs.iter().enumerate() {
                out.push_str(if number == 0 { "" } else { ", " });
                text(key.text().unwrap_or_default(), out);
                out.push_str(": ");
                write(value, out);
            }
            out.push('}');
        }
        Kind::Scalar(_) if node.is_null() => out.push_str("null"),
        Kind::Scalar(scalar) if scalar.style == Style::Plain => match boolean(&scalar.text) {
            Some(truth) => out.push_str(if truth { "true" } else { "false" }),
            None if is_number(&scalar.text) => out.push_str(&scalar.text),
            None => text(&scalar.text, out),
        },
        Kind::Scalar(scalar) => text(&scalar.text, out),
    }
}

fn text(value: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(value).to_string());
}

/// Tells plain scalars that are numbers as JSON can spell them.
fn is_number(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    starts && serde_json::from_str::<serde_json::Number>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_spelled_as_json() {
        let text = "a: [1, 1.50, 'x', null, yes, 0x10, 123456789012345678901234567890]\nb: {c: \"\\n\"}\n";
        let file = SourceFile { name: "x".to_owned(), bytes: text.as_bytes().to_vec() };
        let expected = r#"{"a": [1, 1.50, "x", null, true, "0x10", 123456789012345678901234567890], "b": {"c": "\n"}}"#;
        assert_eq!(to_json(&file), Ok(expected.to_owned()));
    }
}
