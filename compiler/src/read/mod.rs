//! YAML to AST. Reading never fails: what does not fit is reported and left out.
//!
//! The first arrow that knows fields. It asks of each field only whether its value has the right *kind* (text,
//! number within bounds, boolean, mapping, list, code block); names are resolved and combinations judged in
//! `crate::check`. Both forms of a spec (see [`Form`]) come out as the same AST, so nothing behind this room knows
//! which one was read.
//!
//! ```text
//! kind: KasprAgent                               Agent {
//! metadata: {name: echo}                             name: "echo",
//! spec:                                    ⇒         input: Input { topic: { name: "in", … }, take: None },
//!   input: {topic: {name: in}, take: 5}              …                       every value with its place
//!                                                }
//!                                                K0003 "spec.input.take" must be a mapping, found a number
//! ```
//!
//! Invariants:
//!
//! - A field that stands there and is faulty becomes `None` in the AST and is *marked* in the sink
//!   ([`Sink::mark`]), so that `check` does not call it missing too: one slip gives one fault.
//! - What is not understood at all (an unknown kind, a document that is no mapping) sets [`Ast::is_partial`]: then
//!   names that are declared nowhere may have been declared there, and `check` does not complain of them.
//!
//! Called by [`crate::compile`] once for each document, in the order of files and documents.

mod agent;
mod fields;
pub mod numbers;

use crate::ast::{App, Ast, Frame, Table, Window};
use crate::diagnostics::{Code, Diagnostic, Sink, allow};
use crate::source::{At, Spanned};
use crate::yaml::{Kind, Node};
use fields::Fields;

pub use fields::Form;

/// Kinds that are known and not built yet.
///
/// A document of such a kind is K0601, an error: an app must not start without a part that its author counts on.
const LATER: [&str; 3] = ["KasprJoin", "KasprTask", "KasprWebView"];
/// Kinds that can be loaded.
///
/// Named in messages word by word too: change both.
const KINDS: [&str; 3] = ["KasprAgent", "KasprTable", "KasprApp"];

/// Reads one document into the AST. Gives a note where the document is another product's.
///
/// The form is told by `kind`: the mounted form has none, and has one of its lists instead. A null document, as
/// behind a last `---`, is nothing.
pub fn document(node: &Node, ast: &mut Ast, sink: &mut Sink) -> Option<String> {
    if node.is_null() {
        return None;
    }
    if !matches!(node.kind, Kind::Map(_)) {
        let message = format!("a document must be a mapping, found {}", node.what());
        sink.push(Diagnostic::new(Code::K0003, message, node.at.head()));
        ast.is_partial = true;
        return None;
    }
    if node.get("kind").is_none()
        && ["agents", "tables", "joins", "tasks", "webviews"].iter().any(|k| node.get(k).is_some())
    {
        definitions(node, ast, sink);
        return None;
    }
    kubernetes(node, ast, sink)
}

/// The form that the operator mounts: lists of components in snake_case.
///
/// ```text
/// agents: [{name: echo, input: {topic: {name: in, pattern: null}}}]
/// tables: []
/// joins: null
/// ```
///
/// Names are not checked against Kubernetes' rule: the operator has taken them from resources already.
fn definitions(node: &Node, ast: &mut Ast, sink: &mut Sink) {
    let mut fields = Fields::of(node, "", Form::Definition, sink);
    for agent in fields.list("agents") {
        let name = agent.get("name").and_then(|name| text(name, fields.sink));
        let body = Fields::of(agent, "", Form::Definition, fields.sink);
        ast.agents.push(agent::agent(body, agent.at.clone(), name, None));
    }
    for node in fields.list("tables") {
        let name = node.get("name").and_then(|name| text(name, fields.sink));
        let body = Fields::of(node, "", Form::Definition, fields.sink);
        ast.tables.push(table(body, node.at.clone(), name));
    }
    // One fault a list is enough: every entry of it has the same reason.
    for later in ["joins", "tasks", "webviews"] {
        if let Some(first) = fields.list(later).first() {
            let message = format!("\"{later}\" is not supported yet");
            fields.sink.push(Diagnostic::new(Code::K0601, message, first.at.head()));
        }
    }
}

