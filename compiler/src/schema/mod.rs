//! JSON Schemas of specs, for editors and for `kasprc fields`: names, types, defaults, examples and
//! what excludes what, as `read` and `check` know them. Faults that need the whole app or the Python
//! are left to `kasprc check`.
//!
//! ```text
//!                ┌─▶ JSON Schema: `kasprc schema`, for editors (completion, hints, most faults while typing)
//! one list of ───┤
//! fields         └─▶ `kasprc fields` and docs/agents.md: a reference with types, defaults and examples
//! ```
//!
//! A field is described once, with [`field`]: its name in the Kubernetes form, what it holds, one sentence. Bounds of
//! numbers come from `crate::read::numbers`. The schema must never refuse what `kasprc check` passes; it may pass what
//! `check` refuses. A test holds the schema against all specs of the project.

mod agent;
mod fields;
mod table;
mod values;

use serde_json::{Map, Value, json};

pub use crate::read::Form;
pub use fields::{UnknownField, explain, reference};
use values::{NAME, pairs, text};

/// Makes the schema of one document of a form. Draft 7, which every YAML editor understands.
///
/// The Kubernetes form is strict: unknown keys are refused, and fields that exclude each other as well. The mounted
/// form allows null everywhere and keys that are not known.
///
/// ```
/// use kasprc::schema::{Form, schema};
///
/// let schema = schema(Form::Definition);
/// assert_eq!(schema["type"], "object");
/// assert!(schema["properties"]["agents"].is_object());
/// ```
pub fn schema(form: Form) -> Value {
    let writer = Writer { form };
    let mut schema = match form {
        Form::Kubernetes => writer.kubernetes(),
        Form::Definition => writer.definitions(),
    };
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["definitions"] = json!({ "code": writer.code() });
    schema
}

/// Writes schemas in the names of one form.
///
/// Its methods each give the schema of one mapping, with all that is inside.
struct Writer {
    form: Form,
}

/// A field of a mapping: its name, what it holds, and one sentence about it.
///
/// Made by [`field`] and completed in place: `field("ack", boolean(), "…").or(false).like(true)`.
struct Field {
    /// In the Kubernetes form; [`Form::written`] gives the other.
    name: &'static str,
    schema: Value,
    /// It becomes the schema's `description`, which editors show, and the reference's text.
    sentence: &'static str,
}

/// A field without a default and without an example.
fn field(name: &'static str, schema: Value, sentence: &'static str) -> Field {
    Field { name, schema, sentence }
}

impl Field {
    /// Gives the value that counts where nothing is written.
    ///
    /// Only where the compiler fills it in: a setting that may count instead is no default.
    fn or(mut self, default: impl Into<Value>) -> Field {
        self.schema["default"] = default.into();
        self
    }

    /// Gives an example.
    ///
    /// It should be the value one would most likely write, since the reference prints it as YAML.
    fn like(mut self, example: impl Into<Value>) -> Field {
        self.schema["examples"] = json!([example.into()]);
        self
    }

    /// Gives an example of Python.
    ///
    /// Tests start specs with the examples of fields, so the code must run.
    fn python(self, code: &str) -> Field {
        self.like(json!({ "python": code }))
    }
}

/// Keywords that describe a field beside what it holds.
const NOTES: [&str; 2] = ["default", "examples"];

impl Writer {
    /// True for the Kubernetes form.
    fn is_strict(&self) -> bool {
        self.form == Form::Kubernetes
    }

    /// Allows null: in the mounted form every field may be null.
    ///
    /// ```text
    /// {type: boolean, default: false}   ⇒   {anyOf: [{type: boolean}, {type: null}], default: false}
    /// ```
    fn or_null(&self, mut schema: Value) -> Value {
        if self.is_strict() {
            return schema;
        }
        // Editors look for them beside `anyOf`, not inside one of its branches.
        let notes = NOTES.map(|note| schema.as_object_mut().and_then(|schema| schema.remove(note)));
        let mut schema = json!({ "anyOf": [schema, { "type": "null" }] });
        for (name, note) in NOTES.iter().zip(notes) {
            note.into_iter().for_each(|note| schema[*name] = note);
        }
        schema
    }

