//! Clients whose beginning and end are calls like all others: both wait for threads of the client.
//!
//! A client that is dropped waits for its threads, and they for calls that may hang: so that the watchdog can see
//! it, the drop is noted like any other call.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::guard::{Calls, ClientCall};

/// A client, or the last reference to one.
///
/// It is used through `Deref`, as the client itself.
pub struct Kept<T> {
    /// `None` only at its end.
    client: Option<T>,
    calls: Arc<Calls>,
}

impl<T> Kept<T> {
    /// Makes a client.
    ///
    /// The error is the maker's own.
    pub fn make<E>(calls: &Arc<Calls>, make: impl FnOnce() -> Result<T, E>) -> Result<Kept<T>, E> {
        let client = calls.during(ClientCall::Create, make)?;
        Ok(Kept { client: Some(client), calls: calls.clone() })
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.client.as_ref().expect("it is there until its end")
    }
}

impl<T> DerefMut for Kept<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.client.as_mut().expect("it is there until its end")
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        let client = self.client.take();
        self.calls.during(ClientCall::Destroy, || drop(client));
    }
}
