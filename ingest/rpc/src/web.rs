//! HTTP for what is not JSON-RPC: one request, one answer, a bound on everything.
//!
//! Whatever its status, an answer is an answer here; what it means is for whoever asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use reqwest::{Client, header, redirect};

use crate::{Failure, Redacted, failure::in_words};

/// For a connection to be made, of whatever kind.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// What one process asks over HTTP, on shared connections. Clones share them.
#[derive(Clone)]
pub struct Web {
    /// By what a URL needs of its client; made when the first of its kind is asked.
    clients: Arc<Mutex<BTreeMap<Needs, Result<Client, String>>>>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct WebRequest<'r> {
    /// Where to.
    pub url: &'r Redacted,
    /// Headers, by name and value. Values must not hold control characters.
    pub headers: &'r [(&'static str, &'r str)],
    /// What is posted, as JSON. `None` gets.
    pub body: Option<Bytes>,
    /// How long all of it may take, the connection included.
    pub time_max: Duration,
    /// How much of the answer's body is kept.
    pub answer_bytes_max: usize,
}

/// One answer, whatever its status. Redirects are not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebAnswer {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After`, when there is one that can be read. Not bounded: a server may say anything.
    pub retry_after: Option<Duration>,
    /// The body, or its beginning.
    pub body: Bytes,
    /// Whether more came than was kept.
    pub is_cut: bool,
}

impl Default for Web {
    fn default() -> Web {
        Web::new()
    }
}

impl Web {
    /// Nothing is connected to yet, so nothing can fail yet.
    pub fn new() -> Web {
        // The default provider of the process is ring everywhere; an error only says that one is
        // installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Web { clients: Arc::default() }
    }

    /// Sends a request and reads the answer, as far as it is kept.
    pub async fn send(&self, request: WebRequest<'_>) -> Result<WebAnswer, Failure> {
        let WebRequest { url, headers, body, time_max, answer_bytes_max } = request;
        let client = self.client(url).map_err(|reason| Failure::Unreachable { reason })?;
        let target = url.secret().clone();
        let mut sending = match body {
            None => client.get(target),
            Some(body) => {
                client.post(target).header(header::CONTENT_TYPE, "application/json").body(body)
            }
        };
        for (name, value) in headers {
            sending = sending.header(*name, *value);
        }
        let failed = |error| failure(url, error);
        let mut answer = sending.timeout(time_max).send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        let retry_after = asked_to_wait(answer.headers(), SystemTime::now());
        let mut kept = BytesMut::new();
        let mut is_cut = false;
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            let room = answer_bytes_max - kept.len();
            kept.extend_from_slice(&chunk[..room.min(chunk.len())]);
            if room < chunk.len() {
                is_cut = true;
                break;
            }
        }
        Ok(WebAnswer { status, retry_after, body: kept.freeze(), is_cut })
    }

    fn client(&self, url: &Redacted) -> Result<Client, String> {
        let needs = Needs::of(url);
        let mut clients = self.clients.lock().expect("nothing panics while it holds the clients");
        let client =
            clients.entry(needs).or_insert_with(|| {
                needs.client().connect_timeout(CONNECT_TIME_MAX).build().map_err(|error| {
                    format!("cannot set up HTTP: {}", in_words(&error.without_url()))
                })
            });
        client.clone()
    }
}

/// What a URL needs of the client that asks it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Needs {
    is_tls: bool,
    is_loopback: bool,
}

impl Needs {
    pub(crate) fn of(url: &Redacted) -> Needs {
        Needs { is_tls: url.is_tls(), is_loopback: url.is_loopback() }
    }

    /// A client without time limits.
    pub(crate) fn client(self) -> reqwest::ClientBuilder {
        let mut client = Client::builder()
            .user_agent(concat!("shepherd/", env!("CARGO_PKG_VERSION")))
            // A redirect would carry the operator's key to a host that nobody configured.
            .redirect(redirect::Policy::none())
            .referer(false);
        if self.is_loopback {
            client = client.no_proxy();
        }
        if !self.is_tls {
            // Without this a machine that has no certificates could not even speak plain HTTP.
            client = client.tls_certs_only([]);
        }
        client
    }
}

/// A failure of the HTTP library in our words, without the URL.
pub(crate) fn failure(url: &Redacted, error: reqwest::Error) -> Failure {
    let timed_out = error.is_timeout();
    let reason = url.scrub(&in_words(&error.without_url()));
    if timed_out {
        return Failure::TimedOut { reason };
    }
    Failure::Unreachable { reason }
}

/// Reads `Retry-After`: seconds, or the date to wait for.
pub(crate) fn asked_to_wait(headers: &header::HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let seconds = u64::try_from(date.timestamp().as_second()).ok()?;
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        check("7", Some(7));
        check(" 0 ", Some(0));
        check("86400", Some(86_400));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(7));
        check("Sun, 06 Nov 1994 08:49:20 GMT", Some(0));
        check("soon", None);
        check("-1", None);
    }

    fn check(text: &str, seconds: Option<u64>) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let mut headers = header::HeaderMap::new();
        headers.insert(header::RETRY_AFTER, text.parse().unwrap());
        assert_eq!(asked_to_wait(&headers, now), seconds.map(Duration::from_secs), "{text}");
    }
}
