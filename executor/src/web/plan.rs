//! `GET /kaspr/plan`: the plan that runs, as JSON, text or a drawing, without the code of its blocks.

use bytes::Bytes;
use hyper::StatusCode;
use kaspr_ir::plan::Plan;
use serde_json::Value;

use super::answer::{Answer, JSON, TEXT};
use crate::config::secret::{Secret, is_secret};

/// The type of DOT, which graphviz draws.
const DOT: &str = "text/vnd.graphviz; charset=utf-8";

/// A plan in all its forms. They are made once, since a plan never changes.
#[derive(Clone, Debug)]
pub struct PlanTexts(Vec<Form>);

/// A form of a plan.
#[derive(Clone, Debug)]
struct Form {
    name: &'static str,
    content_type: &'static str,
    bytes: Bytes,
}

impl PlanTexts {
    /// The forms of a plan. The first is given where none is asked for.
    pub fn of(plan: &Plan) -> PlanTexts {
        let shown = without_secrets(plan);
        let form = |name, content_type, text: String| Form { name, content_type, bytes: text.into() };
        PlanTexts(vec![
            form("json", JSON, shown.to_json()),
            form("text", TEXT, shown.to_text()),
            form("dot", DOT, shown.to_dot()),
        ])
    }

    /// The name of each form, and its text.
    pub fn forms(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().map(|form| (form.name, form.bytes.as_ref()))
    }
}

/// The plan without the code of its blocks, and without values of settings that may be secrets.
fn without_secrets(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.blocks.iter_mut().for_each(|block| block.code.clear());
    for (name, value) in &mut plan.app.settings {
        if is_secret(&name.to_ascii_lowercase()) {
            *value = Value::String(Secret::new("").to_string());
        }
    }
    plan
}

/// The page, in the form that `format` names.
pub(super) fn page(plan: &PlanTexts, query: Option<&str>) -> Answer {
    let mut pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let format = pairs.find(|(name, _)| *name == "format").map(|(_, value)| value);
    let form = plan.0.iter().find(|form| format.is_none_or(|format| form.name == format));
    match form {
        Some(form) => Answer::text(StatusCode::OK, form.content_type, form.bytes.clone()),
        None => {
            let names: Vec<&str> = plan.0.iter().map(|form| form.name).collect();
            Answer::refused(StatusCode::BAD_REQUEST, &format!("format is one of {}", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use kaspr_ir::plan::{App, Block, FileId, LineMap};

    use super::*;

    #[test]
    fn a_plan_is_shown_without_code_and_secrets() {
        let settings = [("kafkaSaslPassword", "hunter2"), ("from", "latest")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.into())).into();
        let block = Block {
            owner: "agent \"shop\"".to_owned(),
            role: "init".to_owned(),
            init: None,
            file: FileId(0),
            lines: LineMap::Each(vec![(1, 1)]),
            code: "secret = 'hunter2'".to_owned(),
        };
        let plan = Plan {
            app: App { settings, ..App::default() },
            files: vec!["shop.yaml".to_owned()],
            blocks: vec![block],
            ..Plan::empty()
        };
        let shown = PlanTexts::of(&plan);
        let text = |form: &[u8]| String::from_utf8_lossy(form).into_owned();
        for (name, form) in shown.forms() {
            assert!(!text(form).contains("hunter2"), "{name}: {}", text(form));
        }
        let (_, shown) = shown.forms().find(|(name, _)| *name == "text").expect("it is one of them");
        let shown = text(shown);
        assert!(
            shown.contains("setting from: \"latest\"") && shown.contains("setting kafkaSaslPassword: \"***\""),
            "{shown}"
        );
    }

    #[test]
    fn a_format_that_is_not_there_is_refused() {
        let plan =
            PlanTexts::of(&Plan { app: App { name: Some("shop".to_owned()), ..App::default() }, ..Plan::empty() });
        let got = |query| {
            let answer = page(&plan, query);
            (answer.status.as_u16(), answer.content_type, String::from_utf8_lossy(&answer.bytes).into_owned())
        };
        let is = |query, status, content_type, start: &str| {
            let (got, got_type, body) = got(query);
            assert!(got == status && got_type == content_type && body.starts_with(start), "{query:?}: {got} {body}");
        };
        is(None, 200, JSON, "{");
        is(Some("format=json"), 200, JSON, "{");
        is(Some("a=b&format=text"), 200, TEXT, "app shop");
        is(Some("format=dot"), 200, DOT, "digraph \"shop\"");
        for query in ["format=graph", "format=png", "format="] {
            is(Some(query), 400, JSON, r#"{"error":"format is one of json, text, dot"}"#);
        }
    }
}
