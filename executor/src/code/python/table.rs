//! A table in the user's hands: a Python mapping over encoded keys and values.
//!
//! A value is encoded on write and decoded on read, so changing a value that was read changes
//! nothing until it is assigned back, and what does not encode raises where it is written.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use kaspr_ir::plan::{Codec, TableId};
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use super::codec;
use super::entry::raise;
use super::runtime::{Running, Runtime};
use crate::code::Encoded;
use crate::event::effects::TableWrite;
use crate::tables::Tables;
use crate::tables::store::StoreError;

/// A table of the app.
#[pyclass(unsendable, mapping, name = "Table", module = "kaspr")]
pub struct TableView {
    /// Which one.
    pub id: TableId,
    /// Its name, for messages.
    pub name: String,
    /// Whole on every worker: one partition.
    pub global: bool,
    /// How keys are written.
    pub key_codec: Codec,
    /// How values are written.
    pub value_codec: Codec,
    /// What gives the value of a missing key.
    pub default: RefCell<Option<Py<PyAny>>>,
    /// Where its state is.
    pub tables: Rc<RefCell<Tables>>,
    /// Finds the event that runs.
    pub runtime: Rc<Runtime>,
}

type Pair = (Py<PyAny>, Py<PyAny>);

#[pymethods]
impl TableView {
    fn __getitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match self.find(py, key)? {
            Some(value) => Ok(value),
            None => self.missing(py, key),
        }
    }

    fn __setitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let (running, partition) = self.here(py)?;
        let key = self.encode_key(py, key)?;
        let mut bytes = Vec::new();
        let encoded = codec::encode_kept(py, &self.value_codec, value, &mut bytes).map_err(raise)?;
        let value = match encoded {
            Encoded::Bytes => Some(Bytes::from(bytes)),
            // With `raw`, None is what a changelog writes for a deletion.
            Encoded::Null => None,
        };
        self.tables.borrow().check_size(self.id, &key, value.as_deref()).map_err(|(size, limit)| {
            let name = &self.name;
            PyValueError::new_err(format!(
                "a write of {size} bytes is larger than the changelog of the table \"{name}\" takes ({limit})"
            ))
        })?;
        running.frame.scratch.borrow_mut().write(TableWrite { table: self.id, partition, key, value });
        Ok(())
    }

    fn __delitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.find_bytes(py, key)?.is_none() {
            return Err(PyKeyError::new_err(key.clone().unbind()));
        }
        self.delete(py, key)
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.find_bytes(py, key)?.is_some())
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.pairs(py)?.len())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let keys = PyList::new(py, self.keys(py)?)?;
        Ok(keys.try_iter()?.into_any())
    }

    fn __repr__(&self) -> String {
        format!("<table {:?}>", self.name)
    }

    #[pyo3(signature = (key, *default))]
    fn get(&self, py: Python<'_>, key: &Bound<'_, PyAny>, default: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
        match self.find(py, key)? {
            Some(value) => Ok(value),
            None if !default.is_empty() => Ok(default.get_item(0)?.unbind()),
            None if self.default.borrow().is_some() => self.missing(py, key),
            None => Ok(py.None()),
        }
    }

    #[pyo3(signature = (key, *default))]
    fn pop(&self, py: Python<'_>, key: &Bound<'_, PyAny>, default: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
        match self.find(py, key)? {
            Some(value) => {
                self.delete(py, key)?;
                Ok(value)
            }
            None if default.is_empty() => Err(PyKeyError::new_err(key.clone().unbind())),
            None => Ok(default.get_item(0)?.unbind()),
        }
    }

    #[pyo3(signature = (key, default=None))]
    fn setdefault(&self, py: Python<'_>, key: &Bound<'_, PyAny>, default: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        if let Some(value) = self.find(py, key)? {
            return Ok(value);
        }
        let default = default.unwrap_or_else(|| py.None());
        self.__setitem__(py, key, default.bind(py))?;
        Ok(default)
    }

    #[pyo3(signature = (*others, **named))]
    fn update(&self, py: Python<'_>, others: &Bound<'_, PyTuple>, named: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let merged = PyDict::new(py);
        merged.call_method("update", others.clone(), named)?;
        for (key, value) in merged {
            self.__setitem__(py, &key, &value)?;
        }
        Ok(())
    }

    fn keys(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        self.pairs(py)?.iter().map(|(key, _)| self.decode_key(py, key)).collect()
    }

    fn values(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        self.pairs(py)?.iter().map(|(_, value)| self.decode_value(py, value)).collect()
    }

    fn items(&self, py: Python<'_>) -> PyResult<Vec<Pair>> {
        self.pairs(py)?
            .iter()
            .map(|(key, value)| Ok((self.decode_key(py, key)?, self.decode_value(py, value)?)))
            .collect()
    }

    /// Pairs whose key is a `str` that starts so.
    fn prefix_scan(&self, py: Python<'_>, prefix: &str) -> PyResult<Vec<Pair>> {
        let starts = |pair: &Pair| {
            let key = pair.0.bind(py).cast::<PyString>().ok();
            key.is_some_and(|key| key.to_string_lossy().starts_with(prefix))
        };
        Ok(self.items(py)?.into_iter().filter(starts).collect())
    }
}

