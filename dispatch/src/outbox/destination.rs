//! Where effects go: an orderbook or a webhook, and how it is asked.
//!
//! One destination serves all lanes of the process, so that its limits hold for the process.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use alloy_primitives::{B256, hex};
use shepherd_log::{Effect, EffectKey, ORDER_UID_BYTES};
use shepherd_rpc::{Failure, Redacted, Web, WebAnswer, WebRequest};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    answer::{self, Answer, Lookup, REFUSAL_BYTES_MAX},
    gate::{Admission, Change, End, Gate, Limits, Ticket},
};
use crate::metrics::Metrics;

/// How long sending an effect may take, connecting included.
const SEND_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a question may take.
const ASK_TIME_MAX: Duration = Duration::from_secs(10);

/// What a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An orderbook.
    Orderbook,
    /// A webhook.
    Webhook,
}

impl Kind {
    /// Its word in metrics and log lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Orderbook => "orderbook",
            Kind::Webhook => "webhook",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A receiver of effects. A clone is the same one.
#[derive(Clone)]
pub struct Destination(Arc<Inner>);

struct Inner {
    kind: Kind,
    name: String,
    url: Redacted,
    web: Web,
    gate: Mutex<Gate>,
    /// Counts what others may wait for: a breaker that moved, a request that made room.
    changes: watch::Sender<u64>,
    metrics: Metrics,
}

impl Limits {
    /// What an orderbook is asked when nobody says otherwise.
    pub const ORDERBOOK: Limits = Limits {
        rate_per_second: 20,
        parallel_max: 64,
        rest_min: Duration::from_millis(500),
        rest_max: Duration::from_secs(30),
    };

    /// What a webhook is asked when nobody says otherwise. One request at a time, so that its
    /// receiver need not sort them.
    pub const WEBHOOK: Limits = Limits {
        rate_per_second: 5,
        parallel_max: 1,
        rest_min: Duration::from_millis(500),
        rest_max: Duration::from_secs(30),
    };
}

impl Destination {
    /// An orderbook, by the URL that `/api/v1` comes after. `name` is its chain's.
    pub fn orderbook(
        web: &Web,
        name: &str,
        url: Redacted,
        limits: Limits,
        metrics: &Metrics,
    ) -> Destination {
        Destination::new(Kind::Orderbook, web, name, url, limits, metrics)
    }

    /// A webhook, by its URL. `name` is the operator's.
    pub fn webhook(
        web: &Web,
        name: &str,
        url: Redacted,
        limits: Limits,
        metrics: &Metrics,
    ) -> Destination {
        Destination::new(Kind::Webhook, web, name, url, limits, metrics)
    }

    fn new(
        kind: Kind,
        web: &Web,
        name: &str,
        url: Redacted,
        limits: Limits,
        metrics: &Metrics,
    ) -> Destination {
        metrics.destination_is_down(kind, name, false);
        Destination(Arc::new(Inner {
            kind,
            name: name.to_owned(),
            url,
            web: web.clone(),
            gate: Mutex::new(Gate::new(limits)),
            changes: watch::Sender::new(0),
            metrics: metrics.clone(),
        }))
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What the operator calls it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What a receiver said, made safe to show: without the URL, without control characters.
    pub(crate) fn shown(&self, said: &str) -> String {
        self.0.url.scrub(said)
    }

    /// Its version, as an orderbook says it: whether it can be reached.
    pub async fn version(&self) -> Result<String, Failure> {
        let answer = self.get(&["version"], ASK_TIME_MAX, 1 << 10).await?;
        match answer.status {
            200 => Ok(self.0.url.scrub(&String::from_utf8_lossy(&answer.body))),
            status => Err(Failure::Status { status }),
        }
    }

    /// Wakes its holder when something changed that a request may have waited for.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Whether a request may go now.
    pub(crate) fn admit(&self) -> Result<Pass, NotNow> {
        match self.gate().admit(Instant::now()) {
            Admission::Go(ticket) => Ok(Pass { to: self.clone(), ticket: Some(ticket) }),
            Admission::NotBefore(at) => Err(NotNow::Until(at)),
            Admission::Busy => Err(NotNow::Busy),
        }
    }

    /// Asks an orderbook for an order of this UID, in turn but whether or not it is down.
    pub(crate) async fn order(&self, uid: &[u8; ORDER_UID_BYTES], bytes_max: usize) -> Read {
        self.read(&["orders", &hex::encode_prefixed(uid)], bytes_max).await
    }

    /// Asks an orderbook for the document of this hash, in turn but whether or not it is down.
    pub(crate) async fn app_data(&self, hash: B256, bytes_max: usize) -> Read {
        self.read(&["app_data", &hash.to_string()], bytes_max).await
    }

    async fn read(&self, segments: &[&str], bytes_max: usize) -> Read {
        loop {
            let turn = self.gate().take_turn(Instant::now());
            let Err(at) = turn else { break };
            sleep(at.saturating_duration_since(Instant::now())).await;
        }
        let answer = self.get(segments, ASK_TIME_MAX, bytes_max).await?;
        if let Some(pause) = answer.retry_after.filter(|_| matches!(answer.status, 429 | 503)) {
            self.gate().pause(Instant::now(), pause);
        }
        Ok(answer)
    }

    async fn get(&self, path: &[&str], time_max: Duration, answer_bytes_max: usize) -> Read {
        let url = self.0.url.below(&["api", "v1"]).below(path);
        let request =
            WebRequest { url: &url, headers: &[], body: None, time_max, answer_bytes_max };
        bounded(time_max, self.0.web.send(request)).await
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.0.gate.lock().expect("nothing panics while it holds the gate")
    }

    fn end(&self, ticket: Ticket, end: End, reason: &str) {
        let change = self.gate().end(ticket, end, Instant::now());
        let Inner { kind, name, metrics, .. } = &*self.0;
        match change {
            Change::Nothing => (),
            Change::Opened { rest } => {
                warn!(destination = name, %kind, ?rest, reason, "destination is down");
                metrics.destination_is_down(*kind, name, true);
            }
            Change::Closed => {
                info!(destination = name, %kind, "destination is up again");
                metrics.destination_is_down(*kind, name, false);
            }
        }
        self.0.changes.send_modify(|changes| *changes += 1);
    }
}

type Read = Result<WebAnswer, Failure>;

/// The library's own limit starts when the request does; this one holds whatever it waits for.
async fn bounded(time_max: Duration, sending: impl Future<Output = Read>) -> Read {
    let failed = || Failure::TimedOut { reason: format!("no answer in {time_max:?}") };
    timeout(time_max, sending).await.unwrap_or_else(|_| Err(failed()))
}

/// Why a request may not go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotNow {
    /// Not before this.
    Until(Instant),
    /// Not before another request has ended.
    Busy,
}

/// The right to one request. Dropping it gives it back.
pub(crate) struct Pass {
    to: Destination,
    /// Taken when the request ended.
    ticket: Option<Ticket>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.to.end(ticket, End::Unknown, "");
        }
    }
}

