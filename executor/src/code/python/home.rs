//! State of the worker's thread, behind objects that any thread may hold.
//!
//! User code takes Python's objects wherever it likes, while a worker shares its state by `Rc`, on one
//! thread. So an object holds the number of a *room* in its own thread. Another thread finds the room
//! locked, and a room is emptied on its own thread, whichever thread lets go of the object.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

static THREADS: AtomicU64 = AtomicU64::new(0);
/// Rooms, by thread, whose objects ended on another thread.
static LEFT: Mutex<Vec<(u64, usize)>> = Mutex::new(Vec::new());
/// True if there are any.
static IS_ANY_LEFT: AtomicBool = AtomicBool::new(false);

thread_local! {
    // Counted here, because the system gives the number of an ended thread to another.
    static THREAD: u64 = THREADS.fetch_add(1, Ordering::Relaxed);
    static ROOMS: RefCell<Rooms> = RefCell::default();
}

#[derive(Default)]
struct Rooms {
    rooms: Vec<Option<Rc<dyn Any>>>,
    free: Vec<usize>,
}

impl Rooms {
    fn furnish(&mut self, value: Rc<dyn Any>) -> usize {
        if let Some(room) = self.free.pop() {
            self.rooms[room] = Some(value);
            return room;
        }
        self.rooms.push(Some(value));
        self.rooms.len() - 1
    }

    fn clear(&mut self, room: usize) -> Option<Rc<dyn Any>> {
        self.free.push(room);
        self.rooms[room].take()
    }
}

/// A value of the thread that made it.
#[derive(Debug)]
pub struct Home<T> {
    thread: u64,
    room: usize,
    holds: PhantomData<fn() -> T>,
}

impl<T: 'static> Home<T> {
    /// Puts a value into a room of this thread.
    pub fn new(value: Rc<T>) -> Home<T> {
        let thread = THREAD.with(|thread| *thread);
        // One that is missed here is found at the next room that is furnished.
        if IS_ANY_LEFT.load(Ordering::Relaxed) {
            clear_left(thread);
        }
        let room = ROOMS.with_borrow_mut(|rooms| rooms.furnish(value));
        Home { thread, room, holds: PhantomData }
    }

    /// The value; `None` on other threads than its own.
    pub fn get(&self) -> Option<Rc<T>> {
        if THREAD.with(|thread| *thread) != self.thread {
            return None;
        }
        let value = ROOMS.with_borrow(|rooms| rooms.rooms[self.room].clone());
        value?.downcast().ok()
    }
}

impl<T> Drop for Home<T> {
    fn drop(&mut self) {
        let is_here = THREAD.try_with(|thread| *thread == self.thread);
        match is_here {
            // The value ends when its room can be used again: its own end may need one.
            Ok(true) => drop(ROOMS.try_with(|rooms| rooms.borrow_mut().clear(self.room))),
            Ok(false) => {
                LEFT.lock().unwrap_or_else(PoisonError::into_inner).push((self.thread, self.room));
                IS_ANY_LEFT.store(true, Ordering::Relaxed);
            }
            // The thread has ended, and its rooms with it.
            Err(_) => {}
        }
    }
}

/// Empties the rooms of this thread that other threads have left.
fn clear_left(thread: u64) {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    let (mine, others): (Vec<_>, Vec<_>) = left.drain(..).partition(|(of, _)| *of == thread);
    IS_ANY_LEFT.store(!others.is_empty(), Ordering::Relaxed);
    *left = others;
    drop(left);
    // Unlocked before: the end of a value may drop objects of other threads, which need the lock.
    let values: Vec<_> = mine.iter().map(|(_, room)| ROOMS.with_borrow_mut(|rooms| rooms.clear(*room))).collect();
    drop(values);
}

/// The exception of a use on another thread than the worker's.
pub fn elsewhere(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!(
        "{what} can be used only in the worker's thread, not in another one: read what the other thread needs before \
         you start it, and let it return what is to be written or sent"
    ))
}

/// Runs what user code has called. A panic is a fault of the executor: user code sees an exception that it
/// can catch, and the process goes on.
pub fn calm<R>(run: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(PyRuntimeError::new_err(format!("a fault of kaspr-exec: {}", text.unwrap_or("a panic"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_at_home_alone_and_ends_there() {
        let value = Rc::new(7);
        let home = Home::new(value.clone());
        assert_eq!(home.get().as_deref(), Some(&7));
        let home = std::thread::spawn(move || {
            assert!(home.get().is_none());
            home
        });
        let home = home.join().expect("it ends");
        assert_eq!(home.get().as_deref(), Some(&7));
        std::thread::spawn(move || drop(home)).join().expect("it ends");
        assert_eq!(Rc::strong_count(&value), 2, "another thread cannot let go of it");
        let other = Home::new(Rc::new(8));
        assert_eq!((Rc::strong_count(&value), other.get().as_deref()), (1, Some(&8)));
    }

    #[test]
    fn a_value_may_hold_another_that_lives_beside_it() {
        let inner = Rc::new(1);
        let outer = Home::new(Rc::new(Home::new(inner.clone())));
        assert_eq!(outer.get().and_then(|inner| inner.get()).as_deref(), Some(&1));
        drop(outer);
        assert_eq!(Rc::strong_count(&inner), 1);
    }

    #[test]
    fn a_panic_is_an_exception() {
        Python::initialize();
        Python::attach(|py| {
            let error = calm::<()>(|| panic!("no room {}", 7)).expect_err("it panics");
            assert!(error.is_instance_of::<PyRuntimeError>(py));
            assert_eq!(error.value(py).to_string(), "a fault of kaspr-exec: no room 7");
            assert_eq!(calm(|| Ok(1)).expect("it runs"), 1);
        });
    }
}
