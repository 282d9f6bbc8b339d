//! Tokens that nobody vouches for, as brokers of tests take them: a JSON Web Token without a signature.
//!
//! librdkafka makes such tokens itself, but its wrapper drops the question for the next one.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::{Token, Tokens};
use crate::config::secret::Secret;

/// The setting that says what stands in a token: `principal=shop lifeSeconds=60`.
pub const CONFIG: &str = "sasl.oauthbearer.config";
/// Life of a token, where the setting does not say: librdkafka's own.
const LIFE_SECONDS: i64 = 3600;

/// Makes tokens for a principal.
#[derive(Debug)]
pub struct Unsigned {
    principal: String,
    life_ms: i64,
}

impl Unsigned {
    /// Reads the setting.
    ///
    /// An error: there is no principal, or the life is no number of seconds.
    pub fn new(user: &BTreeMap<String, Secret>) -> Result<Unsigned, String> {
        let config = user.get(CONFIG).map_or("", Secret::expose);
        let value = |name: &str| {
            let pairs = config.split_whitespace().filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
        };
        let principal = value("principal").filter(|principal| !principal.is_empty());
        let principal = principal.ok_or(format!("the Kafka setting {CONFIG} names no user: it is principal=NAME"))?;
        let life = value("lifeSeconds").map_or(Some(LIFE_SECONDS), |life| life.parse().ok());
        let life = life.filter(|life| (1..=LIFE_SECONDS * 24 * 365).contains(life));
        let life = life.ok_or(format!("lifeSeconds in the Kafka setting {CONFIG} is no number of seconds"))?;
        Ok(Unsigned { principal: principal.to_owned(), life_ms: life * 1000 })
    }
}

impl Tokens for Unsigned {
    fn token(&self, now_ms: i64) -> Token {
        let expires_ms = now_ms + self.life_ms;
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let claims = json!({ "sub": self.principal, "iat": seconds(now_ms), "exp": seconds(expires_ms) });
        let [head, claims] = [json!({ "alg": "none" }), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        Token { value: Secret::new(format!("{head}.{claims}.")), principal: self.principal.clone(), expires_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_user_and_its_end() {
        let user = |config: &str| BTreeMap::from([(CONFIG.to_owned(), Secret::new(config))]);
        let tokens = Unsigned::new(&user("principal=shop lifeSeconds=60")).expect("it names a user");
        let token = tokens.token(1_500);
        assert_eq!((token.principal.as_str(), token.expires_ms), ("shop", 61_500));
        let parts: Vec<&str> = token.value.expose().split('.').collect();
        let claims = URL_SAFE_NO_PAD.decode(parts[1]).expect("it is base64");
        assert_eq!(claims, br#"{"exp":61.5,"iat":1.5,"sub":"shop"}"#);
        assert_eq!((parts[0], parts[2]), ("eyJhbGciOiJub25lIn0", ""), "as librdkafka writes it");
        assert!(Unsigned::new(&user("lifeSeconds=60")).expect_err("no user").contains("principal="));
        assert!(Unsigned::new(&user("principal=shop lifeSeconds=soon")).expect_err("no time").contains("lifeSeconds"));
    }
}
