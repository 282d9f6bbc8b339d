//! Text to a YAML tree with spans. Bounded: a bomb is a diagnostic, not a crash.
//!
//! The parser (`saphyr`) gives a stream of events; this room makes a tree of them in which every node knows its
//! bytes. A tree and not serde's values, because a diagnostic needs the place of every key and scalar, and because
//! a scalar keeps the text it was written with (`1.50` stays `1.50`, `yes` is judged where a boolean is needed).
//!
//! ```text
//! "input: {take: 5}"   ⇒   Map[("input", Map[("take", Scalar "5" Plain)])]     at: 0..17, 0..5, 7..17, …
//! ```
//!
//! Every tree has these properties:
//!
//! - Spans are bytes of the file, on character boundaries, and `start <= end <= length`.
//! - Keys of a mapping are unique (a second one is K0007 and is left out), in the order written.
//! - Aliases are resolved: an alias becomes a copy of its anchor's node, with the *anchor's* spans. Merge keys
//!   (`<<`) are resolved too, and stand nowhere in the tree.
//! - It is written with at most [`DEPTH_MAX`] levels, so later stages may recurse over it.
//! - A file's trees have at most [`NODES_MAX`] nodes together, which bounds the depth behind aliases too.
//!
//! Called by [`crate::compile`] for specs, and by [`data`], [`places`] and [`rewrite`] for YAML files that are no
//! specs (`tests.yaml`). Nothing else in the crate names the parser.

pub mod data;
mod malformed;
mod matching;
pub mod places;
pub mod rewrite;

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::cores::on_all;
use crate::diagnostics::{Code, Diagnostic, Sink};
use crate::source::At;

/// Largest file, in bytes.
///
/// Checked before the parser sees the text. A place in it fits into 32 bits many times over.
pub const BYTES_MAX: usize = 10 << 20;
/// Deepest nesting.
///
/// Specs use about eight. The bound keeps recursion over the tree, here and in later stages, within the stack.
/// Levels are counted as they are written: what an alias stands for may be deeper.
pub const DEPTH_MAX: usize = 64;
// In words, for messages: keep it equal to `DEPTH_MAX`.
const TOO_DEEP: &str = "64 levels of nesting";
/// Most nodes of a file, those behind aliases counted each time.
///
/// Ten lines of YAML can stand for billions of nodes (aliases of lists of aliases). Every alias adds the size of
/// what it stands for, so the bound is met before the memory is used.
pub const NODES_MAX: usize = 1 << 19;
/// Most broken documents of a file that are reported.
///
/// A text that is no YAML at all, with `---` on every line, would otherwise give a fault a line.
const BROKEN_MAX: usize = 100;

/// A node of the tree.
///
/// Made by [`parse`] alone (and by [`rewrite`], for nodes that stand in no file); it is never changed afterwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its place. A mapping or a list ends where its last value ends, so closing brackets and what stands behind
    /// them lie outside. The place of a quoted scalar has its quotes.
    pub at: At,
    /// Its kind.
    pub kind: Kind,
}

/// Kind of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A scalar.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order written; keys are unique.
    /// A key may be any node; one that is no scalar is kept and never found by name.
    Map(Vec<(Node, Node)>),
}

/// A scalar: its text, and whether it is plain (and so may be a number, a boolean or null).
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// The text, escapes and folding done.
    ///
    /// For `"a\n"` that is `a` and a line break; for a plain scalar the text as it stands, without space around it.
    pub text: String,
    /// Its style.
    pub style: Style,
}

/// Style of a scalar.
///
/// Only plain scalars can be something else than strings: `5` is a number, `"5"` is not. Literal blocks matter to
/// code blocks, whose lines are then lines of the file (see `crate::block`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// In quotes.
    Quoted,
    /// A block with `|`.
    Literal,
    /// A block with `>`.
    Folded,
}

impl Node {
    /// It is null: empty, `~` or `null`.
    ///
    /// As YAML's core schema has it. `"null"` in quotes is a string, and so is `nULL`.
    pub fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar(scalar) => {
                scalar.style == Style::Plain && matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// Names its kind, for messages: `a list`.
    ///
    /// A message says what is needed and what was found: `"max" must be a whole number, found a list`.
    pub fn what(&self) -> &'static str {
        match &self.kind {
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            // The order counts: a scalar in quotes is a string before anything looks at its text.
            Kind::Scalar(_) if self.is_null() => "nothing",
            Kind::Scalar(scalar) if scalar.style != Style::Plain => "a string",
            Kind::Scalar(scalar) if boolean(&scalar.text).is_some() => "a boolean",
            Kind::Scalar(scalar) if scalar.text.parse::<f64>().is_ok() => "a number",
            Kind::Scalar(_) => "a string",
        }
    }

