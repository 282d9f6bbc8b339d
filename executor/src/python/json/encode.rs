//! Python objects to bytes.

use pyo3::exceptions::{PyRecursionError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};

use super::float;

/// Deepest nesting; `json.dumps` gives up near it, with the same exception.
const DEPTH_MAX: u32 = 980;

/// Appends the JSON of a value. On an exception nothing is appended.
pub fn encode(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let start = out.len();
    let encoded = write(value, out, None);
    if encoded.is_err() {
        out.truncate(start);
    }
    encoded
}

/// The containers around a value, innermost first: none may hold itself.
struct Around<'a> {
    container: *mut ffi::PyObject,
    depth: u32,
    outer: Option<&'a Around<'a>>,
}

fn write(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, around: Option<&Around<'_>>) -> PyResult<()> {
    let class = value.get_type_ptr();
    // SAFETY: the addresses of static types are only compared, never read.
    unsafe {
        if class == &raw mut ffi::PyUnicode_Type {
            return write_string(value, out);
        }
        if class == &raw mut ffi::PyLong_Type {
            return write_integer(value, out);
        }
        if class == &raw mut ffi::PyFloat_Type {
            float::write(ffi::PyFloat_AS_DOUBLE(value.as_ptr()), out);
            return Ok(());
        }
        if class == &raw mut ffi::PyDict_Type {
            return write_dict(value.cast_unchecked(), out, around);
        }
        if class == &raw mut ffi::PyList_Type {
            return write_list(value.cast_unchecked(), out, around);
        }
    }
    if let Some(word) = word(value) {
        out.extend_from_slice(word);
        return Ok(());
    }
    write_unusual(value, out, around)
}

/// The constants.
fn word(value: &Bound<'_, PyAny>) -> Option<&'static [u8]> {
    if value.is_none() {
        return Some(b"null");
    }
    value.cast_exact::<PyBool>().ok().map(|truth| if truth.is_true() { b"true".as_slice() } else { b"false" })
}

/// Tuples and subclasses as `json.dumps` sees them, then the extensions.
fn write_unusual(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, around: Option<&Around<'_>>) -> PyResult<()> {
    if let Ok(tuple) = value.cast::<PyTuple>() {
        let around = enter(value, around)?;
        return write_sequence(tuple.len(), |at| tuple.get_item(at).ok(), out, &around);
    }
    if value.is_instance_of::<PyString>() {
        return write_string(value, out);
    }
    if value.is_instance_of::<PyInt>() {
        return write_integer(value, out);
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        float::write(number.value(), out);
        return Ok(());
    }
    if let Ok(list) = value.cast::<PyList>() {
        return write_list(list, out, around);
    }
    if value.is_instance_of::<PyDict>() {
        // A subclass may give its pairs in its own way.
        let pairs = value.call_method0("items")?;
        let dict: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)> =
            pairs.try_iter()?.map(|pair| pair.and_then(|pair| pair.extract())).collect::<PyResult<_>>()?;
        let around = enter(value, around)?;
        return write_pairs(dict.into_iter(), out, &around);
    }
    write_extension(value, out, around)
}

/// What plain `json.dumps` would refuse.
fn write_extension(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, around: Option<&Around<'_>>) -> PyResult<()> {
    let classes = Classes::get(value.py())?;
    if classes.is_instance(value, &classes.times)? {
        return write(&value.call_method0("isoformat")?, out, around);
    }
    if classes.is_instance(value, &classes.texts)? {
        return write_string(value.str()?.as_any(), out);
    }
    let around = enter(value, around)?;
    if classes.is_instance(value, &classes.enums)? {
        return write(&value.getattr("value")?, out, Some(&around));
    }
    if classes.is_instance(value, &classes.lists)? {
        let values = PyList::empty(value.py());
        for value in value.try_iter()? {
            values.append(value?)?;
        }
        return write_sequence(values.len(), |at| values.get_item(at).ok(), out, &around);
    }
    if let Some(json) = value.getattr_opt("__json__")? {
        return write(&json.call0()?, out, Some(&around));
    }
    let class = value.get_type().name()?;
    Err(PyTypeError::new_err(format!("Object of type {class} is not JSON serializable")))
}

