//! Shared by the tests: the programs as they are built, runs of them, and comparisons.

pub mod acl;
pub mod app;
pub mod beginnings;
pub mod clock;
pub mod cluster;
pub mod compare;
pub mod counting;
pub mod http;
pub mod kafka;
pub mod load;
pub mod mounted;
pub mod pod;
pub mod process;
pub mod program;
pub mod proxy;
pub mod random;
pub mod served;
pub mod sleeps;
pub mod trouble;
pub mod verify;
pub mod watch;
pub mod wire;

use std::path::{Path, PathBuf};

// Linked for its repair of librdkafka.
use kaspr_exec as _;

/// The root of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package stands in the project").to_owned()
}

/// The golden specs: folders of `specs/` with a spec, sorted.
pub fn golden_specs() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(root().join("specs")).expect("specs/ can be read");
    let mut folders: Vec<_> = folders
        .map(|entry| entry.expect("specs/ can be read").path())
        .filter(|path| path.is_dir() && !path.ends_with("errors"))
        .collect();
    folders.sort();
    folders
}

/// Prints something that was measured: shown with `--nocapture`.
#[allow(clippy::print_stderr, reason = "figures are for people")]
pub fn figure(text: &str) {
    eprintln!("figure: {text}");
}

/// `UPDATE_EXPECT=1` rewrites golden files instead of comparing.
pub fn updates() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1")
}
