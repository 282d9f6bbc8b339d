//! The last error of a process, in the file from which Kubernetes takes it: `kubectl describe pod` shows it.
//!
//! The file is never made, only written where it is: elsewhere than in a pod there is none. It is opened at the start,
//! so that a signal handler can write it too.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// The variable that names another file, as `terminationMessagePath` of a container may.
pub(super) const VARIABLE: &str = "KASPR_TERMINATION_LOG";
/// The file that a container has where its pod names none.
const PATH: &str = "/dev/termination-log";
/// Bytes that Kubernetes takes.
const BYTES_MAX: usize = 4096;

static FILE: OnceLock<File> = OnceLock::new();

/// Opens the file, where there is one and it can be written. Called once, at the start: from here on a panic leaves its
/// words there, too.
pub fn open() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        leave(panic.to_string().as_bytes());
        before(panic);
    }));
    let path = std::env::var(VARIABLE).ok().filter(|path| !path.is_empty()).unwrap_or_else(|| PATH.to_owned());
    let _ = OpenOptions::new().write(true).open(path).map(|file| FILE.set(file));
}

/// Writes these words in the place of earlier ones; of a longer text the end, where the last error stands. May be
/// called in a signal handler: it truncates a file and writes to it.
pub fn leave(words: &[u8]) {
    if let (Some(file), false) = (FILE.get(), words.is_empty()) {
        // Standard error has the words too: a file that takes none changes nothing.
        let _ = file.set_len(0);
        let _ = file.write_at(&words[beginning(words)..], 0);
    }
}

/// The first byte that is written: no character is cut in two.
fn beginning(words: &[u8]) -> usize {
    let least = words.len().saturating_sub(BYTES_MAX);
    // A byte 10xxxxxx is inside of a character.
    (least..words.len()).find(|at| words[*at] & 0xC0 != 0x80).unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_text_is_kept() {
        assert_eq!(beginning(b"short"), 0);
        let long = format!("{}end", "é".repeat(3000));
        let kept = &long.as_bytes()[beginning(long.as_bytes())..];
        let text = std::str::from_utf8(kept).expect("no character is cut");
        assert!(kept.len() <= BYTES_MAX && kept.len() > BYTES_MAX - 4 && text.ends_with("end"));
    }
}
