//! The mark: which event runs, in memory that may be a file's. Behind it stand marks of events in flight, which
//! await something and do not run: as many as may be at once where awaits overlap.
//!
//! It is written with plain stores, no call into the kernel: the page cache keeps what a process
//! wrote, however it ended.
//!
//! ```text
//! byte   0      8     16      24      28         32      36
//!        magic  unit  offset  reader  partition  events  row     in the machine's byte order
//! ```
//!
//! One thread writes, any number read. `unit` is the guard of the other words: a reader takes them only if it saw
//! the same unit, not 0, before and after.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bytes of all marks, in whole pages; what follows in the file is text.
pub const HEAD: usize = size_of::<Marks>().div_ceil(PAGE) * PAGE;
/// Events in flight that are marked.
pub const FLIGHTS_MAX: usize = 1024;
/// Marks memory as ours, and gives the version of its layout.
const MAGIC: u64 = u64::from_le_bytes(*b"kaspr:2\n");
/// Marks memory of 0.1, which held one mark in a page.
const MAGIC_OF_ONE: u64 = u64::from_le_bytes(*b"kaspr:1\n");

/// The words of a mark.
///
/// The layout of the file: it must not change without another [`MAGIC`].
#[repr(C)]
#[derive(Debug, Default)]
pub struct Mark {
    magic: AtomicU64,
    /// The number of the unit that runs; 0: none runs.
    unit: AtomicU64,
    offset: AtomicI64,
    reader: AtomicU32,
    partition: AtomicU32,
    events: AtomicU32,
    /// The row of the table of counters whose call came last.
    row: AtomicU32,
}

/// All marks.
#[repr(C)]
#[derive(Debug)]
pub struct Marks {
    running: Mark,
    flights: [Mark; FLIGHTS_MAX],
}

impl Default for Marks {
    fn default() -> Marks {
        Marks { running: Mark::default(), flights: std::array::from_fn(|_| Mark::default()) }
    }
}

/// The content of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doing {
    /// The number of the unit: it changes whenever another one begins or goes on.
    pub unit: u64,
    /// The offset of its (first) event.
    pub offset: i64,
    /// The reader's number in the plan.
    pub reader: u32,
    /// The number of the (first) event's partition in the worker's list.
    pub partition: u32,
    /// Number of its events.
    pub events: u32,
    /// The row of the table of counters whose call came last.
    pub row: u32,
}

impl Mark {
    /// Notes what runs from now on. A reader that meets the words half-written sees that nothing runs.
    pub fn set(&self, doing: &Doing) {
        // Relaxed will do: the stores below release, so none of them is seen before this one.
        self.unit.store(0, Ordering::Relaxed);
        self.offset.store(doing.offset, Ordering::Release);
        self.reader.store(doing.reader, Ordering::Release);
        self.partition.store(doing.partition, Ordering::Release);
        self.events.store(doing.events, Ordering::Release);
        self.row.store(doing.row, Ordering::Release);
        self.unit.store(doing.unit, Ordering::Release);
    }

    /// Notes that nothing runs.
    pub fn clear(&self) {
        self.unit.store(0, Ordering::Release);
    }

    /// The call that is made now.
    ///
    /// The unit stays as it is: the old row and the new one are both of it.
    pub fn set_row(&self, row: u32) {
        self.row.store(row, Ordering::Release);
    }

    /// Reads the mark: the event that runs.
    pub fn get(&self) -> Option<Doing> {
        loop {
            let unit = self.unit.load(Ordering::Acquire);
            if unit == 0 {
                return None;
            }
            let doing = Doing {
                unit,
                offset: self.offset.load(Ordering::Acquire),
                reader: self.reader.load(Ordering::Acquire),
                partition: self.partition.load(Ordering::Acquire),
                events: self.events.load(Ordering::Acquire),
                row: self.row.load(Ordering::Acquire),
            };
            // Else another unit began meanwhile: its words may be mixed with those of the last one.
            if self.unit.load(Ordering::Acquire) == unit {
                return Some(doing);
            }
        }
    }

    /// The row of the last call, whether an event runs or not.
    pub fn row(&self) -> u32 {
        self.row.load(Ordering::Acquire)
    }
}

