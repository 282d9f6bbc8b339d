//! The objects that user code reaches through `context`: the app, the event, and what can be done with them.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use kaspr_ir::plan::{AgentId, Codec};
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::codec;
use super::home::{Home, calm, elsewhere};
use super::runtime::{Running, Runtime};
use crate::broker::directory::Directory;
use crate::clock::Clock;
use crate::code::{Encoded, Fault};
use crate::event::frame::Unit;
use crate::event::message::{Event, Header, TopicName};
use crate::event::run::SharedEvent;

/// The event and agent that run, as a context variable carries them: of a coroutine, a task or a timer.
#[pyclass(frozen, module = "kaspr")]
pub struct Entry {
    /// The agent whose code it is.
    pub agent: Option<AgentId>,
    /// The event; `None` in `init`.
    pub running: Option<Home<Running>>,
}

/// `context`: one object everywhere.
#[pyclass(frozen, mapping, module = "kaspr")]
pub struct Context {
    /// Finds the event that runs.
    pub runtime: Arc<Runtime>,
    /// The codecs of keys and values of each agent's reader.
    pub codecs: Arc<Vec<(Codec, Codec)>>,
    /// `context["app"]`.
    pub app: Py<AppView>,
}

#[pymethods]
impl Context {
    fn __getitem__(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        calm(|| match name.extract::<&str>() {
            Ok("app") => Ok(self.app.clone_ref(py).into_any()),
            Ok("event") => self.event(py),
            _ => Err(PyKeyError::new_err(name.clone().unbind())),
        })
    }

    fn __contains__(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        match name.extract::<&str>() {
            Ok("app") => Ok(true),
            Ok("event") => Ok(self.running(py)?.is_some()),
            _ => Ok(false),
        }
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyList::new(py, self.keys(py)?)?.try_iter()?.into_any())
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.keys(py)?.len())
    }

    fn __repr__(&self) -> &'static str {
        "<context>"
    }

    #[pyo3(signature = (name, default=None))]
    fn get(&self, py: Python<'_>, name: &Bound<'_, PyAny>, default: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        if self.__contains__(py, name)? {
            return self.__getitem__(py, name);
        }
        Ok(default.unwrap_or_else(|| py.None()))
    }

    fn keys(&self, py: Python<'_>) -> PyResult<Vec<&'static str>> {
        Ok(if self.running(py)?.is_some() { vec!["app", "event"] } else { vec!["app"] })
    }

    fn values(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        Ok(self.items(py)?.into_iter().map(|(_, value)| value).collect())
    }

    fn items(&self, py: Python<'_>) -> PyResult<Vec<(&'static str, Py<PyAny>)>> {
        let mut items = vec![("app", self.app.clone_ref(py).into_any())];
        if self.running(py)?.is_some() {
            items.push(("event", self.event(py)?));
        }
        Ok(items)
    }
}

impl Context {
    fn running(&self, py: Python<'_>) -> PyResult<Option<Running>> {
        self.runtime.current(py, "context[\"event\"]")
    }

