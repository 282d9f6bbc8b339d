//! Findings that are accepted: `# kaspr: allow K0409` beside a line, or an annotation of a document.
//!
//! ```text
//! - name: warehouse  # kaspr: allow K0409 our sink is idempotent      this line
//! # kaspr: allow K0504, K0507                                         the next line that is no comment
//! annotations: {kaspr.io/allow: "K0409"}                              this document
//! ```
//!
//! Only warnings can be accepted. An allowance that accepts nothing is a warning itself (K0009): the finding it was
//! written for is gone, or was never there.

use super::{Code, Diagnostic, Severity, code};
use crate::source::{At, Text};

/// Words of a comment before the codes.
const MARK: &str = "kaspr: allow";

/// The annotation that accepts findings in its whole document.
///
/// For specs that are generated, whose comments do not reach the pod.
pub const ANNOTATION: &str = "kaspr.io/allow";

/// A finding that is accepted in a stretch of a file.
///
/// One for each code: a comment with two codes gives two.
#[derive(Clone, Debug)]
pub struct Allowance {
    /// The code, as it is written.
    pub name: String,
    /// Place of the comment.
    pub at: At,
    /// Stretch in which findings are accepted.
    pub within: At,
}

/// Accepts findings; gives what is left, with a warning of every allowance that accepts nothing.
///
/// A finding lies within an allowance if it starts there. K0009 itself is raised here and so
/// cannot be accepted in a spec; `--allow K0009` can.
pub fn apply(mut found: Vec<Diagnostic>, allowances: &[Allowance]) -> Vec<Diagnostic> {
    let mut unused = Vec::new();
    for allowance in allowances {
        // A misspelled code accepts nothing, and says so, with the nearest.
        let Some(code) = code(&allowance.name) else {
            let names = Code::ALL.iter().map(|code| code.name());
            let message = format!("there is no code \"{}\" to allow", allowance.name);
            unused.push(Diagnostic::new(Code::K0009, message, allowance.at.clone()).near(&allowance.name, names));
            continue;
        };
        let within = &allowance.within;
        let is_here = |at: &At| at.file == within.file && (within.start..=within.end).contains(&at.start);
        let before = found.len();
        found.retain(|fault| fault.code != code || fault.severity == Severity::Error || !is_here(&fault.at));
        if found.len() == before {
            let message = format!("the allowance of {} accepts nothing", code.name());
            let fault = Diagnostic::new(Code::K0009, message, allowance.at.clone());
            // A user who tries to allow an error needs another hint than one whose finding is gone.
            let is_error = found.iter().any(|fault| fault.code == code && is_here(&fault.at));
            unused.push(fault.hint(if is_error { "errors cannot be allowed: mend what it says" } else { "remove it" }));
        }
    }
    found.extend(unused);
    // The sink has sorted what was found; the new ones must go to their places.
    found.sort_by(|a, b| (&a.at, a.code).cmp(&(&b.at, b.code)));
    found
}

/// The allowances in a file's comments. One that has a line for itself is for the next line that
/// is no comment.
///
/// The text alone is looked at, so a comment in a code block (`# kaspr: allow K0506` behind a line of Python) counts
/// like one of the YAML.
pub fn comments(file: usize, text: &Text<'_>) -> Vec<Allowance> {
    let mut found = Vec::new();
    // Almost every file ends here.
    if !text.text.contains(MARK) {
        return found;
    }
    let mut start = 0;
    // Those that have a line for themselves, until the line comes that they are for.
    let mut open: Vec<Allowance> = Vec::new();
    for line in text.text.split_inclusive('\n') {
        let within = At { file, start, end: start + line.trim_end().len() };
        let is_comment = line.trim_start().starts_with('#');
        let here = allowed(line).map(|(at, name)| {
            let at = At { file, start: start + at, end: start + at + name.len() };
            Allowance { name: name.to_owned(), at, within: within.clone() }
        });
        if is_comment {
            open.extend(here);
        } else if !line.trim().is_empty() {
            found.extend(open.drain(..).map(|allowance| Allowance { within: within.clone(), ..allowance }));
            found.extend(here);
        }
        start += line.len();
    }
    // Behind the last line: they accept nothing, which `apply` reports.
    found.extend(open);
    found
}

/// The codes that a line's comment allows, and where in the line each stands.
///
/// ```text
/// "x: 1  # kaspr: allow K0409, k0112 it is idempotent"   ⇒   K0409, k0112
/// ```
fn allowed(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let mark = line.find(MARK).filter(|at| line[..*at].trim_end().ends_with('#'));
    let rest = mark.map_or("", |at| &line[at + MARK.len()..]);
    let words = rest.split([' ', ',', '\t', '\r', '\n']).filter(|word| !word.is_empty());
    // What follows the codes is the reason.
    let is_code = |word: &&str| word.starts_with(['K', 'k']) && word[1..].starts_with(|c: char| c.is_ascii_digit());
    // Words are slices of the line, so their addresses tell where they stand.
    words.take_while(is_code).map(move |word| (word.as_ptr() as usize - line.as_ptr() as usize, word))
}

/// The allowances of an annotation's text, for a document.
///
/// `at` is where it is written, `document` the stretch in which it accepts.
pub fn annotation(text: &str, at: &At, document: &At) -> Vec<Allowance> {
    let names = text.split([' ', ',']).filter(|name| !name.is_empty());
    names.map(|name| Allowance { name: name.to_owned(), at: at.clone(), within: document.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, usize)> {
        let text = Text::new(text);
        let line = |allowance: &Allowance| text.line_column(allowance.within.start).0 as usize;
        comments(0, &text).iter().map(|allowance| (allowance.name.clone(), line(allowance))).collect()
    }

    #[test]
    fn comments_are_for_their_line_or_the_next() {
        assert_eq!(names("a: 1 # kaspr: allow K0409\n"), [("K0409".to_owned(), 1)]);
        assert_eq!(
            names("a:\n  # kaspr: allow K0409, K0404 as agreed\n\n  b: 1\n"),
            [("K0409".to_owned(), 4), ("K0404".to_owned(), 4)]
        );
        assert!(names("a: 'kaspr: allow K0409'\nb: 1 # see kaspr: allow K0409\n").is_empty());
    }

    #[test]
    fn warnings_are_accepted_and_errors_are_not() {
        let at = |start| At { file: 0, start, end: start };
        let fault = |code, start| Diagnostic::new(code, "x", at(start));
        let allow = |name: &str, start, end| Allowance {
            name: name.to_owned(),
            at: at(start),
            within: At { file: 0, start, end },
        };
        let codes = |found: Vec<Diagnostic>| found.iter().map(|fault| fault.code).collect::<Vec<_>>();
        assert!(apply(vec![fault(Code::K0409, 5)], &[allow("k0409", 0, 10)]).is_empty());
        let elsewhere = codes(apply(vec![fault(Code::K0409, 5)], &[allow("K0409", 6, 10)]));
        assert_eq!(elsewhere, [Code::K0409, Code::K0009]);
        assert_eq!(codes(apply(vec![fault(Code::K0201, 5)], &[allow("K0201", 0, 10)])), [Code::K0009, Code::K0201]);
        assert_eq!(codes(apply(Vec::new(), &[allow("K9999", 0, 10)])), [Code::K0009]);
    }
}
