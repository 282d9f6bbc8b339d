//! The fields of a mapping, taken by name: what is left over is unknown.
//!
//! [`Fields`] is the one way in which the AST is read. A reader asks for each field by the name that it has in the
//! Kubernetes form and by the kind that it must have, and calls [`Fields::finish`] at the end:
//!
//! ```text
//! let max = take.whole("max", TAKE);      // Some(5), or None: absent, null, or reported
//! let within = take.text("within");
//! take.finish();                          // K0002 for every key that was not asked for
//! ```
//!
//! Asking is what makes a field known, so the list of fields is the code that reads them and cannot go out of date.
//! Every method returns `None` (or an empty list) both for a field that is absent and for one that is faulty; the
//! second has been reported and marked, see [`Fields::mark`].

use super::numbers::{self, Bounds};
use crate::ast::Code as Block;
use crate::diagnostics::{Code, Diagnostic, Sink, nearest};
use crate::source::{At, Spanned};
use crate::yaml::{Kind, Node, Style, boolean};

/// Form in which a spec is written.
///
/// Chosen for each document by its `kind`, see [`super::document`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A Kubernetes resource: camelCase, unknown fields are faults.
    Kubernetes,
    /// Definitions that the operator mounts: snake_case, unknown fields are ignored, null means absent.
    Definition,
}

impl Form {
    /// A field's name as this form writes it.
    ///
    /// ```text
    /// Kubernetes:  keySerializer ⇒ keySerializer
    /// Definition:  keySerializer ⇒ key_serializer
    /// ```
    pub fn written(self, name: &str) -> String {
        if self == Form::Kubernetes {
            return name.to_owned();
        }
        let mut snake = String::new();
        for character in name.chars() {
            if character.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(character.to_ascii_lowercase());
        }
        snake
    }
}

/// The fields of one mapping.
///
/// Made by [`Fields::of`] for a document and by [`Fields::map`] and [`Fields::each`] for what is inside. It borrows
/// the sink, so fields are read one mapping at a time, depth first.
pub struct Fields<'a> {
    node: &'a Node,
    /// `spec.input.`: what comes before a field's name in messages.
    path: String,
    /// The form in which names are looked up and unknown keys judged.
    form: Form,
    /// Names that were asked for so far, as this form writes them.
    known: Vec<String>,
    /// Other place at which the mapping is said to stand.
    ///
    /// Set for a spec: `check` knows an agent by the place of its name, and asks by that place whether a field of it
    /// is marked.
    other_at: Option<At>,
    /// Receiver of faults.
    pub sink: &'a mut Sink,
}

impl<'a> Fields<'a> {
    /// The fields of a node, which is a mapping.
    ///
    /// `path` is what messages put before a field's name, with a dot at its end, or empty. The fields of a node that
    /// is no mapping are none.
    pub fn of<'b>(node: &'b Node, path: &str, form: Form, sink: &'b mut Sink) -> Fields<'b> {
        Fields { node, path: path.to_owned(), form, known: Vec::new(), other_at: None, sink }
    }

    /// Gives the place of the mapping.
    pub fn at(&self) -> At {
        self.node.at.clone()
    }

    /// Fields that may be there and are read elsewhere, or not at all.
    pub fn known(&mut self, names: &[&str]) {
        for name in names {
            let written = self.form.written(name);
            self.known.push(written);
        }
    }