/// One Kubernetes resource. Gives a note where it belongs to another product.
///
/// A kind that begins with `Kaspr` is taken for ours whatever its group, so that a misspelled `apiVersion` is a
/// fault and not a document that silently counts for nothing.
fn kubernetes(node: &Node, ast: &mut Ast, sink: &mut Sink) -> Option<String> {
    let kind = node.get("kind").and_then(|kind| text(kind, sink));
    let group = node.get("apiVersion").and_then(Node::text).unwrap_or_default();
    let Some(kind) = kind else {
        ast.is_partial = true;
        let message = "required field \"kind\" is missing";
        sink.push(
            Diagnostic::new(Code::K0005, message, first_line(node))
                .hint("the kinds that exist: KasprAgent, KasprTable, KasprApp"),
        );
        return None;
    };
    if !group.starts_with("kaspr.io/") && !kind.value.starts_with("Kaspr") {
        return Some(format!("skipped {} ({group})", kind.value));
    }
    if LATER.contains(&kind.value.as_str()) {
        let message = format!("the kind \"{}\" is not supported yet", kind.value);
        sink.push(
            Diagnostic::new(Code::K0601, message, kind.at).hint("take the document out of the folder until it is"),
        );
        return None;
    }
    if !KINDS.contains(&kind.value.as_str()) {
        ast.is_partial = true;
        let diagnostic = Diagnostic::new(Code::K0004, format!("unknown kind \"{}\"", kind.value), kind.at);
        sink.push(diagnostic.near(&kind.value, KINDS).hint("the kinds that exist: KasprAgent, KasprTable, KasprApp"));
        return None;
    }
    check_group(node, group, sink);
    component(node, &kind.value, ast, sink);
    None
}

/// Reports an `apiVersion` that is missing or not ours. The document is read all the same.
fn check_group(node: &Node, group: &str, sink: &mut Sink) {
    let Some(version) = node.get("apiVersion") else {
        sink.push(
            Diagnostic::new(Code::K0005, "required field \"apiVersion\" is missing", first_line(node))
                .hint("apiVersion: kaspr.io/v1alpha1"),
        );
        return;
    };
    if group != "kaspr.io/v1alpha1" {
        let message = format!("unknown apiVersion \"{group}\"");
        sink.push(Diagnostic::new(Code::K0004, message, version.at.clone()).hint("apiVersion: kaspr.io/v1alpha1"));
    }
}

/// One agent, table or app: `metadata` first, for its name, then `spec` by kind.
fn component(node: &Node, kind: &str, ast: &mut Ast, sink: &mut Sink) {
    let mut fields = Fields::of(node, "", Form::Kubernetes, sink);
    // `status` is written by the operator and means nothing here.
    fields.known(&["apiVersion", "kind", "status"]);
    let (mut name, mut app) = (None, None);
    let mut is_faulty = false;
    if let Some(mut metadata) = fields.map("metadata") {
        name = component_name(&mut metadata);
        is_faulty = metadata.is_faulty("name");
        // `kaspr.io/allow` accepts warnings anywhere in this document.
        let allowed = metadata.node("annotations").and_then(|annotations| annotations.get(allow::ANNOTATION));
        if let Some((node_of, text)) = allowed.and_then(|allowed| Some((allowed, allowed.text()?))) {
            ast.allowances.extend(allow::annotation(text, &node_of.at, &node.at));
        }
        app = metadata
            .node("labels")
            .and_then(|labels| labels.get("kaspr.io/app"))
            .and_then(|app| label(app, metadata.sink));
        // Other labels and annotations are Kubernetes' and other programs' business.
        metadata.ignore_rest();
    }
    ast.is_partial |= name.is_none();
    if name.is_none() && !is_faulty && !fields.is_faulty("metadata") {
        let message = "required field \"metadata.name\" is missing";
        fields.sink.push(Diagnostic::new(Code::K0005, message, first_line(node)));
    }
    // Stands in for a spec that is not written, so that the code below reads one in any case.
    let empty = Node { at: node.at.clone(), kind: Kind::Map(Vec::new()) };
    let mut spec = match fields.node("spec") {
        Some(_) => match fields.map("spec") {
            Some(spec) => spec,
            None => {
                ast.is_partial = true;
                return fields.finish();
            }
        },
        None if kind == "KasprAgent" => {
            fields.sink.push(Diagnostic::new(Code::K0005, "required field \"spec\" is missing", first_line(node)));
            return fields.finish();
        }
        // A table or an app may have nothing to say but its name.
        None => Fields::of(&empty, "spec.", Form::Kubernetes, fields.sink),
    };
    // Two names for one component would be found under one of them and looked for under the other.
    if let (Some(given), Some(name)) = (spec.text("name"), &name)
        && given.value != name.value
    {
        let message = format!("\"spec.name\" says \"{}\", \"metadata.name\" says \"{}\"", given.value, name.value);
        spec.sink.push(Diagnostic::new(Code::K0003, message, given.at).label(name.at.clone(), "the component's name"));
    }
    // An agent without a name still needs a place by which `check` can ask for marks.
    let at = name.as_ref().map_or_else(|| first_line(node), |name| name.at.clone());
    match kind {
        "KasprAgent" => ast.agents.push(agent::agent(spec, at, name, app)),
        "KasprTable" => ast.tables.push(table(spec, at, name)),
        // A `KasprApp`: `KINDS` has no fourth.
        _ => {
            let config = spec.pairs("config");
            // The operator reads most of an app's spec; only `config` concerns running.
            spec.ignore_rest();
            ast.apps.push(App { name, config });
        }
    }
    fields.finish();
}

