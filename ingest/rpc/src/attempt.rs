//! Asks one endpoint after the other until one answers, and a second one while the first is slow.
//!
//! ```text
//!  first  ──asked────────────── slow ───────────── … ──answer──▶ or dropped
//!                               └─ second ──answer──▶            whichever comes first
//!  next   (when both failed)
//! ```

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use futures::future::{Either, select};
use tokio::time::timeout;

use crate::{
    Call, EndpointId, Pool,
    endpoint::Endpoint,
    hedge::Kind,
    order::{self, Candidate, Standing},
};

impl Pool {
    /// Asks the endpoints in their order, each as `ask` does, until one answers.
    ///
    /// When the one asked takes longer than it usually does, the next healthy one is asked as
    /// well, and the first answer counts; the other question is dropped. That is right for reads
    /// alone, and there is nothing else here. How often it may happen is bounded.
    pub(crate) async fn attempt<T, E, Asking>(
        &self,
        calls: &[Call],
        ask: impl Fn(EndpointId) -> Asking,
    ) -> Result<(EndpointId, T), Vec<(EndpointId, E)>>
    where
        Asking: Future<Output = Result<T, E>>,
    {
        self.inner.hedges().earn(calls.len());
        let candidates = self.candidates(calls.len());
        let order = order::order(&candidates);
        self.bring_back(&candidates, &order);
        let kind = Kind::of(calls);
        let mut untried = VecDeque::from(order);
        let mut failures = Vec::new();
        while let Some(first) = untried.pop_front() {
            let first = Question::new(self, EndpointId(first), kind);
            let mut answer = Box::pin(ask(first.id));
            let outcome = match timeout(first.wait(), &mut answer).await {
                Ok(outcome) => outcome,
                Err(_) => match self.second(first.id, calls.len(), &untried) {
                    None => answer.await,
                    Some(second) => {
                        untried.retain(|&place| place != second.0);
                        let second = Question::new(self, second, kind);
                        match race(first, answer, second, Box::pin(ask(second.id))).await {
                            Ok(answered) => return Ok(answered),
                            Err(both) => {
                                failures.extend(both);
                                continue;
                            }
                        }
                    }
                },
            };
            match outcome {
                Ok(answer) => return Ok(first.answered(answer)),
                Err(failure) => failures.push((first.id, failure)),
            }
        }
        Err(failures)
    }

    /// What decides about the order of the endpoints for a message of this many calls.
    pub(crate) fn candidates(&self, calls: usize) -> Vec<Candidate> {
        let now = Instant::now();
        self.inner.endpoints.iter().map(|endpoint| endpoint.candidate(calls, now)).collect()
    }

    /// The endpoint to ask while the first is slow, if there is one and it may be done. If so it
    /// has been counted.
    fn second(
        &self,
        first: EndpointId,
        calls: usize,
        untried: &VecDeque<usize>,
    ) -> Option<EndpointId> {
        let candidates = self.candidates(calls);
        let order: Vec<usize> =
            order::order(&candidates).into_iter().filter(|place| untried.contains(place)).collect();
        let second = order::second(&candidates, &order, first.0)?;
        self.inner.hedges().spend(calls).then_some(EndpointId(second))
    }

    /// Asks endpoints that failed, and whose rest is over, in the background who they are: live
    /// questions go to one that works as long as there is one.
    fn bring_back(&self, candidates: &[Candidate], order: &[usize]) {
        let is = |place: usize, standing| candidates[place].standing == standing;
        let works = order.first().is_some_and(|&first| is(first, Standing::Usable));
        if !works {
            return;
        }
        for &place in order.iter().filter(|&&place| is(place, Standing::Returning)) {
            let endpoint = self.inner.endpoints[place].clone();
            if endpoint.begin_return() {
                self.in_background(async move { endpoint.come_back().await });
            }
        }
    }

    /// Works on something for as long as the pool lives. The panic of earlier work is ours.
    pub(crate) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let done: Vec<_> = {
            let mut background = self.inner.background();
            background.spawn(work);
            std::iter::from_fn(|| background.try_join_next()).collect()
        };
        let ended = done.into_iter().filter_map(Result::err);
        if let Some(panic) = ended.filter_map(|ended| ended.try_into_panic().ok()).next() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The first answer of two endpoints, or how both failed.
async fn race<T, E>(
    first: Question<'_>,
    first_answer: impl Future<Output = Result<T, E>> + Unpin,
    second: Question<'_>,
    second_answer: impl Future<Output = Result<T, E>> + Unpin,
) -> Result<(EndpointId, T), [(EndpointId, E); 2]> {
    let hedge = second.endpoint.hedge();
    let (first_failure, second_failure) = match select(first_answer, second_answer).await {
        Either::Left((Ok(answer), _)) => return Ok(first.answered(answer)),
        Either::Right((Ok(answer), unanswered)) => {
            hedge.won();
            // Before anybody waits for a lock that it may hold.
            drop(unanswered);
            first.overtaken().await;
            return Ok(second.answered(answer));
        }
        Either::Left((Err(failure), second_answer)) => match second_answer.await {
            Ok(answer) => {
                hedge.won();
                return Ok(second.answered(answer));
            }
            Err(other) => (failure, other),
        },
        Either::Right((Err(failure), first_answer)) => match first_answer.await {
            Ok(answer) => return Ok(first.answered(answer)),
            Err(other) => (other, failure),
        },
    };
    Err([(first.id, first_failure), (second.id, second_failure)])
}

/// One endpoint, being asked.
#[derive(Clone, Copy)]
struct Question<'p> {
    id: EndpointId,
    endpoint: &'p Endpoint,
    kind: Kind,
    since: Instant,
}

impl<'p> Question<'p> {
    fn new(pool: &'p Pool, id: EndpointId, kind: Kind) -> Question<'p> {
        Question { id, endpoint: &pool.inner.endpoints[id.0], kind, since: Instant::now() }
    }

    /// How long to wait before somebody else is asked.
    fn wait(&self) -> Duration {
        self.endpoint.patience(self.kind)
    }

    /// The answer came.
    fn answered<T>(self, answer: T) -> (EndpointId, T) {
        self.endpoint.took(self.kind, self.since.elapsed());
        (self.id, answer)
    }

    /// Somebody else's answer came first.
    async fn overtaken(self) {
        self.endpoint.took(self.kind, self.since.elapsed());
        self.endpoint.overtaken().await;
    }
}
