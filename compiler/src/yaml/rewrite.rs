//! Changes what a YAML file says and keeps the rest of its text: comments, order, spelling.
//!
//! A file of tests is written by people and updated by the program (`kaspr-exec test --update`): the results go in,
//! and the rest of the file must stay byte for byte. So nothing is printed anew. Old and new value are walked side
//! by side, and where they differ the smallest stretch of text is replaced:
//!
//! ```text
//! out:                                      put at /out:  [{"key": "a", "n": 2}, {"key": "c"}]
//!   - {key: a, n: 1}  # the first     ⇒       - {key: a, n: 2}  # the first
//!   - key: b          # another                - key: c          # another
//! ```
//!
//! Words of this file: a *splice* is a stretch of the old text and what takes its place; an *entry* is an item of a
//! list or a pair of a mapping, as text; *flow* is YAML in brackets on one line, *block* is YAML by indentation; the
//! *slot* of a key is the byte behind its colon, where its value may begin.
//!
//! Invariant: what comes out is read again and must say exactly what was wanted, or the file is left as it is. So a
//! spelling that is not understood here costs a message and never a wrong file.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::data::{json, to_json};
use super::matching::matches;
use super::{Kind, Node, Scalar, Style, boolean, parse};
use crate::diagnostics::Sink;
use crate::source::{At, SourceFile};

/// The file's text with the first document changed: at each place, a JSON pointer, it says that JSON.
/// Keys that are not there are added; what says so already keeps its text. The error is why the file
/// cannot be changed so: what stands behind an alias, say.
///
/// `puts` are pairs of a JSON pointer (RFC 6901) and JSON text, applied in their order to the *old* document; two
/// of them must not lie within each other. A pointer may name keys that are not there, but no items that are not.
///
/// # Errors
/// The file is no UTF-8 or no YAML, has no document, a put is no JSON, or the text cannot be changed so: behind
/// aliases, and where two changes meet in one place.
///
/// ```
/// use kasprc::{SourceFile, rewrite};
///
/// let text = "out: [1, 2]  # two\nnote: kept\n";
/// let file = SourceFile { name: "tests.yaml".to_owned(), bytes: text.as_bytes().to_vec() };
/// let puts = [("/out".to_owned(), "[1, 3]".to_owned())];
/// let new = rewrite::rewrite(&file, &puts);
/// assert_eq!(new.as_deref(), Ok("out: [1, 3]  # two\nnote: kept\n"));
/// ```
pub fn rewrite(file: &SourceFile, puts: &[(String, String)]) -> Result<String, String> {
    // The change is done twice: on data, where it is simple, and on text. The two must come out the same.
    let mut wanted: Value = serde_json::from_str(&to_json(file)?).map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(&file.bytes).map_err(|error| error.to_string())?;
    let documents = parse(0, text, &mut Sink::default());
    let root = documents.first().ok_or("the file holds no document")?;
    let mut edit = Edit { text, splices: Vec::new() };
    for (pointer, json) in puts {
        let steps: Vec<String> = pointer.split('/').skip(1).map(unescaped).collect();
        edit.put_at(root, &node(json)?, &steps, None);
        set(&mut wanted, &steps, serde_json::from_str(json).map_err(|error| error.to_string())?);
    }
    let bytes = edit.spliced()?.into_bytes();
    let new = SourceFile { name: file.name.clone(), bytes };
    // Aliases and rare spellings are not understood above: what comes out is read again.
    let says = to_json(&new).ok().and_then(|json| serde_json::from_str::<Value>(&json).ok());
    match says == Some(wanted) {
        true => Ok(String::from_utf8_lossy(&new.bytes).into_owned()),
        false => Err("its YAML is written in a way that only a hand can change: aliases, perhaps".to_owned()),
    }
}

/// A step of a JSON pointer as the name that it means: `a~1b` is `a/b`.
fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// Puts a value at a place of JSON data. Objects are made on the way; an item that is not there changes nothing.
fn set(at: &mut Value, steps: &[String], value: Value) {
    let Some((step, rest)) = steps.split_first() else { return *at = value };
    match at {
        Value::Array(items) => {
            if let Some(item) = step.parse().ok().and_then(|number: usize| items.get_mut(number)) {
                set(item, rest, value);
            }
        }
        _ => {
            if !at.is_object() {
                *at = Value::Object(serde_json::Map::default());
            }
            set(&mut at[step.as_str()], rest, value);
        }
    }
}

