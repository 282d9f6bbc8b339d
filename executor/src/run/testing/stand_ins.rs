//! Finds faults of what a test puts in the place of the world: variables and functions.

use std::collections::BTreeSet;

use serde_json::Value;

use super::faults::{Judge, below};
use crate::config::variables::is_setting;

/// Fields of a mock, of which each has one.
const MOCK: [&str; 3] = ["value", "sequence", "error"];

impl Judge<'_> {
    pub(super) fn variables(&mut self, pointer: &str, variables: Option<&Value>) {
        let Some(variables) = variables else { return };
        let Some(variables) = variables.as_object() else {
            return self.add(pointer, "\"env\" must be a mapping of variables to texts", "");
        };
        for (name, value) in variables {
            let pointer = below(pointer, name);
            if !matches!(value, Value::String(_) | Value::Number(_) | Value::Null) {
                let hint = "write it in quotes; null takes the variable away";
                self.add(&pointer, format!("the variable \"{name}\" must be a text, found {value}"), hint);
            }
            if is_setting(name) {
                let message = format!("\"{name}\" is a setting of kaspr-exec, and \"env\" reaches user code alone");
                self.add(&pointer, message, "set it where kaspr-exec test is started, or in the KasprApp's config");
            }
        }
    }

    pub(super) fn mocks(&mut self, pointer: &str, mocks: Option<&Value>) {
        let Some(mocks) = mocks else { return };
        let Some(mocks) = mocks.as_object() else {
            return self.add(pointer, "\"mock\" must be a mapping of functions to what they give", "");
        };
        for (key, mock) in mocks {
            let pointer = below(pointer, key);
            self.is_function(&pointer, key);
            let Some(fields) = self.mapping(&pointer, mock, &format!("the mock \"{key}\""), &MOCK) else { continue };
            if fields.keys().filter(|name| MOCK.contains(&name.as_str())).count() > 1 {
                self.add(&pointer, format!("a mock has one of {}", MOCK.join(", ")), "");
            } else if fields.is_empty() {
                self.add(&pointer, format!("the mock \"{key}\" gives nothing"), "value: null gives None");
            }
            self.error(&below(&pointer, "error"), fields.get("error"));
            self.sequence(&below(&pointer, "sequence"), fields.get("sequence"));
        }
    }

    /// Reports a function that no block has. What a name that cannot be read means is told when it is missed.
    fn is_function(&mut self, pointer: &str, key: &str) {
        let (block, name) = key.rsplit_once('.').unwrap_or(("", key));
        let Some(functions) = &self.known.functions else { return };
        if !block.is_empty() && !functions.contains_key(block) {
            let blocks: BTreeSet<String> = functions.keys().cloned().collect();
            return self.unknown(pointer, true, format!("the app has no block \"{block}\""), (block, &blocks));
        }
        let of = functions.iter().filter(|(of, _)| block.is_empty() || *of == block);
        let names: BTreeSet<String> = of.flat_map(|(_, names)| names.iter().cloned()).collect();
        if !names.contains(name) {
            let of = if block.is_empty() { "no block of the app".to_owned() } else { format!("\"{block}\" does not") };
            let has = if block.is_empty() { "has" } else { "have" };
            self.unknown(pointer, true, format!("{of} {has} a function \"{name}\""), (name, &names));
        }
    }

    fn sequence(&mut self, pointer: &str, sequence: Option<&Value>) {
        match sequence {
            None => {}
            Some(Value::Array(entries)) if !entries.is_empty() => {
                for (number, entry) in entries.iter().enumerate() {
                    // A mapping with more fields than `error` is itself the value that a call gives.
                    let only = entry.as_object().filter(|entry| entry.len() == 1);
                    self.error(&format!("{pointer}/{number}/error"), only.and_then(|entry| entry.get("error")));
                }
            }
            Some(_) => {
                let hint = "one entry for each call: a value, or {error: …}";
                self.add(pointer, "\"sequence\" must be a list of what the calls give", hint);
            }
        }
    }

    fn error(&mut self, pointer: &str, error: Option<&Value>) {
        let Some(error) = error else { return };
        let class = error.as_str().map(|error| error.split(':').next().unwrap_or_default().trim());
        let is_word = |word: &str| {
            let mut letters = word.chars();
            letters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
                && letters.all(|letter| letter.is_alphanumeric() || letter == '_')
        };
        if !class.is_some_and(|class| class.split('.').all(is_word)) {
            let message = format!("\"error\" must be an exception, found {error}");
            self.add(pointer, message, "its class, and its message behind a colon: \"KeyError: lamp\"");
        }
    }
}
