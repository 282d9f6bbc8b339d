//! Pages of codes, for `kasprc --explain`.
//!
//! The examples on a page are the golden files of `specs/errors/`: what a page shows is what kasprc says today.

use super::Code;

/// The code of a name, in upper or lower case.
///
/// `None` for one that does not exist.
pub fn code(name: &str) -> Option<Code> {
    Code::ALL.iter().copied().find(|code| code.name().eq_ignore_ascii_case(name))
}

/// A code's page: what it is, a spec that raises it, what is said of that spec, the spec mended.
///
/// Ends with a line break. The title comes without its Markdown.
pub fn explain(code: Code) -> String {
    let page = code.page();
    let text = page.text.strip_prefix("# ").unwrap_or(page.text);
    let parts = [("A spec that raises it:", page.broken), ("kasprc says:", page.said), ("Mended:", page.mended)];
    let parts = parts.map(|(title, text)| format!("\n{title}\n\n{}", indented(text)));
    format!("{text}{}", parts.concat())
}

/// A text as a block within the page.
fn indented(text: &str) -> String {
    let indent = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") };
    text.trim_end().lines().map(indent).collect()
}