/// The changes of one text, collected and made at the end, so that places stay those of the old text.
struct Edit<'a> {
    text: &'a str,
    /// Stretches of the old text and what takes their places, in any order; none may overlap another.
    splices: Vec<(Range<usize>, String)>,
}

/// The items of a list or the pairs of a mapping, as stretches of text.
struct Entries {
    /// Of each; an item of a block list starts with its dash.
    /// At least one, in order.
    spans: Vec<Range<usize>>,
    /// They stand in brackets, with commas between.
    is_flow: bool,
    /// Text before a new one: `- ` in a block list.
    lead: &'static str,
}

impl Edit<'_> {
    /// Changes what stands at the end of `steps`, from a node on. `slot` is where the value of a key may start:
    /// behind its colon.
    fn put_at(&mut self, old: &Node, new: &Node, steps: &[String], slot: Option<usize>) {
        let Some((step, rest)) = steps.split_first() else { return self.put(old, new, slot) };
        let inner = match &old.kind {
            Kind::List(items) => step.parse().ok().and_then(|number: usize| items.get(number)).map(|item| (item, None)),
            Kind::Map(pairs) => {
                let pair = pairs.iter().find(|(key, _)| key.text() == Some(step));
                pair.map(|(key, value)| (value, self.slot(key)))
            }
            Kind::Scalar(_) => None,
        };
        if let Some((inner, slot)) = inner {
            return self.put_at(inner, new, rest, slot);
        }
        // The way ends here: what is missing of it goes around the value, from the inside out.
        let value = rest.iter().rev().fold(new.clone(), |value, step| made(Kind::Map(vec![(word(step), value)])));
        match &old.kind {
            Kind::Map(pairs) if !pairs.is_empty() => {
                let entries = self.pairs(old, pairs);
                self.change(&entries, &vec![true; pairs.len()], &[(pairs.len(), pair(step, &value))]);
            }
            _ => self.replace(old, &made(Kind::Map(vec![(word(step), value)])), slot),
        }
    }

    /// Makes an old node say what a new one says, with as few splices as are found.
    fn put(&mut self, old: &Node, new: &Node, slot: Option<usize>) {
        if same(old, new) {
            return;
        }
        match (&old.kind, &new.kind) {
            (Kind::List(olds), Kind::List(news)) if !olds.is_empty() && !news.is_empty() => {
                self.put_list(old, olds, news);
            }
            (Kind::Map(olds), Kind::Map(news)) if olds.iter().any(|(key, _)| value_of(news, key).is_some()) => {
                self.put_map(old, olds, news);
            }
            _ => self.replace(old, new, slot),
        }
    }

    /// Changes a list: items that both hold stay, those between them are changed in pairs, what is left over comes or
    /// goes. Neither list is empty.
    fn put_list(&mut self, old: &Node, olds: &[Node], news: &[Node]) {
        let (mut keep, mut added) = (vec![false; olds.len()], Vec::new());
        let (mut from_old, mut from_new) = (0, 0);
        for (end_old, end_new) in matches(olds, news) {
            // Between two items that stay, the others are changed one into the other as far as they go.
            for (number, new) in (from_new..end_new).enumerate() {
                let number = from_old + number;
                if number < end_old {
                    keep[number] = true;
                    self.put(&olds[number], &news[new], None);
                } else {
                    added.push((end_old, flow(&news[new])));
                }
            }
            if let Some(stays) = keep.get_mut(end_old) {
                *stays = true;
            }
            (from_old, from_new) = (end_old + 1, end_new + 1);
        }
        let is_flow = self.is_flow(old);
        // An item of a block list is taken out with its dash, which the parser does not give a place.
        let start = |item: &Node| match is_flow {
            true => item.at.start,
            false => self.text[..item.at.start].rfind('-').unwrap_or(item.at.start),
        };
        let spans = olds.iter().map(|item| start(item)..self.end(item)).collect();
        self.change(&Entries { spans, is_flow, lead: if is_flow { "" } else { "- " } }, &keep, &added);
    }

    /// Changes a mapping: keys of both are changed in place, those of the new one alone are added at the end.
    /// At least one key is in both.
    fn put_map(&mut self, old: &Node, olds: &[(Node, Node)], news: &[(Node, Node)]) {
        for (key, value) in olds {
            if let Some(new) = value_of(news, key) {
                self.put(value, new, self.slot(key));
            }
        }
        let keep: Vec<bool> = olds.iter().map(|(key, _)| value_of(news, key).is_some()).collect();
        let added = news.iter().filter(|(key, _)| value_of(olds, key).is_none());
        let added: Vec<_> =
            added.map(|(key, value)| (olds.len(), pair(key.text().unwrap_or_default(), value))).collect();
        let entries = self.pairs(old, olds);
        self.change(&entries, &keep, &added);
    }

    /// The pairs of a mapping as entries, each from its key to the end of its value.
    fn pairs(&self, map: &Node, pairs: &[(Node, Node)]) -> Entries {
        let spans = pairs.iter().map(|(key, value)| key.at.start..self.end(value).max(key.at.end)).collect();
        Entries { spans, is_flow: self.is_flow(map), lead: "" }
    }

    /// Takes out the entries that are not kept, at least one is, and puts in others before the
    /// entries of these numbers.
    ///
    /// `keep` has a flag for each entry; `added` are texts with the number of the entry that they go before, where the
    /// number of entries is the end.
    fn change(&mut self, entries: &Entries, keep: &[bool], added: &[(usize, String)]) {
        let Entries { spans, is_flow, lead } = entries;
        debug_assert!(keep.contains(&true), "a list that loses all of its entries is replaced as a whole");
        let first = keep.iter().position(|keep| *keep).unwrap_or(0);
        let indent = " ".repeat(spans[0].start - self.line_start(spans[0].start));
        let mut put = |at: Range<usize>, text: String| self.splices.push((at, text));
        // From the line break before to the one behind: comments beside an entry go with it.
        let lines = |span: &Range<usize>| {
            let start = self.text[..span.start].rfind('\n').unwrap_or(0);
            start..self.text[span.end..].find('\n').map_or(self.text.len(), |end| span.end + end)
        };
        // True if the first entry is not behind something else on its line, as `- a: 1` is behind a dash.
        let has_own_line = self.text[..spans[0].start].trim_end_matches(' ').ends_with('\n');
        for (number, span) in spans.iter().enumerate().filter(|(number, _)| !keep[*number]) {
            match (is_flow, number < first) {
                (false, _) if has_own_line || number > first => put(lines(span), String::new()),
                // What comes first does so behind a bracket or a dash.
                (_, true) => put(span.start..spans[number + 1].start, String::new()),
                _ => put(spans[number - 1].end..span.end, String::new()),
            }
        }
        for (before, text) in added {
            let after = before.checked_sub(1).map(|after| &spans[after]);
            match (after, is_flow) {
                (Some(after), true) => put(after.end..after.end, format!(", {text}")),
                (Some(after), false) => {
                    let end = lines(after).end;
                    put(end..end, format!("\n{indent}{lead}{text}"));
                }
                (None, true) => put(spans[0].start..spans[0].start, format!("{text}, ")),
                (None, false) => put(spans[0].start..spans[0].start, format!("{lead}{text}\n{indent}")),
            }
        }
    }

    /// Puts a new node in the place of an old one, in flow form.
    ///
    /// Of a block or an empty value everything behind the key's colon is replaced; without a slot, the node alone.
    fn replace(&mut self, old: &Node, new: &Node, slot: Option<usize>) {
        let end = self.end(old);
        // An empty value has no extent, and a block begins on a line of its own: both need the space behind the colon.
        let is_inline = match &old.kind {
            Kind::Scalar(scalar) => matches!(scalar.style, Style::Plain | Style::Quoted) && old.at.start < end,
            _ => self.is_flow(old),
        };
        match slot {
            Some(slot) if !is_inline => self.splices.push((slot..end.max(slot), format!(" {}", flow(new)))),
            _ => self.splices.push((old.at.start..end, flow(new))),
        }
    }

    /// Finds the byte behind the colon of a key. The colon is the first one behind the key's own text.
    fn slot(&self, key: &Node) -> Option<usize> {
        self.text[key.at.end..].find(':').map(|colon| key.at.end + colon + 1)
    }

    /// True if the node is written in brackets.
    fn is_flow(&self, node: &Node) -> bool {
        matches!(self.text.as_bytes().get(node.at.start), Some(b'[' | b'{'))
    }

    /// Finds the first byte of the line that a byte stands in.
    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// Finds the end of a node, its closing bracket included, line breaks behind it not.
    fn end(&self, node: &Node) -> usize {
        let last = match &node.kind {
            Kind::Scalar(_) => return node.at.start + self.text[node.at.range()].trim_end().len(),
            Kind::List(items) => items.last(),
            Kind::Map(pairs) => pairs.last().map(|(_, value)| value),
        };
        let last = last.map(|last| self.end(last));
        match self.is_flow(node) {
            true => self.closing(last.unwrap_or(node.at.start + 1)),
            false => last.unwrap_or(node.at.end),
        }
    }

    /// Finds the end of a flow node, behind its closing bracket, from the end of its last entry on. Brackets in
    /// comments do not count.
    fn closing(&self, mut at: usize) -> usize {
        while let Some(next) = self.text[at..].chars().next() {
            at += match next {
                ']' | '}' => return at + 1,
                '#' => self.text[at..].find('\n').unwrap_or(self.text.len() - at),
                next => next.len_utf8(),
            };
        }
        at
    }

    /// The text with all splices made.
    fn spliced(mut self) -> Result<String, String> {
        self.splices.sort_by_key(|(at, _)| at.start);
        let (mut new, mut done) = (String::new(), 0);
        for (at, text) in &self.splices {
            let before = self.text.get(done..at.start).ok_or("two changes meet in one place of it")?;
            new.push_str(before);
            new.push_str(text);
            done = at.end;
        }
        new.push_str(&self.text[done..]);
        Ok(new)
    }
}

