//! Places in YAML files that are no specs, by JSON pointer: what is said of such a file is shown where it
//! is written.
//!
//! `kaspr-exec test` judges `tests.yaml` as data and knows its places by pointer only; this room turns a pointer
//! back into bytes of the file, reading it again.

use super::{Kind, Node, parse};
use crate::diagnostics::{Remark, Sink, render_remarks};
use crate::source::{At, SourceFile, Text};

/// Something to say of a file.
///
/// Made by the executor, drawn here; see [`draw`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The place, as a JSON pointer: `/tests/0/events`. What is not there stands for what is around it.
    /// `~1` stands for `/` in a name and `~0` for `~` (RFC 6901); list items count from 0. An empty pointer is the
    /// first document as a whole.
    pub pointer: String,
    /// The name at that place is meant, not what it names.
    pub of_name: bool,
    /// The fault, in a sentence.
    pub message: String,
    /// The remedy, where there is one.
    pub hints: Vec<String>,
}

/// Draws findings as diagnostics are drawn.
///
/// In the order of their places, whatever the order given, and with a line at the end that counts them.
/// Findings of a file that is no UTF-8 or no YAML are drawn at its start.
///
/// ```text
/// error: the message
///  --> tests.yaml:4:12
///   |
/// 4 |     topic: ordrs
///   |            ^^^^^
///   = help: a hint
///
/// 1 error
/// ```
pub fn draw(file: &SourceFile, findings: &[Finding], colour: bool) -> String {
    let documents = documents(file);
    let remark = |finding: &Finding| Remark {
        message: finding.message.clone(),
        at: place(&documents, &finding.pointer, finding.of_name),
        hints: finding.hints.clone(),
    };
    let mut remarks: Vec<Remark> = findings.iter().map(remark).collect();
    // A stable sort: findings of one place stay in the order in which they were made.
    remarks.sort_by_key(|remark| remark.at.start);
    render_remarks(&remarks, file, colour)
}

/// Finds the line of a place, counted from 1.
///
/// 1 for a file without documents. A pointer that leads nowhere gives the line of what is around it.
pub fn line(file: &SourceFile, pointer: &str) -> u32 {
    let at = place(&documents(file), pointer, false);
    let text = std::str::from_utf8(&file.bytes).unwrap_or_default();
    Text::new(text).line_column(at.start).0
}

/// The documents of the file; the faults in it have been reported when it was read as data.
fn documents(file: &SourceFile) -> Vec<Node> {
    parse(0, std::str::from_utf8(&file.bytes).unwrap_or_default(), &mut Sink::default())
}

/// The place that a pointer names in the first document.
///
/// Goes as far as the pointer leads and stays at the last place that is there. Of lists and mappings only the
/// start is marked: a mark under all of their lines would say nothing.
fn place(documents: &[Node], pointer: &str, of_name: bool) -> At {
    let Some(mut node) = documents.first() else { return At { file: 0, start: 0, end: 0 } };
    let mut at = node.at.head();
    for step in pointer.split('/').skip(1) {
        // In this order, as RFC 6901 demands: `~01` is the name `~1`.
        let step = step.replace("~1", "/").replace("~0", "~");
        let next = match &node.kind {
            Kind::List(items) => {
                step.parse().ok().and_then(|number: usize| items.get(number)).map(|item| (item.at.clone(), item))
            }
            Kind::Map(pairs) => {
                pairs.iter().find(|(key, _)| key.text() == Some(&step)).map(|(key, value)| (key.at.clone(), value))
            }
            Kind::Scalar(_) => None,
        };
        let Some((name, inner)) = next else { return at };
        at = match &inner.kind {
            _ if of_name => name,
            Kind::Scalar(_) => inner.at.clone(),
            Kind::List(_) | Kind::Map(_) => inner.at.head(),
        };
        node = inner;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_stands_at_its_place() {
        let text = "tests:\n  - name: a\n    expect: {topics: {a/b: [1,\n      2]}}\n";
        let file = SourceFile { name: "tests.yaml".to_owned(), bytes: text.as_bytes().to_vec() };
        for (pointer, expected) in
            [("/tests/0/name", 2), ("/tests/0/expect/topics/a~1b/1", 4), ("/tests/0/expect/tables/x", 3), ("/x", 1)]
        {
            assert_eq!(line(&file, pointer), expected, "{pointer}");
        }
        let finding = Finding {
            pointer: "/tests/0/expect/topics/a~1b".to_owned(),
            of_name: true,
            message: "no such topic".to_owned(),
            hints: vec!["name another".to_owned()],
        };
        let drawn = "error: no such topic\n --> tests.yaml:3:23\n  |\n3 |     expect: {topics: {a/b: [1,\n  |                       ^^^\n  |\n  = help: name another\n\n1 error\n";
        assert_eq!(draw(&file, &[finding], false), drawn);
    }
}
