//! A drawing as DOT, for graphviz.
//!
//! `kasprc compile --emit dot | dot -Tsvg` draws it. Form and colour of a shape say its role, so no legend is needed.

use super::drawing::{Arrow, Drawing, Flow, Frame, Role, Shape, TopicUse};
use crate::plan::Plan;

impl Plan {
    /// The plan as DOT.
    ///
    /// With a line break at its end.
    pub fn to_dot(&self) -> String {
        let drawing = self.drawing();
        let mut out = format!("digraph {} {{\n", quote(&drawing.name));
        out.push_str("  rankdir=LR; bgcolor=\"white\"; pad=0.3; nodesep=0.35; ranksep=0.55; compound=true;\n");
        out.push_str(
            "  node [fontname=\"Helvetica\" fontsize=11 style=\"filled\" penwidth=1.2 margin=\"0.16,0.09\"];\n",
        );
        out.push_str(
            "  edge [fontname=\"Helvetica\" fontsize=9 color=\"#5B6770\" fontcolor=\"#5B6770\" arrowsize=0.7];\n",
        );
        body(&drawing, &mut out);
        out.push_str("}\n");
        out
    }
}

/// Writes boxes first, since graphviz puts a shape into the cluster that names it first.
fn body(drawing: &Drawing, out: &mut String) {
    drawing.agents.iter().for_each(|agent| frame(agent, out));
    drawing.shapes.iter().for_each(|shape| self::shape(shape, out));
    drawing.arrows.iter().for_each(|arrow| self::arrow(arrow, out));
}

/// An agent's box with its shapes. Graphviz draws a subgraph as a box only if its name begins with `cluster`.
fn frame(agent: &Frame, out: &mut String) {
    // `\l` ends a line that is aligned to the left.
    let title: String = agent.title().iter().map(|line| format!("{}\\l", escape(line))).collect();
    out.push_str(&format!("  subgraph {} {{\n", quote(&format!("cluster_{}", agent.name))));
    out.push_str(&format!(
        "    label=\"{title}\"; labeljust=l; style=\"rounded,filled\"; fillcolor=\"#F6F8FA\"; color=\"#AEB9C2\"; fontname=\"Helvetica-Bold\"; fontsize=11; margin=14;\n"
    ));
    agent.shapes.iter().for_each(|shape| self::shape(shape, out));
    out.push_str("  }\n");
}

/// One shape, as a node.
fn shape(shape: &Shape, out: &mut String) {
    let (form, more) = form(shape);
    let (fill, line) = colours(shape.role);
    let label = shape.lines.iter().map(|line| escape(line)).collect::<Vec<_>>().join("\\n");
    let id = quote(&shape.id);
    out.push_str(&format!("    {id} [label=\"{label}\" shape={form} fillcolor=\"{fill}\" color=\"{line}\"{more}];\n"));
}

/// Graphviz's shape, and attributes that go with it.
fn form(shape: &Shape) -> (&'static str, &'static str) {
    match shape.role {
        Role::Pass => ("point", " width=0.12"),
        Role::Window => ("component", ""),
        Role::Map => ("box", " style=\"filled,rounded\""),
        Role::Filter => ("hexagon", " margin=\"0.02,0.0\""),
        Role::Send => ("rarrow", ""),
        Role::Custom => ("house", " margin=\"0.05,0.0\""),
        Role::Channel => ("parallelogram", " margin=\"0.0,0.0\""),
        Role::Table => ("cylinder", ""),
        // A second outline: the app creates it.
        Role::Topic(_) if shape.is_declared => ("cds", " margin=\"0.3,0.16\" peripheries=2"),
        Role::Topic(_) => ("cds", " margin=\"0.3,0.16\""),
    }
}

/// Fill and line by what a shape is.
///
/// Mermaid uses them too. Red is what has failed, blue comes in, green goes out.
pub fn colours(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Pass | Role::Map => ("#FFFFFF", "#3C4A57"),
        Role::Window => ("#FFF3CF", "#B58900"),
        Role::Filter => ("#F1E9FA", "#6B3FA0"),
        Role::Send => ("#E6F4EA", "#2E7D46"),
        Role::Custom => ("#FCE8D9", "#B35A1F"),
        Role::Table => ("#FBE9EE", "#A33A5B"),
        Role::Topic(TopicUse::Read) => ("#DCEBFA", "#2F6FAB"),
        Role::Topic(TopicUse::Written) => ("#E2F3E1", "#3B7F38"),
        Role::Channel | Role::Topic(TopicUse::Both) => ("#E0F4F4", "#1F7F85"),
        Role::Topic(TopicUse::Letters) => ("#FBE3E1", "#B3362C"),
    }
}

/// Values enter at the left and leave at the right, so that no arrow crosses a title and all of them
/// end at the outline of a topic, which is no box.
fn arrow(arrow: &Arrow, out: &mut String) {
    // A table's arrow may end where it likes: it goes down, not on.
    let (tail, head) = if arrow.flow == Flow::Table { ("", "") } else { (":e", ":w") };
    let (from, to) = (quote(&arrow.from) + tail, quote(&arrow.to) + head);
    let label = arrow.label.iter().map(|line| escape(line)).collect::<Vec<_>>().join("\\n");
    // Dashed is what is not the way of values: tables and failures.
    let style = match arrow.flow {
        Flow::Values if label.is_empty() => String::new(),
        Flow::Values => format!(" [label=\"{label}\"]"),
        Flow::Table => " [dir=both style=dashed color=\"#A33A5B\" arrowsize=0.5]".to_owned(),
        Flow::Letters => format!(" [style=dashed color=\"#B3362C\" fontcolor=\"#B3362C\" label=\"{label}\"]"),
    };
    out.push_str(&format!("  {from} -> {to}{style};\n"));
}

/// A text within quotes of DOT.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A text in quotes, as an id.
fn quote(text: &str) -> String {
    format!("\"{}\"", escape(text))
}
