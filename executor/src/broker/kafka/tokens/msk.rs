//! Tokens of AWS MSK with IAM: the address of a request that is signed with AWS credentials (SigV4, in its query), in
//! base64. The broker repeats the request, and learns from the answer who has signed it.
//!
//! ```text
//! https://kafka.{region}.amazonaws.com/?Action=kafka-cluster%3AConnect&X-Amz-…&X-Amz-Signature=…&User-Agent=…
//! ```
//!
//! As AWS's own `aws-msk-iam-sasl-signer` makes it. Sources: SigV4 (AWS, "Signing AWS API requests"), RFC 2104 (HMAC).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::{Token, Tokens};
use crate::config::secret::Secret;

/// Life of a token.
const LIFE_SECONDS: i64 = 900;
const SERVICE: &str = "kafka-cluster";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const AGENT: &str = concat!("kaspr-exec/", env!("CARGO_PKG_VERSION"));
/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// The beginning of the settings that are read here; the rest are AWS's variables: `aws.access.key.id` is
/// `AWS_ACCESS_KEY_ID`.
const PREFIX: &str = "aws.";
/// Variables of AWS that say where credentials or the region are, the first of a kind first.
pub const VARIABLES: [&str; 10] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_ROLE_ARN",
    "AWS_PROFILE",
];
/// The variables that name sources of credentials which are not read.
const NOT_READ: [&str; 5] = [VARIABLES[5], VARIABLES[6], VARIABLES[7], VARIABLES[8], VARIABLES[9]];

/// The setting that a variable of AWS gives: `aws.access.key.id`.
pub fn setting(variable: &str) -> String {
    variable.to_ascii_lowercase().replace('_', ".")
}

/// True if a setting is read here.
pub fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Signs with static credentials.
#[derive(Debug)]
pub struct MskIam {
    region: String,
    key_id: Secret,
    key: Secret,
    /// Temporary credentials have one.
    session: Option<Secret>,
}

impl MskIam {
    /// Reads region and credentials.
    ///
    /// An error names the variable that is missing, or the source of credentials that is not read.
    pub fn new(user: &BTreeMap<String, Secret>) -> Result<MskIam, String> {
        let is_known = |name: &String| VARIABLES.iter().any(|variable| setting(variable) == *name);
        if let Some(unknown) = user.keys().find(|name| is_ours(name) && !is_known(name)) {
            return Err(format!(
                "the Kafka setting \"{unknown}\" is refused: no variable of AWS that is read has this name"
            ));
        }
        let value = |variable: &str| user.get(&setting(variable)).filter(|value| !value.expose().is_empty());
        let key = |variable: &str| {
            let other = NOT_READ.iter().find(|other| value(other).is_some());
            let other = other.map_or_else(String::new, |other| format!(" ({other} is set, and is not read)"));
            let missing = || format!("{} is aws_msk_iam, and {variable} is not set{other}", super::METHOD);
            value(variable).cloned().ok_or_else(missing)
        };
        let region = value(VARIABLES[3]).or_else(|| value(VARIABLES[4])).map(|region| region.expose().to_owned());
        let region = region.ok_or(format!("{} is aws_msk_iam, and AWS_REGION is not set", super::METHOD))?;
        if !region.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-') {
            return Err("AWS_REGION is no name of a region".to_owned());
        }
        Ok(MskIam {
            region,
            key_id: key(VARIABLES[0])?,
            key: key(VARIABLES[1])?,
            session: value(VARIABLES[2]).cloned(),
        })
    }

    /// The address with its signature. `at` is the time of the signature: `20261130T200000Z`.
    fn signed(&self, at: &str) -> String {
        let (day, host) = (at.split('T').next().unwrap_or_default(), format!("kafka.{}.amazonaws.com", self.region));
        let scope = format!("{day}/{}/{SERVICE}/aws4_request", self.region);
        let mut query = vec![
            ("Action", format!("{SERVICE}:Connect")),
            ("X-Amz-Algorithm", ALGORITHM.to_owned()),
            ("X-Amz-Credential", format!("{}/{scope}", self.key_id.expose())),
            ("X-Amz-Date", at.to_owned()),
            ("X-Amz-Expires", LIFE_SECONDS.to_string()),
            ("X-Amz-SignedHeaders", "host".to_owned()),
        ];
        query.extend(self.session.as_ref().map(|session| ("X-Amz-Security-Token", session.expose().to_owned())));
        // The signature is of the parameters in the order of their names.
        query.sort();
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let query = query.join("&");
        // Method, path, query, headers with an empty line, their names, and the hash of no body.
        let request = format!("GET\n/\n{query}\nhost:{host}\n\nhost\n{}", hex(&Sha256::digest(b"")));
        let text = format!("{ALGORITHM}\n{at}\n{scope}\n{}", hex(&Sha256::digest(request.as_bytes())));
        let signature = hex(&hmac(&self.key_of(day), text.as_bytes()));
        format!("https://{host}/?{query}&X-Amz-Signature={signature}&User-Agent={}", encoded(AGENT))
    }

    /// The key for a day: derived, so that one that is found is of no use elsewhere.
    fn key_of(&self, day: &str) -> [u8; 32] {
        let secret = format!("AWS4{}", self.key.expose());
        let day = hmac(secret.as_bytes(), day.as_bytes());
        [self.region.as_str(), SERVICE, "aws4_request"].iter().fold(day, |key, part| hmac(&key, part.as_bytes()))
    }
}

