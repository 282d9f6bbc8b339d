//! A part of an object: a few fields are decoded, the text of the rest is judged and kept.
//!
//! What is passed over must be JSON like all else. Its text stands for it when the object is encoded
//! again, if that text is what encoding its value would give (*written as CPython writes it*); a
//! field of which this is not certain is decoded like those that were asked for.

use std::ops::Range;

use kaspr_ir::plan::Part;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::expected::{Expected, FIELDS_MAX};
use super::keys::{KEY_BYTES_MAX, ShapeKey};
use super::parser::{DEPTH_MAX, DIGITS_EXACT, Parser};
use super::scan;
use super::text::{ascii, set};

/// Longest integer that is passed over. CPython refuses longer ones than `sys.set_int_max_str_digits` allows:
/// 4300 digits by default, and never fewer than 640.
const DIGITS_MAX: usize = 600;
/// Most fields of an object whose text is kept.
const INNER_FIELDS_MAX: usize = 16;
/// Objects in a row whose fields did not come as expected, after which their fields are expected.
const SURPRISES_MAX: u8 = 4;

/// The part of an object that is decoded.
pub struct Pick {
    fields: Vec<ShapeKey>,
    /// The fields as the last objects had them: events of a topic look alike.
    expected: Vec<Expected>,
    surprises: u8,
    /// True if the text of the other fields is kept.
    pub keeps_text: bool,
}

impl Pick {
    /// The fields' keys, made once. `None`: one of them is not plain ASCII.
    pub fn new(py: Python<'_>, part: &Part) -> Option<Pick> {
        let key = |field: &String| ShapeKey::of(&PyString::new(py, field), &mut 0);
        let fields = part.fields.iter().map(key).collect::<Option<Vec<_>>>()?;
        // One surprise short of the bound, so that the very first object is learned from.
        Some(Pick { fields, expected: Vec::new(), surprises: SURPRISES_MAX - 1, keeps_text: part.keeps_text })
    }

    /// The names of the fields.
    #[cfg(test)]
    pub fn names(&self) -> Vec<String> {
        self.fields.iter().map(|field| Python::attach(|py| field.object(py).to_string())).collect()
    }

    #[inline]
    fn find(&self, text: &[u8]) -> Option<(&ShapeKey, usize)> {
        self.fields.iter().find_map(|field| Some((field, field.begins(text)?)))
    }

    /// The number of the field with this key, its quotes with it, if it is decoded.
    pub(super) fn place(&self, key: &[u8]) -> Option<usize> {
        self.fields.iter().position(|field| field.begins(key).is_some())
    }

    /// Notes whether the fields of an object came as expected.
    #[inline]
    fn learn(&mut self, parser: &mut Parser<'_, '_>, is_expected: bool) {
        if is_expected {
            self.surprises = 0;
            return;
        }
        // Not at every surprise: where two shapes alternate, learning each time costs more than it saves.
        self.surprises = (self.surprises + 1) % SURPRISES_MAX;
        if self.surprises == 0 {
            self.expected = parser.expected(self).unwrap_or_default();
        }
    }
}

/// The part of an object that was not decoded, and the places in it of the fields that were.
#[derive(Debug, Default)]
pub struct Rest {
    text: Vec<u8>,
    /// The pieces, in the object's order.
    pieces: Vec<Piece>,
    /// Keys of the fields that were passed over, except those that came as expected.
    keys: Vec<Range<usize>>,
}

/// A stretch of an object.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Fields as CPython would write them.
    Fields(Range<usize>),
    /// A field whose key and value are as CPython would write them, but not what stands between them.
    Field(Range<usize>, Range<usize>),
    /// The next field of the part.
    Decoded,
}

impl Rest {
    /// The pieces of the object, in its order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> {
        self.pieces.iter().cloned()
    }

    /// The text of a stretch.
    pub fn text(&self, stretch: Range<usize>) -> &[u8] {
        &self.text[stretch]
    }

    fn restart(&mut self, text: &[u8]) {
        self.text.clear();
        self.pieces.clear();
        self.keys.clear();
        self.text.extend_from_slice(text);
    }

    /// Notes a key behind fields that came as expected. False: it has been seen, or there is no room for it.
    fn is_new(&mut self, key: Range<usize>, expected: &[Expected]) -> bool {
        let text = &self.text[key.clone()];
        let passed = expected.iter().filter(|seen| seen.field.is_none()).count();
        let is_new = passed + self.keys.len() < FIELDS_MAX
            && !self.keys.iter().any(|seen| self.text[seen.clone()] == *text)
            && !expected.iter().any(|seen| seen.key() == text);
        self.keys.push(key);
        is_new
    }

    fn keep(&mut self, key: Range<usize>, value: Range<usize>) {
        if &self.text[key.end..value.start] != b": " {
            return self.pieces.push(Piece::Field(key, value));
        }
        // Neighbours become one stretch: encoding copies few long pieces.
        match self.pieces.last_mut() {
            Some(Piece::Fields(run)) if &self.text[run.end..key.start] == b", " => run.end = value.end,
            _ => self.pieces.push(Piece::Fields(key.start..value.end)),
        }
    }
}

