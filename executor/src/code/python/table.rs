//! A table in the user's hands: a Python mapping over encoded keys and values.
//!
//! A value is encoded on write and decoded on read, so changing a value that was read changes nothing until
//! it is assigned back, and a value that does not encode raises where it is written.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use kaspr_ir::plan::{Codec, TableId};
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMapping, PyString, PyTuple};

use super::codec;
use super::entry::raise;
use super::home::{Home, calm, elsewhere};
use super::runtime::{Running, Runtime};
use crate::code::Encoded;
use crate::event::effects::TableWrite;
use crate::event::kept::Kept;
use crate::tables::Tables;
use crate::tables::store::StoreError;

/// A table of the app.
#[pyclass(frozen, mapping, name = "Table", module = "kaspr")]
pub struct TableView {
    /// Its number in the plan.
    pub id: TableId,
    /// Its name, for messages.
    pub name: String,
    /// Whole on every worker: one partition.
    pub global: bool,
    /// The codec of keys.
    pub key_codec: Codec,
    /// The codec of values.
    pub value_codec: Codec,
    /// A factory of values of missing keys, or the value that is copied for each.
    pub default: OnceLock<Py<PyAny>>,
    /// The tables that hold its state.
    pub tables: Home<RefCell<Tables>>,
    /// Finds the event that runs.
    pub runtime: Arc<Runtime>,
    /// The classes of `keys()`, `values()` and `items()`.
    pub views: Arc<Views>,
}

/// The classes of views of tables: of keys, of values and of pairs.
pub type Views = (Py<PyAny>, Py<PyAny>, Py<PyAny>);

type Pair = (Py<PyAny>, Py<PyAny>);

thread_local! {
    /// Room in which keys and values are encoded, used again and again.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The default that a call gives; `None`: it gives none.
struct Given<'py>(Option<Bound<'py, PyAny>>);

impl<'py> FromPyObject<'_, 'py> for Given<'py> {
    type Error = std::convert::Infallible;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> Result<Self, Self::Error> {
        Ok(Given(Some(given.to_owned())))
    }
}

