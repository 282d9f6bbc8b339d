//! Python objects to bytes.

use std::cell::RefCell;

use pyo3::exceptions::{PyRecursionError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};

use super::pick::{Piece, Rest};
use super::{float, scan};

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

/// As [`encode`], for an object of which a part was decoded: `rest` has the text of its other fields.
pub fn encode_part(part: &Bound<'_, PyDict>, rest: &Rest, out: &mut Vec<u8>) -> PyResult<()> {
    let start = out.len();
    let encoded = write_part(part, rest, out);
    if encoded.is_err() {
        out.truncate(start);
    }
    encoded
}

fn write_part(part: &Bound<'_, PyDict>, rest: &Rest, out: &mut Vec<u8>) -> PyResult<()> {
    let around = enter(part.as_any(), None)?;
    let mut fields = Fields::of(part);
    out.push(b'{');
    for piece in rest.pieces() {
        match piece {
            Piece::Fields(run) => {
                fields.separate(out);
                out.extend_from_slice(rest.text(run));
            }
            Piece::Field(key, value) => {
                fields.separate(out);
                out.extend_from_slice(rest.text(key));
                out.extend_from_slice(b": ");
                out.extend_from_slice(rest.text(value));
            }
            // Those that were decoded come first in the part, in the object's order.
            Piece::Decoded => drop(fields.write_next(out, &around)?),
        }
    }
    while fields.write_next(out, &around)? {}
    out.push(b'}');
    Ok(())
}

/// The containers around a value, innermost first: none may hold itself.
struct Around<'a> {
    container: *mut ffi::PyObject,
    depth: u32,
    outer: Option<&'a Around<'a>>,
}

fn write(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, around: Option<&Around<'_>>) -> PyResult<()> {
    if write_leaf(value.as_borrowed(), out) {
        return Ok(());
    }
    write_branch(value, out, around)
}

/// Writes a value of the plain types that hold no others. No user code runs meanwhile, so the value needs no
/// owned reference.
#[inline]
fn write_leaf(value: Borrowed<'_, '_, PyAny>, out: &mut Vec<u8>) -> bool {
    let class = value.get_type_ptr();
    // SAFETY: the addresses of static types are only compared, never read; the type is what the
    // function that is called next wants.
    unsafe {
        if class == &raw mut ffi::PyUnicode_Type {
            write_string(value, out);
        } else if class == &raw mut ffi::PyLong_Type {
            return write_short_integer(value, out);
        } else if class == &raw mut ffi::PyFloat_Type {
            float::write(ffi::PyFloat_AS_DOUBLE(value.as_ptr()), out);
        } else if let Some(word) = word(value) {
            out.extend_from_slice(word);
        } else {
            return false;
        }
    }
    true
}

/// Writes what is no leaf.
fn write_branch(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, around: Option<&Around<'_>>) -> PyResult<()> {
    let class = value.get_type_ptr();
    // SAFETY: the addresses of static types are only compared, never read; the casts are to the
    // type that was found.
    unsafe {
        if class == &raw mut ffi::PyDict_Type {
            return write_dict(value.cast_unchecked(), out, around);
        }
        if class == &raw mut ffi::PyList_Type {
            return write_list(value.cast_unchecked(), out, around);
        }
    }
    write_unusual(value, out, around)
}

/// The text of a constant: `null`, `true` or `false`; `None`: the value is another.
#[inline]
fn word(value: Borrowed<'_, '_, PyAny>) -> Option<&'static [u8]> {
    let pointer = value.as_ptr();
    // SAFETY: the addresses of the constants are only compared.
    unsafe {
        if pointer == ffi::Py_True() {
            Some(b"true")
        } else if pointer == ffi::Py_False() {
            Some(b"false")
        } else {
            (pointer == ffi::Py_None()).then_some(b"null")
        }
    }
}

