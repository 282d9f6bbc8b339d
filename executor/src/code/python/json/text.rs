//! Strings and pairs, made without a detour.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::scan;

/// Puts a pair into a dict.
#[inline]
pub(super) fn set(dict: &Bound<'_, PyDict>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> Option<()> {
    // SAFETY: all three are alive; the dict takes its own references.
    let set = unsafe { ffi::PyDict_SetItem(dict.as_ptr(), key.as_ptr(), value.as_ptr()) };
    (set == 0).then_some(())
}

/// A string of ASCII bytes.
#[inline]
pub fn ascii<'py>(py: Python<'py>, text: &[u8]) -> Option<Bound<'py, PyAny>> {
    let length = ffi::Py_ssize_t::try_from(text.len()).ok()?;
    // SAFETY: a new string of this length and kind has room for exactly these bytes, and no other code sees
    // it yet. An empty string is shared and holds nothing to be written.
    unsafe {
        let object = ffi::PyUnicode_New(length, 127);
        if !object.is_null() && length > 0 {
            let room = std::slice::from_raw_parts_mut(ffi::PyUnicode_1BYTE_DATA(object), text.len());
            scan::copy(text, room);
        }
        Bound::from_owned_ptr_or_opt(py, object)
    }
}

/// A string of UTF-8 bytes, if they are that.
pub(super) fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Option<Bound<'py, PyAny>> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(PyString::new(py, text).into_any())
}
