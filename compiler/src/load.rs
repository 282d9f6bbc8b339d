//! Paths to files: the only place where the compiler touches the disk.
//!
//! `crate::compile` is a pure function of texts; the programs call [`files`] first and give it the result.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::source::SourceFile;

/// A path could not be read.
///
/// Both programs show it as it is and end with status 2: wrong use, not a faulty spec.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system says no.
    #[error("cannot read \"{path}\": {error}")]
    Unreadable {
        /// The path as given.
        path: String,
        /// The reason.
        error: std::io::Error,
    },
    /// A folder without specs.
    #[error("the folder \"{0}\" holds no *.yaml or *.yml files")]
    Empty(String),
}

/// The files of the paths, sorted by path and each once: an app is the same in whatever order it is
/// named. A file is read as it is, of a folder (and those below it) `*.yaml` and `*.yml`, `-` is
/// standard input. `tests.yaml` belongs to the tests, not to the app.
///
/// ```text
/// ["specs", "extra.yaml"]   ⇒   extra.yaml, specs/agent.yaml, specs/eu/tables.yml       (not specs/tests.yaml)
/// ```
///
/// # Errors
/// A path that cannot be read, or a folder in which nothing is found. Faults in the files are for `compile`.
pub fn files(paths: &[PathBuf]) -> Result<Vec<SourceFile>, LoadError> {
    let mut names = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut found = specs_in(path)?;
            if found.is_empty() {
                return Err(LoadError::Empty(path.display().to_string()));
            }
            names.append(&mut found);
        } else {
            names.push(path.clone());
        }
    }
    names.sort();
    // A file that is named and lies in a named folder too is one file. Two spellings of its path would be two.
    names.dedup();
    names.iter().map(|path| read(path)).collect()
}

/// The reason for which there are no specs in a folder that another process fills: it is not there, or holds none.
/// `None`: there are some, or [`files`] has an error to tell.
pub fn missing(folder: &Path) -> Option<String> {
    if !folder.exists() {
        return Some(format!("there is no folder \"{}\"", folder.display()));
    }
    let is_empty = specs_in(folder).is_ok_and(|found| found.is_empty());
    is_empty.then(|| LoadError::Empty(folder.display().to_string()).to_string())
}

/// The paths of the specs in a folder and in those below it, in any order.
fn specs_in(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let mut found = Vec::new();
    walk(folder, &mut Vec::new(), &mut found)?;
    Ok(found)
}

/// Adds the specs of a folder and of those below it, in any order. Kubernetes keeps what it mounts in folders whose
/// names begin with `..`, with a link to each file beside them: those are the specs.
fn walk(folder: &Path, above: &mut Vec<PathBuf>, found: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    let unreadable = |error| LoadError::Unreadable { path: folder.display().to_string(), error };
    if leads_back(folder, above) {
        return Ok(());
    }
    above.push(folder.to_owned());
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_spec = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if path.is_dir() {
            let is_of_a_mount = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
            if !is_of_a_mount {
                walk(&path, above, found)?;
            }
        } else if is_spec && path.file_name().is_none_or(|name| name != "tests.yaml") {
            found.push(path);
        }
    }
    above.pop();
    Ok(())
}

/// True if a folder is a link to one of those above it, so that a walk into it would never end.
pub fn leads_back(folder: &Path, above: &[PathBuf]) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    // Asked of links alone: nothing else leads up.
    folder.is_symlink() && real(folder).is_some_and(|here| above.iter().any(|path| real(path).as_ref() == Some(&here)))
}

/// Reads one file, or standard input for `-`.
fn read(path: &Path) -> Result<SourceFile, LoadError> {
    let name = path.display().to_string();
    let unreadable = |error| LoadError::Unreadable { path: path.display().to_string(), error };
    if name == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map_err(unreadable)?;
        return Ok(SourceFile { name: "<stdin>".to_owned(), bytes });
    }
    Ok(SourceFile { name, bytes: std::fs::read(path).map_err(unreadable)? })
}