    /// The schema of a mapping with these fields, of which `required` must be there.
    fn object(&self, fields: Vec<Field>, required: &[&str]) -> Value {
        let mut properties = Map::new();
        for Field { name, schema, sentence } in fields {
            let mut schema = self.or_null(schema);
            schema["description"] = json!(sentence);
            properties.insert(self.form.written(name), schema);
        }
        // Names are given in the Kubernetes form here too.
        let required: Vec<String> = required.iter().map(|name| self.form.written(name)).collect();
        let mut object = json!({ "type": "object", "properties": properties, "required": required });
        if self.is_strict() {
            // Unknown fields are K0002 in this form and ignored in the other.
            object["additionalProperties"] = json!(false);
        }
        object
    }

    /// Demands exactly one of the fields. The mounted form writes all of them, most as null.
    ///
    /// So the mounted form cannot demand it: `required` there says nothing about what is null.
    fn one_of(&self, mut object: Value, names: &[&str]) -> Value {
        if self.is_strict() {
            let alternatives: Vec<Value> = names.iter().map(|name| json!({ "required": [name] })).collect();
            object["oneOf"] = json!(alternatives);
        }
        object
    }

    /// The schema of a resource: what all kinds share, and the spec by `kind`.
    fn kubernetes(&self) -> Value {
        let app = self.object(
            vec![
                field("config", pairs(), "Settings of the app, weaker than flags and the environment")
                    .like(json!({ "onError": "retry", "commitInterval": "50ms" })),
            ],
            &[],
        );
        let mut app = app;
        // Most of an app's spec is the operator's.
        app["additionalProperties"] = json!(true);
        let kinds = [("KasprAgent", self.agent(), true), ("KasprTable", self.table(), false), ("KasprApp", app, false)];
        // One `if` a kind, so that an editor that knows the kind offers only its fields. Only agents need a spec.
        let branches = kinds.into_iter().map(|(kind, spec, is_required)| {
            let required = if is_required { json!(["spec"]) } else { json!([]) };
            json!({
                "if": { "properties": { "kind": { "const": kind } } },
                "then": { "properties": { "spec": spec }, "required": required },
            })
        });
        let branches: Vec<Value> = branches.collect();
        json!({
            "title": "A KasprAgent, KasprTable or KasprApp",
            "type": "object",
            "properties": {
                "apiVersion": { "const": "kaspr.io/v1alpha1" },
                "kind": { "enum": ["KasprAgent", "KasprTable", "KasprApp"] },
                "metadata": {
                    "type": "object",
                    "properties": { "name": { "type": "string", "pattern": NAME, "maxLength": 253 } },
                    "required": ["name"],
                },
                "spec": { "type": "object" },
                // Written by the operator, and not ours to judge.
                "status": { "type": "object" },
            },
            "required": ["apiVersion", "kind", "metadata"],
            "additionalProperties": false,
            "allOf": branches,
        })
    }

    /// The schema of a mounted file: lists of agents and tables, and lists of later kinds that must be empty.
    fn definitions(&self) -> Value {
        let list = |item: Value| json!({ "anyOf": [{ "type": "array", "items": item }, { "type": "null" }] });
        // Of these kinds none is supported, but the operator writes the keys.
        let empty = json!({ "anyOf": [{ "type": "array", "maxItems": 0 }, { "type": "null" }] });
        json!({
            "title": "Agents and tables, as they are mounted into a pod",
            "type": "object",
            "properties": {
                "agents": list(self.agent()), "tables": list(self.table()),
                "joins": empty, "tasks": empty, "webviews": empty,
            },
            "anyOf": [{ "required": ["agents"] }, { "required": ["tables"] }],
        })
    }

    /// The schema of a code block. It stands once, as a definition, because most fields of an agent hold one.
    fn code(&self) -> Value {
        let python = field("python", text("Python"), "Python with the function that is called");
        let entrypoint = field(
            "entrypoint",
            text("A function"),
            "Name of the function that is called, of this block or of init; else the first that the block defines",
        );
        self.object(vec![python.like("def enrich(value):\n    return value"), entrypoint.like("enrich")], &["python"])
    }
}

#[cfg(test)]
mod tests;
