//! The pages of codes: each has a spec that raises it, its expected output, and the mended spec.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

use kaspr_tests::program::{command, run, stderr, stdout};
use kaspr_tests::{root, updates};
use kasprc::diagnostics::Code;

/// `kasprc check FILE`, in the folder of the file, with what `arguments.txt` adds.
fn check(folder: &Path, file: &str) -> Output {
    let arguments = std::fs::read_to_string(folder.join("arguments.txt")).unwrap_or_default();
    command("kasprc", &["check", file])
        .current_dir(folder)
        .args(arguments.split_whitespace())
        .output()
        .expect("kasprc runs")
}

#[test]
fn every_code_has_a_page_that_says_what_is_so() {
    let mut faults = Vec::new();
    for code in Code::ALL {
        let (name, stands) = (code.name(), format!("specs/errors/{}", code.folder()));
        let folder = root().join(&stands);
        let page = std::fs::read_to_string(folder.join("page.md")).unwrap_or_default();
        let title = format!("# {name}: {}\n", code.title());
        if !page.starts_with(&title) || page.len() < title.len() + 80 {
            faults.push(format!("{stands}/page.md must begin with {title:?} and explain it"));
        }
        let broken = check(&folder, "broken.yaml");
        let said = stderr(&broken);
        if updates() {
            std::fs::write(folder.join("expected.txt"), &said).expect("a golden file can be written");
        }
        let expected = std::fs::read_to_string(folder.join("expected.txt")).unwrap_or_default();
        if said != expected || !said.contains(&format!("[{name}]")) {
            faults.push(format!("of {stands}/broken.yaml is said:\n{said}"));
        }
        let mended = check(&folder, "mended.yaml");
        if !mended.status.success() || stderr(&mended).contains(name) {
            faults.push(format!("{stands}/mended.yaml is not mended:\n{}", stderr(&mended)));
        }
    }
    assert!(faults.is_empty(), "\n{}\n(UPDATE_EXPECT=1 rewrites what is said)", faults.join("\n\n"));
}

#[test]
fn every_folder_is_a_codes() {
    let folders: BTreeSet<String> = std::fs::read_dir(root().join("specs/errors"))
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .collect();
    let codes: BTreeSet<String> = Code::ALL.iter().map(|code| code.folder().to_owned()).collect();
    assert_eq!(folders, codes);
}

#[test]
fn a_page_is_explained() {
    let output = run("kasprc", &["--explain", "k0201"], "");
    let text = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(text.starts_with("K0201: the pipeline names an operation that is not defined\n\n"), "{text}");
    for part in
        ["A spec that raises it:", "      - chekc\n", "kasprc says:", "error[K0201]", "Mended:", "      - check\n"]
    {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let output = run("kasprc", &["--explain", "K0210"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("there is no such code; did you mean K0"), "{}", stderr(&output));
}
