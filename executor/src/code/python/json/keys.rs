//! Keys and shapes that were seen before.
//!
//! Events of a topic look alike. A *shape* is the keys of an object in their order, with a dict that
//! holds them: an object of the same shape is a copy of that dict with its values put in, and its
//! keys are compared, not hashed. It is found by the object's first key.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::rc::Rc;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::scan;
use super::text::ascii;

/// Places in the cache of keys: one object a place, the newest wins.
const PLACES: usize = 1024;
/// Longest key that is cached, in bytes.
pub const KEY_BYTES_MAX: usize = 48;
/// Most keys of a shape.
const SHAPE_KEYS_MAX: usize = 32;
/// Objects of another shape in a row after which that shape is learnt.
const SURPRISES_MAX: u8 = 4;
/// Most keys that are interned: some versions of CPython never give those back.
const INTERNED_MAX: usize = 4096;

/// A place in the cache.
#[derive(Clone, Copy)]
pub struct Place(usize);

struct Key {
    text: Box<[u8]>,
    object: Py<PyAny>,
    /// The shape of objects that begin with it.
    shape: Option<Rc<Shape>>,
    /// Objects that began with it and had no shape of its.
    surprises: Cell<u8>,
}

/// Keys by their text.
pub struct Keys {
    places: Vec<Option<Key>>,
    interned: usize,
}

impl Default for Keys {
    fn default() -> Keys {
        Keys { places: (0..PLACES).map(|_| None).collect(), interned: 0 }
    }
}

impl Keys {
    /// The object of a key of plain ASCII.
    #[inline]
    pub fn get<'py>(&mut self, py: Python<'py>, text: &[u8]) -> Option<(Bound<'py, PyAny>, Place)> {
        let place = place(text);
        if let Some(key) = &self.places[place]
            && *key.text == *text
        {
            return Some((key.object.bind(py).clone(), Place(place)));
        }
        let object = ascii(py, text)?;
        // Its hash is kept in the object from here on.
        object.hash().ok()?;
        self.places[place] =
            Some(Key { text: text.into(), object: object.clone().unbind(), shape: None, surprises: Cell::default() });
        Some((object, Place(place)))
    }

    /// The shape that an object beginning with this key may have.
    #[inline]
    pub fn shape(&self, place: Place) -> Option<Rc<Shape>> {
        self.places[place.0].as_ref()?.shape.clone()
    }

    /// Notes an object that was not of its key's shape.
    pub fn learn(&mut self, place: Place, dict: &Bound<'_, PyDict>) {
        let Some(key) = &mut self.places[place.0] else {
            return;
        };
        let surprises = key.shape.as_ref().map_or(&key.surprises, |shape| &shape.surprises);
        surprises.set((surprises.get() + 1) % SURPRISES_MAX);
        if surprises.get() == 0 && dict.len() <= SHAPE_KEYS_MAX {
            let shape = Shape::of(dict, &mut self.interned);
            // Another key may have taken the place meanwhile: then it keeps what it had.
            if let Some(shape) = shape.filter(|shape| shape.begins_with(&key.text)) {
                key.shape = Some(Rc::new(shape));
            }
        }
    }
}

/// The cache's place for a key, by its length, its first eight bytes and its last eight.
#[inline]
fn place(text: &[u8]) -> usize {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let (first, last) = match (text.first_chunk(), text.last_chunk()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (text.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)), 0),
    };
    let hash = (first ^ last.rotate_left(23) ^ text.len() as u64).wrapping_mul(ODD);
    (hash >> 40) as usize % PLACES
}

/// The keys of an object, in their order.
pub struct Shape {
    keys: Vec<ShapeKey>,
    /// All keys, without values.
    template: Py<PyDict>,
    /// Objects in a row that began like this shape and had another.
    surprises: Cell<u8>,
}

/// A key of plain ASCII that is looked for in text.
pub struct ShapeKey {
    /// With its quotes.
    text: Text,
    object: Py<PyAny>,
}

/// Text that is looked for where other text begins.
pub struct Text {
    text: Box<[u8]>,
    /// Its first bytes, in words, and which of their bits count.
    words: [u128; WORDS],
    masks: [u128; WORDS],
}

/// Words of 16 bytes that are compared in one step each.
const WORDS: usize = 2;

