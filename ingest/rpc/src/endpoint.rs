//! One endpoint: how to ask it, and whether it is worth asking.
//!
//! ```text
//!   unknown ──it says who it is──▶ ready ──a failure──▶ resting ──time passes──▶ unknown
//! ```

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use crate::{
    Answer, Backoff, Call, Capabilities, ChainMismatch, EndpointSpec, Failure, Options, RpcError,
    Sighting, Throttle,
    http::Http,
    identity::{self, Identity},
    metrics::EndpointMetrics,
    wire::Reply,
    ws::Ws,
};

/// How an endpoint is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// The endpoint, redacted.
    pub endpoint: String,
    /// Whether it is used.
    pub state: EndpointState,
    /// When it failed last, and how.
    pub last_failure: Option<(SystemTime, Failure)>,
    /// Failures since it last answered.
    pub failures_in_a_row: u32,
    /// Calls sent since the process started.
    pub calls: u64,
}

/// Whether an endpoint is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// The next use will ask it which chain it serves.
    Unknown,
    /// It serves our chain and answers.
    Ready,
    /// It is left alone after a failure.
    Resting {
        /// For how much longer.
        remaining: Duration,
    },
    /// It answers, but what it said did not hold up: the others are asked first.
    Distrusted {
        /// For how much longer.
        remaining: Duration,
    },
    /// It serves another chain; it is asked again from time to time.
    WrongChain(ChainMismatch),
}

pub(crate) struct Endpoint {
    pub(crate) name: String,
    transport: Transport,
    identity: Arc<Identity>,
    metrics: EndpointMetrics,
    condition: Mutex<Condition>,
    /// Held while the endpoint is asked who it is, so that it is asked once.
    introduction: tokio::sync::Mutex<()>,
    calls: AtomicU64,
    /// Most calls per message: the configured number until the endpoint asks for less.
    batch_calls: AtomicUsize,
    batch_calls_max: usize,
}

enum Transport {
    Http(Http),
    Ws(Ws),
}

struct Condition {
    phase: Phase,
    /// Counts failures, so that of several calls that break together only the first counts.
    session: u64,
    backoff: Backoff,
    distrusted_until: Option<Instant>,
    /// Blocks behind the others, and until when that counts.
    lagging: Option<(u64, Instant)>,
    last_failure: Option<(SystemTime, Failure)>,
    warnings: Throttle,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Unknown,
    Ready,
    Resting { until: Instant },
    WrongChain { mismatch: ChainMismatch, until: Instant },
}

/// An endpoint whose data did not hold up comes last for this long.
///
/// A node that lags catches up within seconds, one that lost part of its database does not. If it
/// is the only one it is asked all the same, for it may be many nodes behind one address.
const DISTRUST: Duration = Duration::from_secs(60);

/// An endpoint whose head is behind the others' comes after them for this long, unless it is said
/// to lag again or to have caught up: a few blocks of a slow chain.
const LAG: Duration = Duration::from_secs(30);

/// An endpoint that fails is spoken of this often while it keeps failing.
const WARNING_INTERVAL: Duration = Duration::from_secs(30);

impl Endpoint {
    pub(crate) fn new(
        name: String,
        spec: EndpointSpec,
        identity: Arc<Identity>,
        options: &Options,
        metrics: EndpointMetrics,
    ) -> Endpoint {
        let batch_calls_max = spec.batch_calls_max.unwrap_or(options.batch_calls_max);
        let transport = if spec.url.is_websocket() {
            Transport::Ws(Ws::new(spec.url, options))
        } else {
            Transport::Http(Http::new(spec.url, options))
        };
        Endpoint {
            name,
            transport,
            identity,
            metrics,
            condition: Mutex::new(Condition {
                phase: Phase::Unknown,
                session: 0,
                backoff: Backoff::new(options.rest_min, options.rest_max),
                distrusted_until: None,
                lagging: None,
                last_failure: None,
                warnings: Throttle::new(WARNING_INTERVAL),
            }),
            introduction: tokio::sync::Mutex::new(()),
            calls: AtomicU64::new(0),
            batch_calls: AtomicUsize::new(batch_calls_max),
            batch_calls_max,
        }
    }

