//! Bytes to Python objects.

use std::ffi::CString;

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

/// Nesting up to which the fast path follows; deeper text is given to `json.loads`.
const DEPTH_MAX: u32 = 128;
/// Places in the cache of keys: one object a place, the newest wins.
const KEYS: usize = 1024;
/// Longest key that is cached, in bytes.
const KEY_BYTES_MAX: usize = 48;

/// Decodes JSON. It remembers keys, so that a key seen before costs no allocation and no hash.
pub struct Decoder {
    loads: Py<PyAny>,
    keys: Vec<Option<Key>>,
    /// Room for strings with escapes.
    unescaped: Vec<u8>,
}

struct Key {
    text: Box<[u8]>,
    object: Py<PyString>,
}

impl Decoder {
    /// A decoder with an empty cache.
    pub fn new(py: Python<'_>) -> PyResult<Decoder> {
        let loads = py.import("json")?.getattr("loads")?.unbind();
        Ok(Decoder { loads, keys: (0..KEYS).map(|_| None).collect(), unescaped: Vec::new() })
    }

    /// What `json.loads` gives for the bytes read as UTF-8 (without BOM), or its exception.
    pub fn decode<'py>(&mut self, py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let mut parser = Parser { py, bytes, at: 0, decoder: self };
        match parser.document() {
            Some(value) => Ok(value),
            None => self.decode_by_python(py, bytes),
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

/// Reads one document. Every method gives `None` where the fast path does not apply.
struct Parser<'a, 'py> {
    py: Python<'py>,
    bytes: &'a [u8],
    at: usize,
    decoder: &'a mut Decoder,
}

impl<'py> Parser<'_, 'py> {
    fn document(&mut self) -> Option<Bound<'py, PyAny>> {
        let value = self.value(0)?;
        self.skip_space();
        (self.at == self.bytes.len()).then_some(value)
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: u32) -> Option<Bound<'py, PyAny>> {
        self.skip_space();
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string()
            }
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word(b"true").then(|| self.singleton(true)),
            b'f' => self.word(b"false").then(|| self.singleton(false)),
            b'n' => self.word(b"null").then(|| self.py.None().into_bound(self.py)),
            _ => None,
        }
    }

    fn singleton(&self, value: bool) -> Bound<'py, PyAny> {
        pyo3::types::PyBool::new(self.py, value).to_owned().into_any()
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let is = self.bytes[self.at..].starts_with(word);
        self.at += if is { word.len() } else { 0 };
        is
    }

    fn object(&mut self, depth: u32) -> Option<Bound<'py, PyAny>> {
        if depth >= DEPTH_MAX {
            return None;
        }
        self.at += 1;
        let dict = PyDict::new(self.py);
        self.skip_space();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(dict.into_any());
        }
        loop {
            self.skip_space();
            if self.peek()? != b'"' {
                return None;
            }
            self.at += 1;
            let key = self.key()?;
            self.skip_space();
            if self.peek()? != b':' {
                return None;
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            // SAFETY: all three are alive; the dict takes its own references.
            let set = unsafe { ffi::PyDict_SetItem(dict.as_ptr(), key.as_ptr(), value.as_ptr()) };
            if set != 0 {
                return None;
            }
            self.skip_space();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(dict.into_any());
                }
                _ => return None,
            }
        }
    }

    fn array(&mut self, depth: u32) -> Option<Bound<'py, PyAny>> {
        if depth >= DEPTH_MAX {
            return None;
        }
        self.at += 1;
        let list = PyList::empty(self.py);
        self.skip_space();
        if self.peek()? == b']' {
            self.at += 1;
            return Some(list.into_any());
        }
        loop {
            let value = self.value(depth + 1)?;
            // SAFETY: both are alive; the list takes its own reference.
            if unsafe { ffi::PyList_Append(list.as_ptr(), value.as_ptr()) } != 0 {
                return None;
            }
            self.skip_space();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Some(list.into_any());
                }
                _ => return None,
            }
        }
    }

    /// A key: from the cache where it was seen before.
    fn key(&mut self) -> Option<Bound<'py, PyAny>> {
        let start = self.at;
        let end = self.plain_end()?;
        let text = &self.bytes[start..end];
        if self.bytes[end] != b'"' || text.len() > KEY_BYTES_MAX {
            return self.string();
        }
        self.at = end + 1;
        let place = place(text);
        if let Some(key) = &self.decoder.keys[place]
            && *key.text == *text
        {
            return Some(key.object.bind(self.py).clone().into_any());
        }
        let object = ascii(self.py, text)?;
        // Its hash is kept in the object from here on.
        object.hash().ok()?;
        let key = Key { text: text.into(), object: object.clone().cast_into::<PyString>().ok()?.unbind() };
        self.decoder.keys[place] = Some(key);
        Some(object)
    }

    /// The first byte from here on that is no plain ASCII of a string: a quote, a backslash, a
    /// control character, or the start of a longer character.
    #[inline]
    fn plain_end(&self) -> Option<usize> {
        let mut at = self.at;
        while let Some(chunk) = self.bytes.get(at..at + 8) {
            let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
            let stops = stops(word);
            if stops != 0 {
                return Some(at + (stops.trailing_zeros() / 8) as usize);
            }
            at += 8;
        }
        let rest = self.bytes.get(at..)?;
        let stop = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\' || byte >= 0x80)?;
        Some(at + stop)
    }

    /// A string behind its opening quote.
    fn string(&mut self) -> Option<Bound<'py, PyAny>> {
        let start = self.at;
        let mut end = self.plain_end()?;
        if self.bytes[end] == b'"' {
            self.at = end + 1;
            return ascii(self.py, &self.bytes[start..end]);
        }
        let mut has_escapes = false;
        self.decoder.unescaped.clear();
        loop {
            match *self.bytes.get(end)? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    let at = self.at;
                    self.decoder.unescaped.extend_from_slice(&self.bytes[at..end]);
                    self.at = end + 1;
                    self.escape()?;
                    end = self.at;
                }
                0x80.. => end += 1,
                0..0x20 => return None,
                _ => end += 1,
            }
        }
        let rest = &self.bytes[self.at..end];
        self.at = end + 1;
        if !has_escapes {
            return text(self.py, &self.bytes[start..end]);
        }
        self.decoder.unescaped.extend_from_slice(rest);
        text(self.py, &self.decoder.unescaped)
    }

    /// An escape behind its backslash, appended as UTF-8. Lone surrogates are CPython's to judge.
    fn escape(&mut self) -> Option<()> {
        let byte = self.peek()?;
        self.at += 1;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.escape_unicode(),
            _ => return None,
        };
        self.decoder.unescaped.push(plain);
        Some(())
    }

    fn escape_unicode(&mut self) -> Option<()> {
        let first = self.hex()?;
        let code = match first {
            0xD800..=0xDBFF => {
                if !self.word(b"\\u") {
                    return None;
                }
                let second = self.hex()?;
                if !(0xDC00..=0xDFFF).contains(&second) {
                    return None;
                }
                0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)
            }
            code => code,
        };
        let mut room = [0; 4];
        self.decoder.unescaped.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut room).as_bytes());
        Some(())
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |code, &digit| Some(code * 16 + (digit as char).to_digit(16)?))
    }

    fn number(&mut self) -> Option<Bound<'py, PyAny>> {
        let start = self.at;
        let negative = self.peek()? == b'-';
        self.at += usize::from(negative);
        let first = self.at;
        let mut integer: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            integer = integer.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - first;
        if digits == 0 || digits > 1 && self.bytes[first] == b'0' {
            return None;
        }
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return self.float(start);
        }
        if digits > 18 {
            return self.big_integer(start);
        }
        let integer = i64::try_from(integer).ok()?;
        let integer = if negative { -integer } else { integer };
        // SAFETY: the call gives a new reference or null with an exception.
        unsafe { Bound::from_owned_ptr_or_opt(self.py, ffi::PyLong_FromLongLong(integer)) }
    }

    fn float(&mut self, start: usize) -> Option<Bound<'py, PyAny>> {
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).expect("digits are ASCII");
        // Correctly rounded, as CPython's is.
        let float: f64 = text.parse().ok()?;
        Some(pyo3::types::PyFloat::new(self.py, float).into_any())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn big_integer(&self, start: usize) -> Option<Bound<'py, PyAny>> {
        let digits = CString::new(&self.bytes[start..self.at]).ok()?;
        // SAFETY: the text ends with a NUL; null comes with an exception, which the slow path clears.
        unsafe {
            let integer = ffi::PyLong_FromString(digits.as_ptr(), std::ptr::null_mut(), 10);
            Bound::from_owned_ptr_or_opt(self.py, integer)
        }
    }
}

