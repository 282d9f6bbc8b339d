//! The parser beside CPython, over the standard library's own sources.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::read;

/// CPython's judgement of each file: `1.2` (its version), then `ok PATH` or `no PATH`.
const JUDGE: &str = r#"
import ast, pathlib, sys, sysconfig, warnings
warnings.simplefilter("ignore")
print("%d.%d" % sys.version_info[:2])
for path in sorted(pathlib.Path(sysconfig.get_path("stdlib")).rglob("*.py")):
    if "site-packages" in path.parts:
        continue
    try:
        text = path.read_bytes().decode("utf-8")
        if "\x00" in text or text.startswith("\ufeff") or "coding" in text[:200]:
            continue
    except UnicodeDecodeError:
        continue
    try:
        compile(text, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        print("no", path)
    except (RecursionError, MemoryError):
        pass
    else:
        print("ok", path)
"#;

/// The version and the verdicts.
fn verdicts() -> ((u8, u8), Vec<(bool, PathBuf)>) {
    let output = Command::new("python3").args(["-c", JUDGE]).output().expect("python3 is on the PATH");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.split_once('.')).expect("the version comes first");
    let verdicts = lines.map(|line| (line.starts_with("ok "), PathBuf::from(&line[3..]))).collect();
    ((version.0.parse().expect("a number"), version.1.parse().expect("a number")), verdicts)
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| matches!(part.as_os_str().to_str(), Some("test" | "tests" | "lib2to3" | "idlelib")))
}

#[test]
fn the_standard_library_is_judged_as_by_cpython() {
    let (version, verdicts) = verdicts();
    assert!(verdicts.len() > 500, "only {} files", verdicts.len());
    let mut differences = Vec::new();
    let mut undefined = Vec::new();
    let mut loose = Vec::new();
    for (accepted, path) in &verdicts {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        if text.len() > 128 << 10 {
            continue;
        }
        let module = read(&text, version);
        if module.is_read() != *accepted {
            differences.push(format!("{}: CPython {accepted}, {:?}", path.display(), module.faults.first()));
        }
        if !is_test(path) {
            let names = module.loose.iter().filter_map(|loose| {
                let own = loose.is_dropped && loose.names.len() == 1 && module.coroutines.contains(&loose.names[0]);
                let library = loose.blocks(&module.imports).or_else(|| loose.drops_of_library(&module.imports));
                library.or_else(|| own.then(|| loose.names[0].clone()))
            });
            loose.extend(names.map(|name| format!("{}: {name}", path.display())));
        }
        if !is_test(path) && !module.hides_names {
            undefined.extend(module.unresolved.iter().map(|name| format!("{}: {}", path.display(), name.name)));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(undefined.is_empty(), "{}", undefined.join("\n"));
    assert!(loose.is_empty(), "{}", loose.join("\n"));
}