    pub(crate) fn status(&self) -> EndpointStatus {
        let condition = self.condition();
        let state = match condition.phase {
            Phase::Unknown => EndpointState::Unknown,
            Phase::Ready => match condition.distrusted() {
                Some(remaining) => EndpointState::Distrusted { remaining },
                None => EndpointState::Ready,
            },
            Phase::WrongChain { mismatch, .. } => EndpointState::WrongChain(mismatch),
            Phase::Resting { until } => EndpointState::Resting {
                remaining: until.saturating_duration_since(Instant::now()),
            },
        };
        EndpointStatus {
            endpoint: self.name.clone(),
            state,
            last_failure: condition.last_failure.clone(),
            failures_in_a_row: condition.backoff.failures(),
            calls: self.calls.load(Ordering::Relaxed),
        }
    }

    /// How long the endpoint still wants to be left alone, and why; `None` when it can be used.
    pub(crate) fn resting(&self) -> Option<(Duration, Failure)> {
        let condition = self.condition();
        let (Phase::Resting { until } | Phase::WrongChain { until, .. }) = condition.phase else {
            return None;
        };
        let remaining = until.checked_duration_since(Instant::now())?;
        let (_, failure) = condition.last_failure.clone()?;
        Some((remaining, failure))
    }

    /// Answers to all calls, in their order. After a failure the endpoint rests.
    pub(crate) async fn ask(
        &self,
        calls: &[Call],
    ) -> Result<Vec<Result<Answer, RpcError>>, Failure> {
        let session = self.introduced().await?;
        let answers = self.exchange(calls).await;
        match answers {
            Ok(answers) => {
                self.condition().backoff.reset();
                Ok(answers)
            }
            Err(failure) => Err(self.rest(session, failure).await),
        }
    }

    /// Asks who the endpoint is, whatever its condition.
    pub(crate) async fn sight(&self) -> Result<Sighting, Failure> {
        let sighting = identity::sighting(&self.exchange(&identity::questions()).await?)?;
        self.identity.accept(&sighting).map_err(Failure::WrongChain)?;
        Ok(sighting)
    }

    /// What the endpoint answered did not hold up: let others be asked first for a while.
    pub(crate) fn distrust(&self, reason: String) {
        let mut condition = self.condition();
        condition.distrusted_until = Some(Instant::now() + DISTRUST);
        let failure = Failure::Distrusted { reason };
        condition.complain(&failure, &self.name, DISTRUST);
    }

    /// The endpoint's head is behind the others': let them be asked first for a while.
    pub(crate) fn report_lagging(&self, behind_blocks: u64) {
        let until = Instant::now() + LAG;
        self.condition().lagging = (behind_blocks > 0).then_some((behind_blocks, until));
    }