/// The value of a key of another mapping.
fn value_of<'n>(pairs: &'n [(Node, Node)], key: &Node) -> Option<&'n Node> {
    pairs.iter().find(|(other, _)| other.text() == key.text()).map(|(_, value)| value)
}

/// True if two nodes say the same as data: `1.50` and `1.5` do, `'a'` and `"a"` do.
fn same(old: &Node, new: &Node) -> bool {
    let says = |node: &Node| serde_json::from_str::<Value>(&json(node)).ok();
    says(old).is_some_and(|old| says(new) == Some(old))
}

/// A node that stands in no file: its place is never looked at.
fn made(kind: Kind) -> Node {
    Node { at: At { file: 0, start: 0, end: 0 }, kind }
}

/// A node for a string. Its style is not plain, so it stays a string whatever its text.
fn word(text: &str) -> Node {
    made(Kind::Scalar(Scalar { text: text.to_owned(), style: Style::Quoted }))
}

/// JSON text as a tree: numbers keep their digits, names their order.
///
/// Read by hand one level at a time, because serde's own values would sort names and round numbers.
fn node(json: &str) -> Result<Node, String> {
    let wrong = |error: serde_json::Error| error.to_string();
    Ok(match json.trim_start().as_bytes().first() {
        Some(b'{') => {
            let Pairs(pairs) = serde_json::from_str(json).map_err(wrong)?;
            let pairs = pairs.iter().map(|(name, value)| Ok((word(name), node(value.get())?)));
            made(Kind::Map(pairs.collect::<Result<_, String>>()?))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(json).map_err(wrong)?;
            made(Kind::List(items.iter().map(|item| node(item.get())).collect::<Result<_, _>>()?))
        }
        Some(b'"') => word(&serde_json::from_str::<String>(json).map_err(wrong)?),
        _ => made(Kind::Scalar(Scalar { text: json.trim().to_owned(), style: Style::Plain })),
    })
}

