//! Codecs: how bytes become values and values bytes.
//!
//! In specs and in the plan a codec is text: `json`, `raw`, `binary|json`.
//!
//! ```
//! use kaspr_ir::plan::Codec;
//!
//! assert_eq!("json".parse(), Ok(Codec::Json));
//! assert_eq!("json | binary".parse(), Ok(Codec::Chain(vec![Codec::Json, Codec::Binary])));
//! assert_eq!(Codec::Chain(vec![Codec::Json, Codec::Binary]).to_string(), "json|binary");
//! assert!("jsn".parse::<Codec>().is_err());
//! ```

use serde::{Deserialize, Serialize};

/// Codec between bytes and values.
///
/// The executor runs `raw`, `json` and `binary`; the others compile and are refused at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
// As text, so that a plan says what the spec says.
#[serde(into = "String", try_from = "String")]
pub enum Codec {
    /// Bytes as they are.
    Raw,
    /// JSON as CPython reads and writes it.
    Json,
    /// Base64.
    Binary,
    /// Base64 of pickle.
    Pickle,
    /// YAML.
    Yaml,
    /// Several in turn, `a|b`: encoded left to right.
    /// At least two, and none of them a chain.
    Chain(Vec<Codec>),
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Codec::Raw => f.write_str("raw"),
            Codec::Json => f.write_str("json"),
            Codec::Binary => f.write_str("binary"),
            Codec::Pickle => f.write_str("pickle"),
            Codec::Yaml => f.write_str("yaml"),
            Codec::Chain(codecs) => {
                for (i, codec) in codecs.iter().enumerate() {
                    write!(f, "{}{codec}", if i == 0 { "" } else { "|" })?;
                }
                Ok(())
            }
        }
    }
}

impl From<Codec> for String {
    fn from(codec: Codec) -> String {
        codec.to_string()
    }
}

/// The text names no codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCodec(pub String);

impl std::fmt::Display for UnknownCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\" is not a serializer", self.0)
    }
}

impl std::error::Error for UnknownCodec {}

impl std::str::FromStr for Codec {
    type Err = UnknownCodec;
    fn from_str(text: &str) -> Result<Codec, UnknownCodec> {
        // Each part is parsed by itself, so an empty one (`a||b`) is unknown like any other.
        if text.contains('|') {
            let codecs: Result<_, _> = text.split('|').map(|one| one.trim().parse()).collect();
            return codecs.map(Codec::Chain);
        }
        Ok(match text {
            "raw" => Codec::Raw,
            "json" => Codec::Json,
            "binary" => Codec::Binary,
            "pickle" => Codec::Pickle,
            "yaml" => Codec::Yaml,
            _ => return Err(UnknownCodec(text.to_owned())),
        })
    }
}

impl TryFrom<String> for Codec {
    type Error = UnknownCodec;
    fn try_from(text: String) -> Result<Codec, UnknownCodec> {
        text.parse()
    }
}