    /// A field as it stands; null counts as absent.
    ///
    /// Null is absent in both forms: Kubernetes drops null fields, and the mounted form writes most fields as null.
    pub fn node(&mut self, name: &str) -> Option<&'a Node> {
        let written = self.form.written(name);
        let found = self.node.get(&written);
        self.known.push(written);
        found.filter(|node| !node.is_null())
    }

    /// Finds the place of a field's name, if it is written.
    fn key(&self, name: &str) -> Option<At> {
        let written = self.form.written(name);
        let Kind::Map(pairs) = &self.node.kind else { return None };
        pairs.iter().find(|(key, _)| key.text() == Some(&written)).map(|(key, _)| key.at.clone())
    }

    /// Reports a field whose value is of the wrong kind (K0003), and marks it.
    fn wrong(&mut self, name: &str, needed: &str, node: &Node) {
        let message = format!("\"{}{}\" must be {needed}, found {}", self.path, self.form.written(name), node.what());
        // A list or a mapping is marked at its start: a mark under all of its lines would say nothing.
        let at = if matches!(node.kind, Kind::Scalar(_)) { node.at.clone() } else { node.at.head() };
        self.sink.push(Diagnostic::new(Code::K0003, message, at));
        self.mark(name);
    }

    /// Remembers that a field stands here, faulty: it is not missing.
    ///
    /// By the mapping's place and the field's name in the Kubernetes form: that is how `check` asks.
    pub fn mark(&mut self, name: &str) {
        self.sink.mark(&self.node.at, name);
        if let Some(at) = &self.other_at {
            self.sink.mark(at, name);
        }
    }

    /// Says that the mapping is known later by another place than its own.
    pub fn stands_at(&mut self, at: &At) {
        self.other_at = Some(at.clone());
    }

    /// Tells a field that stands here, and is faulty.
    ///
    /// Only fields that were asked for before can be.
    pub fn is_faulty(&self, name: &str) -> bool {
        self.sink.is_marked(&self.node.at, name)
    }

    /// A mapping.
    ///
    /// `None` where it is absent, or anything else than a mapping, which is reported.
    pub fn map(&mut self, name: &str) -> Option<Fields<'_>> {
        let node = self.node(name)?;
        if !matches!(node.kind, Kind::Map(_)) {
            self.wrong(name, "a mapping", node);
            return None;
        }
        let path = format!("{}{}.", self.path, self.form.written(name));
        Some(Fields { node, path, form: self.form, known: Vec::new(), other_at: None, sink: self.sink })
    }

    /// A list's nodes; each must be a mapping to be read further.
    ///
    /// In order. Nodes may be of any kind; the caller reports those that do not fit, with their number.
    pub fn list(&mut self, name: &str) -> Vec<&'a Node> {
        let Some(node) = self.node(name) else { return Vec::new() };
        match &node.kind {
            Kind::List(nodes) => nodes.iter().collect(),
            _ => {
                self.wrong(name, "a list", node);
                Vec::new()
            }
        }
    }

    /// A list of mappings, each read by `read`.
    ///
    /// Entries that are no mappings are reported as `"operations[2]" must be a mapping` and left out.
    pub fn each<T>(&mut self, name: &str, mut read: impl FnMut(Fields<'_>) -> T) -> Vec<T> {
        let mut all = Vec::new();
        for (number, node) in self.list(name).into_iter().enumerate() {
            let path = format!("{}{}[{number}].", self.path, self.form.written(name));
            if matches!(node.kind, Kind::Map(_)) {
                all.push(read(Fields {
                    node,
                    path,
                    form: self.form,
                    known: Vec::new(),
                    other_at: None,
                    sink: self.sink,
                }));
            } else {
                self.wrong(&format!("{name}[{number}]"), "a mapping", node);
            }
        }
        all
    }

    /// A string; numbers and booleans are taken as they are written.
    ///
    /// `name: 5` is the text `5` to this compiler; Kubernetes would refuse it, which is reported where the operator
    /// brings the specs.
    pub fn text(&mut self, name: &str) -> Option<Spanned<String>> {
        let node = self.node(name)?;
        match node.text() {
            Some(text) => {
                self.warn_of_type(name, node);
                Some(Spanned { value: text.to_owned(), at: node.at.clone() })
            }
            None => {
                self.wrong(name, "a string", node);
                None
            }
        }
    }

    /// A duration as text with a unit, or as a number of seconds.
    ///
    /// Here both come as text; `check` tells them apart. There is no warning of a number, because one is allowed.
    pub fn seconds(&mut self, name: &str) -> Option<Spanned<String>> {
        let node = self.node(name)?;
        if node.text().is_none() {
            self.wrong(name, "a duration", node);
        }
        Some(Spanned { value: node.text()?.to_owned(), at: node.at.clone() })
    }

    /// Kubernetes takes text only where it is text by YAML's rules.
    ///
    /// `name: 5` is a number to the API server, and its schema demands a string. In files it is fine.
    fn warn_of_type(&mut self, name: &str, node: &Node) {
        if self.form == Form::Kubernetes && matches!(node.what(), "a boolean" | "a number") {
            let message = format!("\"{}{name}\" must be a string for Kubernetes, found {}", self.path, node.what());
            let hint = format!("write it in quotes: \"{}\"", node.text().unwrap_or_default());
            self.sink.push_for_operator(Diagnostic::new(Code::K0113, message, node.at.clone()).hint(hint));
        }
    }

    /// A list of strings.
    ///
    /// Entries that are no text, null included, are reported and left out.
    pub fn texts(&mut self, name: &str) -> Vec<Spanned<String>> {
        let mut texts = Vec::new();
        for (number, node) in self.list(name).into_iter().enumerate() {
            match node.text() {
                Some(text) if !node.is_null() => {
                    self.warn_of_type(&format!("{name}[{number}]"), node);
                    texts.push(Spanned { value: text.to_owned(), at: node.at.clone() });
                }
                _ => self.wrong(&format!("{name}[{number}]"), "a string", node),
            }
        }
        texts
    }

    /// A boolean.
    ///
    /// Only a plain scalar can be one: `"true"` is a string to Kubernetes, so it is a fault here.
    pub fn boolean(&mut self, name: &str) -> Option<Spanned<bool>> {
        let node = self.node(name)?;
        let value = match &node.kind {
            Kind::Scalar(scalar) if scalar.style == Style::Plain => boolean(&scalar.text),
            _ => None,
        };
        match value {
            Some(value) => Some(Spanned { value, at: node.at.clone() }),
            None => {
                self.wrong(name, "true or false", node);
                None
            }
        }
    }

    /// A whole number within bounds that its type holds.
    ///
    /// The bounds must lie within `T`, so that no number gets lost in the conversion.
    pub fn whole<T: TryFrom<i64>>(&mut self, name: &str, bounds: Bounds) -> Option<Spanned<T>> {
        let read = |field: &str, node: &Node| numbers::whole(field, node, bounds);
        let number = self.number(name, read)?;
        Some(Spanned { value: T::try_from(number.value).ok()?, at: number.at })
    }

    /// A number between two others.
    ///
    /// Both ends are allowed.
    pub fn between(&mut self, name: &str, bounds: (f64, f64)) -> Option<Spanned<f64>> {
        self.number(name, |field, node| numbers::between(field, node, bounds))
    }

    /// A number, as `read` judges it. `read` is given the field's path as messages write it.
    fn number<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str, &Node) -> Result<T, Box<Diagnostic>>,
    ) -> Option<Spanned<T>> {
        let node = self.node(name)?;
        match read(&format!("{}{}", self.path, self.form.written(name)), node) {
            Ok(value) => Some(Spanned { value, at: node.at.clone() }),
            Err(fault) => {
                self.sink.push(*fault);
                self.mark(name);
                None
            }
        }
    }

    /// Names and scalar values.
    ///
    /// In the order written. Values may be any scalars and are kept as text: Kafka's settings are text in the end.
    pub fn pairs(&mut self, name: &str) -> Vec<(Spanned<String>, Spanned<String>)> {
        let Some(node) = self.node(name) else { return Vec::new() };
        let Kind::Map(pairs) = &node.kind else {
            self.wrong(name, "a mapping", node);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (key, value) in pairs {
            let spanned = |node: &Node| node.text().map(|text| Spanned { value: text.to_owned(), at: node.at.clone() });
            match (spanned(key), spanned(value)) {
                (Some(key), Some(value)) => texts.push((key, value)),
                _ => self.wrong_pair(name, key, value),
            }
        }
        texts
    }

    fn wrong_pair(&mut self, name: &str, key: &Node, value: &Node) {
        let field = format!("{}{}.{}", self.path, self.form.written(name), key.text().unwrap_or_default());
        let message = format!("\"{field}\" must be a scalar, found {}", value.what());
        let mut fault = Diagnostic::new(Code::K0003, message, value.at.head());
        // The one setting that is a mapping in a spec, and therefore the one that is written as a mapping here.
        if key.text() == Some("onError") {
            fault = fault.hint("write the mapping as JSON, in quotes: '{\"action\": \"retry\"}'");
        }
        self.sink.push(fault);
        self.mark(name);
    }

    /// A code block.
    ///
    /// A block that could not be read marks the field that it stands in, so that an operation without a readable
    /// `map` is not said to have none.
    pub fn code(&mut self, name: &str) -> Option<Block> {
        let mut fields = self.map(name)?;
        let block = fields.code_here();
        fields.finish();
        if block.is_none() {
            self.mark(name);
        }
        block
    }

    /// The code block that this mapping is.
    ///
    /// For custom sinks, where `python` and `entrypoint` stand beside other fields.
    ///
    /// ```text
    /// map: {python: "def f(v): …", entrypoint: f}      the block is the value of `map`
    /// sinks: [{name: s, python: "…"}]                  the block is the entry itself
    /// ```
    pub fn code_here(&mut self) -> Option<Block> {
        if self.lacks_block() {
            self.sink.note_empty_block();
        }
        let entrypoint = self.text("entrypoint");
        // `python:` with nothing behind it is null, which `node` takes for absent; the key shows that it is not.
        let key = self.key("python");
        let Some(python) = self.node("python") else {
            let path = self.path.trim_end_matches('.').to_owned();
            let (message, at) = match key {
                Some(key) => (format!("\"{path}.python\" is empty"), key),
                None => (format!("required field \"{path}.python\" is missing"), self.node.at.head()),
            };
            if !self.is_faulty("python") {
                self.sink.push(Diagnostic::new(Code::K0005, message, at));
            }
            return None;
        };
        match &python.kind {
            Kind::Scalar(scalar) => Some(Block {
                // A block without text stands nowhere but behind its name.
                at: key.filter(|_| scalar.text.trim().is_empty()).unwrap_or_else(|| python.at.clone()),
                text: scalar.text.clone(),
                literal: scalar.style == Style::Literal,
                entrypoint,
            }),
            _ => {
                let message = format!("\"{}python\" must be a string, found {}", self.path, python.what());
                let fault = Diagnostic::new(Code::K0003, message, python.at.head());
                self.sink.push(fault.hint("begin the block with a bar: python: |"));
                self.mark("python");
                None
            }
        }
    }

    /// Tells that the mapping's Python is empty: its lines may stand beside it, not indented.
    ///
    /// ```text
    /// map:
    ///   python: |
    ///   def f(v):        ⇐ not indented further, so YAML reads it as a key of `map`
    ///     return v
    /// ```
    fn lacks_block(&self) -> bool {
        self.node.get("python").and_then(Node::text).is_some_and(|text| text.trim().is_empty())
    }

    /// Ends the reading of a mapping that others may write to: unknown keys are none of our business.
    pub fn ignore_rest(self) {}

    /// Ends the reading of a mapping: every key that was not asked for is unknown (K0002).
    ///
    /// The mounted form may have keys that are newer than this compiler, so unknown ones are ignored there.
    pub fn finish(mut self) {
        let Kind::Map(pairs) = &self.node.kind else { return };
        if self.form == Form::Definition {
            return;
        }
        // Its lines stand in this mapping, or in one around it.
        let lacks_block = self.sink.has_empty_block();
        for (key, _) in pairs {
            let name = key.text().unwrap_or_default();
            // That the block is empty is the fault, and said.
            if lacks_block && name.contains([' ', '(']) {
                continue;
            }
            if !self.known.iter().any(|known| known == name) {
                let message = format!("unknown field \"{}{name}\"", self.path);
                let diagnostic = Diagnostic::new(Code::K0002, message, key.at.clone());
                self.sink.push(diagnostic.near(name, self.known.iter().map(String::as_str)));
                // The field that was meant is there, in a way: it shall not be reported as missing too.
                if let Some(meant) = nearest(name, self.known.iter().map(String::as_str)).map(str::to_owned) {
                    self.mark(&meant);
                }
            }
        }
    }
}
