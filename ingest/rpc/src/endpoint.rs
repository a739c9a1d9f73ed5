//! One endpoint: how to ask it, and whether it is worth asking.
//!
//! ```text
//!   unknown ──it says who it is──▶ ready ──a failure──▶ resting ──time passes──▶ unknown
//! ```
//!
//! A ready one may be one to ask after others: for what it said, what it does not know yet, or
//! how often it was asked.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;

use crate::{
    Answer, Backoff, Budget, BudgetStatus, Call, Capabilities, ChainMismatch, EndpointSpec,
    EndpointState, EndpointStatus, Evidence, Failure, Options, Redacted, RpcError, Sighting,
    Throttle,
    allowance::{Allowance, Taken},
    capabilities,
    distrust::Distrust,
    health::Health,
    hedge::{Kind, Patience},
    http::Http,
    identity::{self, Identity},
    metrics::{EndpointMetrics, Hedge},
    order::{Candidate, Standing},
    wire::Reply,
    ws::Ws,
};

pub(crate) struct Endpoint {
    pub(crate) name: String,
    url: Redacted,
    priority: u8,
    transport: Transport,
    identity: Arc<Identity>,
    metrics: EndpointMetrics,
    hedge_after_min: Duration,
    condition: Mutex<Condition>,
    /// Held while the endpoint is asked who it is, so that it is asked once.
    introduction: tokio::sync::Mutex<()>,
    calls: AtomicU64,
    in_flight: AtomicUsize,
    /// Most calls per message: the configured number until the endpoint asks for less.
    batch_calls: AtomicUsize,
    batch_calls_max: usize,
    /// Most bytes of all answers to one question, in however many messages they come.
    answers_bytes_max: u64,
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
    /// Somebody is asking in the background who it is, after a failure.
    is_coming_back: bool,
    /// Questions in a row that another endpoint, asked later, answered first.
    overtaken: u32,
    distrust: Distrust,
    /// Blocks behind the others, and until when that counts.
    lagging: Option<(u64, Instant)>,
    last_failure: Option<(SystemTime, Failure)>,
    warnings: Throttle,
    health: Health,
    patience: Patience,
    allowance: Allowance,
    probed: Probed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Unknown,
    Ready,
    Resting { until: Instant },
    WrongChain { mismatch: ChainMismatch, until: Instant },
}

/// What an endpoint is able to do, and when it was asked.
#[derive(Default)]
struct Probed {
    capabilities: Option<Capabilities>,
    /// The session in which it was last asked, and when that was.
    asked: Option<(u64, Instant)>,
}

/// An endpoint whose head is behind the others' comes after them for this long, unless it is said
/// to lag again or to have caught up: a few blocks of a slow chain.
const LAG: Duration = Duration::from_secs(30);

/// An endpoint whose rate makes a message wait for longer than this comes after others: about as
/// long as it takes to ask the other side of the world.
const RATE_WAIT_MAX: Duration = Duration::from_millis(250);

/// An endpoint that was overtaken so often in a row has failed, though its time is not up: it
/// would else hold up each question for as long as it usually takes.
const OVERTAKEN_MAX: u32 = 3;

/// Answers that were too large for one message come in several. Together they may take as much as
/// this many that are full: more than any batch that is meant well, and no more than a machine has.
const MESSAGES_FULL_MAX: u64 = 4;