impl Tokens for MskIam {
    fn token(&self, now_ms: i64) -> Token {
        let value = URL_SAFE_NO_PAD.encode(self.signed(&written(now_ms / 1000)));
        // The time that is signed is one of whole seconds.
        let expires_ms = (now_ms / 1000 + LIFE_SECONDS) * 1000;
        Token { value: Secret::new(value), principal: "aws_msk_iam".to_owned(), expires_ms }
    }
}

/// A keyed hash (RFC 2104).
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK];
    match key.len() > BLOCK {
        true => block[..32].copy_from_slice(&Sha256::digest(key)),
        false => block[..key.len()].copy_from_slice(key),
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every byte that is not unreserved (RFC 3986) as `%2F`.
fn encoded(text: &str) -> String {
    let letter = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(letter).collect()
}

/// Seconds since 1970 as `20261130T200000Z`.
fn written(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years that begin in March, so that a leap day is the last: Howard Hinnant, "chrono-compatible date algorithms".
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let day = day - (153 * march + 2) / 5 + 1;
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(settings: &[(&str, &str)]) -> BTreeMap<String, Secret> {
        settings.iter().map(|(variable, value)| (setting(variable), Secret::new(*value))).collect()
    }

    const STATIC: [(&str, &str); 3] = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        ("AWS_REGION", "eu-west-1"),
    ];

    /// Signatures of aws-msk-iam-sasl-signer-python 1.0.2 with botocore 1.43.11, at 2026-11-30 20:00:00.
    #[test]
    fn addresses_are_signed_as_awss_own_signer_signs_them() {
        let beginning = "https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261130%2Feu-west-1%2Fkafka-cluster%2Faws4_request&X-Amz-Date=20261130T200000Z&X-Amz-Expires=900";
        let end = format!("&User-Agent={}", AGENT.replace('/', "%2F"));
        let session = ("AWS_SESSION_TOKEN", "FwoGZXIvYXdzEBYaDK+/=session token");
        for (session, expected) in [
            (
                None,
                "&X-Amz-SignedHeaders=host&X-Amz-Signature=2fa8f206e12616a6b3fdba70d627146f0298121ab4f2f028a65fa0d11df8f301",
            ),
            (
                Some(session),
                "&X-Amz-SignedHeaders=host&X-Amz-Security-Token=FwoGZXIvYXdzEBYaDK%2B%2F%3Dsession%20token&X-Amz-Signature=ff25f76e8bd33c257b5535e368e683fdfa8645952d7c38ef0e9ecba6998ee62f",
            ),
        ] {
            let given: Vec<_> = STATIC.into_iter().chain(session).collect();
            let token = MskIam::new(&user(&given)).expect("all is there").token(1_796_068_800_123);
            assert_eq!(token.expires_ms, 1_796_069_700_000);
            let address = URL_SAFE_NO_PAD.decode(token.value.expose()).expect("it is base64");
            let address = String::from_utf8(address).expect("it is text");
            // The order of parameters in the address is free; in the signature it is not.
            let parts =
                |address: &str| address.split('&').map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
            assert_eq!(parts(&address), parts(&format!("{beginning}{expected}{end}")));
        }
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_of_a_secret_is() {
        let refused = |given: &[(&str, &str)]| MskIam::new(&user(given)).expect_err("something is missing");
        assert!(refused(&STATIC[..2]).contains("AWS_REGION is not set"));
        assert!(refused(&STATIC[2..]).contains("AWS_ACCESS_KEY_ID is not set"));
        let web = [STATIC[2], ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token")];
        assert!(refused(&web).contains("(AWS_WEB_IDENTITY_TOKEN_FILE is set, and is not read)"));
        assert!(refused(&[STATIC[0], STATIC[1], ("AWS_REGION", "eu west")]).contains("no name of a region"));
        let misspelt = [STATIC[0], STATIC[1], STATIC[2], ("AWS_SESION_TOKEN", "wJalr")];
        assert!(refused(&misspelt).contains("\"aws.sesion.token\" is refused"));
        let shown = format!("{:?}", MskIam::new(&user(&STATIC)).expect("all is there"));
        assert!(!shown.contains("wJalr") && !shown.contains("AKID"), "{shown}");
    }

    #[test]
    fn days_are_counted() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_796_068_800, "20261130T200000Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(written(seconds), expected);
        }
    }

    /// RFC 4231, test cases 2 and 6 (a key that is longer than a block).
    #[test]
    fn hashes_are_keyed() {
        let hash = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(&hash), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let hash = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex(&hash), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }
}
