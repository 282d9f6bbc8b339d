//! Bytes to Python values and back, by codec (semantics, section 6).

use std::cell::RefCell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kaspr_ir::plan::Codec;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use super::json::{Decoder, Pick, Rest};
use crate::code::{Encoded, Fault};
use crate::event::message::Header;

thread_local! {
    /// The thread's decoder, which keeps its cache of keys.
    static DECODER: RefCell<Option<Box<Decoder>>> = const { RefCell::new(None) };
}

/// Decodes bytes to a value; JSON with a cache of keys.
pub fn decode(py: Python<'_>, json: &mut Decoder, codec: &Codec, bytes: Option<&[u8]>) -> Result<Py<PyAny>, Fault> {
    let Some(bytes) = bytes else {
        return Ok(py.None());
    };
    match codec {
        Codec::Json => json.decode(py, bytes).map(Bound::unbind).map_err(|error| decoding(py, &error)),
        Codec::Raw => Ok(PyBytes::new(py, bytes).into_any().unbind()),
        Codec::Binary => {
            let decoded =
                STANDARD.decode(bytes).map_err(|error| Fault::new("Decode", format!("not base64: {error}")))?;
            Ok(PyBytes::new(py, &decoded).into_any().unbind())
        }
        other => Err(Fault::new("Decode", format!("the serializer \"{other}\" is not supported"))),
    }
}

/// Decodes a part of a JSON value; false: the value is whole.
pub fn decode_part(
    py: Python<'_>,
    json: &mut Decoder,
    bytes: &[u8],
    pick: &mut Pick,
    rest: Option<&mut Rest>,
) -> Result<(Py<PyAny>, bool), Fault> {
    let decoded = json.decode_part(py, bytes, pick, rest).map_err(|error| decoding(py, &error))?;
    Ok((decoded.0.unbind(), decoded.1))
}

/// Decodes bytes to a value, where no decoder is at hand.
pub fn decode_plain(py: Python<'_>, codec: &Codec, bytes: Option<&[u8]>) -> Result<Py<PyAny>, Fault> {
    // Decoding may run user code, a finaliser for one, which decodes again.
    let mut decoder = match DECODER.take() {
        Some(decoder) => decoder,
        None => Box::new(Decoder::new(py).map_err(|error| decoding(py, &error))?),
    };
    let decoded = decode(py, &mut decoder, codec, bytes);
    DECODER.replace(Some(decoder));
    decoded
}

/// Checks that [`decode`] would accept the bytes.
pub fn validate(py: Python<'_>, json: &mut Decoder, codec: &Codec, bytes: Option<&[u8]>) -> Result<(), Fault> {
    match (codec, bytes) {
        (_, None) | (Codec::Raw, _) => Ok(()),
        (Codec::Json, Some(bytes)) => json.validate(py, bytes).map_err(|error| decoding(py, &error)),
        // Only JSON is worth a judge of its own: the other codecs make one object, whatever the value.
        (codec, bytes) => decode(py, json, codec, bytes).map(drop),
    }
}

fn decoding(py: Python<'_>, error: &PyErr) -> Fault {
    Fault::new("Decode", error.value(py).to_string())
}

/// Appends a value's bytes.
pub fn encode(py: Python<'_>, codec: &Codec, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> Result<Encoded, Fault> {
    match codec {
        Codec::Json => match value.cast_exact::<PyBytes>() {
            Ok(bytes) => out.extend_from_slice(bytes.as_bytes()),
            Err(_) => {
                super::json::encode(value, out).map_err(|error| Fault::new("Encode", error.value(py).to_string()))?;
            }
        },
        Codec::Raw => {
            let Some(bytes) = raw(value)? else {
                return Ok(Encoded::Null);
            };
            out.extend_from_slice(bytes);
        }
        Codec::Binary => {
            let Some(bytes) = raw(value)? else {
                return Ok(Encoded::Null);
            };
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
        }
        other => {
            return Err(Fault::new("Encode", format!("the serializer \"{other}\" is not supported")));
        }
    }
    Ok(Encoded::Bytes)
}

