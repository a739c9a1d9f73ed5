//! The URL of an endpoint, of which only scheme and host are ever shown.
//!
//! Providers put the customer's key into the path, the query or the user name. Whoever reads
//! that key in a log file can spend the operator's quota, so the type that holds the URL has no
//! way to print it, and text that comes from libraries or servers is scrubbed before it is kept.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};
use url::Url;

/// An endpoint's URL: `http`, `https`, `ws` or `wss`.
///
/// `Display` and `Debug` show scheme, host and port. The rest leaves this type only towards the
/// transports of this crate.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted(Url);

/// Text that is not the URL of an endpoint. It is not repeated here, for it may hold a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// The text does not parse as a URL.
    #[error("not a URL: {0}")]
    NotAUrl(url::ParseError),
    /// The scheme is none that an endpoint can have.
    #[error("scheme `{0}` is not one of http, https, ws, wss")]
    Scheme(String),
}

/// Shortest part of a URL that is scrubbed from foreign text.
///
/// No provider's key is shorter, and scrubbing a path such as `/eth` would garble the message.
const SECRET_BYTES_MIN: usize = 5;

/// Longest foreign text kept, in characters: enough for a sentence, too short to flood a log.
const FOREIGN_TEXT_MAX: usize = 300;

impl Redacted {
    /// The whole URL, for opening the connection and for nothing else.
    pub(crate) fn secret(&self) -> &Url {
        &self.0
    }

    /// The same with more behind its path, segment by segment; a query stays where it was.
    pub fn below(&self, segments: &[&str]) -> Redacted {
        let mut url = self.0.clone();
        let mut path = url.path_segments_mut().expect("http and ws URLs have a path");
        path.pop_if_empty().extend(segments);
        drop(path);
        Redacted(url)
    }

    /// Whether the endpoint speaks WebSocket.
    pub fn is_websocket(&self) -> bool {
        matches!(self.0.scheme(), "ws" | "wss")
    }

    /// Whether the endpoint is reached through TLS.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.0.scheme(), "https" | "wss")
    }

    /// Whether the endpoint is on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.0.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }

    /// Foreign text made safe to show: every part of the URL that may be a key is replaced,
    /// control characters become spaces, and a long text is cut.
    pub fn scrub(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for secret in self.secrets() {
            clean = clean.replace(&secret, "***");
        }
        clean.chars().map(|c| if c.is_control() { ' ' } else { c }).take(FOREIGN_TEXT_MAX).collect()
    }

    /// The parts of the URL that may be a key, longest first so that a part of a part is not
    /// replaced before the whole.
    fn secrets(&self) -> Vec<String> {
        let url = &self.0;
        let mut secrets = vec![
            url.as_str().to_owned(),
            url.path().trim_matches('/').to_owned(),
            url.username().to_owned(),
            url.password().unwrap_or_default().to_owned(),
            url.query().unwrap_or_default().to_owned(),
            url.fragment().unwrap_or_default().to_owned(),
        ];
        secrets.extend(url.path().split('/').map(str::to_owned));
        secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        secrets.retain(|secret| secret.len() >= SECRET_BYTES_MIN);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }
}

impl FromStr for Redacted {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Redacted, InvalidEndpoint> {
        Url::parse(text).map_err(InvalidEndpoint::NotAUrl)?.try_into()
    }
}

impl TryFrom<Url> for Redacted {
    type Error = InvalidEndpoint;

    fn try_from(url: Url) -> Result<Redacted, InvalidEndpoint> {
        if !matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
            return Err(InvalidEndpoint::Scheme(url.scheme().to_owned()));
        }
        Ok(Redacted(url))
    }
}

impl<'de> Deserialize<'de> for Redacted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Redacted, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.0;
        let host = url.host_str().expect("http and ws URLs have a host");
        write!(f, "{}://{host}", url.scheme())?;
        match url.port() {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "s3cr3tk3y";

    #[test]
    fn only_scheme_and_host_are_shown() {
        check("https://eth.example/v2/s3cr3tk3y", "https://eth.example");
        check("https://eth.example:8443/?apikey=s3cr3tk3y", "https://eth.example:8443");
        check("wss://s3cr3tk3y@eth.example/ws", "wss://eth.example");
        check("wss://user:s3cr3tk3y@eth.example", "wss://eth.example");
        check("http://127.0.0.1:8545/#s3cr3tk3y", "http://127.0.0.1:8545");
        check("http://[::1]:8545/s3cr3tk3y", "http://[::1]:8545");
    }

    fn check(text: &str, shown: &str) {
        let url: Redacted = text.parse().unwrap();
        assert_eq!(url.to_string(), shown);
        assert_eq!(format!("{url:?}"), shown);
        let scrubbed = url.scrub(&format!("cannot open {text}: key {KEY}\nrefused"));
        assert!(!scrubbed.contains(KEY), "{scrubbed}");
        assert!(scrubbed.ends_with("refused") && !scrubbed.contains('\n'), "{scrubbed}");
    }

    #[test]
    fn what_is_below_a_url_keeps_its_query() {
        let below = |text: &str| {
            let url: Redacted = text.parse().unwrap();
            url.below(&["api", "v1", "a/b"]).secret().to_string()
        };
        assert_eq!(below("https://a"), "https://a/api/v1/a%2Fb");
        assert_eq!(below("https://a/sepolia"), "https://a/sepolia/api/v1/a%2Fb");
        assert_eq!(below("https://a/sepolia/?key=1"), "https://a/sepolia/api/v1/a%2Fb?key=1");
    }

    #[test]
    fn text_that_is_no_endpoint_is_refused_without_repeating_it() {
        for text in ["ftp://eth.example/s3cr3tk3y", "s3cr3tk3y", "http://", "file:///s3cr3tk3y"] {
            let error = text.parse::<Redacted>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains(KEY), "{error:?}");
        }
    }

    #[test]
    fn a_short_path_does_not_garble_messages() {
        let url: Redacted = "http://localhost:8545/eth".parse().unwrap();
        assert_eq!(url.scrub("method eth_call not found"), "method eth_call not found");
    }
}