impl Pass {
    /// Sends an effect once: its bytes, and for a webhook its key.
    pub async fn send(self, effect: Effect) -> Answer {
        let Inner { url, web, .. } = &*self.to.0;
        let (url, key) = match &effect.key {
            EffectKey::Order(_) => (url.below(&["api", "v1", "orders"]), None),
            EffectKey::Webhook { key, .. } => (url.clone(), Some(key.as_str())),
        };
        let headers: Vec<(&'static str, &str)> =
            key.map(|key| ("Idempotency-Key", key)).into_iter().collect();
        let request = WebRequest {
            url: &url,
            headers: &headers,
            body: Some(effect.body.into()),
            time_max: SEND_TIME_MAX,
            answer_bytes_max: REFUSAL_BYTES_MAX,
        };
        let answer = match bounded(SEND_TIME_MAX, web.send(request)).await {
            Err(failure) => Answer::Weather(failure.into()),
            Ok(answer) => match &effect.key {
                EffectKey::Order(uid) => answer::to_order(uid, &answer),
                EffectKey::Webhook { .. } => answer::to_webhook(&answer),
            },
        };
        self.ended(match &answer {
            Answer::Weather(weather) => Some(weather),
            _ => None,
        });
        answer
    }

    /// Asks the orderbook whether it has an order.
    pub async fn look_up(self, uid: &[u8; ORDER_UID_BYTES]) -> Lookup {
        let path = ["orders", &hex::encode_prefixed(uid)];
        let lookup = match self.to.get(&path, ASK_TIME_MAX, 0).await {
            Err(failure) => Lookup::Weather(failure.into()),
            Ok(answer) => answer::to_lookup(&answer),
        };
        self.ended(match &lookup {
            Lookup::Weather(weather) => Some(weather),
            _ => None,
        });
        lookup
    }

    fn ended(mut self, weather: Option<&answer::Weather>) {
        let ticket = self.ticket.take().expect("a pass is for one request");
        match weather {
            None => self.to.end(ticket, End::Answered, ""),
            Some(weather) => {
                let end = End::Failed { pause: weather.retry_after };
                self.to.end(ticket, end, &weather.reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pass_that_is_dropped_makes_room_for_the_next() {
        let url = "http://127.0.0.1:1/".parse().unwrap();
        let metrics = Metrics::unregistered();
        let hook = Destination::webhook(&Web::new(), "alerts", url, Limits::WEBHOOK, &metrics);
        let mut changes = hook.watch();
        let Ok(pass) = hook.admit() else { panic!("nobody else is there") };
        assert_eq!(hook.admit().err(), Some(NotNow::Busy));
        assert!(!changes.has_changed().unwrap());
        drop(pass);
        changes.changed().await.unwrap();
        assert!(hook.admit().is_ok());
    }
}