    /// Whether others are to be asked first because of what it said.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.condition().distrusted().is_some()
    }

    /// Whether others are to be asked first because of what it does not know yet.
    pub(crate) fn is_lagging(&self) -> bool {
        self.condition().lagging.is_some_and(|(_, until)| Instant::now() < until)
    }

    /// What it is able to do, once it was asked.
    pub(crate) fn capabilities(&self) -> Option<Capabilities> {
        None
    }

    /// Asks the endpoint who it is before its next use.
    pub(crate) fn forget(&self) {
        let mut condition = self.condition();
        if condition.phase == Phase::Ready {
            condition.phase = Phase::Unknown;
            condition.session += 1;
        }
    }

    /// Asks the endpoint who it is unless that is known, and returns the session that holds.
    async fn introduced(&self) -> Result<u64, Failure> {
        if let Some(session) = self.condition().ready() {
            return Ok(session);
        }
        let _one_at_a_time = self.introduction.lock().await;
        if let Some(session) = self.condition().ready() {
            return Ok(session);
        }
        if let Some((_, failure)) = self.resting() {
            return Err(failure);
        }
        let session = self.condition().session;
        self.batch_calls.store(self.batch_calls_max, Ordering::Relaxed);
        if let Err(failure) = self.sight().await {
            return Err(self.rest(session, failure).await);
        }
        let mut condition = self.condition();
        if condition.session == session {
            condition.phase = Phase::Ready;
            tracing::info!(endpoint = self.name, "endpoint ready");
        }
        Ok(condition.session)
    }

    /// Lets the endpoint rest after a failure, which is handed back.
    async fn rest(&self, session: u64, failure: Failure) -> Failure {
        self.condition().fail(session, &failure, &self.name);
        if let Transport::Ws(ws) = &self.transport {
            ws.disconnect().await;
        }
        failure
    }

    /// Sends calls in messages the endpoint accepts until each has an answer.
    async fn exchange(&self, calls: &[Call]) -> Result<Vec<Result<Answer, RpcError>>, Failure> {
        let mut answers: Vec<Option<Result<Answer, RpcError>>> = vec![None; calls.len()];
        let positions: Vec<usize> = (0..calls.len()).collect();
        let per_message = self.batch_calls.load(Ordering::Relaxed).max(1);
        let mut messages: Vec<Vec<usize>> =
            positions.chunks(per_message).rev().map(<[usize]>::to_vec).collect();
        while let Some(message) = messages.pop() {
            let sent: Vec<&Call> = message.iter().map(|&position| &calls[position]).collect();
            let half = message.len().div_ceil(2);
            let reply = self.send(&sent).await;
            if let Ok(Reply::BatchRefused(_)) = &reply {
                // Worth remembering, unlike an answer that was too large or incomplete.
                self.batch_calls.fetch_min(half, Ordering::Relaxed);
            }
            let Next { done, again } = next(reply, &message)?;
            for (position, answer) in done {
                answers[position] = Some(answer);
            }
            messages.extend(again.chunks(half).rev().map(<[usize]>::to_vec));
        }
        Ok(answers
            .into_iter()
            .map(|answer| answer.expect("each position was in a message"))
            .collect())
    }

    async fn send(&self, calls: &[&Call]) -> Result<Reply, Failure> {
        let started = Instant::now();
        let reply = match &self.transport {
            Transport::Http(http) => http.send(calls).await,
            Transport::Ws(ws) => ws.send(calls).await,
        };
        self.calls.fetch_add(calls.len() as u64, Ordering::Relaxed);
        self.metrics.observe(calls, started.elapsed(), reply.as_ref().map(answer_bytes));
        reply
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().expect("nothing panics while it holds the condition")
    }
}

impl Condition {
    fn ready(&self) -> Option<u64> {
        (self.phase == Phase::Ready).then_some(self.session)
    }