/// Appends the bytes of a value of which a part was decoded.
pub fn encode_part(
    py: Python<'_>,
    codec: &Codec,
    value: &Bound<'_, PyAny>,
    rest: &Rest,
    out: &mut Vec<u8>,
) -> Result<Encoded, Fault> {
    match (codec, value.cast_exact::<PyDict>()) {
        (Codec::Json, Ok(part)) => super::json::encode_part(part, rest, out)
            .map(|()| Encoded::Bytes)
            .map_err(|error| Fault::new("Encode", error.value(py).to_string())),
        _ => encode(py, codec, value, out),
    }
}

/// Appends the bytes of a table's key or value. Here bytes do not pass by JSON: what is written must come
/// back unchanged.
pub fn encode_kept(
    py: Python<'_>,
    codec: &Codec,
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
) -> Result<Encoded, Fault> {
    if *codec != Codec::Json {
        return encode(py, codec, value, out);
    }
    super::json::encode(value, out).map_err(|error| Fault::new("Encode", error.value(py).to_string()))?;
    Ok(Encoded::Bytes)
}

fn raw<'a>(value: &'a Bound<'_, PyAny>) -> Result<Option<&'a [u8]>, Fault> {
    if value.is_none() {
        return Ok(None);
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Some(bytes.as_bytes()));
    }
    if let Ok(text) = value.cast::<PyString>() {
        // A `str` may hold lone surrogates, for which UTF-8 has no bytes.
        let text = text.to_str().map_err(|_| Fault::new("Encode", "the text is not valid Unicode"))?;
        return Ok(Some(text.as_bytes()));
    }
    Err(Fault::new("Encode", format!("{} is neither bytes nor str, as this serializer needs", type_name(value))))
}

/// Reads the result of a headers selector: a dict or a list of pairs, values `bytes`, `str` or `None`.
pub fn headers(_py: Python<'_>, value: &Bound<'_, PyAny>) -> Result<Vec<Header>, Fault> {
    let broken = |what: String| Fault::new("Header", what);
    if value.is_none() {
        return Ok(Vec::new());
    }
    let pairs = match value.cast::<PyDict>() {
        Ok(dict) => dict.items().into_any(),
        Err(_) => value.clone(),
    };
    let pairs = pairs
        .try_iter()
        .map_err(|_| broken(format!("headers are a dict or a list of pairs, not {}", type_name(value))))?;
    let mut headers = Vec::new();
    for pair in pairs {
        let pair = pair.map_err(|_| broken("headers are a dict or a list of pairs".to_owned()))?;
        let (name, value) = halves(&pair)
            .ok_or_else(|| broken(format!("headers are pairs of a name and a value, not {}", type_name(&pair))))?;
        let name: String =
            name.extract().map_err(|_| broken(format!("the name of a header is a str, not {}", type_name(&name))))?;
        headers.push(header(name, &value)?);
    }
    Ok(headers)
}

/// Name and value of a header: a tuple or, as JSON has pairs, a list.
fn halves<'py>(pair: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    match pair.cast::<PyList>() {
        Ok(list) if list.len() == 2 => Some((list.get_item(0).ok()?, list.get_item(1).ok()?)),
        Ok(_) => None,
        // Takes tuples alone: any sequence of two would make a pair of the text "ab".
        Err(_) => pair.extract().ok(),
    }
}

fn header(name: String, value: &Bound<'_, PyAny>) -> Result<Header, Fault> {
    match raw(value) {
        Ok(bytes) => Ok((name, bytes.map(Bytes::copy_from_slice))),
        Err(_) => {
            let what = format!("the header \"{name}\" is {}: bytes, str or None are possible", type_name(value));
            Err(Fault::new("Header", what))
        }
    }
}

/// The name of a value's class, for messages.
pub fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}