/// Classes of the extensions, looked up once.
struct Classes {
    times: Vec<Py<PyAny>>,
    texts: Vec<Py<PyAny>>,
    enums: Vec<Py<PyAny>>,
    lists: Vec<Py<PyAny>>,
}

impl Classes {
    fn get(py: Python<'_>) -> PyResult<&Classes> {
        static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();
        CLASSES.get_or_try_init(py, || {
            let named = |names: &[(&str, &str)]| -> PyResult<Vec<Py<PyAny>>> {
                names.iter().map(|(module, name)| Ok(py.import(*module)?.getattr(*name)?.unbind())).collect()
            };
            Ok(Classes {
                times: named(&[("datetime", "date"), ("datetime", "time")])?,
                texts: named(&[("decimal", "Decimal"), ("uuid", "UUID")])?,
                enums: named(&[("enum", "Enum")])?,
                lists: named(&[("builtins", "set"), ("builtins", "frozenset"), ("collections", "deque")])?,
            })
        })
    }

    fn is_instance(&self, value: &Bound<'_, PyAny>, classes: &[Py<PyAny>]) -> PyResult<bool> {
        for class in classes {
            if value.is_instance(class.bind(value.py()))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn enter<'a>(container: &Bound<'_, PyAny>, outer: Option<&'a Around<'a>>) -> PyResult<Around<'a>> {
    let container = container.as_ptr();
    let mut next = outer;
    while let Some(around) = next {
        if around.container == container {
            return Err(PyValueError::new_err("Circular reference detected"));
        }
        next = around.outer;
    }
    let depth = outer.map_or(0, |outer| outer.depth + 1);
    if depth > DEPTH_MAX {
        return Err(PyRecursionError::new_err("maximum recursion depth exceeded while encoding a JSON object"));
    }
    Ok(Around { container, depth, outer })
}

fn write_list(list: &Bound<'_, PyList>, out: &mut Vec<u8>, around: Option<&Around<'_>>) -> PyResult<()> {
    let around = enter(list.as_any(), around)?;
    let mut at = 0;
    out.push(b'[');
    // User code that runs meanwhile may change the list: its length is asked each time.
    while at < list.len() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        write(&list.get_item(at)?, out, Some(&around))?;
        at += 1;
    }
    out.push(b']');
    Ok(())
}

fn write_sequence<'py>(
    length: usize,
    get: impl Fn(usize) -> Option<Bound<'py, PyAny>>,
    out: &mut Vec<u8>,
    around: &Around<'_>,
) -> PyResult<()> {
    out.push(b'[');
    for at in 0..length {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        let value = get(at).ok_or_else(|| PyRuntimeError::new_err("a sequence changed while it was encoded"))?;
        write(&value, out, Some(around))?;
    }
    out.push(b']');
    Ok(())
}

fn write_dict(dict: &Bound<'_, PyDict>, out: &mut Vec<u8>, around: Option<&Around<'_>>) -> PyResult<()> {
    let around = enter(dict.as_any(), around)?;
    let size = dict.len();
    let mut position: ffi::Py_ssize_t = 0;
    let mut first = true;
    out.push(b'{');
    loop {
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the dict is alive; both pointers are borrowed and made our own before anything
        // else runs. A dict that user code changed is noticed below.
        let (key, value) = unsafe {
            if ffi::PyDict_Next(dict.as_ptr(), &raw mut position, &raw mut key, &raw mut value) == 0 {
                break;
            }
            (Bound::from_borrowed_ptr(dict.py(), key), Bound::from_borrowed_ptr(dict.py(), value))
        };
        write_pair(&key, &value, first, out, &around)?;
        first = false;
        if dict.len() != size {
            return Err(PyRuntimeError::new_err("dictionary changed size during iteration"));
        }
    }
    out.push(b'}');
    Ok(())
}

fn write_pairs<'py>(
    pairs: impl Iterator<Item = (Bound<'py, PyAny>, Bound<'py, PyAny>)>,
    out: &mut Vec<u8>,
    around: &Around<'_>,
) -> PyResult<()> {
    out.push(b'{');
    for (number, (key, value)) in pairs.enumerate() {
        write_pair(&key, &value, number == 0, out, around)?;
    }
    out.push(b'}');
    Ok(())
}