    /// Lets the endpoint rest, unless a failure of the same session already did.
    fn fail(&mut self, session: u64, failure: &Failure, endpoint: &str) {
        if session != self.session {
            return;
        }
        self.session += 1;
        let asked_for = match failure {
            Failure::RateLimited { retry_after } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let rest = self.backoff.next_wait().max(asked_for);
        let until = Instant::now() + rest;
        self.phase = match failure {
            Failure::WrongChain(mismatch) => Phase::WrongChain { mismatch: *mismatch, until },
            _ => Phase::Resting { until },
        };
        self.complain(failure, endpoint, rest);
    }

    fn complain(&mut self, failure: &Failure, endpoint: &str, rest: Duration) {
        self.last_failure = Some((SystemTime::now(), failure.clone()));
        if let Some(unsaid) = self.warnings.admit(Instant::now()) {
            tracing::warn!(endpoint, %failure, ?rest, unsaid, "endpoint failed");
        }
    }

    fn distrusted(&self) -> Option<Duration> {
        self.distrusted_until?.checked_duration_since(Instant::now())
    }
}

/// What to do after a message, by the positions of its calls.
#[derive(Debug, PartialEq)]
struct Next {
    /// These have their answers.
    done: Vec<(usize, Result<Answer, RpcError>)>,
    /// These are to be asked again, in smaller messages.
    again: Vec<usize>,
}

/// Decides what to do after the message that held the calls at these positions.
fn next(reply: Result<Reply, Failure>, message: &[usize]) -> Result<Next, Failure> {
    let divisible = message.len() > 1;
    let answers = match reply {
        Ok(Reply::Answers(answers)) => answers,
        Ok(Reply::BatchRefused(error)) if error.is_rate_limit() => {
            return Err(Failure::RateLimited { retry_after: None });
        }
        Ok(Reply::BatchRefused(_)) | Err(Failure::TooLarge { .. }) if divisible => {
            return Ok(Next { done: Vec::new(), again: message.to_vec() });
        }
        Ok(Reply::BatchRefused(error)) => return Err(Failure::Refused(error)),
        Err(failure) => return Err(failure),
    };
    let mut done = Vec::with_capacity(message.len());
    let mut again = Vec::new();
    for (&position, answer) in message.iter().zip(answers) {
        match answer {
            Some(Err(error)) if error.is_too_large() && divisible => again.push(position),
            Some(Err(error)) if error.is_rate_limit() => {
                return Err(Failure::RateLimited { retry_after: None });
            }
            Some(answer) => done.push((position, answer)),
            None if divisible => again.push(position),
            None => {
                return Err(Failure::Malformed { reason: "neither result nor error".to_owned() });
            }
        }
    }
    Ok(Next { done, again })
}

fn answer_bytes(reply: &Reply) -> u64 {
    let Reply::Answers(answers) = reply else { return 0 };
    answers.iter().flatten().flatten().map(|answer| answer.len_bytes() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to a call: a value, or an error with this message.
    fn answer(json: Result<&'static str, &str>) -> Result<Answer, RpcError> {
        json.map(Answer::from_static).map_err(|message| RpcError::new(-32000, message))
    }

    fn value() -> Result<Answer, RpcError> {
        answer(Ok("1"))
    }

    fn error(message: &str) -> Result<Answer, RpcError> {
        answer(Err(message))
    }

    #[test]
    fn complete_answers_are_done() {
        let reply = Ok(Reply::Answers(vec![Some(value()), Some(error("no"))]));
        let done = vec![(4, value()), (7, error("no"))];
        assert_eq!(next(reply, &[4, 7]), Ok(Next { done, again: vec![] }));
    }

    #[test]
    fn missing_and_too_large_answers_are_asked_for_again_in_smaller_messages() {
        let reply =
            Ok(Reply::Answers(vec![None, Some(value()), Some(error("response too large"))]));
        let smaller = Next { done: vec![(5, value())], again: vec![4, 6] };
        assert_eq!(next(reply, &[4, 5, 6]), Ok(smaller));
        let all = Next { done: vec![], again: vec![4, 5] };
        assert_eq!(next(Err(Failure::TooLarge { limit_bytes: 9 }), &[4, 5]), Ok(all));
        let all = Next { done: vec![], again: vec![4, 5] };
        let refused = Reply::BatchRefused(RpcError::new(-32600, "no batches"));
        assert_eq!(next(Ok(refused), &[4, 5]), Ok(all));
    }

    #[test]
    fn what_cannot_be_divided_further_fails() {
        let too_large = Failure::TooLarge { limit_bytes: 9 };
        assert_eq!(next(Err(too_large.clone()), &[4]), Err(too_large));
        let nothing = next(Ok(Reply::Answers(vec![None])), &[4]);
        assert!(matches!(nothing, Err(Failure::Malformed { .. })));
        let large = error("response too large");
        let done = Next { done: vec![(4, large.clone())], again: vec![] };
        assert_eq!(next(Ok(Reply::Answers(vec![Some(large)])), &[4]), Ok(done));
    }

    #[test]
    fn a_rate_limit_fails_the_whole_message() {
        let limited = Err(Failure::RateLimited { retry_after: None });
        let one = Ok(Reply::Answers(vec![Some(value()), Some(error("too many requests"))]));
        assert_eq!(next(one, &[4, 5]), limited);
        let all = Ok(Reply::BatchRefused(RpcError::new(429, "")));
        assert_eq!(next(all, &[4, 5]), limited);
    }

    #[test]
    fn calls_that_break_together_count_as_one_failure() {
        let mut condition = Condition {
            phase: Phase::Ready,
            session: 3,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(9)),
            distrusted_until: None,
            lagging: None,
            last_failure: None,
            warnings: Throttle::new(WARNING_INTERVAL),
        };
        let failure = Failure::Unreachable { reason: "gone".to_owned() };
        for _ in 0..4 {
            condition.fail(3, &failure, "http://a");
        }
        assert_eq!((condition.session, condition.backoff.failures()), (4, 1));
    }
}
