//! Findings that are none: what `kasprc check` finds in Python that works, over the standard library's own sources
//! and over `specs/`, with warnings as faults.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use kaspr_tests::root;
use kasprc::{Options, SourceFile};

/// Findings that specs show on purpose.
const SHOWN: [(&str, &str); 3] =
    [("channels-and-sinks", "K0409"), ("shop", "K0409"), ("sent-from-the-pipeline", "K0405")];

/// Modules of the standard library that a block could be, and of each its functions that CPython's own tree shows
/// to give no value: no `return` with one, no `yield`, and a way to the end. Test suites are apart: they do on
/// purpose what is found.
const LIBRARY: &str = r#"
import ast, json, pathlib, sys, sysconfig, warnings
warnings.simplefilter("ignore")

def own(node):
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            yield child
            yield from own(child)

def gives(function):
    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) or isinstance(node, ast.Return) and node.value is not None for node in own(function))

for path in sorted(pathlib.Path(sysconfig.get_path("stdlib")).rglob("*.py")):
    if {"site-packages", "test", "tests", "lib2to3", "idlelib"} & set(path.parts):
        continue
    try:
        text = path.read_bytes().decode("utf-8")
        tree = ast.parse(text)
    except (UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
        continue
    relative = any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))
    plain = all(letter in "\n\t" or 32 <= ord(letter) < 0xD800 and ord(letter) not in range(0x7F, 0xA0) for letter in text)
    if relative or not plain or "\t" in text or len(text) > 100 << 10:
        continue
    functions = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.decorator_list]
    one = [node for node in functions if len(node.args.posonlyargs + node.args.args) - len(node.args.defaults) == 1
           and all(default is not None for default in node.args.kw_defaults)]
    once = [node for node in one if sum(other.name == node.name for other in functions) == 1]
    print(json.dumps([str(path), [[node.name, gives(node)] for node in once]]))
"#;

/// Each module's path, and its functions of one value with whether they give one.
fn library() -> Vec<(PathBuf, Vec<(String, bool)>)> {
    let output = Command::new("python3").args(["-c", LIBRARY]).output().expect("python3 is on the PATH");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("paths are UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Findings of a spec: code and message.
fn found(text: String) -> Vec<(&'static str, String)> {
    let file = SourceFile { name: "agent.yaml".to_owned(), bytes: text.into_bytes() };
    let compiled = kasprc::compile(&[file], &Options::default());
    compiled.diagnostics.into_iter().map(|fault| (fault.code.name(), fault.message)).collect()
}

fn indented(python: &str, by: usize) -> String {
    python.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}

/// An agent whose init block this is, and whose operations of this kind run its functions.
fn agent(python: &str, kind: &str, functions: &[String]) -> String {
    let names: Vec<_> = (0..functions.len()).map(|number| format!("op{number}")).collect();
    let operations: String = names
        .iter()
        .zip(functions)
        .map(|(name, function)| {
            format!("      - name: {name}\n        {kind}:\n          entrypoint: {function}\n          python: |\n            pass\n")
        })
        .collect();
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: corpus}}\nspec:\n  input: {{topic: {{name: in}}}}\n  \
         output: {{topics: [{{name: out}}]}}\n  processors:\n    init:\n      python: |\n{}    pipeline: [{}]\n    operations:\n{operations}",
        indented(python, 8),
        names.join(", ")
    )
}

#[test]
fn nothing_is_found_in_the_standard_library() {
    let library = library();
    assert!(library.len() > 200, "only {} modules", library.len());
    let (mut faults, mut judged, mut without) = (Vec::new(), 0, 0);
    for (path, functions) in library {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for kind in ["map", "filter"] {
            let names: Vec<String> = functions.iter().map(|(name, _)| name.clone()).collect();
            if names.is_empty() {
                continue;
            }
            let silent: BTreeSet<&str> =
                functions.iter().filter(|(_, gives)| !gives).map(|(name, _)| name.as_str()).collect();
            for (code, message) in found(agent(&text, kind, &names)) {
                // What CPython's tree shows as well is no false report; a generator is no filter in truth.
                let is_true = match code {
                    "K0507" => silent.iter().any(|name| message.contains(&format!("\"{name}\""))),
                    "K0511" => true,
                    _ => false,
                };
                without += usize::from(code == "K0507");
                if !is_true {
                    faults.push(format!("{} as {kind}: {code} {message}", path.display()));
                }
            }
            judged += names.len();
        }
    }
    assert!(judged > 500 && without > 50, "{judged} functions, {without} without a value");
    assert!(faults.is_empty(), "{} reports\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn nothing_is_found_in_the_specs_but_what_they_show() {
    let mut faults = Vec::new();
    for entry in std::fs::read_dir(root().join("specs")).expect("the folder is there") {
        let folder = entry.expect("it can be read").path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == "errors" || !folder.is_dir() {
            continue;
        }
        let files = kasprc::load::files(std::slice::from_ref(&folder)).expect("specs can be read");
        let compiled = kasprc::compile(&files, &Options::default());
        let shown = |code: &str| SHOWN.contains(&(name.as_str(), code));
        let found = compiled.diagnostics.iter().filter(|fault| !shown(fault.code.name()));
        faults.extend(found.map(|fault| format!("{name}: {} {}", fault.code.name(), fault.message)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
