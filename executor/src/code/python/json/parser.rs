//! Reads JSON text on the fast path, which refuses what is unusual.

use std::ffi::CString;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::keys::{Keys, Place, Shape, Values};
use super::scan;
use super::text::{ascii, set, text};

/// Nesting up to which the fast path follows; deeper text is given to `json.loads`.
pub(super) const DEPTH_MAX: u32 = 128;

/// So many decimal digits, and powers of ten up to there, are exact as floats: then a division is
/// correctly rounded (Clinger 1990).
pub(super) const DIGITS_EXACT: usize = 15;
const TENS: [f64; DIGITS_EXACT + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Memory that is kept from one document to the next.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) keys: Keys,
    /// Room for strings with escapes.
    unescaped: Vec<u8>,
}

/// Reads one document. Every method gives `None` where the fast path does not apply.
pub(super) struct Parser<'a, 'py> {
    pub(super) py: Python<'py>,
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    pub(super) memory: &'a mut Memory,
}

impl<'py> Parser<'_, 'py> {
    pub(super) fn document(&mut self) -> Option<Bound<'py, PyAny>> {
        let value = self.value(0)?;
        self.skip_space();
        (self.at == self.bytes.len()).then_some(value)
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline(always)]
    pub(super) fn skip_space(&mut self) {
        // One comparison lets most bytes leave here: the four spaces are told apart only below it.
        while let Some(byte @ 0..=b' ') = self.peek() {
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return;
            }
            self.at += 1;
        }
    }

    /// The next byte that is no space.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<u8> {
        self.skip_space();
        self.peek()
    }

    pub(super) fn value(&mut self, depth: u32) -> Option<Bound<'py, PyAny>> {
        match self.next()? {
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

    pub(super) fn word(&mut self, word: &[u8]) -> bool {
        let is = self.bytes[self.at..].starts_with(word);
        self.at += if is { word.len() } else { 0 };
        is
    }

    fn object(&mut self, depth: u32) -> Option<Bound<'py, PyAny>> {
        if depth >= DEPTH_MAX {
            return None;
        }
        self.at += 1;
        match self.next()? {
            b'"' => self.at += 1,
            b'}' => {
                self.at += 1;
                return Some(PyDict::new(self.py).into_any());
            }
            _ => return None,
        }
        let (key, place) = self.key()?;
        self.colon()?;
        if let Some(shape) = place.and_then(|place| self.memory.keys.shape(place)) {
            return self.object_like(&shape, place, depth);
        }
        let value = self.value(depth + 1)?;
        let dict = PyDict::new(self.py);
        set(&dict, &key, &value)?;
        self.rest(dict, place, depth)
    }

    /// An object whose first key is that of a shape: as long as the next key is the shape's next,
    /// it is only compared.
    fn object_like(&mut self, shape: &Shape, place: Option<Place>, depth: u32) -> Option<Bound<'py, PyAny>> {
        let mut values = Values::new();
        loop {
            values.push(self.value(depth + 1)?);
            match self.next()? {
                b',' => {
                    let comma = self.at;
                    self.at += 1;
                    self.skip_space();
                    match shape.follows(values.len(), &self.bytes[self.at..]) {
                        Some(length) => self.at += length,
                        None => {
                            // `rest` begins with the comma, and reads the key once more as any other.
                            self.at = comma;
                            return self.rest(shape.begun(self.py, values)?, place, depth);
                        }
                    }
                    self.colon()?;
                }
                b'}' if values.len() == shape.len() => {
                    self.at += 1;
                    return shape.filled(self.py, values);
                }
                b'}' => return self.rest(shape.begun(self.py, values)?, place, depth),
                _ => return None,
            }
        }
    }

    /// Reads what follows a value of an object, up to the object's end.
    fn rest(&mut self, dict: Bound<'py, PyDict>, place: Option<Place>, depth: u32) -> Option<Bound<'py, PyAny>> {
        loop {
            match self.next()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    if let Some(place) = place {
                        self.memory.keys.learn(place, &dict);
                    }
                    return Some(dict.into_any());
                }
                _ => return None,
            }
            if self.next()? != b'"' {
                return None;
            }
            self.at += 1;
            let (key, _) = self.key()?;
            self.colon()?;
            let value = self.value(depth + 1)?;
            set(&dict, &key, &value)?;
        }
    }

    #[inline(always)]
    pub(super) fn colon(&mut self) -> Option<()> {
        (self.next()? == b':').then(|| self.at += 1)
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

    /// A key, and its place in the cache if it is plain.
    fn key(&mut self) -> Option<(Bound<'py, PyAny>, Option<Place>)> {
        let end = scan::plain_end(self.bytes, self.at)?;
        let text = &self.bytes[self.at..end];
        if self.bytes[end] != b'"' || text.len() > super::keys::KEY_BYTES_MAX {
            return Some((self.string()?, None));
        }
        self.at = end + 1;
        let (object, place) = self.memory.keys.get(self.py, text)?;
        Some((object, Some(place)))
    }

    /// A string behind its opening quote.
    fn string(&mut self) -> Option<Bound<'py, PyAny>> {
        let start = self.at;
        let mut end = scan::plain_end(self.bytes, self.at)?;
        if self.bytes[end] == b'"' {
            self.at = end + 1;
            return ascii(self.py, &self.bytes[start..end]);
        }
        let mut has_escapes = false;
        self.memory.unescaped.clear();
        loop {
            match *self.bytes.get(end)? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    let at = self.at;
                    self.memory.unescaped.extend_from_slice(&self.bytes[at..end]);
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
        self.memory.unescaped.extend_from_slice(rest);
        text(self.py, &self.memory.unescaped)
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
        self.memory.unescaped.push(plain);
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
            // A low surrogate without a high one ends up here too, and is no `char`: the next step refuses it.
            code => code,
        };
        let mut room = [0; 4];
        self.memory.unescaped.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut room).as_bytes());
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
        let (integer, digits) = self.digits(0)?;
        // The slow path words the refusal as CPython does.
        if digits > 1 && self.bytes[first] == b'0' {
            return None;
        }
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return self.float(start, (integer, digits, negative));
        }
        // Nineteen digits may pass what an i64 holds.
        if digits > 18 {
            return self.big_integer(start);
        }
        let integer = i64::try_from(integer).ok()?;
        let integer = if negative { -integer } else { integer };
        // SAFETY: the call gives a new reference or null with an exception.
        unsafe { Bound::from_owned_ptr_or_opt(self.py, ffi::PyLong_FromLongLong(integer)) }
    }

    /// A number with a fraction or an exponent; its whole part, digits and sign are read already.
    fn float(&mut self, start: usize, (whole, digits, negative): (u64, usize, bool)) -> Option<Bound<'py, PyAny>> {
        if self.peek() == Some(b'.') {
            self.at += 1;
            let (number, places) = self.digits(whole)?;
            // Both are exact as floats then, and one division rounds once: the result is the correct one.
            let is_short = digits + places <= DIGITS_EXACT && !matches!(self.peek(), Some(b'e' | b'E'));
            if is_short {
                // Negated only afterwards, so that -0.0 keeps its sign, which an integer could not carry.
                let float = number as f64 / TENS[places];
                return Some(pyo3::types::PyFloat::new(self.py, if negative { -float } else { float }).into_any());
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits(0)?;
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).expect("digits are ASCII");
        // Correctly rounded, as CPython's is.
        let float: f64 = text.parse().ok()?;
        Some(pyo3::types::PyFloat::new(self.py, float).into_any())
    }

    /// Digits, at least one: the number that they make behind `before`, and how many they are.
    #[inline]
    pub(super) fn digits(&mut self, before: u64) -> Option<(u64, usize)> {
        let start = self.at;
        let mut number = before;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            // May wrap: callers take the number only where the count of digits says that it cannot have.
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        (self.at > start).then_some((number, self.at - start))
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
