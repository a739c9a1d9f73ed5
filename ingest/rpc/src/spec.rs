//! What an operator says about one endpoint.

use std::{str::FromStr, time::Duration};

use crate::{InvalidEndpoint, Redacted};

/// One endpoint as configured.
///
/// A URL alone is an endpoint too, of priority 0 and without limits: `url.into()`, or its text
/// parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Where it is. HTTP and WebSocket endpoints both serve data; WebSocket ones also wake.
    pub url: Redacted,
    /// Lower is asked first. An endpoint of a higher number is used while all of lower ones fail,
    /// rest, lag, are distrusted or are at their rate limit, and at times as the second that is
    /// asked when the first is slow. Within one number the healthier is asked first.
    pub priority: u8,
    /// Most calls per second, where each call of a batch counts; a second's worth may go at once.
    /// `None` is no limit. A message that would have to wait long goes to the next endpoint if
    /// there is one, and else waits. 0 counts as 1.
    pub rate_per_second: Option<u32>,
    /// What it may be asked in all. `None` is no limit.
    pub budget: Option<Budget>,
    /// Most calls in one message to this endpoint, in place of
    /// [`Options::batch_calls_max`](crate::Options::batch_calls_max). 0 counts as 1.
    pub batch_calls_max: Option<usize>,
}

/// A number of calls per window of time, such as 3 000 000 per 30 days.
///
/// The window begins with the first call and rolls when it is over. A message that does not fit
/// into what is left is not sent, and the endpoint rests until the window rolls. Each call of a
/// batch counts, failed ones and those that ask an endpoint who it is too; a subscription to new
/// heads does not. The count is kept in
/// memory: a restart begins a new window, so a short window binds more tightly than a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Most calls in a window.
    pub calls: u64,
    /// The length of a window.
    pub per: Duration,
}

impl From<Redacted> for EndpointSpec {
    fn from(url: Redacted) -> EndpointSpec {
        EndpointSpec {
            url,
            priority: 0,
            rate_per_second: None,
            budget: None,
            batch_calls_max: None,
        }
    }
}

impl FromStr for EndpointSpec {
    type Err = InvalidEndpoint;

    fn from_str(url: &str) -> Result<EndpointSpec, InvalidEndpoint> {
        url.parse::<Redacted>().map(EndpointSpec::from)
    }
}