/// Tuples and subclasses as `json.dumps` sees them, then the extensions.
fn write_unusual(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, around: Option<&Around<'_>>) -> PyResult<()> {
    if let Ok(tuple) = value.cast::<PyTuple>() {
        let around = enter(value, around)?;
        return write_sequence(tuple.len(), |at| tuple.get_item(at).ok(), out, &around);
    }
    if value.is_instance_of::<PyString>() {
        write_string(value.as_borrowed(), out);
        return Ok(());
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

/// Writes values that plain `json.dumps` would refuse.
fn write_extension(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, around: Option<&Around<'_>>) -> PyResult<()> {
    let classes = Classes::get(value.py())?;
    if classes.is_instance(value, &classes.times)? {
        return write(&value.call_method0("isoformat")?, out, around);
    }
    if classes.is_instance(value, &classes.texts)? {
        write_string(value.str()?.as_any().as_borrowed(), out);
        return Ok(());
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
    let mut fields = Fields::of(dict);
    out.push(b'{');
    while fields.write_next(out, &around)? {}
    out.push(b'}');
    Ok(())
}

/// The fields of a dict, written one after the other.
struct Fields<'a, 'py> {
    dict: &'a Bound<'py, PyDict>,
    size: usize,
    position: ffi::Py_ssize_t,
    is_first: bool,
}

impl<'a, 'py> Fields<'a, 'py> {
    fn of(dict: &'a Bound<'py, PyDict>) -> Fields<'a, 'py> {
        Fields { dict, size: dict.len(), position: 0, is_first: true }
    }

    /// Writes the separator of two fields.
    #[inline]
    fn separate(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.is_first, false) {
            out.extend_from_slice(b", ");
        }
    }

    /// Writes the next field; false: there is none.
    #[inline]
    fn write_next(&mut self, out: &mut Vec<u8>, around: &Around<'_>) -> PyResult<bool> {
        let dict = self.dict;
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the dict is alive; both pointers are borrowed, and made our own before user code
        // runs. A dict that it changed is noticed below.
        let (key, value) = unsafe {
            if ffi::PyDict_Next(dict.as_ptr(), &raw mut self.position, &raw mut key, &raw mut value) == 0 {
                return Ok(false);
            }
            (Borrowed::from_ptr(dict.py(), key), Borrowed::from_ptr(dict.py(), value))
        };
        let is_first = std::mem::replace(&mut self.is_first, false);
        if write_known_key(key, is_first, out) {
            if !write_leaf(value, out) {
                write_branch(&value.to_owned(), out, Some(around))?;
            }
        } else {
            write_pair(&key.to_owned(), &value.to_owned(), is_first, out, around)?;
        }
        if dict.len() != self.size {
            return Err(PyRuntimeError::new_err("dictionary changed size during iteration"));
        }
        Ok(true)
    }
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
        write_string(key.as_borrowed(), out);
    } else {
        write_odd_key(key, out)?;
    }
    out.extend_from_slice(b": ");
    write(value, out, Some(around))
}

/// Most keys that are remembered with their text, and the longest text in bytes.
const KNOWN: usize = 256;
const TEXT_BYTES_MAX: usize = 32;

/// A key that was written before.
struct Known {
    key: Py<PyAny>,
    /// The key in its quotes and the colon, and room that is copied with them: then the copy is as
    /// long as the compiler knows.
    text: [u8; TEXT_BYTES_MAX],
    length: usize,
    /// It was written again since another key wanted its place.
    is_used: bool,
}

thread_local! {
    /// Keys by the address of their object, which is held: so no other has its address.
    static KNOWN_KEYS: RefCell<Vec<Option<Known>>> = const { RefCell::new(Vec::new()) };
}

/// Writes a key that is an exact `str` with what stands around it; false where it is another.
/// Literals of user code and keys that the decoder has seen are the same objects every time: their
/// text is kept.
#[inline]
fn write_known_key(key: Borrowed<'_, '_, PyAny>, is_first: bool, out: &mut Vec<u8>) -> bool {
    if key.get_type_ptr() != &raw mut ffi::PyUnicode_Type {
        return false;
    }
    if !is_first {
        out.extend_from_slice(b", ");
    }
    let address = key.as_ptr() as usize;
    let place = (address >> 4 ^ address >> 12) % KNOWN;
    KNOWN_KEYS.with_borrow_mut(|known| {
        let start = out.len();
        if let Some(Some(known)) = known.get_mut(place)
            && known.key.as_ptr() == key.as_ptr()
        {
            out.extend_from_slice(&known.text);
            out.truncate(start + known.length);
            known.is_used = true;
            return;
        }
        write_string(key, out);
        out.extend_from_slice(b": ");
        remember(known, place, key, &out[start..]);
    });
    true
}

fn remember(known: &mut Vec<Option<Known>>, place: usize, key: Borrowed<'_, '_, PyAny>, written: &[u8]) {
    if written.len() > TEXT_BYTES_MAX {
        return;
    }
    if known.is_empty() {
        known.resize_with(KNOWN, || None);
    }
    if let Some(other) = &mut known[place]
        && std::mem::take(&mut other.is_used)
    {
        return;
    }
    let mut text = [0; TEXT_BYTES_MAX];
    text[..written.len()].copy_from_slice(written);
    known[place] = Some(Known { key: key.to_owned().unbind(), text, length: written.len(), is_used: false });
}

/// A key that is no string, as the string that `json.dumps` makes of it.
fn write_odd_key(key: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    out.push(b'"');
    if let Ok(number) = key.cast::<PyFloat>() {
        float::write(number.value(), out);
    } else if let Some(word) = word(key.as_borrowed()) {
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

/// An int that fits into 64 bits.
#[inline]
fn write_short_integer(value: Borrowed<'_, '_, PyAny>, out: &mut Vec<u8>) -> bool {
    let mut overflow = 0;
    // SAFETY: the value is an int or of a subclass; for those the call raises nothing.
    let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &raw mut overflow) };
    if overflow == 0 {
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }
    overflow == 0
}

fn write_integer(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    if write_short_integer(value.as_borrowed(), out) {
        return Ok(());
    }
    // `int.__repr__`, whatever the subclass says of itself.
    let class: Bound<'_, PyType> = value.py().get_type::<PyInt>();
    let text = class.call_method1("__repr__", (value,))?;
    out.extend_from_slice(text.cast::<PyString>()?.to_str()?.as_bytes());
    Ok(())
}

fn write_string(value: Borrowed<'_, '_, PyAny>, out: &mut Vec<u8>) {
    let pointer = value.as_ptr();
    out.push(b'"');
    // SAFETY: the value is a str or of a subclass, in its final form; `DATA` points to `LENGTH` characters of
    // the width that `KIND` gives, and strings do not change.
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
}

/// Characters below 256: plain ones eight at a time. The last eight are written over those before
/// them, so that no rest is left.
#[inline]
fn write_narrow(characters: &[u8], out: &mut Vec<u8>) {
    out.reserve(characters.len() + 1);
    let start = out.len();
    let (words, rest) = characters.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        if scan::escapes(u64::from_le_bytes(*word)) != 0 {
            return write_odd(&characters[8 * number..], out);
        }
        out.extend_from_slice(word);
    }
    match characters.last_chunk::<8>() {
        Some(last) if scan::escapes(u64::from_le_bytes(*last)) == 0 => {
            out.truncate(start + characters.len() - 8);
            out.extend_from_slice(last);
        }
        _ => write_odd(rest, out),
    }
}

/// Few characters, or such as are escaped: one at a time.
fn write_odd(characters: &[u8], out: &mut Vec<u8>) {
    for &character in characters {
        if is_plain(character) {
            out.push(character);
        } else {
            write_character(u32::from(character), out);
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