/// Longest value of a label in Kubernetes.
const LABEL_MAX: usize = 63;

/// The label that names the app, which must be one that Kubernetes takes.
fn label(node: &Node, sink: &mut Sink) -> Option<Spanned<String>> {
    let label = text(node, sink)?;
    let (value, letter) = (&label.value, |byte: &u8| byte.is_ascii_alphanumeric());
    let bytes = value.as_bytes();
    let is_legal = bytes.iter().all(|byte| letter(byte) || matches!(byte, b'-' | b'_' | b'.'))
        && bytes.first().is_some_and(letter)
        && bytes.last().is_some_and(letter)
        && value.len() <= LABEL_MAX;
    let fault = |message: String| Diagnostic::new(Code::K0113, message, node.at.clone());
    if matches!(node.what(), "a boolean" | "a number") {
        let message = format!("the label \"kaspr.io/app\" must be a string for Kubernetes, found {}", node.what());
        sink.push(fault(message).hint(format!("write it in quotes: \"{value}\"")));
    } else if !is_legal {
        let hint = "up to 63 of the characters A-Z, a-z, 0-9, '-', '_' and '.', with a letter or digit at both ends";
        sink.push(fault(format!("the label \"{value}\" is not allowed by Kubernetes")).hint(hint));
    }
    Some(label)
}

/// A component's name, which must be one that Kubernetes takes.
///
/// A name that is not allowed is a fault and is used all the same: references to it shall not be faults too.
fn component_name(metadata: &mut Fields<'_>) -> Option<Spanned<String>> {
    let node = metadata.node("name")?;
    // No scalar: `text` reports it as of the wrong kind.
    let Some(text) = node.text() else { return metadata.text("name") };
    let name = Spanned { value: text.to_owned(), at: node.at.clone() };
    let fault = |message: String| Diagnostic::new(Code::K0113, message, node.at.clone());
    if matches!(node.what(), "a boolean" | "a number") {
        let message = format!("\"metadata.name\" must be a string for Kubernetes, found {}", node.what());
        metadata.sink.push(fault(message).hint(format!("write it in quotes: \"{text}\"")));
    } else if !is_kubernetes_name(text) {
        let mut diagnostic = fault(format!("the name \"{text}\" is not allowed by Kubernetes"));
        let meant = text.to_lowercase().replace(['_', ' ', '/', ':'], "-");
        if is_kubernetes_name(&meant) {
            diagnostic = diagnostic.hint(format!("did you mean \"{meant}\"?"));
        }
        metadata.sink.push(diagnostic.hint(
            "up to 253 of the characters a-z, 0-9, '-' and '.', with a letter or digit at both ends and beside each '.'",
        ));
    }
    Some(name)
}

