//! Text to a YAML tree with spans. Bounded: a bomb is a diagnostic, not a crash.

pub mod data;
mod malformed;
pub mod places;
pub mod rewrite;

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::diagnostics::{Code, Diagnostic, Sink};
use crate::source::At;

/// Largest file, in bytes.
pub const BYTES_MAX: usize = 10 << 20;
/// Deepest nesting.
pub const DEPTH_MAX: usize = 64;
const TOO_DEEP: &str = "64 levels of nesting";
/// Most nodes of a file, those behind aliases counted each time.
pub const NODES_MAX: usize = 1 << 19;
/// Most broken documents of a file that are reported.
const BROKEN_MAX: usize = 100;

/// A node of the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its place.
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
    Map(Vec<(Node, Node)>),
}

/// A scalar: its text, and whether it is plain (and so may be a number, a boolean or null).
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// The text, escapes and folding done.
    pub text: String,
    /// Its style.
    pub style: Style,
}

/// Style of a scalar.
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
    pub fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar(scalar) => {
                scalar.style == Style::Plain && matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// Names its kind, for messages: `a list`.
    pub fn what(&self) -> &'static str {
        match &self.kind {
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            Kind::Scalar(_) if self.is_null() => "nothing",
            Kind::Scalar(scalar) if scalar.style != Style::Plain => "a string",
            Kind::Scalar(scalar) if boolean(&scalar.text).is_some() => "a boolean",
            Kind::Scalar(scalar) if scalar.text.parse::<f64>().is_ok() => "a number",
            Kind::Scalar(_) => "a string",
        }
    }

    /// The scalar's text.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The value of a key.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(pairs) => pairs.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// A boolean as Kubernetes reads it (YAML 1.1).
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// The documents of a text that can be read; what cannot is reported, and the documents before it
/// are kept.
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

/// Finds the start of the next document after a byte: a line that begins with `---`, whatever stands
/// before it (YAML 1.2, section 9.1.2).
fn next_document(text: &str, after: usize) -> Option<usize> {
    let is_marker = |at: &usize| text[at + 4..].chars().next().is_none_or(char::is_whitespace);
    text[after..].match_indices("\n---").map(|(at, _)| after + at).find(is_marker).map(|at| at + 1)
}

/// Byte offsets of characters: the parser counts characters.
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
                let first = offsets.partition_point(|at| (*at as usize) < from);
                offsets.get(first + character).or(offsets.last()).map_or(0, |at| *at as usize)
            }
        }
    }
}

struct Tree<'a> {
    file: usize,
    text: &'a str,
    sink: &'a mut Sink,
    offsets: Offsets,
    /// The byte where the parser began.
    from: usize,
    /// The byte where the current document starts.
    start: usize,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    broken: usize,
}

/// Reason why a document ends before its end; it has been reported.
struct Broken {
    /// No other document of the file is read.
    is_final: bool,
}

const BROKEN: Broken = Broken { is_final: false };

type Events<'a> = Parser<'a, saphyr_parser::StrInput<'a>>;

impl Tree<'_> {
    /// The documents; behind a broken one reading goes on with the next.
    fn documents(&mut self) -> Vec<Node> {
        let mut documents = Vec::new();
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
    fn stretch(&mut self, documents: &mut Vec<Node>) -> Result<(), Broken> {
        let text = self.text;
        let mut events = Parser::new_from_str(&text[self.from..]);
        loop {
            match self.event(&mut events)? {
                Some((Event::StreamEnd, _)) | None => return Ok(()),
                Some((Event::DocumentStart(_), span)) => {
                    self.start = self.at(span).start.max(self.start);
                    self.anchors.clear();
                    let event = self.event(&mut events)?;
                    documents.extend(self.node(event, &mut events, 0)?);
                }
                Some(_) => {}
            }
        }
    }

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

    fn node(
        &mut self,
        event: Option<(Event<'_>, Span)>,
        events: &mut Events<'_>,
        depth: usize,
    ) -> Result<Option<Node>, Broken> {
        let Some((event, span)) = event else { return Ok(None) };
        let at = self.at(span);
        self.nodes += 1;
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
            let size = self.nodes - before + 1;
            self.nodes += size;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(Some(node))
    }

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

    fn list(&mut self, mut at: At, events: &mut Events<'_>, depth: usize) -> Result<Node, Broken> {
        let mut nodes = Vec::new();
        loop {
            match self.event(events)? {
                None | Some((Event::SequenceEnd, _)) => break,
                event => nodes.extend(self.node(event, events, depth + 1)?),
            }
        }
        at.end = nodes.last().map_or(at.end, |node: &Node| node.at.end);
        Ok(Node { at, kind: Kind::List(nodes) })
    }

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

    fn at(&self, span: Span) -> At {
        let start = self.offsets.byte(self.from, span.start.index()).min(self.text.len());
        let end = self.offsets.byte(self.from, span.end.index()).clamp(start, self.text.len());
        At { file: self.file, start, end }
    }
}

/// A merge key: pairs that are not there already.
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
