//! CPython's life in the process: started without signal handlers, never finalised.

use std::path::PathBuf;

use pyo3::prelude::*;

use super::{LoadError, Loading, PythonCode};

/// The started interpreter.
pub struct Interpreter {
    paths: Vec<PathBuf>,
}

impl Interpreter {
    /// Starts CPython on this thread. `paths` come first on its path; a virtual environment's
    /// packages are added, since an embedded interpreter does not see it by itself.
    pub fn start(paths: &[PathBuf]) -> Interpreter {
        // SAFETY: mallopt only tunes the allocator, before any other thread runs.
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        unsafe {
            // Freed memory stays in the process: giving it back for every batch costs more. The
            // buffers of a batch come from there too: without a threshold of its own, each would be
            // mapped and unmapped anew.
            libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 20);
            libc::mallopt(libc::M_TOP_PAD, 16 << 20);
            libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        }
        Python::initialize();
        Interpreter { paths: paths.to_vec() }
    }

    /// Runs with the thread attached: once, for the worker's life.
    pub fn run<R>(&self, run: impl FnOnce(Python<'_>) -> R) -> R {
        Python::attach(|py| {
            if let Err(error) = self.extend_path(py) {
                tracing::warn!(%error, "Python's path could not be extended");
            }
            run(py)
        })
    }

    /// Loads the blocks of a plan.
    pub fn load(&self, loading: Loading<'_>) -> Result<PythonCode, LoadError> {
        Python::attach(|py| PythonCode::load(py, loading))
    }

    fn extend_path(&self, py: Python<'_>) -> PyResult<()> {
        let path = py.import("sys")?.getattr("path")?;
        for (at, folder) in self.paths.iter().enumerate() {
            path.call_method1("insert", (at, folder.display().to_string()))?;
        }
        if let Ok(environment) = std::env::var("VIRTUAL_ENV") {
            let version = py.version_info();
            let packages = format!("{environment}/lib/python{}.{}/site-packages", version.major, version.minor);
            py.import("site")?.call_method1("addsitedir", (packages,))?;
        }
        Ok(())
    }
}

/// The version of the CPython that is linked: `3.11.7`.
pub fn version() -> String {
    // SAFETY: the call gives a static text and needs no interpreter.
    let text = unsafe { std::ffi::CStr::from_ptr(pyo3::ffi::Py_GetVersion()) };
    text.to_string_lossy().split_whitespace().next().unwrap_or_default().to_owned()
}

/// Where its library lives.
pub fn prefix(py: Python<'_>) -> String {
    let prefix = py.import("sys").and_then(|sys| sys.getattr("prefix")).and_then(|prefix| prefix.extract());
    prefix.unwrap_or_else(|_| "an unknown place".to_owned())
}

/// Ends the process. CPython is not finalised: extension modules do not survive it reliably.
pub fn exit(code: i32) -> ! {
    use std::io::Write;
    // Whoever read it may be gone.
    let _ = std::io::stdout().flush();
    // SAFETY: nothing is left to be done: streams are flushed, the loop is closed.
    unsafe { libc::_exit(code) }
}
