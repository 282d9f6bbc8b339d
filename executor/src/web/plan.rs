//! `GET /kaspr/plan`: the plan that runs, as text or JSON, without the code of its blocks.

use bytes::Bytes;
use hyper::StatusCode;
use kaspr_ir::plan::Plan;
use serde_json::Value;

use super::answer::{Answer, JSON, TEXT};
use crate::config::secret::{Secret, is_secret};

/// A plan in all its forms. They are made once, since a plan never changes.
#[derive(Clone, Debug)]
pub struct PlanTexts {
    text: Bytes,
    json: Bytes,
}

impl PlanTexts {
    /// The forms of a plan.
    pub fn of(plan: &Plan) -> PlanTexts {
        let shown = without_secrets(plan);
        PlanTexts { text: shown.to_text().into(), json: shown.to_json().into() }
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

/// The page; `format` is text or json, and json where there is none.
pub(super) fn page(plan: &PlanTexts, query: Option<&str>) -> Answer {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let format = pairs.filter(|(name, _)| *name == "format").map(|(_, value)| value).next();
    match format {
        None | Some("json") => Answer::text(StatusCode::OK, JSON, plan.json.clone()),
        Some("text") => Answer::text(StatusCode::OK, TEXT, plan.text.clone()),
        Some(_) => Answer::refused(StatusCode::BAD_REQUEST, "format is json or text"),
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
        for form in [&shown.text, &shown.json] {
            let form = String::from_utf8_lossy(form);
            assert!(!form.contains("hunter2"), "{form}");
        }
        let shown = String::from_utf8_lossy(&shown.text);
        assert!(
            shown.contains("setting from: \"latest\"") && shown.contains("setting kafkaSaslPassword: \"***\""),
            "{shown}"
        );
    }

    #[test]
    fn a_format_that_is_not_there_is_refused() {
        let plan = PlanTexts { text: "t".into(), json: "j".into() };
        let got = |query| {
            let answer = page(&plan, query);
            (answer.status.as_u16(), String::from_utf8_lossy(&answer.bytes).into_owned())
        };
        assert_eq!(got(None), (200, "j".to_owned()));
        assert_eq!(got(Some("a=b&format=text")), (200, "t".to_owned()));
        assert_eq!(got(Some("format=png")).0, 400);
    }
}
