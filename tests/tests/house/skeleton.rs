//! Rust sources as far as the rules need them: code without comments and strings, functions with
//! their lines, doc comments with their first line.

/// Blanks comments, strings and characters; lines stay where they are.
pub fn skeleton(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = blank(rest);
        if length == 0 {
            // A word is taken whole: the `r` of `for"` begins no raw string.
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = if word == 0 { first.len_utf8() } else { word };
            out.push_str(&rest[..length]);
            rest = &rest[length..];
        } else {
            out.extend(rest[..length].chars().filter(|c| *c == '\n'));
            rest = &rest[length..];
        }
    }
    out
}

/// Bytes of the comment, string or character that a text begins with; 0: it begins with none.
fn blank(text: &str) -> usize {
    let to = |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return to("*/", 2);
    }
    let raw = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - raw.len();
    if let Some(hashes) = raw.strip_prefix('r').map(|rest| rest.len() - rest.trim_start_matches('#').len())
        && prefix <= 1
        && raw[1 + hashes..].starts_with('"')
    {
        return to(&format!("\"{}", "#".repeat(hashes)), prefix + 2 + hashes);
    }
    if prefix <= 1 && raw.starts_with('"') {
        return string(text, prefix + 1);
    }
    character(text)
}

fn string(text: &str, from: usize) -> usize {
    let mut is_escaped = false;
    for (at, c) in text[from..].char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return from + at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Characters differ from lifetimes by their closing quote.
fn character(text: &str) -> usize {
    let Some(inside) = text.strip_prefix('\'') else { return 0 };
    let mut chars = inside.char_indices();
    match chars.next() {
        Some((_, '\\')) => inside[2..].find('\'').map_or(0, |at| at + 4),
        Some((_, _)) => match chars.next() {
            Some((at, '\'')) => at + 2,
            _ => 0,
        },
        None => 0,
    }
}

/// Functions of a skeleton and their lines, from `fn` to the closing brace.
pub fn functions(code: &str) -> Vec<(String, usize)> {
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let is_word = code[..at].chars().next_back().is_none_or(|c| c.is_whitespace() || c == '(');
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if is_word && !name.is_empty() {
            functions.extend(body(&code[at..]).map(|length| (name, code[at..at + length].lines().count())));
        }
    }
    functions
}

/// Bytes up to the end of a function's body; `None` where it has none.
fn body(code: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in code.char_indices() {
        match c {
            ';' if depth == 0 => return None,
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if c == '}' && depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// First lines of doc comments.
pub fn doc_comments(text: &str) -> Vec<&str> {
    let mut comments = Vec::new();
    let mut is_inside = false;
    for line in text.lines().map(str::trim_start) {
        let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        if let (Some(comment), false) = (comment, is_inside) {
            comments.push(comment.trim());
        }
        is_inside = comment.is_some();
    }
    comments
}

#[test]
fn code_is_told_from_what_is_written_in_it() {
    let text = "fn f<'a>(x: &'a str) { g(\"}\\\"{\", '}', '\\'', r#\"fn \"}\"#, b\"{\"); } // fn\n/* { */ struct S;\n";
    let code = skeleton(text);
    assert_eq!(code, "fn f<'a>(x: &'a str) { g(, , , , ); } \n struct S;\n");
    assert_eq!(functions(&code), [("f".to_owned(), 1)]);
    assert_eq!(functions("trait T {\n fn a(&self);\n fn b(&self) {\n\n }\n}\n"), [("b".to_owned(), 3)]);
    assert_eq!(doc_comments("/// One.\n/// two\nfn f() {}\n//! Three.\n"), ["One.", "Three."]);
}
