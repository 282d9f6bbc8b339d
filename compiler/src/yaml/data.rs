//! YAML files that are no specs, as JSON text: what stands beside specs is written in YAML too.
//!
//! The JSON has two readers: `kaspr-exec test`, which hands the events in it to agents as they stand, and
//! [`super::rewrite`], which compares by it what a file says before and after. So numbers keep their digits and keys
//! their order, and nothing passes through a float.

use super::{Kind, Node, Style, boolean, parse};
use crate::diagnostics::{Sink, render};
use crate::source::SourceFile;

/// The first document of a file as JSON text, in the spelling of Python's `json.dumps`; numbers keep
/// their digits. The error is what is wrong with the file, drawn for people.
///
/// A file without a document gives `null`. Documents after the first are read (their faults count) and left out.
///
/// ```
/// use kasprc::{SourceFile, data};
///
/// let text = "price: 1.50\nnames: [a, '2']\nsold: yes\n";
/// let file = SourceFile { name: "tests.yaml".to_owned(), bytes: text.as_bytes().to_vec() };
/// let json = r#"{"price": 1.50, "names": ["a", "2"], "sold": true}"#;
/// assert_eq!(data::to_json(&file).as_deref(), Ok(json));
/// ```
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
///
/// A key that is no scalar becomes the empty name: JSON has no other place for it.
pub(crate) fn json(node: &Node) -> String {
    let mut json = String::new();
    write(node, &mut json);
    json
}

/// Writes a node behind what is there. Scalars are judged as in a spec: in quotes a string, else null, a boolean
/// or a number where the text is one.
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
            // The digits go over as they stand: `1.50` as a float would come back as 1.5.
            None if is_number(&scalar.text) => out.push_str(&scalar.text),
            None => text(&scalar.text, out),
        },
        Kind::Scalar(scalar) => text(&scalar.text, out),
    }
}

/// Writes a string as JSON, with its escapes.
fn text(value: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(value).to_string());
}

/// Tells plain scalars that are numbers as JSON can spell them.
///
/// `0x1F`, `.5`, `+1`, `1_000` and `.inf` are numbers of YAML and none of JSON: they become strings.
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
