//! JSON-RPC over HTTP, with a bound on everything.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::{Client, Response, StatusCode, header};

use crate::{
    Call, Failure, Options, Redacted,
    failure::in_words,
    web::{self, Needs, asked_to_wait},
    wire::{self, Reply},
};

/// Longest rest that a `Retry-After` can ask for.
///
/// A server that says "tomorrow" by mistake must not silence a chain for a day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// An HTTP endpoint.
pub(crate) struct Http {
    url: Redacted,
    /// Or why there is none: no certificates on this machine, for example.
    client: Result<Client, String>,
    body_bytes_max: u64,
}

impl Http {
    pub(crate) fn new(url: Redacted, options: &Options) -> Http {
        let client = client(&url, options).map_err(|error| {
            url.scrub(&format!("cannot set up HTTP: {}", in_words(&error.without_url())))
        });
        Http { client, url, body_bytes_max: options.body_bytes_max }
    }

    /// Sends the calls as one message and reads the message that answers them.
    pub(crate) async fn send(&self, calls: &[&Call]) -> Result<Reply, Failure> {
        let client = self
            .client
            .as_ref()
            .map_err(|reason| Failure::Unreachable { reason: reason.clone() })?;
        let response = client
            .post(self.url.secret().clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(wire::encode(calls))
            .send()
            .await
            .map_err(|error| self.failure(error))?;
        let status = response.status();
        if let Some(failure) = refusal(status, response.headers(), self.body_bytes_max) {
            return Err(failure);
        }
        let body = self.read(response).await?;
        match wire::decode(&body, calls.len(), &self.url) {
            // Some servers wrap an answer into a 4xx, others explain in HTML why there is none.
            Err(_) if !status.is_success() => Err(Failure::Status { status: status.as_u16() }),
            reply => reply,
        }
    }

    /// Reads the body, and stops as soon as it is larger than allowed.
    async fn read(&self, mut response: Response) -> Result<Bytes, Failure> {
        let too_large = Failure::TooLarge { limit_bytes: self.body_bytes_max };
        let announced = response.content_length().unwrap_or(0);
        if announced > self.body_bytes_max {
            return Err(too_large);
        }
        let mut body = BytesMut::with_capacity(announced as usize);
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failure(error))? {
            if (body.len() + chunk.len()) as u64 > self.body_bytes_max {
                return Err(too_large);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn failure(&self, error: reqwest::Error) -> Failure {
        web::failure(&self.url, error)
    }
}

fn client(url: &Redacted, options: &Options) -> Result<Client, reqwest::Error> {
    Needs::of(url)
        .client()
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.read_timeout)
        .timeout(options.request_timeout)
        .build()
}

/// Whether the status alone says that there will be no answer.
fn refusal(status: StatusCode, headers: &header::HeaderMap, limit_bytes: u64) -> Option<Failure> {
    let retry_after =
        asked_to_wait(headers, SystemTime::now()).map(|wait| wait.min(RETRY_AFTER_MAX));
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(Failure::RateLimited { retry_after }),
        StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => {
            Some(Failure::RateLimited { retry_after })
        }
        // The request was too large, not the answer; the remedy is the same: ask for less.
        StatusCode::PAYLOAD_TOO_LARGE => Some(Failure::TooLarge { limit_bytes }),
        status if status.is_server_error() || status.is_redirection() => {
            Some(Failure::Status { status: status.as_u16() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_cannot_hold_an_answer_is_a_failure() {
        let none = header::HeaderMap::new();
        let mut later = header::HeaderMap::new();
        later.insert(header::RETRY_AFTER, header::HeaderValue::from_static("2"));
        let mut tomorrow = header::HeaderMap::new();
        tomorrow.insert(header::RETRY_AFTER, header::HeaderValue::from_static("86400"));
        let limited = |seconds: Option<u64>| {
            Some(Failure::RateLimited { retry_after: seconds.map(Duration::from_secs) })
        };
        let status = |status| Some(Failure::Status { status });
        assert_eq!(refusal(StatusCode::OK, &none, 9), None);
        assert_eq!(refusal(StatusCode::BAD_REQUEST, &none, 9), None);
        assert_eq!(refusal(StatusCode::TOO_MANY_REQUESTS, &none, 9), limited(None));
        assert_eq!(refusal(StatusCode::TOO_MANY_REQUESTS, &later, 9), limited(Some(2)));
        assert_eq!(refusal(StatusCode::TOO_MANY_REQUESTS, &tomorrow, 9), limited(Some(300)));
        assert_eq!(refusal(StatusCode::SERVICE_UNAVAILABLE, &later, 9), limited(Some(2)));
        assert_eq!(refusal(StatusCode::SERVICE_UNAVAILABLE, &none, 9), status(503));
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, &none, 9), status(502));
        assert_eq!(refusal(StatusCode::FOUND, &none, 9), status(302));
        assert_eq!(
            refusal(StatusCode::PAYLOAD_TOO_LARGE, &none, 9),
            Some(Failure::TooLarge { limit_bytes: 9 })
        );
    }
}
