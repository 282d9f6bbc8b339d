//! A value on its way: a Python object, and the part of its text that was not decoded.

use std::rc::Rc;

use pyo3::prelude::*;

use super::json::Rest;

/// An object, whole or in part. Cloning shares both.
#[derive(Clone, Debug)]
pub struct Value {
    /// The object that user code sees.
    pub object: Py<PyAny>,
    /// The rest, if the object holds a part of the value only: for when it is encoded.
    pub rest: Option<Rc<Rest>>,
}

impl Value {
    /// The value that a function returned which was given `given`: that again, or something whole.
    pub fn returned(object: Bound<'_, PyAny>, given: &Value) -> Value {
        let rest = if object.is(&given.object) { given.rest.clone() } else { None };
        Value { object: object.unbind(), rest }
    }
}

impl From<Py<PyAny>> for Value {
    fn from(object: Py<PyAny>) -> Value {
        Value { object, rest: None }
    }
}

impl From<Bound<'_, PyAny>> for Value {
    fn from(object: Bound<'_, PyAny>) -> Value {
        Value::from(object.unbind())
    }
}