    /// The scalar's text.
    ///
    /// `None` for lists and mappings; `Some("")` for a scalar that is null.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The value of a key.
    ///
    /// `None` also where the node is no mapping. Linear in the number of keys: mappings of specs are short.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(pairs) => pairs.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// A boolean as Kubernetes reads it (YAML 1.1).
///
/// `yes`, `on` and their kin are booleans here although YAML 1.2 has them as strings: a spec must mean the same to
/// this compiler and to the API server that passes it on. Other spellings (`tRUE`, `y`) are strings to both.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// The documents of a text that can be read; what cannot is reported, and the documents before it
/// are kept.
///
/// One node a document, in order; an empty document gives a node that is null. A file that is too large gives none.
/// Faults: K0001 for text that is no YAML, K0006 for a limit, K0007 for a key that stands twice.
///
/// ```text
/// a: 1                 ⇒   Map[("a", "1")]
/// ---
/// b: [                 ⇒   K0001 at the place where the parser gave up
/// ---
/// c: 3                 ⇒   Map[("c", "3")]
/// ```
pub fn parse(file: usize, text: &str, sink: &mut Sink) -> Vec<Node> {
    if text.len() > BYTES_MAX {
        let all = At { file, start: 0, end: 0 };
        sink.push(Diagnostic::new(Code::K0006, "the file is larger than 10 MiB", all));
        return Vec::new();
    }
    let offsets = Offsets::of(text);
    let mut tree = Tree { file, text, sink, offsets, from: 0, start: 0, anchors: HashMap::new(), nodes: 0, broken: 0 };
    tree.documents()
}

/// Files that are parsed before the first of them is read: their trees are in memory all at once.
pub const FILES_AT_ONCE: usize = 512;
/// The least number of files for a core.
const FILES_MIN: usize = 32;

/// Parses several files, of which the first has the number `first`, on all cores. Gives the documents and the faults
/// of each, in their order.
pub fn parse_all(first: usize, texts: &[&str]) -> Vec<(Vec<Node>, Sink)> {
    on_all(texts, FILES_MIN, |part, texts| {
        let parse_one = |(number, text): (usize, &&str)| {
            let mut sink = Sink::default();
            (parse(number, text, &mut sink), sink)
        };
        (first + part..).zip(texts).map(parse_one).collect()
    })
}

/// Finds the start of the next document after a byte: a line that begins with `---`, whatever stands
/// before it (YAML 1.2, section 9.1.2).
///
/// The parser cannot go on behind a fault, so reading starts anew at the next marker. `----` and `---x` are none.
fn next_document(text: &str, after: usize) -> Option<usize> {
    let is_marker = |at: &usize| text[at + 4..].chars().next().is_none_or(char::is_whitespace);
    text[after..].match_indices("\n---").map(|(at, _)| after + at).find(is_marker).map(|at| at + 1)
}

/// Byte offsets of characters: the parser counts characters.
///
/// `None` for ASCII text, where both are the same number; else the byte of each character, and the text's length
/// last. Specs are almost always ASCII, and then cost no table.
struct Offsets(Option<Vec<u32>>);

impl Offsets {
    fn of(text: &str) -> Offsets {
        if text.is_ascii() {
            return Offsets(None);
        }
        let mut offsets: Vec<u32> =
            text.char_indices().map(|(at, _)| u32::try_from(at).expect("a file is below 10 MiB")).collect();
        offsets.push(u32::try_from(text.len()).expect("a file is below 10 MiB"));
        Offsets(Some(offsets))
    }

    /// The byte of a character that is counted from the one at byte `from`.
    fn byte(&self, from: usize, character: usize) -> usize {
        match &self.0 {
            None => from + character,
            Some(offsets) => {
                // The parser starts anew behind a broken document and counts characters from there.
                let first = offsets.partition_point(|at| (*at as usize) < from);
                offsets.get(first + character).or(offsets.last()).map_or(0, |at| *at as usize)
            }
        }
    }
}

/// The state of one file's parse: documents are read one after the other into trees.
struct Tree<'a> {
    file: usize,
    text: &'a str,
    sink: &'a mut Sink,
    offsets: Offsets,
    /// The byte where the parser began.
    from: usize,
    /// The byte where the current document starts.
    start: usize,
    /// The nodes that anchors name in the current document, by the parser's number, each with its count of nodes.
    anchors: HashMap<usize, (Node, usize)>,
    /// Nodes of the file so far, aliases counted by the size of what they stand for.
    nodes: usize,
    /// Broken documents so far.
    broken: usize,
}