/// Bytes of a word that end a run of plain ASCII, as the high bits of those bytes.
#[inline]
fn stops(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    // Below the first true stop no bit is set by mistake: borrows only travel upwards.
    zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control | (word & HIGH)
}

/// The cache's place for a key: FNV-1a over its ends and its length.
#[inline]
fn place(text: &[u8]) -> usize {
    let mut hash: u64 = 0xCBF2_9CE4_8422_2325 ^ text.len() as u64;
    for &byte in text {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    (hash ^ (hash >> 32)) as usize % KEYS
}

/// A string of ASCII bytes.
#[inline]
fn ascii<'py>(py: Python<'py>, text: &[u8]) -> Option<Bound<'py, PyAny>> {
    let length = ffi::Py_ssize_t::try_from(text.len()).ok()?;
    // SAFETY: a new string of this length and kind has room for exactly these bytes, and nobody
    // else sees it yet. An empty string is shared and holds nothing to be written.
    unsafe {
        let object = ffi::PyUnicode_New(length, 127);
        if !object.is_null() && length > 0 {
            std::ptr::copy_nonoverlapping(text.as_ptr(), ffi::PyUnicode_1BYTE_DATA(object), text.len());
        }
        Bound::from_owned_ptr_or_opt(py, object)
    }
}

/// A string of UTF-8 bytes, if they are that.
fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Option<Bound<'py, PyAny>> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(PyString::new(py, text).into_any())
}
