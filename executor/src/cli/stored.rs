//! The places that a run writes to: looked at before the start has any effect, opened when nothing else can fail.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kaspr_ir::plan::Plan;
use tracing::{info, warn};

use super::stop::Stop;
use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::guard::{Guard, Post};
use crate::run::assemble::Assembly;
use crate::tables::store::DurableStore;

/// The state dir of a worker, where there is one: it keeps tables, and the mark of the event that runs.
pub struct StateDir<'a> {
    plan: &'a Plan,
    app: &'a str,
    worker: u32,
    /// Named from the root: user code may change the process's folder.
    state_dir: Option<PathBuf>,
    /// The folder that the pod names and this process may not write, with the system's words. It is done without.
    refused: Option<(PathBuf, io::Error)>,
}

impl<'a> StateDir<'a> {
    /// The state dir that the settings name, for the worker of this number. User code has not run yet.
    ///
    /// One that was typed must do. One that comes from the pod and is not this user's, as a volume is that belongs to
    /// root, is done without: tables then live in memory, and are restored from their changelogs.
    pub fn new(plan: &'a Plan, settings: &Settings, (app, worker): (&'a str, u32)) -> StateDir<'a> {
        let mut kept = StateDir { plan, app, worker, state_dir: settings.state_dir(), refused: None };
        if let Some(folder) = kept.state_dir.take_if(|_| !settings.is_flag("stateDir")) {
            match can_hold_files(&folder) {
                Err(error) if is_of_another(&error) => kept.refused = Some((folder, error)),
                _ => kept.state_dir = Some(folder),
            }
        }
        kept
    }

    /// Looks whether the folder can be used, and makes nothing.
    ///
    /// # Errors
    ///
    /// As [`StateDir::open`], as far as it shows.
    pub fn look(&self) -> Result<(), Stop> {
        let Some(state_dir) = &self.state_dir else { return Ok(()) };
        let shown = state_dir.display();
        can_hold_files(state_dir)
            .map_err(|error| Stop::own_fault(format!("the state dir \"{shown}\" cannot be used: {error}")))?;
        Guard::look(self.post(state_dir)).map_err(Stop::own_fault)
    }

    /// True if a run makes the folder.
    pub fn is_missing(&self) -> bool {
        self.state_dir.as_ref().is_some_and(|folder| !folder.exists())
    }

    /// Opens the folder, and has the worker keep its tables and its mark there. Nothing has run yet. A plan
    /// without tables needs no store.
    ///
    /// # Errors
    ///
    /// The folder cannot be used, or another process has it. Another worker need not meet that.
    pub fn open(&self, assembly: Assembly, clock: &Rc<dyn Clock>) -> Result<Assembly, Stop> {
        if let Some((folder, error)) = &self.refused {
            warn!(
                folder = %folder.display(),
                %error,
                "the state dir cannot be written: tables are kept in memory and restored at each start, and an event that ends the process is not recognised when it comes again; let the pod's user write it: template.pod.securityContext.fsGroup: 10001"
            );
            return Ok(assembly);
        }
        let Some(state_dir) = &self.state_dir else {
            info!("no state dir: an event that ends the process is not recognised when it comes again");
            return Ok(assembly);
        };
        let assembly = match self.plan.tables.is_empty() {
            true => assembly,
            false => {
                let names: Vec<&str> = self.plan.tables.iter().map(|table| table.name.as_str()).collect();
                let store = DurableStore::open(state_dir, self.worker, &names, clock.clone());
                assembly.with_store(Box::new(store.map_err(Stop::own_fault)?))
            }
        };
        assembly.with_guard(|guard| guard.keep_in(self.post(state_dir))).map_err(Stop::own_fault)
    }

    fn post<'b>(&'b self, state_dir: &'b Path) -> Post<'b> {
        Post { state_dir, worker: self.worker, app: self.app, revision: &self.plan.revision }
    }
}

/// Looks whether files can be made in a folder that exists, or that could be made.
pub fn can_hold_files(folder: &Path) -> io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let nearest = folder.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(&folder);
    if !nearest.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("\"{}\" is no folder", nearest.display())));
    }
    // A file without a name, which is gone when it is closed.
    match OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(nearest) {
        Err(error) if !is_unsupported(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Looks whether a file can be written, or made.
pub fn can_be_written(file: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).open(file).map(drop::<File>) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = std::path::absolute(file)?;
            let folder = folder.parent().unwrap_or(&folder);
            // The folder itself is not made for it.
            folder.metadata().and_then(|_| can_hold_files(folder))
        }
        other => other,
    }
}

/// True if a folder is there for others to write: another user's, or a read-only volume.
fn is_of_another(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// True if the file system has no files without names: then the first write shows what is wrong.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_made_is_known_and_nothing_is_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "kept").expect("written");
        for new in ["new", "new/deep/er"] {
            can_hold_files(&path(new)).expect("it could be made");
        }
        for no in ["file", "file/deeper"] {
            let error = can_hold_files(&path(no)).expect_err("a file stands in the way");
            assert!(error.to_string().contains("is no folder"), "{error}");
        }
        for file in ["file", "new"] {
            can_be_written(&path(file)).expect("it can be written");
        }
        assert!(can_be_written(&path("new/file")).is_err() && can_be_written(folder.path()).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 1);
        assert_eq!(std::fs::read(path("file")).expect("it is there"), b"kept");
    }
}