#[pymethods]
impl TableView {
    fn __getitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        calm(|| match self.find(py, key)? {
            Some(value) => Ok(value),
            None => self.missing(py, key),
        })
    }

    fn __setitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        calm(|| self.set(py, key, value))
    }

    fn __delitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        calm(|| match self.find_bytes(py, key)? {
            None => Err(PyKeyError::new_err(key.clone().unbind())),
            Some(_) => self.delete(py, key),
        })
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        calm(|| Ok(self.find_bytes(py, key)?.is_some()))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        calm(|| Ok(self.stored(py)?.len()))
    }

    /// Iterates over the keys as they are now.
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        calm(|| {
            let keys: Vec<_> =
                // All at once: the code may write while it iterates.
                self.stored(py)?.iter().map(|(key, _)| self.decode_key(py, key)).collect::<PyResult<_>>()?;
            Ok(PyList::new(py, keys)?.try_iter()?.into_any())
        })
    }

    fn __repr__(&self) -> String {
        format!("<table {:?}>", self.name)
    }

    fn __eq__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if slf.is(other) {
            return Ok(true.into_pyobject(py)?.to_owned().into_any());
        }
        // As a dict compares: by pairs, with any mapping.
        match as_dict(other)? {
            Some(other) => Ok(Self::copy(slf)?.eq(other)?.into_pyobject(py)?.to_owned().into_any()),
            None => Ok(py.NotImplemented().into_bound(py)),
        }
    }

    fn __or__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match as_dict(other)? {
            Some(other) => Self::copy(slf)?.bitor(other),
            None => Ok(slf.py().NotImplemented().into_bound(slf.py())),
        }
    }

    fn __ror__<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match as_dict(other)? {
            Some(other) => other.bitor(Self::copy(slf)?),
            None => Ok(slf.py().NotImplemented().into_bound(slf.py())),
        }
    }

    fn __ior__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<()> {
        self.update(py, &PyTuple::new(py, [other])?, None)
    }

    #[pyo3(signature = (key, default=Given(None)))]
    fn get<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>, default: Given<'py>) -> PyResult<Py<PyAny>> {
        calm(|| match (self.find(py, key)?, default.0) {
            (Some(value), _) => Ok(value),
            (None, Some(default)) => Ok(default.unbind()),
            (None, None) if self.default.get().is_some() => self.missing(py, key),
            (None, None) => Ok(py.None()),
        })
    }

    #[pyo3(signature = (key, default=Given(None)))]
    fn pop<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>, default: Given<'py>) -> PyResult<Py<PyAny>> {
        calm(|| match (self.find(py, key)?, default.0) {
            (Some(value), _) => {
                self.delete(py, key)?;
                Ok(value)
            }
            (None, Some(default)) => Ok(default.unbind()),
            (None, None) => Err(PyKeyError::new_err(key.clone().unbind())),
        })
    }

    /// Removes some pair and gives it.
    fn popitem(&self, py: Python<'_>) -> PyResult<Pair> {
        calm(|| {
            let (key, value) = self
                .stored(py)?
                .pop()
                .ok_or_else(|| PyKeyError::new_err(format!("popitem(): the table \"{}\" is empty", self.name)))?;
            self.remove(py, key.clone())?;
            Ok((self.decode_key(py, &key)?, self.decode_value(py, &value)?))
        })
    }

    /// Removes all pairs of the event's partition.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        calm(|| self.stored(py)?.into_iter().try_for_each(|(key, _)| self.remove(py, key)))
    }

    /// Copies what is stored into a dict.
    fn copy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(slf.py());
        for (key, value) in slf.get().pairs(slf.py())? {
            dict.set_item(key, value)?;
        }
        Ok(dict)
    }

    #[pyo3(signature = (key, default=None))]
    fn setdefault(&self, py: Python<'_>, key: &Bound<'_, PyAny>, default: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        calm(|| {
            if let Some(value) = self.find(py, key)? {
                return Ok(value);
            }
            let default = default.unwrap_or_else(|| py.None());
            self.set(py, key, default.bind(py))?;
            Ok(default)
        })
    }

    #[pyo3(signature = (*others, **named))]
    fn update(&self, py: Python<'_>, others: &Bound<'_, PyTuple>, named: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        calm(|| {
            // Merged first, so that what `dict.update` refuses writes nothing.
            let merged = PyDict::new(py);
            merged.call_method("update", others.clone(), named)?;
            merged.into_iter().try_for_each(|(key, value)| self.set(py, &key, &value))
        })
    }

    fn keys<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().views.0.bind(slf.py()).call1((slf,))
    }

    fn values<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().views.1.bind(slf.py()).call1((slf,))
    }

    fn items<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().views.2.bind(slf.py()).call1((slf,))
    }

    /// All pairs, for the views.
    #[pyo3(name = "_pairs")]
    fn pairs(&self, py: Python<'_>) -> PyResult<Vec<Pair>> {
        calm(|| {
            let decode = |(key, value): &(Kept, Kept)| Ok((self.decode_key(py, key)?, self.decode_value(py, value)?));
            self.stored(py)?.iter().map(decode).collect()
        })
    }

    /// Pairs whose key is a `str` that starts so.
    fn prefix_scan(&self, py: Python<'_>, prefix: &str) -> PyResult<Vec<Pair>> {
        let starts = |pair: &Pair| {
            let key = pair.0.bind(py).cast::<PyString>().ok();
            key.is_some_and(|key| key.to_string_lossy().starts_with(prefix))
        };
        Ok(self.pairs(py)?.into_iter().filter(starts).collect())
    }
}

impl TableView {
    /// The event that runs, the partition of its accesses, and the tables.
    fn here(&self, py: Python<'_>) -> PyResult<(Running, i32, Rc<RefCell<Tables>>)> {
        let what = || format!("the table \"{}\"", self.name);
        let tables = self.tables.get().ok_or_else(|| elsewhere(&what()))?;
        // A task that outlives its event would write what no transaction holds: a closed frame refuses.
        let running = self.runtime.current(py, "the table")?.filter(|running| !running.frame.closed.get());
        let running = running.ok_or_else(|| {
            PyRuntimeError::new_err(format!("{} can be used only while an event is processed", what()))
        })?;
        let partition = if self.global { Some(0) } else { running.frame.partition };
        let partition = partition.ok_or_else(|| {
            PyRuntimeError::new_err(format!("{} has no partition in a batch that mixes partitions", what()))
        })?;
        Ok((running, partition, tables))
    }

