//! Values that are never printed, and the names of settings that have such values.
//!
//! Settings of Kafka clients come from flags, files and variables and are shown in errors and in the status: a
//! password must get into none of them.

use std::fmt;

/// A value that neither `Debug` nor `Display` shows.
///
/// Only [`Secret::expose`] gives it away.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a value.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value, for the client that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Words in the names of settings whose values are secrets.
const WORDS: [&str; 8] = ["password", "passphrase", "secret", "token", "key", "pem", "jaas", "cadata"];

/// A setting whose name has none of these words, and whose value has a secret within it.
const OTHER: &str = "sasl.oauthbearer.config";

/// Ends of names whose values are the places of secrets, not secrets.
const PLACES: [&str; 6] = [".location", ".file", ".url", ".keytab", ".cafile", ".capath"];

/// True if a setting's value is a secret, by its name: `sasl.password`.
///
/// ```text
/// ssl.key.password                       secret
/// ssl.key.location                       no secret: the place of one
/// sasl.oauthbearer.token.endpoint.url    no secret: an address
/// ```
///
/// A name that might be a secret's counts as one: a value that is hidden needlessly does no harm.
pub fn is_secret(name: &str) -> bool {
    // By words, not by a list: names that librdkafka adds later are covered.
    let has_word = name == OTHER || WORDS.iter().any(|word| name.contains(word));
    has_word && !PLACES.iter().any(|place| name.ends_with(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", [Some(&secret)]), "*** *** [Some(***)]");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn names_tell_secrets() {
        for name in [
            "sasl.password",
            "auth.password",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.keystore.password",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "sasl.jaas.config",
            "auth.cadata",
            "aws.session.token",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["sasl.username", "linger.ms", "ssl.key.location", "sasl.oauthbearer.token.endpoint.url"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