impl TableView {
    /// The event that runs and the partition of its accesses.
    fn here(&self, py: Python<'_>) -> PyResult<(Running, i32)> {
        let running = self.runtime.current(py).filter(|running| !running.frame.closed.get());
        let running = running.ok_or_else(|| {
            PyRuntimeError::new_err(format!("the table \"{}\" can be used only while an event is processed", self.name))
        })?;
        let partition = if self.global { Some(0) } else { running.frame.partition };
        let partition = partition.ok_or_else(|| {
            PyRuntimeError::new_err(format!(
                "the table \"{}\" has no partition in a batch that mixes partitions",
                self.name
            ))
        })?;
        Ok((running, partition))
    }

    fn find_bytes(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<Bytes>> {
        let (running, partition) = self.here(py)?;
        let key = self.encode_key(py, key)?;
        let found = self.tables.borrow().get(self.id, partition, &key, &running.frame.scratch.borrow());
        found.map_err(|error| self.unread(&error))
    }

    fn find(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        self.find_bytes(py, key)?.map(|value| self.decode_value(py, &value)).transpose()
    }

    /// What a key that is not there gives: a factory's result, a copy of a value, or `KeyError`.
    fn missing(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let default = self.default.borrow().as_ref().map(|default| default.clone_ref(py));
        let Some(default) = default else {
            return Err(PyKeyError::new_err(key.clone().unbind()));
        };
        if default.bind(py).is_callable() {
            return default.call0(py);
        }
        Ok(py.import("copy")?.getattr("deepcopy")?.call1((default,))?.unbind())
    }

    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let (running, partition) = self.here(py)?;
        let key = self.encode_key(py, key)?;
        running.frame.scratch.borrow_mut().write(TableWrite { table: self.id, partition, key, value: None });
        Ok(())
    }

    fn pairs(&self, py: Python<'_>) -> PyResult<Vec<(Bytes, Bytes)>> {
        let (running, partition) = self.here(py)?;
        let pairs = self.tables.borrow().pairs(self.id, partition, &running.frame.scratch.borrow());
        pairs.map_err(|error| self.unread(&error))
    }

    /// The worker stops before anything of this event is committed.
    fn unread(&self, error: &StoreError) -> PyErr {
        PyRuntimeError::new_err(format!("the table \"{}\" cannot be read: {error}", self.name))
    }

    fn encode_key(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Bytes> {
        let mut bytes = Vec::new();
        codec::encode_kept(py, &self.key_codec, key, &mut bytes).map_err(raise)?;
        Ok(bytes.into())
    }

    fn decode_key(&self, py: Python<'_>, key: &Bytes) -> PyResult<Py<PyAny>> {
        let key = codec::decode_plain(py, &self.key_codec, Some(key)).map_err(raise)?;
        Ok(as_tuple(key.into_bound(py))?.unbind())
    }

    fn decode_value(&self, py: Python<'_>, value: &Bytes) -> PyResult<Py<PyAny>> {
        codec::decode_plain(py, &self.value_codec, Some(value)).map_err(raise)
    }
}

/// A key that was a tuple comes back as one: no key is a list.
fn as_tuple(key: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let Ok(list) = key.cast::<PyList>() else {
        return Ok(key);
    };
    let parts: Vec<_> = list.iter().map(as_tuple).collect::<PyResult<_>>()?;
    Ok(PyTuple::new(key.py(), parts)?.into_any())
}