    fn set(&self, py: Python<'_>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let (running, partition, tables) = self.here(py)?;
        let key = self.encode_key(py, key)?;
        // Encoded at once: an object that the code changes later must not change what is written. With `raw`,
        // None is what a changelog writes for a deletion.
        let value = encoded(py, &self.value_codec, value, |value| value.map(Kept::from))?;
        // Here the code can catch it; at the broker it would end the whole transaction.
        tables.borrow().check_size(self.id, &key, value.as_deref()).map_err(|(size, limit)| {
            let name = &self.name;
            PyValueError::new_err(format!(
                "a write of {size} bytes is larger than the changelog of the table \"{name}\" takes ({limit})"
            ))
        })?;
        running.frame.scratch.borrow_mut().write(TableWrite { table: self.id, partition, key, value });
        Ok(())
    }

    fn find_bytes(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<Kept>> {
        let (running, partition, tables) = self.here(py)?;
        let found = encoded(py, &self.key_codec, key, |key| {
            tables.borrow().get(self.id, partition, key.unwrap_or_default(), &running.frame.scratch.borrow())
        });
        found?.map_err(|error| self.unread(&error))
    }

    fn find(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        self.find_bytes(py, key)?.map(|value| self.decode_value(py, &value)).transpose()
    }

    /// The value of a key that is not there: a factory's result, a copy of a value, or `KeyError`.
    fn missing(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let Some(default) = self.default.get() else {
            return Err(PyKeyError::new_err(key.clone().unbind()));
        };
        // Nothing is written for a missing key, other than with `defaultdict`: only an assignment writes.
        if default.bind(py).is_callable() {
            return default.call0(py);
        }
        Ok(py.import("copy")?.getattr("deepcopy")?.call1((default,))?.unbind())
    }

    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        self.remove(py, self.encode_key(py, key)?)
    }

    fn remove(&self, py: Python<'_>, key: Kept) -> PyResult<()> {
        let (running, partition, _) = self.here(py)?;
        running.frame.scratch.borrow_mut().write(TableWrite { table: self.id, partition, key, value: None });
        Ok(())
    }

    fn stored(&self, py: Python<'_>) -> PyResult<Vec<(Kept, Kept)>> {
        let (running, partition, tables) = self.here(py)?;
        let pairs = tables.borrow().pairs(self.id, partition, &running.frame.scratch.borrow());
        pairs.map_err(|error| self.unread(&error))
    }

    /// The exception of a failed read. The worker stops before anything of this event is committed.
    fn unread(&self, error: &StoreError) -> PyErr {
        PyRuntimeError::new_err(format!("the table \"{}\" cannot be read: {error}", self.name))
    }

    fn encode_key(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Kept> {
        encoded(py, &self.key_codec, key, |key| Kept::from(key.unwrap_or_default()))
    }

    fn decode_key(&self, py: Python<'_>, key: &Kept) -> PyResult<Py<PyAny>> {
        let key = codec::decode_plain(py, &self.key_codec, Some(key)).map_err(raise)?;
        Ok(as_tuple(key.into_bound(py))?.unbind())
    }

    fn decode_value(&self, py: Python<'_>, value: &Kept) -> PyResult<Py<PyAny>> {
        codec::decode_plain(py, &self.value_codec, Some(value)).map_err(raise)
    }
}

/// Hands over the bytes of a key or value; `None`: it is null.
fn encoded<R>(
    py: Python<'_>,
    codec: &Codec,
    value: &Bound<'_, PyAny>,
    with: impl FnOnce(Option<&[u8]>) -> R,
) -> PyResult<R> {
    // Taken out: encoding may run user code, and that may use a table.
    let mut room = ROOM.take();
    room.clear();
    let encoded = codec::encode_kept(py, codec, value, &mut room).map_err(raise);
    let result = encoded.map(|encoded| with((encoded == Encoded::Bytes).then_some(&*room)));
    ROOM.set(room);
    result
}

/// A mapping as a dict; `None`: it is none.
fn as_dict<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
    if object.cast::<PyMapping>().is_err() {
        return Ok(None);
    }
    let dict = PyDict::new(object.py());
    dict.call_method1("update", (object,))?;
    Ok(Some(dict))
}

/// Makes a list a tuple: no key is a list, so the key was a tuple.
fn as_tuple(key: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let Ok(list) = key.cast::<PyList>() else {
        return Ok(key);
    };
    let parts: Vec<_> = list.iter().map(as_tuple).collect::<PyResult<_>>()?;
    Ok(PyTuple::new(key.py(), parts)?.into_any())
}
