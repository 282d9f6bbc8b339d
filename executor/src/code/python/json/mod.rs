//! JSON between bytes and Python objects, with nothing in between.
//!
//! Decoding gives what CPython's `json.loads` gives: the fast path here only accepts, and what it
//! refuses or finds unusual is handed to `json.loads` itself, which decides. Encoding appends the
//! bytes of `json.dumps` with default settings, plus the extensions of the semantics page (6).

mod decode;
mod encode;
mod expected;
mod float;
mod keys;
mod parser;
mod pick;
mod scan;
#[cfg(test)]
mod tests;
mod text;

pub use decode::Decoder;
pub use encode::{encode, encode_part};
pub use pick::{Pick, Rest};
