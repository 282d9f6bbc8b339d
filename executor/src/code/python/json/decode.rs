//! Bytes to Python objects.

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::parser::{Memory, Parser};
use super::pick::{Pick, Rest};

/// Decodes JSON. It remembers keys and shapes, so that an object like one seen before costs no
/// allocation and no hash of its keys.
pub struct Decoder {
    loads: Py<PyAny>,
    memory: Memory,
}

impl Decoder {
    /// A decoder with an empty cache.
    pub fn new(py: Python<'_>) -> PyResult<Decoder> {
        let loads = py.import("json")?.getattr("loads")?.unbind();
        Ok(Decoder { loads, memory: Memory::default() })
    }

    /// Returns what `json.loads` gives for the bytes read as UTF-8 (without BOM), or its exception.
    pub fn decode<'py>(&mut self, py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let mut parser = Parser { py, bytes, at: 0, memory: &mut self.memory };
        match parser.document() {
            Some(value) => Ok(value),
            None => self.decode_by_python(py, bytes),
        }
    }

    /// As [`Decoder::decode`]; of an object only a part, with the text of its other fields in `rest`
    /// where the pick asks for it. False: the value is whole.
    pub fn decode_part<'py>(
        &mut self,
        py: Python<'py>,
        bytes: &[u8],
        pick: &mut Pick,
        rest: Option<&mut Rest>,
    ) -> PyResult<(Bound<'py, PyAny>, bool)> {
        let mut parser = Parser { py, bytes, at: 0, memory: &mut self.memory };
        match parser.document_part(pick, rest) {
            Some(value) => Ok((value, true)),
            None => {
                // SAFETY: a fresh exception is cleared, if a call of the fast path left one.
                unsafe { ffi::PyErr_Clear() };
                self.decode(py, bytes).map(|value| (value, false))
            }
        }
    }

    /// Checks that [`Decoder::decode`] would accept the bytes.
    pub fn validate(&mut self, py: Python<'_>, bytes: &[u8]) -> PyResult<()> {
        match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
            Ok(_) if std::str::from_utf8(bytes).is_ok() => Ok(()),
            _ => self.decode_by_python(py, bytes).map(drop),
        }
    }

    fn decode_by_python<'py>(&self, py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: a fresh exception is cleared, if a call of the fast path left one.
        unsafe { ffi::PyErr_Clear() };
        let text = std::str::from_utf8(bytes).map_err(|error| PyValueError::new_err(format!("not UTF-8: {error}")))?;
        self.loads.bind(py).call1((text,))
    }
}