#[inline]
fn write_pair(
    key: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    first: bool,
    out: &mut Vec<u8>,
    around: &Around<'_>,
) -> PyResult<()> {
    if !first {
        out.extend_from_slice(b", ");
    }
    if key.is_instance_of::<PyString>() {
        write_string(key, out)?;
    } else {
        write_odd_key(key, out)?;
    }
    out.extend_from_slice(b": ");
    write(value, out, Some(around))
}

/// A key that is no string, as the string that `json.dumps` makes of it.
fn write_odd_key(key: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    out.push(b'"');
    if let Ok(number) = key.cast::<PyFloat>() {
        float::write(number.value(), out);
    } else if let Some(word) = word(key) {
        out.extend_from_slice(word);
    } else if key.is_instance_of::<PyInt>() {
        write_integer(key, out)?;
    } else {
        let class = key.get_type().name()?;
        return Err(PyTypeError::new_err(format!("keys must be str, int, float, bool or None, not {class}")));
    }
    out.push(b'"');
    Ok(())
}

fn write_integer(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let mut overflow = 0;
    // SAFETY: the value is an int or of a subclass; for those the call raises nothing.
    let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &raw mut overflow) };
    if overflow == 0 {
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        return Ok(());
    }
    // `int.__repr__`, whatever the subclass says of itself.
    let class: Bound<'_, PyType> = value.py().get_type::<PyInt>();
    let text = class.call_method1("__repr__", (value,))?;
    out.extend_from_slice(text.cast::<PyString>()?.to_str()?.as_bytes());
    Ok(())
}

fn write_string(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let pointer = value.as_ptr();
    out.push(b'"');
    // SAFETY: the value is a str or of a subclass, in its final form; `DATA` points to `LENGTH`
    // characters of the width that `KIND` tells, and strings do not change.
    unsafe {
        let length = usize::try_from(ffi::PyUnicode_GET_LENGTH(pointer)).expect("a length is not negative");
        let data = ffi::PyUnicode_DATA(pointer);
        match ffi::PyUnicode_KIND(pointer) {
            ffi::PyUnicode_1BYTE_KIND => write_narrow(std::slice::from_raw_parts(data.cast::<u8>(), length), out),
            ffi::PyUnicode_2BYTE_KIND => {
                let characters = std::slice::from_raw_parts(data.cast::<u16>(), length);
                characters.iter().for_each(|&character| write_character(u32::from(character), out));
            }
            _ => {
                let characters = std::slice::from_raw_parts(data.cast::<u32>(), length);
                characters.iter().for_each(|&character| write_character(character, out));
            }
        }
    }
    out.push(b'"');
    Ok(())
}

/// Characters below 256: runs of plain ones are copied whole.
fn write_narrow(characters: &[u8], out: &mut Vec<u8>) {
    let mut rest = characters;
    while !rest.is_empty() {
        let plain = rest.iter().position(|&byte| !is_plain(byte)).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        if let Some((&odd, after)) = rest.split_first() {
            write_character(u32::from(odd), out);
            rest = after;
        }
    }
}

#[inline]
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn write_character(character: u32, out: &mut Vec<u8>) {
    let short: &[u8] = match character {
        0x22 => b"\\\"",
        0x5C => b"\\\\",
        0x0A => b"\\n",
        0x0D => b"\\r",
        0x09 => b"\\t",
        0x08 => b"\\b",
        0x0C => b"\\f",
        0x20..=0x7E => return out.push(u8::try_from(character).expect("it is ASCII")),
        0x1_0000.. => {
            let rest = character - 0x1_0000;
            write_escape(0xD800 + (rest >> 10), out);
            return write_escape(0xDC00 + (rest & 0x3FF), out);
        }
        _ => return write_escape(character, out),
    };
    out.extend_from_slice(short);
}

fn write_escape(unit: u32, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(HEX[(unit >> shift & 15) as usize]);
    }
}