/// Reason why a document ends before its end; it has been reported.
///
/// An error without a text: the diagnostic is in the sink already, where it cannot get lost on the way up.
struct Broken {
    /// No other document of the file is read.
    ///
    /// True for [`NODES_MAX`], which is a bound of the whole file.
    is_final: bool,
}

const BROKEN: Broken = Broken { is_final: false };

type Events<'a> = Parser<'a, saphyr_parser::StrInput<'a>>;

impl Tree<'_> {
    /// The documents; behind a broken one reading goes on with the next.
    fn documents(&mut self) -> Vec<Node> {
        let mut documents = Vec::new();
        // Ends by itself: each turn starts at a marker behind the one where the turn before it started.
        while let Err(Broken { is_final: false }) = self.stretch(&mut documents) {
            self.broken += 1;
            let next = next_document(self.text, self.start);
            if next.is_some() && self.broken == BROKEN_MAX {
                let at = At { file: self.file, start: self.start, end: self.start };
                let message = format!("the file exceeds {BROKEN_MAX} broken documents: the rest is not read");
                self.sink.push(Diagnostic::new(Code::K0006, message, at));
                break;
            }
            let Some(next) = next else { break };
            (self.from, self.start) = (next, next);
        }
        documents
    }

    /// Documents up to the end, or to one that is broken.
    ///
    /// Documents that were whole before the broken one stay in `documents`.
    fn stretch(&mut self, documents: &mut Vec<Node>) -> Result<(), Broken> {
        let text = self.text;
        let mut events = Parser::new_from_str(&text[self.from..]);
        loop {
            match self.event(&mut events)? {
                Some((Event::StreamEnd, _)) | None => return Ok(()),
                Some((Event::DocumentStart(_), span)) => {
                    self.start = self.at(span).start.max(self.start);
                    // An anchor ends with its document (YAML 1.2, section 3.2.2.2).
                    self.anchors.clear();
                    let event = self.event(&mut events)?;
                    documents.extend(self.node(event, &mut events, 0)?);
                }
                Some(_) => {}
            }
        }
    }

    /// The next event; a text that is no YAML is reported here.
    fn event<'e>(&mut self, events: &mut Events<'e>) -> Result<Option<(Event<'e>, Span)>, Broken> {
        match events.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => {
                let start = self.offsets.byte(self.from, error.marker().index()).min(self.text.len());
                let at = At { file: self.file, start, end: start };
                // The parser has a bound of its own, which flow collections reach before ours.
                let diagnostic = match error.info() {
                    "recursion limit exceeded" => {
                        Diagnostic::new(Code::K0006, format!("the document exceeds {TOO_DEEP}"), at)
                    }
                    reason => malformed::fault(self.text, reason, at),
                };
                self.sink.push(diagnostic);
                Err(BROKEN)
            }
        }
    }

    /// The node that an event begins, with the events that belong to it.
    ///
    /// `None` for an event that begins no node: the end of what is around it. `depth` is the number of lists and
    /// mappings around the node.
    fn node(
        &mut self,
        event: Option<(Event<'_>, Span)>,
        events: &mut Events<'_>,
        depth: usize,
    ) -> Result<Option<Node>, Broken> {
        let Some((event, span)) = event else { return Ok(None) };
        let at = self.at(span);
        self.nodes += 1;
        // Asked before the node is built, so that a bomb costs no more memory than the bound.
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            let limit = if depth > DEPTH_MAX { TOO_DEEP } else { "half a million nodes" };
            self.sink.push(Diagnostic::new(Code::K0006, format!("the document exceeds {limit}"), at.head()));
            return Err(Broken { is_final: self.nodes > NODES_MAX });
        }
        let before = self.nodes;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                    ScalarStyle::Literal => Style::Literal,
                    ScalarStyle::Folded => Style::Folded,
                };
                (Node { at, kind: Kind::Scalar(Scalar { text: text.into_owned(), style }) }, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.list(at, events, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(at, events, depth)?, anchor),
            Event::Alias(anchor) => return self.alias(anchor, at).map(Some),
            _ => return Ok(None),
        };
        if anchor > 0 {
            // The copy that is kept for aliases takes memory too, so it counts.
            let size = self.nodes - before + 1;
            self.nodes += size;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(Some(node))
    }

    /// A copy of the node that an anchor names.
    ///
    /// Anchors are noted when their node is complete, so a node that contains an alias of itself finds none.
    fn alias(&mut self, anchor: usize, at: At) -> Result<Node, Broken> {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            self.sink.push(Diagnostic::new(Code::K0001, "the alias names no anchor before it", at));
            return Err(BROKEN);
        };
        self.nodes += size;
        if self.nodes > NODES_MAX {
            self.sink.push(Diagnostic::new(
                Code::K0006,
                "the document exceeds half a million nodes behind its aliases",
                at,
            ));
            return Err(Broken { is_final: true });
        }
        Ok(node.clone())
    }

    /// The list whose start has been read, up to its end.
    fn list(&mut self, mut at: At, events: &mut Events<'_>, depth: usize) -> Result<Node, Broken> {
        let mut nodes = Vec::new();
        loop {
            match self.event(events)? {
                None | Some((Event::SequenceEnd, _)) => break,
                event => nodes.extend(self.node(event, events, depth + 1)?),
            }
        }
        // The event's span is the opening bracket, or empty: a list ends with its last node.
        at.end = nodes.last().map_or(at.end, |node: &Node| node.at.end);
        Ok(Node { at, kind: Kind::List(nodes) })
    }

    /// The mapping whose start has been read, up to its end. Merge keys are applied last: a key that stands in the
    /// mapping itself wins over merged ones, wherever it stands (YAML's merge key type).
    fn map(&mut self, mut at: At, events: &mut Events<'_>, depth: usize) -> Result<Node, Broken> {
        let mut pairs: Vec<(Node, Node)> = Vec::new();
        let mut names: HashMap<String, At> = HashMap::new();
        let mut merged = Vec::new();
        // A second document has begun without a marker.
        let mut is_second = false;
        loop {
            let key = match self.event(events)? {
                None | Some((Event::MappingEnd, _)) => break,
                event => self.node(event, events, depth + 1)?,
            };
            let event = self.event(events)?;
            // Key and value are read even where the key stands twice: the parser's events must be used up.
            let (Some(key), Some(value)) = (key, self.node(event, events, depth + 1)?) else { break };
            if key.text() == Some("<<") {
                merged.push(value);
                continue;
            }
            match key.text().and_then(|name| names.get(name)) {
                // All that is twice comes from one marker that is missing.
                Some(_) if is_second => {}
                Some(first) => {
                    let name = key.text().unwrap_or_default();
                    let mut diagnostic =
                        Diagnostic::new(Code::K0007, format!("duplicate key \"{name}\""), key.at.clone());
                    is_second = depth == 0 && matches!(name, "apiVersion" | "kind");
                    if is_second {
                        diagnostic = diagnostic.hint("if a second document begins here, put a line with --- before it");
                    }
                    self.sink.push(diagnostic.label(first.clone(), "first here"));
                }
                None => {
                    names.extend(key.text().map(|name| (name.to_owned(), key.at.clone())));
                    pairs.push((key, value));
                }
            }
        }
        at.end = pairs.last().map_or(at.end, |(_, value)| value.at.end);
        for other in merged {
            merge(&mut pairs, &mut names, other);
        }
        Ok(Node { at, kind: Kind::Map(pairs) })
    }

    /// A span of the parser, in characters from where it began, as bytes of the file.
    fn at(&self, span: Span) -> At {
        let start = self.offsets.byte(self.from, span.start.index()).min(self.text.len());
        let end = self.offsets.byte(self.from, span.end.index()).clamp(start, self.text.len());
        debug_assert!(self.text.is_char_boundary(start) && self.text.is_char_boundary(end), "places cut no character");
        At { file: self.file, start, end }
    }
}

/// A merge key: pairs that are not there already.
///
/// With a list of mappings the earlier one wins. A scalar says nothing that could be merged and is ignored.
fn merge(pairs: &mut Vec<(Node, Node)>, names: &mut HashMap<String, At>, other: Node) {
    match other.kind {
        Kind::Map(others) => {
            for (key, value) in others {
                let Some(name) = key.text() else { continue };
                if !names.contains_key(name) {
                    names.insert(name.to_owned(), key.at.clone());
                    pairs.push((key, value));
                }
            }
        }
        Kind::List(others) => others.into_iter().for_each(|other| merge(pairs, names, other)),
        Kind::Scalar(_) => {}
    }
}
