//! Takes secrets out of what every process of the same user can read of this one:
//! `/proc/PID/cmdline` and `/proc/PID/environ` show the memory where the system put them at the start.
//!
//! ```text
//! run --kafka sasl.password=hunter2   →   run --kafka sasl.password=*******
//! ```
//!
//! The bytes are overwritten in place, through `/proc/self/mem`: the standard library has copies of its own,
//! and gives no way to the originals. Works on Linux; elsewhere the error says that nothing was hidden.

use std::fs::File;
use std::io::{Error, Result};
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The byte that overwrites secrets.
const COVER: u8 = b'*';

/// A part of this process's memory that the system shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The arguments, each with a zero byte behind it.
    Arguments,
    /// The variables that it was started with.
    Variables,
}

impl Shown {
    fn file(self) -> &'static str {
        match self {
            Shown::Arguments => "/proc/self/cmdline",
            Shown::Variables => "/proc/self/environ",
        }
    }

    /// Its field in `/proc/self/stat` (proc(5): `arg_start`, `env_start`), counted behind the name. The name
    /// itself is the second field, and the third stands first behind it.
    fn field(self) -> usize {
        match self {
            Shown::Arguments => 45,
            Shown::Variables => 47,
        }
    }

    /// Its first address in memory.
    ///
    /// # Errors
    ///
    /// The system does not tell: a container may hide it.
    fn address(self) -> Result<u64> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        // The name of the program may hold spaces and parentheses.
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        let address = behind_name.split_whitespace().nth(self.field()).and_then(|field| field.parse().ok());
        address.filter(|&address| address > 0).ok_or_else(|| Error::other("the system does not say where they are"))
    }
}

/// Overwrites what `secret` finds in each entry. Nothing moves, so that pointers to what stays remain good.
///
/// `secret` returns the range of bytes within an entry. An entry has as many bytes afterwards as before.
///
/// # Errors
///
/// `/proc` cannot be read or written. Some entries may be overwritten by then.
pub fn scrub(shown: Shown, mut secret: impl FnMut(&[u8]) -> Option<Range<usize>>) -> Result<()> {
    let bytes = std::fs::read(shown.file())?;
    let mut found = Vec::new();
    let mut at = 0;
    for entry in bytes.split(|byte| *byte == 0) {
        found.extend(secret(entry).map(|range| at + range.start..at + range.end));
        // The zero byte behind each entry.
        at += entry.len() + 1;
    }
    if found.is_empty() {
        return Ok(());
    }
    let (start, memory) = (shown.address()?, File::options().write(true).open("/proc/self/mem")?);
    for range in found {
        memory.write_all_at(&vec![COVER; range.len()], start + range.start as u64)?;
    }
    Ok(())
}
