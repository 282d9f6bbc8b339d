//! The documents say what the programs do.

use std::path::{Path, PathBuf};

use kaspr_tests::program::{command, run, stderr, stdout};
use kaspr_tests::{root, updates};

const BEGIN: &str = "<!-- fields: begin -->\n";
const END: &str = "<!-- fields: end -->";

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_reference_of_fields_is_what_kasprc_prints() {
    let page = read("docs/agents.md");
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the fields");
    let (written, after) = rest.split_once(END).expect("the place has an end");
    let output = run("kasprc", &["fields", "--markdown"], "");
    let printed = format!("\n{}\n", stdout(&output));
    assert!(output.status.success(), "{}", stderr(&output));
    if updates() {
        let page = format!("{before}{BEGIN}{printed}{END}{after}");
        std::fs::write(root().join("docs/agents.md"), page).expect("the page can be written");
    } else {
        assert!(
            written == printed,
            "docs/agents.md differs from `kasprc fields --markdown`: UPDATE_EXPECT=1 rewrites it"
        );
    }
}

#[test]
fn the_plan_in_the_readme_is_what_kasprc_prints() {
    let output = command("kasprc", &["compile", "specs/validate-and-enrich/agent.yaml"]).current_dir(root()).output();
    let plan = stdout(&output.expect("kasprc runs"));
    let readme = read("README.md");
    assert!(readme.contains(plan.trim_end()), "README.md does not hold this plan:\n{plan}");
    let spec = read("specs/validate-and-enrich/agent.yaml");
    assert!(readme.contains(spec.trim_end()), "README.md does not hold specs/validate-and-enrich/agent.yaml");
}

/// Pages that are written for readers.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    let docs = std::fs::read_dir(root().join("docs")).expect("docs/ can be read");
    pages.extend(docs.map(|entry| entry.expect("docs/ can be read").path()));
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages
}

/// The heading of an anchor as GitHub writes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>().replace(' ', "-")
}

fn broken_links(page: &Path, text: &str) -> Vec<String> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let is_broken = |link: &&str| {
        if link.starts_with("http") {
            return false;
        }
        let (file, part) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { page.to_owned() } else { page.with_file_name(file) };
        if part.is_empty() {
            return !target.exists();
        }
        let text = std::fs::read_to_string(&target).unwrap_or_default();
        !text.lines().any(|line| line.starts_with('#') && anchor(line) == part)
    };
    links.filter(is_broken).map(|link| format!("{}: {link}", page.display())).collect()
}

#[test]
fn all_links_lead_somewhere() {
    let broken: Vec<String> = pages()
        .iter()
        .flat_map(|page| broken_links(page, &std::fs::read_to_string(page).expect("a page can be read")))
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    let page = root().join("README.md");
    assert_eq!(broken_links(&page, "[a](docs/none.md) [b](#none) [c](README.md)").len(), 2);
}