    fn event(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let running = self.running(py)?.ok_or_else(|| PyKeyError::new_err("event"))?;
        let codecs = &self.codecs[running.agent.index()];
        // Behind a channel the source event is shown: only key and headers that the channel's selectors gave
        // replace its own.
        let via = running.via.as_ref();
        let view = |event: &SharedEvent| {
            let view = EventView {
                event: Arc::new(Seen::new(event)),
                codecs: codecs.clone(),
                key: via.and_then(|via| via.key.as_ref()).map(|key| key.object.clone_ref(py)),
                headers: via.and_then(|via| via.headers.clone()),
            };
            Py::new(py, view)
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

/// An event as user code sees it, on whichever thread.
struct Seen {
    topic: String,
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<Header>,
}

// A copy, because the worker's event lives in an `Rc`, and user code may take the view to another thread.
impl Seen {
    fn new(event: &Event) -> Seen {
        Seen {
            topic: event.topic.to_string(),
            partition: event.partition,
            offset: event.offset,
            timestamp_ms: event.timestamp_ms,
            key: event.key.clone(),
            value: event.value.clone(),
            headers: event.headers.clone(),
        }
    }
}

/// `context["event"]`.
#[pyclass(frozen, name = "Event", module = "kaspr")]
pub struct EventView {
    event: Arc<Seen>,
    codecs: (Codec, Codec),
    /// The key that the selector of a channel gave.
    key: Option<Py<PyAny>>,
    /// The headers that the selector of a channel gave.
    headers: Option<Vec<Header>>,
}

#[pymethods]
impl EventView {
    #[getter]
    fn key(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        calm(|| match &self.key {
            Some(key) => Ok(key.clone_ref(py)),
            // Decoded at each access: most code never asks, and a change of the result must not show elsewhere.
            None => codec::decode_plain(py, &self.codecs.0, self.event.key.as_deref()).map_err(raise),
        })
    }

    #[getter]
    fn value(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        calm(|| codec::decode_plain(py, &self.codecs.1, self.event.value.as_deref()).map_err(raise))
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let headers = PyDict::new(py);
        for (name, value) in self.headers.as_ref().unwrap_or(&self.event.headers) {
            // In a dict the last of a repeated name wins; `.message.headers` has them all.
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
#[pyclass(frozen, name = "Message", module = "kaspr")]
pub struct MessageView {
    event: Arc<Seen>,
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
#[pyclass(frozen, name = "App", module = "kaspr")]
pub struct AppView {
    /// Finds the event that runs.
    pub runtime: Arc<Runtime>,
    /// The place where records are staged.
    pub outbox: Home<Outbox>,
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

/// Stages the records of `send`.
pub struct Outbox {
    /// Topics that may be written.
    pub directory: Directory,
    /// Stamps records.
    pub clock: Rc<dyn Clock>,
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
        calm(|| {
            let outbox = self.outbox.get().ok_or_else(|| elsewhere("send()"))?;
            let running = self.runtime.current(py, "send()")?.filter(|running| !running.frame.closed.get());
            let running =
                running.ok_or_else(|| PyRuntimeError::new_err("send() works only while an event is processed"))?;
            let topic: TopicName = topic.into();
            let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
            // `None` is no key in any codec; JSON would make the text `null` of it, and all such records one key.
            let has_key = key.as_ref().is_some_and(|key| !key.is_none());
            let has_key = has_key && encode(py, key_serializer.unwrap_or("raw"), key, &mut key_bytes)?;
            let key = has_key.then_some(key_bytes.as_slice());
            let has_value = encode(py, value_serializer.unwrap_or("json"), value, &mut value_bytes)?;
            let value = has_value.then_some(value_bytes.as_slice());
            let headers = headers.map_or(Ok(Vec::new()), |headers| codec::headers(py, &headers)).map_err(raise)?;
            let partition = outbox.directory.place(&topic, partition, key).map_err(raise)?;
            outbox.directory.check_size(&topic, key, value, &headers).map_err(raise)?;
            // Borrowed only now: encoding runs user code, which may send or write a table itself.
            let mut scratch = running.frame.scratch.borrow_mut();
            scratch.send(&topic, partition, outbox.clock.wall_ms(), (key, value), headers);
            scratch.count_sent(running.row);
            Ok(Finished { topic: topic.to_string(), partition })
        })
    }
}

fn encode(py: Python<'_>, codec: &str, value: Option<Bound<'_, PyAny>>, out: &mut Vec<u8>) -> PyResult<bool> {
    let codec: Codec = codec.parse().map_err(|error| PyTypeError::new_err(format!("{error}")))?;
    let value = value.unwrap_or_else(|| py.None().into_bound(py));
    Ok(codec::encode(py, &codec, &value, out).map_err(raise)? == Encoded::Bytes)
}

/// The result of `send`: an awaitable that is finished.
#[pyclass(frozen, module = "kaspr")]
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

    /// The first step ends it, since it never waits, and gives the place of the record.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let sent = PyDict::new(py);
        sent.set_item("topic", &self.topic)?;
        sent.set_item("partition", self.partition)?;
        // Kafka's own "unknown": the record leaves long after this answer, in the transaction of its event.
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
    PyTypeError::new_err(fault.message.clone())
}