/// Reads from a file the event that ran; if none did, those in flight. The text behind the marks comes too.
///
/// Empty: nothing ran, the file is not ours, or it is too short.
pub fn read(bytes: &[u8]) -> (Vec<Doing>, &[u8]) {
    let (marks, head) = match bytes.get(..8) {
        Some(magic) if magic == MAGIC.to_ne_bytes() => (size_of::<Marks>(), HEAD),
        Some(magic) if magic == MAGIC_OF_ONE.to_ne_bytes() => (size_of::<Mark>(), PAGE),
        _ => return (Vec::new(), &[]),
    };
    let Some((marks, text)) = bytes.get(..marks).zip(bytes.get(head..)) else { return (Vec::new(), &[]) };
    let mut marks = marks.chunks_exact(size_of::<Mark>()).map(read_mark);
    let doing = match marks.next().flatten() {
        Some(running) => vec![running],
        None => marks.flatten().collect(),
    };
    (doing, text)
}

fn read_mark(bytes: &[u8]) -> Option<Doing> {
    let word = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let half = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let unit = word(8).filter(|unit| *unit != 0)?;
    Some(Doing {
        unit,
        offset: word(16)?.cast_signed(),
        reader: half(24)?,
        partition: half(28)?,
        events: half(32)?,
        row: half(36)?,
    })
}

/// The memory of the marks: the process's own, or a file's.
#[derive(Debug)]
pub struct Page {
    marks: AtomicPtr<Marks>,
    mapped: AtomicBool,
}

impl Page {
    /// Memory of the process alone.
    pub fn in_memory() -> Page {
        Page { marks: AtomicPtr::new(Box::into_raw(Box::default())), mapped: AtomicBool::new(false) }
    }

    /// Moves the marks to the first pages of a file, while nothing runs. The memory before stays as long as the
    /// process: another thread may be reading it.
    pub fn move_to(&self, file: &File) -> std::io::Result<()> {
        // Written, not only made longer: a page without a block would be a fault on a full disk.
        let mut pages = vec![0; HEAD];
        pages[..8].copy_from_slice(&MAGIC.to_ne_bytes());
        file.write_all_at(&pages, 0)?;
        // SAFETY: a new mapping of a file that is as long as it; the kernel chooses the place. The
        // standard library has no mapping, and one page is no reason for a crate.
        let start = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), HEAD, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        self.marks.store(start.cast(), Ordering::Release);
        self.mapped.store(true, Ordering::Release);
        Ok(())
    }

    fn marks(&self) -> &Marks {
        // SAFETY: the memory is aligned (a page, or a box), initialised (every pattern is a mark)
        // and lives as long as `self`.
        unsafe { &*self.marks.load(Ordering::Acquire) }
    }

    /// Marks of events in flight.
    pub fn flights(&self) -> &[Mark] {
        &self.marks().flights
    }
}

impl std::ops::Deref for Page {
    type Target = Mark;
    fn deref(&self) -> &Mark {
        &self.marks().running
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the memory came from this mapping, or from this box, and no other value uses it any more.
        unsafe {
            let marks = self.marks.load(Ordering::Acquire);
            match self.mapped.load(Ordering::Acquire) {
                true => drop(libc::munmap(marks.cast(), HEAD)),
                false => drop(Box::from_raw(marks)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_in_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("page");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("it opens");
        let page = Page::in_memory();
        page.move_to(&file).expect("it is mapped");
        let doing = Doing { unit: 5, offset: -1, reader: 2, partition: 3, events: 4, row: 6 };
        let read = || super::read(&std::fs::read(&path).expect("it is there")).0;
        assert_eq!((page.get(), read()), (None, vec![]));
        let waiting = Doing { offset: 9, ..doing };
        page.flights()[FLIGHTS_MAX - 1].set(&waiting);
        assert_eq!(read(), [waiting], "nothing runs");
        page.set(&doing);
        assert_eq!((page.get(), read()), (Some(doing), vec![doing]));
        page.clear();
        page.flights()[FLIGHTS_MAX - 1].clear();
        assert_eq!(read(), []);
        assert_eq!(super::read(b"short").0, []);
    }
}