/// The pairs of a JSON object in their order; the last of a repeated name wins.
///
/// As `json.loads` has it. A repeated name keeps the place of its first.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let (mut pairs, mut places) = (Vec::new(), BTreeMap::new());
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    match places.get(&name) {
                        Some(&place) => pairs[place] = (name, value),
                        None => {
                            places.insert(name.clone(), pairs.len());
                            pairs.push((name, value));
                        }
                    }
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// A node as YAML on one line.
///
/// ```text
/// {"key": "a", "list": [1, "true"]}   ⇒   {key: a, list: [1, "true"]}
/// ```
fn flow(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar(scalar) => match scalar.style == Style::Plain || is_plain(&scalar.text) {
            true => scalar.text.clone(),
            false => Value::from(scalar.text.as_str()).to_string(),
        },
        Kind::List(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Kind::Map(pairs) => {
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| pair(key.text().unwrap_or_default(), value)).collect();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

/// A pair as flow YAML: `key: value`.
fn pair(key: &str, value: &Node) -> String {
    format!("{}: {}", flow(&word(key)), flow(value))
}

/// Tells texts that mean themselves without quotes, wherever they stand.
///
/// In brackets and out of them, as a key or a value. Stricter than YAML: what is in doubt gets quotes.
fn is_plain(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ' ');
    let is_null = matches!(text, "null" | "Null" | "NULL");
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(is_word)
        && !text.ends_with(' ')
        && !is_null
        && boolean(text).is_none()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn rewritten(text: &str, puts: &[(&str, &str)]) -> String {
        let file = SourceFile { name: "tests.yaml".to_owned(), bytes: text.as_bytes().to_vec() };
        let puts: Vec<_> = puts.iter().map(|(at, json)| ((*at).to_owned(), (*json).to_owned())).collect();
        rewrite(&file, &puts).unwrap_or_else(|why| format!("cannot: {why}"))
    }

    fn check(text: &str, puts: &[(&str, &str)], expected: Expect) {
        expected.assert_eq(&rewritten(text, puts));
    }

    const BLOCK: &str = "\
# before
out:
  - {key: a, value: {n: 1}}  # the first
  # the second
  - key: b
    value:
      n: 1.50 # a number
      deep: [1, 2]
  - key: c
    text: |
      two
      lines
more: {x: 'y'}
";

    #[test]
    fn what_is_said_already_keeps_its_text() {
        let says = r#"[{"key":"a","value":{"n":1}},{"key":"b","value":{"n":1.5,"deep":[1,2]}},{"key":"c","text":"two\nlines\n"}]"#;
        assert_eq!(rewritten(BLOCK, &[("/out", says), ("/more/x", r#""y""#)]), BLOCK);
    }

    #[test]
    fn only_what_differs_is_written() {
        let says = r#"[{"key":"a","value":{"n":2}},{"value":{"n":7,"deep":[1,3]}},{"key":"c","text":5,"new":null}]"#;
        check(
            BLOCK,
            &[("/out", says)],
            expect![[r##"
                # before
                out:
                  - {key: a, value: {n: 2}}  # the first
                  # the second
                  - value:
                      n: 7 # a number
                      deep: [1, 3]
                  - key: c
                    text: 5
                    new: null
                more: {x: 'y'}
            "##]],
        );
    }

    #[test]
    fn items_go_and_come_where_they_stand() {
        let b = r#"{"key":"b","value":{"n":1.5,"deep":[1,2]}}"#;
        check(
            BLOCK,
            &[("/out", &format!(r#"["new", "true", {b}, "x: y"]"#)), ("/more/z", "[]")],
            expect![[r##"
                # before
                out:
                  - new  # the first
                  - "true"
                  # the second
                  - key: b
                    value:
                      n: 1.50 # a number
                      deep: [1, 2]
                  - "x: y"
                more: {x: 'y', z: []}
            "##]],
        );
        check(
            BLOCK,
            &[("/out", &format!("[{b}]")), ("/more", "{}"), ("/other/key", "1")],
            expect![[r##"
                # before
                out:
                  # the second
                  - key: b
                    value:
                      n: 1.50 # a number
                      deep: [1, 2]
                more: {}
                other: {key: 1}
            "##]],
        );
        check(
            BLOCK,
            &[("/out", "[]")],
            expect![[r#"
                # before
                out: []
                more: {x: 'y'}
            "#]],
        );
    }

    #[test]
    fn lists_and_mappings_in_brackets_are_changed_within_them() {
        let text = "a: [1, 2,\n  3 # three\n]\nb: {x: 1, y: [], z: }\nc:\nd: ä\n";
        check(
            text,
            &[("/a", "[2, 4, 5]"), ("/b", r#"{"y":["k"],"z":1}"#), ("/c/e", "1"), ("/d", r#""ö""#)],
            expect![[r#"
                a: [2,
                  4, 5 # three
                ]
                b: {y: [k], z: 1 }
                c: {e: 1}
                d: "ö"
            "#]],
        );
        check("a: [1, 2, 3]\n", &[("/a", "[1]")], expect!["a: [1]\n"]);
        check("a: [1, 2, 3]\n", &[("/a", "[0, 1, 2, 3]")], expect!["a: [0, 1, 2, 3]\n"]);
        check(
            "- - 1\n  - 2\n",
            &[("/0", "[0, 1, 2]")],
            expect![[r#"
            - - 0
              - 1
              - 2
        "#]],
        );
    }

    #[test]
    fn what_stands_behind_an_alias_is_left() {
        let text = "a: &x {n: 1}\nb: *x\n";
        check(
            text,
            &[("/b/n", "2")],
            expect!["cannot: its YAML is written in a way that only a hand can change: aliases, perhaps"],
        );
    }
}
