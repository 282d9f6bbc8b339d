//! A drawing as mermaid, for documents that draw it themselves.
//!
//! GitHub and most wikis draw it where it stands in a block of Markdown.

use std::collections::BTreeMap;

use super::dot::colours;
use super::drawing::{Arrow, Drawing, Flow, Role, Shape, TopicUse};
use crate::plan::Plan;

/// Classes of shapes: what mermaid gives colours to.
///
/// A role that is not among them (`Pass`) has no class and mermaid's own look.
const CLASSES: [(&str, Role); 11] = [
    ("window", Role::Window),
    ("map", Role::Map),
    ("filter", Role::Filter),
    ("send", Role::Send),
    ("sink", Role::Custom),
    ("channel", Role::Channel),
    ("table", Role::Table),
    ("read", Role::Topic(TopicUse::Read)),
    ("written", Role::Topic(TopicUse::Written)),
    ("both", Role::Topic(TopicUse::Both)),
    ("letters", Role::Topic(TopicUse::Letters)),
];

impl Plan {
    /// The plan as a mermaid flowchart.
    ///
    /// With a line break at its end.
    pub fn to_mermaid(&self) -> String {
        let drawing = self.drawing();
        // Before anything is printed: an arrow may name a shape that stands further down.
        let ids = Ids::of(&drawing);
        let mut out = String::from("flowchart LR\n");
        for (number, agent) in drawing.agents.iter().enumerate() {
            out.push_str(&format!("  subgraph a{number}[{}]\n", text(&agent.title())));
            agent.shapes.iter().for_each(|shape| ids.shape(shape, "    ", &mut out));
            out.push_str("  end\n");
        }
        drawing.shapes.iter().for_each(|shape| ids.shape(shape, "  ", &mut out));
        drawing.arrows.iter().for_each(|arrow| ids.arrow(arrow, &mut out));
        classes(&drawing, &mut out);
        out
    }
}

/// Defines the colours of the classes that occur, as graphviz has them.
fn classes(drawing: &Drawing, out: &mut String) {
    for (class, role) in CLASSES {
        // Classes that nothing has would be noise in a document.
        if drawing.all_shapes().any(|shape| shape.role == role) {
            let (fill, line) = colours(role);
            out.push_str(&format!("  classDef {class} fill:{fill},stroke:{line},color:#1F2933\n"));
        }
    }
}

/// Names that mermaid can read: numbers in the order of the drawing.
///
/// Ids of a drawing have spaces and signs that mermaid would read as syntax.
struct Ids<'a>(BTreeMap<&'a str, usize>);

impl<'a> Ids<'a> {
    /// Numbers the shapes of a drawing.
    fn of(drawing: &'a Drawing) -> Ids<'a> {
        Ids(drawing.all_shapes().enumerate().map(|(number, shape)| (shape.id.as_str(), number)).collect())
    }

    /// The name of a shape. One that is not in the drawing would show as `missing`, which no arrow should.
    fn id(&self, shape: &str) -> String {
        self.0.get(shape).map_or_else(|| "missing".to_owned(), |number| format!("s{number}"))
    }

    /// One shape as a node: brackets around its text say its form.
    fn shape(&self, shape: &Shape, indent: &str, out: &mut String) {
        let (open, close) = match shape.role {
            Role::Pass => ("((", "))"),
            Role::Window => ("[[", "]]"),
            Role::Map => ("(", ")"),
            Role::Filter => ("{{", "}}"),
            Role::Send | Role::Topic(_) => (">", "]"),
            Role::Custom => ("[/", "\\]"),
            Role::Channel => ("[/", "/]"),
            Role::Table => ("[(", ")]"),
        };
        // Mermaid wants some text in every node.
        let lines = if shape.role == Role::Pass { text(&[" ".to_owned()]) } else { text(&shape.lines) };
        let class = CLASSES.iter().find(|(_, role)| *role == shape.role);
        let class = class.map(|(class, _)| format!(":::{class}")).unwrap_or_default();
        out.push_str(&format!("{indent}{}{open}{lines}{close}{class}\n", self.id(&shape.id)));
    }

    /// One arrow, with its label.
    fn arrow(&self, arrow: &Arrow, out: &mut String) {
        let line = match arrow.flow {
            Flow::Values => "-->",
            Flow::Table => "<-.->",
            Flow::Letters => "-.->",
        };
        let label = if arrow.label.is_empty() { String::new() } else { format!("|{}|", text(&arrow.label)) };
        out.push_str(&format!("  {} {line}{label} {}\n", self.id(&arrow.from), self.id(&arrow.to)));
    }
}

/// Lines in quotes; what mermaid or its HTML would read otherwise is named by its code.
fn text(lines: &[String]) -> String {
    let escape = |line: &String| {
        let mut escaped = String::new();
        for character in line.chars() {
            match character {
                // By code (`#34;`), which is mermaid's only escape.
                '"' | '#' | '&' | '<' | '>' | '`' | '\\' => escaped.push_str(&format!("#{};", u32::from(character))),
                '\n' => escaped.push(' '),
                _ => escaped.push(character),
            }
        }
        escaped
    };
    format!("\"{}\"", lines.iter().map(escape).collect::<Vec<_>>().join("<br>"))
}