/// An endpoint that keeps failing is not asked in each session what it is able to do.
const PROBE_INTERVAL: Duration = Duration::from_secs(600);

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
        let allowance = Allowance::new(&spec, Instant::now());
        let EndpointSpec { url, priority, batch_calls_max, .. } = spec;
        let batch_calls_max = batch_calls_max.unwrap_or(options.batch_calls_max).max(1);
        let transport = if url.is_websocket() {
            Transport::Ws(Ws::new(url.clone(), options))
        } else {
            Transport::Http(Http::new(url.clone(), options))
        };
        Endpoint {
            name,
            url,
            priority,
            transport,
            identity,
            metrics,
            hedge_after_min: options.hedge_after_min,
            condition: Mutex::new(Condition::new(
                Backoff::new(options.rest_min, options.rest_max),
                allowance,
            )),
            introduction: tokio::sync::Mutex::new(()),
            calls: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            batch_calls: AtomicUsize::new(batch_calls_max),
            batch_calls_max,
            answers_bytes_max: options.body_bytes_max.saturating_mul(MESSAGES_FULL_MAX),
        }
    }

    /// Foreign text made safe to show.
    pub(crate) fn scrub(&self, text: &str) -> String {
        self.url.scrub(text)
    }

    pub(crate) fn status(&self) -> EndpointStatus {
        let now = Instant::now();
        let condition = self.condition();
        let budget = condition.allowance.budget(now);
        EndpointStatus {
            endpoint: self.name.clone(),
            priority: self.priority,
            state: condition.state(now),
            health: condition.health.score(now),
            latency: condition.health.latency(),
            last_failure: condition.last_failure.clone(),
            failures_in_a_row: condition.backoff.failures(),
            evidence: condition.distrust.evidence().cloned(),
            behind_blocks: condition.lag(now).map_or(0, |(blocks, _)| blocks),
            calls: self.calls.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            budget: budget.map(|(budget, calls_left, rolls_in)| BudgetStatus {
                calls: budget.calls,
                calls_left,
                rolls_in,
            }),
            capabilities: condition.probed.capabilities,
        }
    }

    /// What decides about its place for a message of this many calls.
    pub(crate) fn candidate(&self, calls: usize, now: Instant) -> Candidate {
        let condition = self.condition();
        Candidate {
            standing: condition.standing(calls, now),
            priority: self.priority,
            score: condition.health.score(now),
        }
    }

    /// How long one call would have to wait for the endpoint's rate.
    pub(crate) fn rate_wait(&self) -> Duration {
        self.condition().allowance.wait(1, Instant::now())
    }

    /// How long the endpoint still wants to be left alone, and why; `None` when it can be used.
    pub(crate) fn resting(&self) -> Option<(Duration, Failure)> {
        self.condition().resting(Instant::now())
    }

    /// Answers to all calls, in their order. After a failure the endpoint rests.
    ///
    /// Where there are no calls nobody is asked, so nothing is learned of the endpoint either.
    pub(crate) async fn ask(
        &self,
        calls: &[Call],
    ) -> Result<Vec<Result<Answer, RpcError>>, Failure> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let session = self.introduced().await?;
        let asking = Asking::of(self);
        match self.exchange(calls).await {
            Ok(answers) => {
                asking.answered();
                Ok(answers)
            }
            Err(failure) => {
                asking.failed(&failure);
                Err(self.rest(session, failure).await)
            }
        }
    }

    /// Asks who the endpoint is, whatever its condition.
    pub(crate) async fn sight(&self) -> Result<Sighting, Failure> {
        let questions = identity::questions();
        let answers = self.exchange(&questions).await;
        let sighting = answers
            .and_then(|answers| identity::sighting(&answers))
            .map_err(|failure| failure.scrubbed(&self.url))?;
        self.identity.accept(&sighting).map_err(Failure::WrongChain)?;
        Ok(sighting)
    }

    /// What the endpoint answered did not hold up: let others be asked first for a while.
    pub(crate) fn distrust(&self, evidence: &str) {
        let now = Instant::now();
        let text = self.url.scrub(evidence);
        let mut condition = self.condition();
        let evidence = Evidence { at: SystemTime::now(), text: text.clone() };
        condition.last_failure = Some((evidence.at, Failure::Distrusted { reason: text.clone() }));
        let is_new = condition.distrust.caught(evidence, now);
        let aside = condition.distrust.remaining(now).unwrap_or_default();
        drop(condition);
        // One that is asked all the same, for it is the only one, is spoken of once.
        if is_new {
            tracing::warn!(endpoint = self.name, evidence = text, ?aside, "endpoint distrusted");
        }
    }

    /// Whether the endpoint is put aside for now.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.condition().distrust.remaining(Instant::now()).is_some()
    }

    /// The endpoint's head is behind the others': let them be asked first for a while.
    pub(crate) fn report_lagging(&self, behind_blocks: u64) {
        let until = Instant::now() + LAG;
        self.condition().lagging = (behind_blocks > 0).then_some((behind_blocks, until));
    }

    /// What it is able to do, once it was asked.
    pub(crate) fn capabilities(&self) -> Option<Capabilities> {
        self.condition().probed.capabilities
    }

    /// Asks the endpoint who it is before its next use.
    pub(crate) fn forget(&self) {
        let mut condition = self.condition();
        if condition.phase == Phase::Ready {
            condition.phase = Phase::Unknown;
            condition.session += 1;
        }
    }

    /// How long to wait for an answer before somebody else is asked.
    pub(crate) fn patience(&self, kind: Kind) -> Duration {
        self.condition().patience.wait(kind, self.hedge_after_min)
    }

    /// An answer took this long, or had not come after this long.
    pub(crate) fn took(&self, kind: Kind, took: Duration) {
        self.condition().patience.observe(kind, took);
    }

    /// It is asked because another endpoint is slow.
    pub(crate) fn hedge(&self) -> Hedge<'_> {
        self.metrics.hedge()
    }

    /// Another endpoint, asked later, answered first. If that happens again and again this one
    /// rests like one that does not answer.
    pub(crate) async fn overtaken(&self) {
        let session = {
            let mut condition = self.condition();
            condition.overtaken += 1;
            if condition.overtaken < OVERTAKEN_MAX {
                return;
            }
            condition.overtaken = 0;
            condition.session
        };
        let reason = format!("others answered first, {OVERTAKEN_MAX} times in a row");
        self.rest(session, Failure::TimedOut { reason }).await;
    }

    /// Whether it failed and nobody is asking yet whether it works again. If so, the caller does.
    pub(crate) fn begin_return(&self) -> bool {
        !std::mem::replace(&mut self.condition().is_coming_back, true)
    }

    /// Asks whether it works again.
    pub(crate) async fn come_back(&self) {
        // A failure is spoken of where it occurs.
        let _ = self.introduced().await;
        self.condition().is_coming_back = false;
    }

    /// Whether it is time to ask what it is able to do. If so, the caller does.
    pub(crate) fn begin_probe(&self) -> bool {
        let now = Instant::now();
        let mut condition = self.condition();
        let session = condition.session;
        let is_due = match condition.probed.asked {
            None => true,
            Some((asked, at)) => asked != session && now.duration_since(at) >= PROBE_INTERVAL,
        };
        if is_due {
            condition.probed.asked = Some((session, now));
        }
        is_due
    }

    /// Asks what it is able to do. What it was able to do before stands if it does not answer.
    pub(crate) async fn probe(&self) -> Option<Capabilities> {
        {
            let mut condition = self.condition();
            condition.probed.asked = Some((condition.session, Instant::now()));
        }
        match capabilities::probe(self).await {
            Ok(capabilities) => {
                self.condition().probed.capabilities = Some(capabilities);
                tracing::info!(endpoint = self.name, ?capabilities, "endpoint probed");
                Some(capabilities)
            }
            Err(failure) => {
                let failure = failure.scrubbed(&self.url);
                tracing::debug!(endpoint = self.name, %failure, "endpoint not probed");
                None
            }
        }
    }

    /// Most calls it accepts in one message, found out with a message of as many as it may get.
    pub(crate) async fn probe_batch(&self) -> Result<usize, Failure> {
        let call = Call { method: "eth_chainId", params: json!([]) };
        loop {
            let size = self.batch_calls.load(Ordering::Relaxed);
            if size == 1 || matches!(self.transport, Transport::Ws(_)) {
                return Ok(size);
            }
            let Reply::Answers(answers) = self.send(&vec![&call; size]).await? else {
                self.batch_calls.fetch_min(size.div_ceil(2), Ordering::Relaxed);
                continue;
            };
            if answers.iter().all(|answer| matches!(answer, Some(Ok(_)))) {
                return Ok(size);
            }
            self.batch_calls.fetch_min(size.div_ceil(2), Ordering::Relaxed);
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

    /// Lets the endpoint rest after a failure, which is handed back safe to show.
    async fn rest(&self, session: u64, failure: Failure) -> Failure {
        let failure = failure.scrubbed(&self.url);
        if !failure.asks_for_rest() {
            self.condition().complain(&failure, &self.name, Duration::ZERO);
            return failure;
        }
        self.condition().fail(session, &failure, &self.name);
        if let Transport::Ws(ws) = &self.transport {
            ws.disconnect().await;
        }
        failure
    }

    /// Sends calls in messages the endpoint accepts until each has an answer.
    pub(crate) async fn exchange(
        &self,
        calls: &[Call],
    ) -> Result<Vec<Result<Answer, RpcError>>, Failure> {
        let mut answers: Vec<Option<Result<Answer, RpcError>>> = vec![None; calls.len()];
        let positions: Vec<usize> = (0..calls.len()).collect();
        let mut bytes = 0;
        let per_message = self.batch_calls.load(Ordering::Relaxed);
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
                bytes += answer.as_ref().map_or(0, |answer| answer.len_bytes() as u64);
                answers[position] = Some(answer);
            }
            if bytes > self.answers_bytes_max {
                return Err(Failure::TooLarge { limit_bytes: self.answers_bytes_max });
            }
            messages.extend(again.chunks(half).rev().map(<[usize]>::to_vec));
        }
        Ok(answers
            .into_iter()
            .map(|answer| answer.expect("each position was in a message"))
            .collect())
    }

    /// Sends one message, as soon as the limits allow it.
    async fn send(&self, calls: &[&Call]) -> Result<Reply, Failure> {
        let taken = self.condition().allowance.take(calls.len(), Instant::now());
        match taken {
            Taken::Spent(budget) => return Err(budget.into()),
            Taken::After(Duration::ZERO) => (),
            Taken::After(wait) => {
                self.metrics.waits(wait);
                tokio::time::sleep(wait).await;
            }
        }
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
    fn new(backoff: Backoff, allowance: Allowance) -> Condition {
        Condition {
            phase: Phase::Unknown,
            session: 0,
            backoff,
            is_coming_back: false,
            overtaken: 0,
            distrust: Distrust::default(),
            lagging: None,
            last_failure: None,
            warnings: Throttle::new(WARNING_INTERVAL),
            health: Health::default(),
            patience: Patience::default(),
            allowance,
            probed: Probed::default(),
        }
    }

    fn ready(&self) -> Option<u64> {
        (self.phase == Phase::Ready).then_some(self.session)
    }

    fn state(&self, now: Instant) -> EndpointState {
        if let Some((_, remaining)) = self.allowance.spent(now) {
            return EndpointState::OverBudget { remaining };
        }
        match self.phase {
            Phase::Unknown => EndpointState::Unknown,
            Phase::WrongChain { mismatch, .. } => EndpointState::WrongChain(mismatch),
            Phase::Resting { until } => {
                EndpointState::Resting { remaining: until.saturating_duration_since(now) }
            }
            Phase::Ready => match (self.distrust.remaining(now), self.lag(now)) {
                (Some(remaining), _) => EndpointState::Distrusted { remaining },
                (None, Some((_, remaining))) => EndpointState::Lagging { remaining },
                (None, None) => EndpointState::Ready,
            },
        }
    }

    fn standing(&self, calls: usize, now: Instant) -> Standing {
        let failed = self.phase != Phase::Ready && self.backoff.failures() > 0;
        [
            (Standing::Resting, self.resting(now).is_some()),
            (Standing::Distrusted, self.distrust.remaining(now).is_some()),
            (Standing::Lagging, self.lag(now).is_some()),
            (Standing::Busy, self.allowance.wait(calls, now) > RATE_WAIT_MAX),
            (Standing::Returning, failed),
        ]
        .into_iter()
        .find(|(_, applies)| *applies)
        .map_or(Standing::Usable, |(standing, _)| standing)
    }

    fn resting(&self, now: Instant) -> Option<(Duration, Failure)> {
        if let Some((budget, remaining)) = self.allowance.spent(now) {
            return Some((remaining, budget.into()));
        }
        let (Phase::Resting { until } | Phase::WrongChain { until, .. }) = self.phase else {
            return None;
        };
        let remaining = until.checked_duration_since(now)?;
        let (_, failure) = self.last_failure.clone()?;
        Some((remaining, failure))
    }

    fn lag(&self, now: Instant) -> Option<(u64, Duration)> {
        let (blocks, until) = self.lagging?;
        Some((blocks, until.checked_duration_since(now)?))
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
}

impl From<Budget> for Failure {
    fn from(budget: Budget) -> Failure {
        Failure::BudgetSpent { calls: budget.calls, per: budget.per }
    }
}

/// An endpoint being asked: what comes of it tells of its health, also when nobody waits for it
/// any more.
struct Asking<'e> {
    endpoint: &'e Endpoint,
    since: Instant,
    is_over: bool,
}

impl<'e> Asking<'e> {
    fn of(endpoint: &'e Endpoint) -> Asking<'e> {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Asking { endpoint, since: Instant::now(), is_over: false }
    }

    fn answered(mut self) {
        self.is_over = true;
        let mut condition = self.endpoint.condition();
        condition.backoff.reset();
        condition.overtaken = 0;
        condition.health.answered(self.since.elapsed(), Instant::now());
    }

    fn failed(mut self, failure: &Failure) {
        self.is_over = true;
        if failure.asks_for_rest() {
            self.endpoint.condition().health.failed(Instant::now());
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.is_over {
            let mut condition = self.endpoint.condition();
            condition.health.outlasted(self.since.elapsed(), Instant::now());
        }
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
        let url: EndpointSpec = "http://a".parse().unwrap();
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(9));
        let mut condition = Condition::new(backoff, Allowance::new(&url, Instant::now()));
        (condition.phase, condition.session) = (Phase::Ready, 3);
        let failure = Failure::Unreachable { reason: "gone".to_owned() };
        for _ in 0..4 {
            condition.fail(3, &failure, "http://a");
        }
        assert_eq!((condition.session, condition.backoff.failures()), (4, 1));
    }
}