impl<'py> Parser<'_, 'py> {
    /// The document if it is an object, with a part of its fields. `None` where the fast path does
    /// not apply.
    pub(super) fn document_part(&mut self, pick: &mut Pick, mut rest: Option<&mut Rest>) -> Option<Bound<'py, PyAny>> {
        if self.next()? != b'{' {
            return None;
        }
        self.at += 1;
        let dict = PyDict::new(self.py);
        if let Some(rest) = &mut rest {
            rest.restart(self.bytes);
        }
        let is_expected = if self.next()? == b'}' {
            self.at += 1;
            true
        } else {
            self.fields(&dict, pick, rest)?
        };
        self.skip_space();
        if self.at != self.bytes.len() {
            return None;
        }
        pick.learn(self, is_expected);
        Some(dict.into_any())
    }

    /// Reads the fields from the first key to behind the end. False: they did not come as expected.
    #[inline]
    fn fields(&mut self, dict: &Bound<'py, PyDict>, pick: &Pick, mut rest: Option<&mut Rest>) -> Option<bool> {
        for (number, expected) in pick.expected.iter().enumerate() {
            // Comma, key, colon and spaces in one comparison: what is as expected needs no scan.
            let Some(length) = expected.start.begins(&self.bytes[self.at..]) else {
                return self.fields_behind(dict, pick, number, rest);
            };
            let from = self.at;
            self.at += length;
            match expected.field {
                Some(field) => self.picked(dict, &pick.fields[field], rest.as_deref_mut())?,
                None => self.passed_like(dict, expected, from, rest.as_deref_mut())?,
            }
        }
        if self.next()? == b'}' {
            self.at += 1;
            return Some(true);
        }
        self.fields_behind(dict, pick, pick.expected.len(), rest)
    }

    /// Reads the fields after the first `number`, which came as expected.
    #[inline(never)]
    fn fields_behind(
        &mut self,
        dict: &Bound<'py, PyDict>,
        pick: &Pick,
        number: usize,
        mut rest: Option<&mut Rest>,
    ) -> Option<bool> {
        let expected = &pick.expected[..number];
        let mut goes_on = number == 0 || self.goes_on(b'}')?;
        while goes_on {
            goes_on = self.field(dict, pick, expected, rest.as_deref_mut())?;
        }
        Some(false)
    }

    /// Reads a field and what follows it; false behind the object's last.
    fn field(
        &mut self,
        dict: &Bound<'py, PyDict>,
        pick: &Pick,
        expected: &[Expected],
        rest: Option<&mut Rest>,
    ) -> Option<bool> {
        (self.next()? == b'"').then_some(())?;
        match pick.find(&self.bytes[self.at..]) {
            Some((field, length)) => {
                self.at += length;
                self.colon()?;
                self.picked(dict, field, rest)?;
            }
            None => {
                let key = self.at..self.plain_text_end()?;
                self.at = key.end;
                self.colon()?;
                self.passed(dict, key, expected, rest)?;
            }
        }
        self.goes_on(b'}')
    }

    /// Decodes the value of a field that was asked for.
    #[inline]
    fn picked(&mut self, dict: &Bound<'py, PyDict>, field: &ShapeKey, rest: Option<&mut Rest>) -> Option<()> {
        // The last value of a key that comes twice wins, as in CPython.
        let known = dict.len();
        let value = self.value(1)?;
        set(dict, field.object(self.py), &value)?;
        // A key that comes again keeps its place.
        if let Some(rest) = rest
            && dict.len() > known
        {
            rest.pieces.push(Piece::Decoded);
        }
        Some(())
    }

    /// Passes over the value of a field that came as expected, behind a value that ends at `from`.
    #[inline]
    fn passed_like(
        &mut self,
        dict: &Bound<'py, PyDict>,
        expected: &Expected,
        from: usize,
        rest: Option<&mut Rest>,
    ) -> Option<()> {
        let behind = self.at;
        self.next()?;
        let start = self.at;
        let is_as_written = match self.pass_like(&expected.inner) {
            Some(is_as_written) => is_as_written,
            None => {
                self.at = start;
                self.pass(1)?
            }
        };
        let Some(rest) = rest else {
            return Some(());
        };
        if is_as_written {
            match rest.pieces.last_mut() {
                // The field goes on where the stretch before it ends.
                Some(Piece::Fields(run)) if run.end == from && start == behind && expected.is_as_written => {
                    run.end = self.at;
                }
                _ => rest.keep(expected.key_from(from), start..self.at),
            }
            return Some(());
        }
        self.decoded(dict, expected.key_from(from), start, rest)
    }

    /// Passes over the value of another field, behind those that came as expected.
    fn passed(
        &mut self,
        dict: &Bound<'py, PyDict>,
        key: Range<usize>,
        expected: &[Expected],
        rest: Option<&mut Rest>,
    ) -> Option<()> {
        self.next()?;
        let start = self.at;
        let is_as_written = self.pass(1)?;
        let Some(rest) = rest else {
            return Some(());
        };
        // A key that comes again takes the place of its first: only the whole path knows how.
        if !rest.is_new(key.clone(), expected) {
            return None;
        }
        if is_as_written {
            rest.keep(key, start..self.at);
            return Some(());
        }
        self.decoded(dict, key, start, rest)
    }

    /// Decodes a value that was passed over: its own text would differ from what `json.dumps` gives for it.
    fn decoded(&mut self, dict: &Bound<'py, PyDict>, key: Range<usize>, start: usize, rest: &mut Rest) -> Option<()> {
        self.at = start;
        let value = self.value(1)?;
        // A key that got here holds no escape, so its bytes are its text.
        let key = self.seldom(&self.bytes[key.start + 1..key.end - 1])?;
        set(dict, &key, &value)?;
        rest.pieces.push(Piece::Decoded);
        Some(())
    }

    /// A key as an object; those that are long are not remembered.
    fn seldom(&mut self, key: &[u8]) -> Option<Bound<'py, PyAny>> {
        if key.len() > KEY_BYTES_MAX {
            return ascii(self.py, key);
        }
        self.memory.keys.get(self.py, key).map(|(key, _)| key)
    }

    /// Passes over a value that is well-formed. True: it is written as CPython writes it.
    #[inline(always)]
    pub(super) fn pass(&mut self, depth: u32) -> Option<bool> {
        // Texts and numbers, which most values are, cost no call.
        match self.next()? {
            b'"' => self.pass_text(),
            b'-' | b'0'..=b'9' => self.pass_number(),
            first => self.pass_other(first, depth),
        }
    }

    #[inline(never)]
    fn pass_other(&mut self, first: u8, depth: u32) -> Option<bool> {
        match first {
            b'{' | b'[' if depth >= DEPTH_MAX => None,
            b'{' => self.pass_object(depth),
            b'[' => self.pass_array(depth),
            b't' => self.word(b"true").then_some(true),
            b'f' => self.word(b"false").then_some(true),
            b'n' => self.word(b"null").then_some(true),
            _ => None,
        }
    }

    fn pass_object(&mut self, depth: u32) -> Option<bool> {
        let mut is_as_written = true;
        let mut keys = [const { 0..0 }; INNER_FIELDS_MAX];
        let mut count = 0;
        self.at += 1;
        match self.bytes.get(self.at)? {
            b'"' => {}
            b'}' => {
                self.at += 1;
                return Some(true);
            }
            _ => is_as_written = false,
        }
        if self.next()? == b'}' {
            self.at += 1;
            return Some(false);
        }
        loop {
            (self.next()? == b'"').then_some(())?;
            let key = self.at..self.text_end(&mut is_as_written)?;
            self.at = key.end;
            let same = |seen: &Range<usize>| self.bytes[seen.clone()] == self.bytes[key.clone()];
            // Encoded, a key that comes twice stands once. With more keys than are compared, that cannot be told.
            is_as_written &= count < INNER_FIELDS_MAX && !keys[..count].iter().any(same);
            if count < INNER_FIELDS_MAX {
                keys[count] = key;
                count += 1;
            }
            is_as_written &= self.mark(b':')?;
            is_as_written &= self.pass(depth + 1)?;
            match self.end_or_comma(b'}')? {
                Mark::End(plain) => return Some(is_as_written & plain),
                Mark::Comma(plain) => is_as_written &= plain,
            }
        }
    }

    fn pass_array(&mut self, depth: u32) -> Option<bool> {
        let mut is_as_written = true;
        self.at += 1;
        let start = self.at;
        if self.next()? == b']' {
            self.at += 1;
            // Space between the brackets is not what CPython writes.
            return Some(self.at == start + 1);
        }
        is_as_written &= self.at == start;
        loop {
            is_as_written &= self.pass(depth + 1)?;
            match self.end_or_comma(b']')? {
                Mark::End(plain) => return Some(is_as_written & plain),
                Mark::Comma(plain) => is_as_written &= plain,
            }
        }
    }

    /// Reads a mark and the space after it. True: it is one space, and none before the mark.
    #[inline(always)]
    fn mark(&mut self, mark: u8) -> Option<bool> {
        let start = self.at;
        (self.next()? == mark).then_some(())?;
        let is_first = self.at == start;
        self.at += 1;
        let is_spaced = self.bytes.get(self.at) == Some(&b' ');
        self.next()?;
        Some(is_first && is_spaced && self.at == start + 2)
    }

    #[inline(always)]
    fn end_or_comma(&mut self, end: u8) -> Option<Mark> {
        let start = self.at;
        match self.next()? {
            b',' => {
                self.at = start;
                self.mark(b',').map(Mark::Comma)
            }
            byte if byte == end => {
                let is_first = self.at == start;
                self.at += 1;
                Some(Mark::End(is_first))
            }
            _ => None,
        }
    }

    /// Reads a comma, or the end: then false.
    #[inline(always)]
    pub(super) fn goes_on(&mut self, end: u8) -> Option<bool> {
        let byte = self.next()?;
        self.at += 1;
        (byte == b',' || byte == end).then_some(byte == b',')
    }

    /// The end of a text, its quotes with it, that is written as CPython writes it.
    #[inline]
    pub(super) fn plain_text_end(&self) -> Option<usize> {
        let end = scan::written_end(self.bytes, self.at + 1)?;
        (self.bytes[end] == b'"').then_some(end + 1)
    }

    #[inline(always)]
    fn pass_text(&mut self) -> Option<bool> {
        let mut is_as_written = true;
        self.at = self.text_end(&mut is_as_written)?;
        Some(is_as_written)
    }

    /// The end of any text, its quotes with it.
    #[inline(always)]
    fn text_end(&self, is_as_written: &mut bool) -> Option<usize> {
        let end = scan::written_end(self.bytes, self.at + 1)?;
        if self.bytes[end] == b'"' {
            return Some(end + 1);
        }
        *is_as_written = false;
        self.odd_text_end(end)
    }

    #[cold]
    fn odd_text_end(&self, mut end: usize) -> Option<usize> {
        let start = self.at + 1;
        loop {
            match self.bytes[end] {
                b'"' => break,
                // 0x7F is ASCII, and still `json.dumps` escapes it: it leaves only what lies between space and
                // tilde.
                0x7F.. => end += 1,
                b'\\' => end = self.escape_end(end + 1)?,
                _ => return None,
            }
            end = scan::written_end(self.bytes, end)?;
        }
        // Bytes that are no UTF-8 are a failure in a field that is passed over, too.
        std::str::from_utf8(&self.bytes[start..end]).is_ok().then_some(end + 1)
    }

    /// The end of the escape whose backslash stands before `at`.
    fn escape_end(&self, at: usize) -> Option<usize> {
        match self.bytes.get(at)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
            b'u' => {
                let digits = self.bytes.get(at + 1..at + 5)?;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(at + 5)
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn pass_number(&mut self) -> Option<bool> {
        let start = self.at;
        let digits = self.pass_digits();
        // A short integer that begins with no zero and no sign is what most numbers are.
        let is_plain = (1..=DIGITS_EXACT).contains(&digits)
            && self.bytes[start] != b'0'
            && !matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        if is_plain {
            return Some(true);
        }
        self.at = start;
        self.pass_odd_number()
    }

    /// Passes over digits, and returns how many they were.
    #[inline(always)]
    fn pass_digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - start
    }

    #[inline(never)]
    fn pass_odd_number(&mut self) -> Option<bool> {
        let is_negative = self.peek()? == b'-';
        self.at += usize::from(is_negative);
        let first = self.at;
        let (_, digits) = self.digits(0)?;
        let has_zero = self.bytes[first] == b'0';
        if digits > 1 && has_zero || digits > DIGITS_MAX {
            return None;
        }
        // `-0` is the integer 0 and is written so; with a fraction, which is judged below, the sign stays.
        let mut is_as_written = !(is_negative && has_zero);
        if self.peek() == Some(b'.') {
            self.at += 1;
            let start = self.at;
            let (_, places) = self.digits(0)?;
            // So few digits survive the way through a float; of more, `repr` may give others.
            is_as_written = digits + places <= DIGITS_EXACT && is_shortest(&self.bytes[start..self.at], has_zero);
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            is_as_written = false;
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits(0)?;
        }
        Some(is_as_written)
    }
}

/// True if few digits behind a point are those that `repr` gives: no zero at the end but the only one, and no
/// number so small that it is written with an exponent.
fn is_shortest(places: &[u8], is_small: bool) -> bool {
    (places.len() == 1 || places.last() != Some(&b'0')) && !(is_small && places.starts_with(b"0000"))
}

/// The character that follows a value in an object or a list; true: without more space than CPython writes.
enum Mark {
    Comma(bool),
    End(bool),
}
