//! Pages of codes, for `kasprc --explain`.

use super::Code;

/// The code of a name, in upper or lower case.
pub fn code(name: &str) -> Option<Code> {
    Code::ALL.iter().copied().find(|code| code.name().eq_ignore_ascii_case(name))
}

/// A code's page: what it is, a spec that raises it, what is said of that spec, the spec mended.
pub fn explain(code: Code) -> String {
    let page = code.page();
    let text = page.text.strip_prefix("# ").unwrap_or(page.text);
    let parts = [("A spec that raises it:", page.broken), ("kasprc says:", page.said), ("Mended:", page.mended)];
    let parts = parts.map(|(title, text)| format!("\n{title}\n\n{}", indented(text)));
    format!("{text}{}", parts.concat())
}

fn indented(text: &str) -> String {
    let indent = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") };
    text.trim_end().lines().map(indent).collect()
}
