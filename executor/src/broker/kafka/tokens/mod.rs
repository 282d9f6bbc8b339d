//! Tokens by which clients prove who they are (SASL OAUTHBEARER), where they are made here and not by librdkafka.
//!
//! | `sasl.oauthbearer.method` | tokens come from |
//! |---|---|
//! | `oidc` | a token endpoint, which librdkafka asks |
//! | `aws_msk_iam` | [`msk`]: a signature with AWS credentials |
//! | none, with `enable.sasl.oauthbearer.unsecure.jwt` | [`unsigned`]: nobody vouches for them; for brokers of tests |
//!
//! A client gets its first token when it is made ([`ClientSettings::admit`]), before anything is asked of it: some are
//! never polled. Later ones come when librdkafka asks for them, at 80 % of a token's life, in a poll of the client.

pub mod msk;
pub mod unsigned;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tracing::debug;

use super::config::ClientSettings;
use super::context::Health;
use super::raw;
use crate::clock::{Clock as _, SystemClock};
use crate::config::secret::Secret;

/// The setting that says where tokens come from.
pub const METHOD: &str = "sasl.oauthbearer.method";
/// Its value for AWS MSK, which librdkafka does not know.
pub const MSK: &str = "aws_msk_iam";
/// The setting that allows tokens that nobody vouches for.
const UNSECURE: &str = "enable.sasl.oauthbearer.unsecure.jwt";
/// The mechanism of all of them.
const MECHANISM: &str = "OAUTHBEARER";
/// The name of MSK's mechanism in Java's clients.
const MECHANISM_OF_JAVA: &str = "AWS_MSK_IAM";

/// Settings of the user, by their names.
type Settings = BTreeMap<String, Secret>;

/// Makes tokens.
pub trait Tokens: Debug + Send + Sync {
    /// A token that is good from now on, in ms since 1970.
    fn token(&self, now_ms: i64) -> Token;
}

/// A token, and how long it is good.
#[derive(Debug)]
pub struct Token {
    /// The broker reads it, and nobody else should.
    pub value: Secret,
    /// The name that librdkafka shows for it.
    pub principal: String,
    /// In ms since 1970.
    pub expires_ms: i64,
}

/// The source of tokens that a user's settings name; `None`: no tokens are made here.
///
/// An error names the setting that is missing, or cannot be meant.
pub fn source(mechanism: &str, user: &Settings) -> Result<Option<Arc<dyn Tokens>>, String> {
    if mechanism.eq_ignore_ascii_case(MECHANISM_OF_JAVA) {
        return Err(format!(
            "the Kafka setting sasl.mechanisms is {mechanism}, which is Java's name: set it to {MECHANISM}, and {METHOD} to {MSK}"
        ));
    }
    if !mechanism.eq_ignore_ascii_case(MECHANISM) {
        return Ok(None);
    }
    let is_unsecure = user.get(UNSECURE).is_some_and(|value| value.expose().eq_ignore_ascii_case("true"));
    match user.get(METHOD).map_or("default", Secret::expose) {
        MSK => Ok(Some(Arc::new(msk::MskIam::new(user)?))),
        "oidc" if !cfg!(feature = "oidc") => {
            Err(format!("the Kafka setting {METHOD} is oidc, which this build leaves out: build with --features oidc"))
        }
        "oidc" => Ok(None),
        "default" if is_unsecure => Ok(Some(Arc::new(unsigned::Unsigned::new(user)?))),
        "default" => Err(format!(
            "the Kafka setting sasl.mechanisms is {MECHANISM}, and nothing says where tokens come from: set {METHOD} to oidc or {MSK}"
        )),
        // librdkafka says what it may be.
        _ => Ok(None),
    }
}

/// True if a setting is for the source of tokens and not for librdkafka.
pub fn is_ours(name: &str, user: &Settings) -> bool {
    match user.get(METHOD).map_or("default", Secret::expose) {
        MSK => name == METHOD || msk::is_ours(name),
        "default" => name == UNSECURE || (name == unsigned::CONFIG && user.contains_key(UNSECURE)),
        _ => false,
    }
}

impl ClientSettings {
    /// The source of tokens; `None`: no tokens are made here. The settings were checked before.
    pub fn tokens(&self) -> Option<Arc<dyn Tokens>> {
        let (_, _, with_users) = self.protocol();
        source(self.mechanism(), &self.user).ok().flatten().filter(|_| with_users)
    }

    /// Gives a client its first token, where tokens are made here.
    pub fn admit<C: ClientContext>(&self, client: &Client<C>) {
        let Some(tokens) = self.tokens() else { return };
        // A client without one asks for it: the next poll answers.
        if let Err(why) = raw::set_token(client, &tokens.token(SystemClock::start().wall_ms())) {
            debug!("a client gets its token later: {why}");
        }
    }
}

impl ClientSettings {
    /// The callbacks of a client of which nothing else is expected.
    pub fn bearer(&self) -> Bearer {
        Bearer(self.tokens())
    }

    /// A client with these settings of which nothing is expected but answers to questions.
    pub fn passive(&self, config: &ClientConfig) -> Result<BaseConsumer<Bearer>, KafkaError> {
        let client: BaseConsumer<Bearer> = config.create_with_context(self.bearer())?;
        self.admit(client.client());
        Ok(client)
    }
}

/// A token as librdkafka asks for it, in a poll.
///
/// An error: it asks for one where none are made here.
pub fn answer(tokens: Option<&Arc<dyn Tokens>>) -> Result<OAuthToken, Box<dyn Error>> {
    let tokens = tokens.ok_or("no settings say where tokens come from")?;
    let Token { value, principal, expires_ms } = tokens.token(SystemClock::start().wall_ms());
    Ok(OAuthToken { token: value.expose().to_owned(), principal_name: principal, lifetime_ms: expires_ms })
}

/// The callbacks of a client of which nothing is expected but that it has a token.
#[derive(Debug, Default)]
pub struct Bearer(pub Option<Arc<dyn Tokens>>);

impl ClientContext for Bearer {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Health::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(target: "librdkafka", "{error}: {reason}");
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        answer(self.0.as_ref())
    }
}

impl ConsumerContext for Bearer {}

impl ProducerContext for Bearer {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(settings: &[(&str, &str)]) -> Settings {
        settings.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect()
    }

    #[test]
    fn what_says_nothing_about_tokens_is_refused_by_name() {
        let refused = |mechanism, settings: &[(&str, &str)]| source(mechanism, &user(settings)).expect_err(mechanism);
        assert!(refused("OAUTHBEARER", &[]).contains("set sasl.oauthbearer.method to oidc or aws_msk_iam"));
        assert!(refused("AWS_MSK_IAM", &[]).contains("Java's name"));
        assert!(refused("OAUTHBEARER", &[(UNSECURE, "true")]).contains("principal="));
        assert!(source("PLAIN", &user(&[(METHOD, MSK)])).expect("no tokens are asked for").is_none());
        #[cfg(not(feature = "oidc"))]
        assert!(refused("OAUTHBEARER", &[(METHOD, "oidc")]).contains("--features oidc"));
    }

    #[test]
    fn settings_of_the_source_are_kept_from_librdkafka() {
        let user = user(&[(METHOD, MSK), ("aws.region", "eu-west-1"), ("linger.ms", "5")]);
        let ours: Vec<&str> = user.keys().map(String::as_str).filter(|name| is_ours(name, &user)).collect();
        assert_eq!(ours, ["aws.region", METHOD]);
    }
}
