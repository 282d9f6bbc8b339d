//! CPython's life in the process: started without signal handlers, never finalised.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::mem::MaybeUninit;
use std::path::PathBuf;

use pyo3::ffi;
use pyo3::prelude::*;
use tracing::warn;

use super::{LoadError, Loading, PythonCode};
use crate::guard;

const SOURCE: &str = include_str!("interpreter.py");

/// The started interpreter.
pub struct Interpreter {
    paths: Vec<PathBuf>,
}

impl Interpreter {
    /// Starts CPython on this thread, in UTF-8 mode. `paths` come first on its path, and the packages of a
    /// virtual environment before those of the system: an embedded interpreter does not find the environment
    /// by itself.
    pub fn start(paths: &[PathBuf]) -> Interpreter {
        // SAFETY: mallopt only tunes the allocator, before any other thread runs.
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        unsafe {
            // Freed memory stays in the process: giving it back for every batch costs more. The buffers of a
            // batch come from there too: without a threshold of its own, each would be mapped and unmapped
            // again.
            libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 20);
            libc::mallopt(libc::M_TOP_PAD, 16 << 20);
            libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        }
        speak_utf8();
        Python::initialize();
        // User code may change the folder.
        let paths = paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        Interpreter { paths: paths.collect() }
    }

    /// Runs a function with the thread attached: once, for the worker's life.
    pub fn run<R>(&self, run: impl FnOnce(Python<'_>) -> R) -> R {
        Python::attach(|py| {
            if let Err(error) = self.settle(py) {
                warn!(%error, "Python could not be set up as python3 sets itself up");
            }
            run(py)
        })
    }

    /// Loads the blocks of a plan.
    pub fn load(&self, loading: Loading<'_>) -> Result<PythonCode, LoadError> {
        Python::attach(|py| PythonCode::load(py, loading))
    }

    /// Runs something while variables of the environment are changed, and makes them what they were. `None`
    /// takes a variable away.
    pub fn with_variables<R>(
        &self,
        changes: &BTreeMap<String, Option<String>>,
        run: impl FnOnce() -> R,
    ) -> Result<R, String> {
        if changes.is_empty() {
            return Ok(run());
        }
        Python::attach(|py| {
            let module = py.import("kaspr_interpreter")?;
            let before = module.call_method1("change_variables", (changes.clone(),))?;
            let result = run();
            module.call_method1("restore_variables", (before,))?;
            Ok(result)
        })
        .map_err(|error: PyErr| format!("the environment cannot be changed: {error}"))
    }

    /// Paths, last words and handlers of signals, as `python3` has them.
    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        let source = CString::new(SOURCE).expect("the source holds no NUL");
        let module = PyModule::from_code(py, &source, c"<kaspr>", c"kaspr_interpreter")?;
        let folders: Vec<&OsStr> = self.paths.iter().map(|path| path.as_os_str()).collect();
        let environment = std::env::var_os("VIRTUAL_ENV").and_then(|path| std::path::absolute(path).ok());
        module.getattr("extend_path")?.call1((folders, environment.as_ref().map(|path| path.as_os_str())))?;
        module.getattr("keep_signals")?.call0()?;
        guard::name_events_of_fatal_signals();
        let signal = libc::SIGRTMAX();
        module.getattr("write_last_words")?.call1((signal,))?;
        guard::write_stack_on(signal);
        Ok(())
    }
}

/// Has CPython read and write UTF-8 whatever the locale is, as it does by itself where there is no locale;
/// only `PYTHONUTF8` changes that.
fn speak_utf8() {
    let mut config = MaybeUninit::<ffi::PyPreConfig>::uninit();
    // SAFETY: the call fills the whole structure, and the interpreter has not started.
    let status = unsafe {
        ffi::PyPreConfig_InitPythonConfig(config.as_mut_ptr());
        let mut config = config.assume_init();
        if std::env::var_os("PYTHONUTF8").is_none() {
            config.utf8_mode = 1;
        }
        ffi::Py_PreInitialize(&raw const config)
    };
    // SAFETY: it only reads the status.
    if unsafe { ffi::PyStatus_Exception(status) } != 0 {
        warn!("Python does not start in UTF-8 mode");
    }
}

/// Calls the functions that user code has registered for a signal that ends the worker, between two turns.
pub fn signalled(signal: i32) {
    Python::attach(|py| {
        let called = py.import("kaspr_interpreter").and_then(|module| module.call_method1("signalled", (signal,)));
        if let Err(error) = called {
            warn!(%error, "the handler of the signal failed");
        }
    });
}

/// The version of the CPython that is linked: `3.11.7`.
pub fn version() -> String {
    // SAFETY: the call gives a static text and needs no interpreter.
    let text = unsafe { std::ffi::CStr::from_ptr(pyo3::ffi::Py_GetVersion()) };
    text.to_string_lossy().split_whitespace().next().unwrap_or_default().to_owned()
}

/// The folder in which its library lives.
pub fn prefix(py: Python<'_>) -> String {
    let prefix = py.import("sys").and_then(|sys| sys.getattr("prefix")).and_then(|prefix| prefix.extract());
    prefix.unwrap_or_else(|_| "an unknown place".to_owned())
}

/// Ends the process. CPython is not finalised: extension modules do not survive it reliably.
pub fn exit(code: i32) -> ! {
    use std::io::Write;
    // The reader of standard output may be gone.
    let _ = std::io::stdout().flush();
    // SAFETY: nothing is left to be done: streams are flushed, the loop is closed.
    unsafe { libc::_exit(code) }
}