/// Longest name of a Kubernetes resource.
///
/// Kubernetes' own bound for names that are DNS subdomains, dots included.
const NAME_MAX: usize = 253;

/// Tells names that a resource of Kubernetes may have: subdomains as in RFC 1123.
///
/// ```text
/// a, shop-1, eu.shop-1   allowed
/// Shop, a_b, -a, a..b    not
/// ```
fn is_kubernetes_name(name: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let legal = |byte: &u8| is_end(Some(byte)) || *byte == b'-';
        is_end(bytes.first()) && is_end(bytes.last()) && bytes.iter().all(legal)
    };
    name.len() <= NAME_MAX && name.split('.').all(is_label)
}

/// A `KasprTable`'s spec, or an entry of `tables`.
fn table(mut spec: Fields<'_>, at: At, name: Option<Spanned<String>>) -> Table {
    let table = Table {
        at,
        name,
        description: spec.text("description"),
        global: spec.boolean("global"),
        key_codec: spec.text("keySerializer"),
        value_codec: spec.text("valueSerializer"),
        default: spec.code("defaultSelector"),
        partitions: spec.whole("partitions", numbers::PARTITIONS),
        config: spec.pairs("extraTopicConfigs"),
        // They belong to stores of the reference runtime: accepted, and without effect here.
        options: spec.node("options").and_then(first_key),
        window: spec.map("window").map(window),
    };
    spec.known(&["name"]);
    spec.finish();
    table
}

/// The place of a mapping's first key; `None`: there is none.
fn first_key(node: &Node) -> Option<At> {
    match &node.kind {
        Kind::Map(pairs) => pairs.first().map(|(key, _)| key.at.clone()),
        _ => None,
    }
}

/// A table's `window`. Both kinds may be there: `check` says that they exclude each other.
fn window(mut fields: Fields<'_>) -> Window {
    let mut frame = |name: &str| {
        fields.map(name).map(|mut frame| {
            let (at, size, expires) = (frame.at(), frame.seconds("size"), frame.seconds("expires"));
            // A `step` under `tumbling` is left over and so reported as unknown.
            let step = if name == "hopping" { frame.seconds("step") } else { None };
            frame.finish();
            Frame { at, size, step, expires }
        })
    };
    let (tumbling, hopping) = (frame("tumbling"), frame("hopping"));
    let window = Window {
        at: fields.at(),
        tumbling,
        hopping,
        relative_to: fields.text("relativeTo"),
        selector: fields.code("relativeToSelector"),
    };
    fields.finish();
    window
}

/// A scalar's text.
///
/// `None` where it is null, without a fault, and where it is no scalar, with one (K0003).
fn text(node: &Node, sink: &mut Sink) -> Option<Spanned<String>> {
    match node.text() {
        Some(text) if !node.is_null() => Some(Spanned { value: text.to_owned(), at: node.at.clone() }),
        Some(_) => None,
        None => {
            sink.push(Diagnostic::new(
                Code::K0003,
                format!("a string is needed, found {}", node.what()),
                node.at.head(),
            ));
            None
        }
    }
}

/// The first key of a document, for faults of the document as a whole.
///
/// A mapping's own place would put the whole document under the message.
fn first_line(node: &Node) -> At {
    match &node.kind {
        Kind::Map(pairs) => pairs.first().map_or_else(|| node.at.head(), |(key, _)| key.at.clone()),
        _ => node.at.head(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_kubernetes_name;

    #[test]
    fn names_are_subdomains() {
        let longest = "a".repeat(253);
        for name in ["a", "orders-agent", "orders.v2", "0", longest.as_str()] {
            assert!(is_kubernetes_name(name), "{name}");
        }
        let too_long = "a".repeat(254);
        for name in ["", "Orders", "orders_agent", "-a", "a-", "a..b", "a.-b", "größe", "a b", too_long.as_str()] {
            assert!(!is_kubernetes_name(name), "{name}");
        }
    }
}