impl Text {
    pub fn new(text: &[u8]) -> Text {
        let (mut first, mut counts) = ([0; 16 * WORDS], [0; 16 * WORDS]);
        let count = text.len().min(16 * WORDS);
        first[..count].copy_from_slice(&text[..count]);
        counts[..count].fill(0xFF);
        let words = |bytes: &[u8; 16 * WORDS]| {
            std::array::from_fn(|word| {
                u128::from_le_bytes(bytes[16 * word..][..16].try_into().expect("a word is that long"))
            })
        };
        Text { text: text.into(), words: words(&first), masks: words(&counts) }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The length of this text, if the given text begins with it.
    #[inline(always)]
    pub fn begins(&self, text: &[u8]) -> Option<usize> {
        let length = self.text.len();
        let is = |chunk: &[u8; 16], word: usize| u128::from_le_bytes(*chunk) & self.masks[word] == self.words[word];
        let Some(chunk) = text.first_chunk() else {
            return text.starts_with(&self.text).then_some(length);
        };
        if !is(chunk, 0) {
            return None;
        }
        if length <= 16 {
            return Some(length);
        }
        match text[16..].first_chunk() {
            Some(chunk) if length <= 16 * WORDS => is(chunk, 1).then_some(length),
            _ => text[16..].starts_with(&self.text[16..]).then_some(length),
        }
    }
}

impl Shape {
    fn of(dict: &Bound<'_, PyDict>, interned: &mut usize) -> Option<Shape> {
        let template = PyDict::new(dict.py());
        let mut keys = Vec::with_capacity(dict.len());
        for key in dict.keys() {
            let key = ShapeKey::of(key.cast().ok()?, interned)?;
            template.set_item(&key.object, dict.py().None()).ok()?;
            keys.push(key);
        }
        Some(Shape { keys, template: template.unbind(), surprises: Cell::default() })
    }

    fn begins_with(&self, text: &[u8]) -> bool {
        self.keys.first().is_some_and(|key| key.text.text[1..key.text.text.len() - 1] == *text)
    }

    /// Number of its keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The length of key `number` with its quotes, if the text goes on with it.
    #[inline(always)]
    pub fn follows(&self, number: usize, text: &[u8]) -> Option<usize> {
        self.keys.get(number)?.begins(text)
    }

    /// An object of this shape.
    pub fn filled<'py>(&self, py: Python<'py>, values: Values<'py>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: the template is a dict that is alive; null comes with an exception.
        let dict = unsafe { Bound::from_owned_ptr_or_opt(py, ffi::PyDict_Copy(self.template.as_ptr()))? };
        self.set(&dict, &values)?;
        self.surprises.set(0);
        Some(dict)
    }

    /// An object that has begun like this shape, and goes on with other keys.
    pub fn begun<'py>(&self, py: Python<'py>, values: Values<'py>) -> Option<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        self.set(dict.as_any(), &values)?;
        Some(dict)
    }

    #[inline]
    fn set(&self, dict: &Bound<'_, PyAny>, values: &Values<'_>) -> Option<()> {
        for (key, value) in self.keys.iter().zip(values.as_slice()) {
            // SAFETY: all three are alive; the dict takes its own references.
            if unsafe { ffi::PyDict_SetItem(dict.as_ptr(), key.object.as_ptr(), value.as_ptr()) } != 0 {
                return None;
            }
        }
        Some(())
    }
}

impl ShapeKey {
    /// The key's length with its quotes, if the text begins with it in quotes.
    #[inline(always)]
    pub fn begins(&self, text: &[u8]) -> Option<usize> {
        self.text.begins(text)
    }

    /// The key as an object.
    pub fn object<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.object.bind(py)
    }

    /// `None` where the key is not plain ASCII. It is interned: then it is the same object as the
    /// literals of user code, and lookups find it by its address.
    pub fn of(key: &Bound<'_, PyString>, interned: &mut usize) -> Option<ShapeKey> {
        let plain = key.to_str().ok()?;
        let object = if *interned < INTERNED_MAX { PyString::intern(key.py(), plain) } else { key.clone() };
        *interned += 1;
        let text = format!("\"{plain}\"").into_bytes();
        if scan::plain_end(&text, 1) != Some(text.len() - 1) {
            return None;
        }
        Some(ShapeKey { text: Text::new(&text), object: object.into_any().unbind() })
    }
}

/// Values of an object that is being read, without an allocation.
pub struct Values<'py> {
    count: usize,
    room: [MaybeUninit<Bound<'py, PyAny>>; SHAPE_KEYS_MAX],
}

impl<'py> Values<'py> {
    #[inline(always)]
    pub fn new() -> Values<'py> {
        Values { count: 0, room: [const { MaybeUninit::uninit() }; SHAPE_KEYS_MAX] }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// Adds a value; a shape has no more keys than there is room.
    #[inline(always)]
    pub fn push(&mut self, value: Bound<'py, PyAny>) {
        self.room[self.count].write(value);
        self.count += 1;
    }

    fn as_slice(&self) -> &[Bound<'py, PyAny>] {
        // SAFETY: the first `count` are initialised, and nothing else writes to them.
        unsafe { std::slice::from_raw_parts(self.room.as_ptr().cast(), self.count) }
    }
}

impl Drop for Values<'_> {
    fn drop(&mut self) {
        for value in &mut self.room[..self.count] {
            // SAFETY: the first `count` are initialised, and are not used again.
            unsafe { value.assume_init_drop() };
        }
    }
}
