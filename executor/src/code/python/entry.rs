//! What user code reaches through `context`: the app, the event, and what can be done with them.

use std::rc::Rc;

use bytes::Bytes;
use kaspr_ir::plan::Codec;
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::codec;
use super::runtime::{Running, Runtime};
use super::value::Value;
use crate::broker::directory::Directory;
use crate::clock::Clock;
use crate::code::{Encoded, Fault, Via};
use crate::event::frame::Unit;
use crate::event::message::{Event, TopicName};

/// Carries the event that runs into a coroutine's context variable.
#[pyclass(unsendable, module = "kaspr")]
pub struct Entry {
    /// The event.
    pub running: Running,
}

/// `context`: one object everywhere.
#[pyclass(unsendable, mapping, module = "kaspr")]
pub struct Context {
    /// Finds the event that runs.
    pub runtime: Rc<Runtime>,
    /// How each agent's reader reads keys and values.
    pub codecs: Rc<Vec<(Codec, Codec)>>,
    /// `context["app"]`.
    pub app: Py<AppView>,
}

#[pymethods]
impl Context {
    fn __getitem__(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        match name {
            "app" => Ok(self.app.clone_ref(py).into_any()),
            "event" => self.event(py),
            other => Err(PyKeyError::new_err(other.to_owned())),
        }
    }

    fn __contains__(&self, py: Python<'_>, name: &str) -> bool {
        name == "app" || name == "event" && self.runtime.current(py).is_some()
    }

    #[pyo3(signature = (name, default=None))]
    fn get(&self, py: Python<'_>, name: &str, default: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        if self.__contains__(py, name) {
            return self.__getitem__(py, name);
        }
        Ok(default.unwrap_or_else(|| py.None()))
    }

    fn keys(&self, py: Python<'_>) -> Vec<&'static str> {
        if self.__contains__(py, "event") { vec!["app", "event"] } else { vec!["app"] }
    }
}

impl Context {
    fn event(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let running = self.runtime.current(py).ok_or_else(|| PyKeyError::new_err("event"))?;
        let codecs = &self.codecs[running.agent.index()];
        let view = |event: &Rc<Event>| {
            Py::new(py, EventView { event: event.clone(), codecs: codecs.clone(), via: running.via.clone() })
        };
        match &running.frame.unit {
            Unit::Event(event) => Ok(view(event)?.into_any()),
            Unit::Batch(events) => {
                let views: Vec<_> = events.iter().map(view).collect::<PyResult<_>>()?;
                Ok(PyList::new(py, views)?.into_any().unbind())
            }
        }
    }
}

/// `context["event"]`.
#[pyclass(unsendable, name = "Event", module = "kaspr")]
pub struct EventView {
    event: Rc<Event>,
    codecs: (Codec, Codec),
    via: Option<Rc<Via<Value>>>,
}

#[pymethods]
impl EventView {
    #[getter]
    fn key(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.via.as_ref().and_then(|via| via.key.as_ref()) {
            Some(key) => Ok(key.object.clone_ref(py)),
            None => codec::decode_plain(py, &self.codecs.0, self.event.key.as_deref()).map_err(raise),
        }
    }

    #[getter]
    fn value(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        codec::decode_plain(py, &self.codecs.1, self.event.value.as_deref()).map_err(raise)
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let headers = PyDict::new(py);
        let given = self.via.as_ref().and_then(|via| via.headers.as_ref());
        for (name, value) in given.unwrap_or(&self.event.headers) {
            headers.set_item(name, bytes_or_none(py, value.as_ref()))?;
        }
        Ok(headers)
    }

    #[getter]
    fn message(&self, py: Python<'_>) -> PyResult<Py<MessageView>> {
        Py::new(py, MessageView { event: self.event.clone() })
    }
}

/// `context["event"].message`.
#[pyclass(unsendable, name = "Message", module = "kaspr")]
pub struct MessageView {
    event: Rc<Event>,
}

#[pymethods]
impl MessageView {
    #[getter]
    fn topic(&self) -> &str {
        &self.event.topic
    }

    #[getter]
    fn partition(&self) -> i32 {
        self.event.partition
    }

    #[getter]
    fn offset(&self) -> i64 {
        self.event.offset
    }

