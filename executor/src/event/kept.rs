//! Bytes of a table's key or value: small, written often, and shared by nothing but the worker's thread.

use std::borrow::Borrow;
use std::rc::Rc;

/// Bytes that a table keeps. One allocation, where `Bytes` needs two once it is shared; and counted without
/// atomics, because only the worker's thread has them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kept(Rc<[u8]>);

impl std::ops::Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

// Hash and order are those of the bytes, so that a map finds a key by bytes that are only borrowed.
impl Borrow<[u8]> for Kept {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Kept {
    fn from(bytes: &[u8]) -> Kept {
        Kept(bytes.into())
    }
}

impl From<&str> for Kept {
    fn from(text: &str) -> Kept {
        text.as_bytes().into()
    }
}

impl From<String> for Kept {
    fn from(text: String) -> Kept {
        text.as_str().into()
    }
}

#[cfg(test)]
mod tests {
    use rustc_hash::FxHashMap;

    use super::*;

    #[test]
    fn a_key_is_found_by_its_bytes() {
        let map: FxHashMap<Kept, i32> =
            [("".into(), 0), ("a".into(), 1), ("a longer key".into(), 2)].into_iter().collect();
        let found = ["", "a", "a longer key", "b"].map(|key| map.get(key.as_bytes()).copied());
        assert_eq!(found, [Some(0), Some(1), Some(2), None]);
    }
}