    /// Seconds since 1970.
    #[getter]
    fn timestamp(&self) -> f64 {
        self.event.timestamp_ms as f64 / 1000.0
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let pairs = self.event.headers.iter().map(|(name, value)| (name, bytes_or_none(py, value.as_ref())));
        PyList::new(py, pairs.collect::<Vec<_>>())
    }

    #[getter]
    fn key(&self, py: Python<'_>) -> Py<PyAny> {
        bytes_or_none(py, self.event.key.as_ref())
    }

    #[getter]
    fn value(&self, py: Python<'_>) -> Py<PyAny> {
        bytes_or_none(py, self.event.value.as_ref())
    }
}

/// `context["app"]`.
#[pyclass(unsendable, name = "App", module = "kaspr")]
pub struct AppView {
    /// Finds the event that runs.
    pub runtime: Rc<Runtime>,
    /// Topics that may be written.
    pub directory: Directory,
    /// Stamps records.
    pub clock: Rc<dyn Clock>,
    /// A `logging.Logger`.
    #[pyo3(get)]
    pub log: Py<PyAny>,
    /// The app's settings by attribute.
    #[pyo3(get)]
    pub conf: Py<PyAny>,
    /// Tables by name.
    #[pyo3(get)]
    pub tables: Py<PyDict>,
}

#[pymethods]
impl AppView {
    /// Stages a record like an output: it leaves when the event has succeeded.
    #[pyo3(signature = (topic, key=None, value=None, headers=None, partition=None, key_serializer=None, value_serializer=None))]
    #[allow(clippy::too_many_arguments, reason = "the user's keywords")]
    fn send(
        &self,
        py: Python<'_>,
        topic: &str,
        key: Option<Bound<'_, PyAny>>,
        value: Option<Bound<'_, PyAny>>,
        headers: Option<Bound<'_, PyAny>>,
        partition: Option<i32>,
        key_serializer: Option<&str>,
        value_serializer: Option<&str>,
    ) -> PyResult<Finished> {
        let running = self.runtime.current(py).filter(|running| !running.frame.closed.get());
        let running =
            running.ok_or_else(|| PyRuntimeError::new_err("send() works only while an event is processed"))?;
        let topic: TopicName = topic.into();
        let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
        let has_key = key.as_ref().is_some_and(|key| !key.is_none());
        let has_key = has_key && encode(py, key_serializer.unwrap_or("raw"), key, &mut key_bytes)?;
        let key = has_key.then_some(key_bytes.as_slice());
        let value =
            encode(py, value_serializer.unwrap_or("json"), value, &mut value_bytes)?.then_some(value_bytes.as_slice());
        let headers = headers.map_or(Ok(Vec::new()), |headers| codec::headers(py, &headers)).map_err(raise)?;
        let partition = self.directory.place(&topic, partition, key).map_err(raise)?;
        self.directory.check_size(&topic, key, value, &headers).map_err(raise)?;
        let mut scratch = running.frame.scratch.borrow_mut();
        scratch.send(&topic, partition, self.clock.wall_ms(), (key, value), headers);
        Ok(Finished { topic: topic.to_string(), partition })
    }
}

fn encode(py: Python<'_>, codec: &str, value: Option<Bound<'_, PyAny>>, out: &mut Vec<u8>) -> PyResult<bool> {
    let codec: Codec = codec.parse().map_err(|error| PyTypeError::new_err(format!("{error}")))?;
    let value = value.unwrap_or_else(|| py.None().into_bound(py));
    Ok(codec::encode(py, &codec, &value, out).map_err(raise)? == Encoded::Bytes)
}

/// What `send` returns: an awaitable that is finished.
#[pyclass(unsendable, module = "kaspr")]
pub struct Finished {
    topic: String,
    partition: i32,
}

#[pymethods]
impl Finished {
    fn __await__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    /// It never waits: the first step ends it, with where the record goes.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let sent = PyDict::new(py);
        sent.set_item("topic", &self.topic)?;
        sent.set_item("partition", self.partition)?;
        sent.set_item("offset", -1)?;
        Err(PyStopIteration::new_err(sent.unbind()))
    }
}

/// A Kafka null is `None`.
pub fn bytes_or_none(py: Python<'_>, bytes: Option<&Bytes>) -> Py<PyAny> {
    bytes.map_or_else(|| py.None(), |bytes| PyBytes::new(py, bytes).into_any().unbind())
}

/// A fault as the exception that user code sees.
pub fn raise(fault: Fault) -> PyErr {
    PyTypeError::new_err(fault.message)
}
