//! One lane's sender: the loop that does what [`next`] decides.

use std::{
    collections::BTreeSet,
    mem::take,
    time::{Duration, Instant, SystemTime},
};

use futures::future::select_all;
use shepherd_log::{
    AppendError, Effect, EffectId, EffectKey, EffectResult, LaneId, Outbox, RecordView, Settled,
    StorageError,
};
use shepherd_rpc::{Backoff, Pool, Throttle};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet, spawn_blocking},
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Destinations,
    answer::{Answer, Lookup, Weather},
    destination::{Destination, Kind, NotNow, Pass},
    finality::{Ask, Finality},
    next::{Known, Memory, Now, Plan, Request, Rules, next},
};
use crate::metrics::Metrics;

/// How lanes send.
#[derive(Clone, Copy, Debug)]
pub struct SenderConfig {
    /// Requests for orders of one lane that are under way at once.
    pub window: usize,
    /// The first wait after an attempt without an answer; it doubles.
    pub wait_min: Duration,
    /// The longest wait after an attempt without an answer.
    pub wait_max: Duration,
    /// What requests under way get at shutdown. What is unanswered then is sent again at the next
    /// start.
    pub grace: Duration,
}

impl Default for SenderConfig {
    fn default() -> SenderConfig {
        SenderConfig {
            window: 8,
            wait_min: Duration::from_millis(500),
            wait_max: Duration::from_secs(30),
            grace: Duration::from_secs(5),
        }
    }
}

/// How often a lane speaks of attempts without an answer.
const WARNING_INTERVAL: Duration = Duration::from_secs(30);

/// Longest sleep. The clock of the machine may be set, and deadlines go by it.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Why a sender ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// What is stored cannot be trusted any more.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What came of an effect could not be journaled.
    #[error("an outcome could not be journaled")]
    Append(#[from] AppendError),
    /// A part of it panicked, which is a defect of this program.
    #[error("a sender panicked")]
    Panicked(#[from] JoinError),
}

/// A lane's sender. Dropping it, or the future of its run, is no worse than a crash: what is
/// unanswered is sent again by the next one.
pub struct Sender {
    outbox: Outbox,
    destinations: Destinations,
    config: SenderConfig,
    metrics: Metrics,
    finality: Finality,
    /// The outbox, oldest first, as of the last time it was looked at.
    effects: Vec<Known>,
    requests: JoinSet<Landed>,
    is_asking_for_final: bool,
    warnings: Throttle,
    /// Webhooks without a URL that the operator was told of.
    missing: BTreeSet<String>,
    /// The oldest effect, and the time of the block that asked for it.
    oldest: Option<(EffectId, Option<u64>)>,
}

/// A request that has ended.
enum Landed {
    Sent { id: EffectId, answer: Answer },
    LookedUp { id: EffectId, lookup: Lookup, absent: EffectResult },
    Final(Option<u64>),
}

/// What a round of requests left behind.
#[derive(Default)]
struct HeldBack {
    /// A destination may be asked then.
    until: Option<Instant>,
    /// A destination is waited for.
    any: bool,
}

impl Sender {
    /// A sender of what a lane asks for. One alone may run for a lane.
    ///
    /// `pool` says how far the chain is final, should an effect wait for it; where it does not,
    /// blocks that are deeper than `reorg_depth_max` are.
    pub fn new(
        outbox: Outbox,
        pool: Pool,
        reorg_depth_max: u64,
        destinations: Destinations,
        config: SenderConfig,
        metrics: Metrics,
    ) -> Sender {
        let finality = Finality::new(pool, reorg_depth_max);
        Sender {
            outbox,
            destinations,
            config,
            metrics,
            finality,
            effects: Vec::new(),
            requests: JoinSet::new(),
            is_asking_for_final: false,
            warnings: Throttle::new(WARNING_INTERVAL),
            missing: BTreeSet::new(),
            oldest: None,
        }
    }

    /// Runs until shutdown or a failure of the store.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), SenderError> {
        let mut changes = self.outbox.watch();
        let mut tail = self.outbox.journal().watch();
        let mut destinations = self.watch_destinations();
        let mut is_stale = true;
        while !shutdown.is_cancelled() {
            // Marked before anything is looked at, so that what comes in between is not missed.
            tail.mark_unchanged();
            destinations.iter_mut().for_each(watch::Receiver::mark_unchanged);
            if is_stale || changes.has_changed().expect("the outbox outlives its sender") {
                changes.mark_unchanged();
                self.refresh().await?;
                is_stale = false;
            }
            let rules = Rules { window: self.config.window, dry_run: self.destinations.dry_run };
            let plan = next(&self.effects, self.now(), rules);
            if !plan.settle.is_empty() {
                self.settle(plan.settle).await?;
                continue;
            }
            let waits_for_chain = plan.waits_for_head || plan.waits_for_final;
            let mut again_at = plan.again_at;
            if plan.waits_for_final {
                again_at = earlier(again_at, self.ask_for_final());
            }
            let held_back = self.begin(plan).await?;
            let again_at = earlier(again_at, held_back.until);
            tokio::select! {
                () = shutdown.cancelled() => (),
                changed = changes.changed() => {
                    changed.expect("the outbox outlives its sender");
                    is_stale = true;
                }
                changed = tail.changed(), if waits_for_chain => {
                    changed.expect("the journal outlives its lanes");
                }
                () = any_changed(&mut destinations), if held_back.any => (),
                Some(landed) = self.requests.join_next() => self.land(landed?).await?,
                () = sleep_to(again_at) => (),
            }
        }
        self.finish().await
    }

    /// Lets requests under way end, for a while.
    async fn finish(mut self) -> Result<(), SenderError> {
        let grace = self.config.grace;
        let ending = timeout(grace, async {
            while let Some(landed) = self.requests.join_next().await {
                self.land(landed?).await?;
            }
            Ok(())
        });
        let ended = ending.await.unwrap_or(Ok(()));
        self.requests.shutdown().await;
        ended
    }

    fn watch_destinations(&self) -> Vec<watch::Receiver<u64>> {
        let Destinations { orderbook, webhooks, .. } = &self.destinations;
        orderbook.iter().chain(webhooks.values()).map(Destination::watch).collect()
    }

    fn lane(&self) -> &LaneId {
        self.outbox.lane()
    }

    fn now(&self) -> Now {
        let tail = self.outbox.journal().tail();
        Now {
            seconds: seconds(),
            instant: Instant::now(),
            head: tail.head.map(|head| head.number),
            final_to: self.finality.height(tail),
        }
    }

    /// Looks at the outbox, and remembers what was known of what is still there.
    async fn refresh(&mut self) -> Result<(), SenderError> {
        let outbox = self.outbox.clone();
        let before = take(&mut self.effects);
        let destinations = self.destinations.clone();
        let backoff = Backoff::new(self.config.wait_min, self.config.wait_max);
        let oldest_before = self.oldest;
        let (effects, oldest) = spawn_blocking(move || -> Result<_, StorageError> {
            let mut before = before.into_iter().peekable();
            let mut effects = Vec::new();
            for entry in outbox.unsettled() {
                while before.next_if(|known| known.entry.id < entry.id).is_some() {}
                let memory = match before.next_if(|known| known.entry.id == entry.id) {
                    Some(known) => known.memory,
                    None => {
                        let is_done = outbox.is_done(&entry.key)?;
                        Memory::new(entry.state, is_done, backoff.clone())
                    }
                };
                let has_destination = destinations.of(&entry.key).is_some();
                effects.push(Known { entry, memory, has_destination });
            }
            let oldest = match (effects.first(), oldest_before) {
                (None, _) => None,
                (Some(known), Some(before)) if known.entry.id == before.0 => Some(before),
                (Some(known), _) => Some((known.entry.id, asked_for_at(&outbox, known)?)),
            };
            Ok((effects, oldest))
        })
        .await??;
        let asked_for_at = oldest.and_then(|(_, asked_for_at)| asked_for_at);
        self.metrics.outbox(self.outbox.lane(), effects.len(), asked_for_at);
        self.oldest = oldest;
        self.effects = effects;
        self.name_missing();
        Ok(())
    }

    /// Says once of each webhook that it has no URL.
    fn name_missing(&mut self) {
        for known in self.effects.iter().filter(|known| !known.has_destination) {
            let named = match &known.entry.key {
                EffectKey::Order(_) => "the orderbook of the chain",
                EffectKey::Webhook { destination, .. } => destination,
            };
            if self.missing.insert(named.to_owned()) {
                let lane = self.outbox.lane();
                warn!(%lane, destination = named, "effects wait for a URL in the configuration");
            }
        }
    }

    /// Asks how far the chain is final, when it is time to; else says when it will be.
    fn ask_for_final(&mut self) -> Option<Instant> {
        if self.is_asking_for_final {
            return None;
        }
        let (head, now) = (self.outbox.journal().tail().head, Instant::now());
        match self.finality.ask(head, now) {
            Ask::At(at) => Some(at),
            Ask::AtNextHead => None,
            Ask::Now => {
                let question = self.finality.question(head, now);
                self.requests.spawn(async move { Landed::Final(question.await) });
                self.is_asking_for_final = true;
                None
            }
        }
    }

    /// Makes those requests of a plan that their destinations admit.
    async fn begin(&mut self, plan: Plan) -> Result<HeldBack, SenderError> {
        let mut held_back = HeldBack::default();
        let mut full: BTreeSet<(Kind, &str)> = BTreeSet::new();
        let mut sends: Vec<(EffectId, Pass)> = Vec::new();
        let mut look_ups = Vec::new();
        for (id, request) in plan.requests {
            let Known { entry, .. } = self.known(id).expect("plans are made of what is known");
            let is_send = request == Request::Send;
            // The journal knows of a reorg before the lane has come to it.
            let undone = || self.outbox.journal().undone_by(id.offset, entry.block.number);
            if is_send && undone().is_some() {
                continue;
            }
            let to = self.destinations.of(&entry.key).expect("only these have requests");
            let name = (to.kind(), to.name());
            if full.contains(&name) {
                continue;
            }
            match to.admit() {
                Ok(pass) => match (request, &entry.key) {
                    (Request::LookUp { absent }, EffectKey::Order(uid)) => {
                        look_ups.push((id, *uid, absent, pass));
                    }
                    _ => sends.push((id, pass)),
                },
                Err(not_now) => {
                    full.insert(name);
                    held_back.any = true;
                    if let NotNow::Until(at) = not_now {
                        held_back.until = earlier(held_back.until, Some(at));
                    }
                }
            }
        }
        for (id, uid, absent, pass) in look_ups {
            self.mark_under_way(id);
            self.requests.spawn(async move {
                Landed::LookedUp { id, lookup: pass.look_up(&uid).await, absent }
            });
        }
        let ids = sends.iter().map(|(id, _)| *id).collect();
        let bodies = self.attempt(ids).await?;
        for (id, pass) in sends {
            // A reorg was faster: the pass is given back.
            let Some((_, effect)) = bodies.iter().find(|(allowed, _)| *allowed == id) else {
                continue;
            };
            let (lane, effect) = (self.lane().clone(), effect.clone());
            let kind = if matches!(effect.key, EffectKey::Order(_)) {
                Kind::Orderbook
            } else {
                Kind::Webhook
            };
            self.metrics.attempted(&lane, kind);
            self.mark_under_way(id);
            self.requests
                .spawn(async move { Landed::Sent { id, answer: pass.send(effect).await } });
        }
        Ok(held_back)
    }

    /// Makes durable that these are about to be sent, and reads what is sent of those that may be.
    async fn attempt(&self, ids: Vec<EffectId>) -> Result<Vec<(EffectId, Effect)>, SenderError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let outbox = self.outbox.clone();
        let bodies = spawn_blocking(move || -> Result<_, StorageError> {
            let mut bodies = Vec::with_capacity(ids.len());
            for id in outbox.attempt(&ids) {
                let effect = outbox.effect(id)?.expect("the outbox holds what was written");
                bodies.push((id, effect));
            }
            Ok(bodies)
        });
        Ok(bodies.await??)
    }

    fn position(&self, id: EffectId) -> Option<usize> {
        self.effects.binary_search_by_key(&id, |known| known.entry.id).ok()
    }

    fn known(&self, id: EffectId) -> Option<&Known> {
        self.position(id).map(|at| &self.effects[at])
    }

    fn memory(&mut self, id: EffectId) -> Option<&mut Memory> {
        self.position(id).map(|at| &mut self.effects[at].memory)
    }

    fn mark_under_way(&mut self, id: EffectId) {
        let memory = self.memory(id).expect("only what is known is begun");
        memory.is_under_way = true;
    }

    /// Takes in what has ended, all of it at once.
    async fn land(&mut self, first: Landed) -> Result<(), SenderError> {
        let mut settled = Vec::new();
        let mut landed = Some(first);
        while let Some(one) = landed {
            settled.extend(self.take_in(one));
            landed = self.requests.try_join_next().transpose()?;
        }
        self.settle(settled).await
    }

    fn take_in(&mut self, landed: Landed) -> Option<(EffectId, EffectResult)> {
        let now = self.now();
        let id = match &landed {
            Landed::Final(height) => {
                self.is_asking_for_final = false;
                self.finality.answered(*height);
                return None;
            }
            Landed::Sent { id, .. } | Landed::LookedUp { id, .. } => *id,
        };
        if let Landed::Sent { answer: Answer::Weather(weather), .. }
        | Landed::LookedUp { lookup: Lookup::Weather(weather), .. } = &landed
        {
            self.complain(id, weather);
        }
        let at = self.position(id)?;
        let Known { entry, memory, .. } = &mut self.effects[at];
        memory.is_under_way = false;
        let result = match landed {
            Landed::Sent { answer, .. } => memory.sent(answer, entry.expires, now),
            Landed::LookedUp { lookup, absent, .. } => memory.looked_up(lookup, absent, now),
            Landed::Final(_) => None,
        };
        result.map(|result| (id, result))
    }

    fn complain(&mut self, id: EffectId, weather: &Weather) {
        let reason = weather.reason.as_str();
        let unsaid = self.warnings.admit(Instant::now());
        let (lane, effect) = (self.outbox.lane(), id);
        match unsaid {
            Some(unsaid) => {
                warn!(%lane, %effect, reason, unsaid, "no answer that counts; it is tried again");
            }
            None => debug!(%lane, %effect, reason, "no answer that counts; it is tried again"),
        }
    }

    /// Journals what has come of effects, in one batch, and says so.
    async fn settle(&mut self, results: Vec<(EffectId, EffectResult)>) -> Result<(), SenderError> {
        if results.is_empty() {
            return Ok(());
        }
        let at_millis = since_1970().as_millis() as u64;
        let mut settled = Vec::with_capacity(results.len());
        for (id, result) in results {
            let Some(known) = self.known(id) else { continue };
            let attempts = known.memory.attempts;
            settled.push(Settled { id, result, attempts, at_millis });
        }
        let outbox = self.outbox.clone();
        let durable = settled.clone();
        spawn_blocking(move || outbox.settle(durable)).await??;
        for one in settled {
            let Some(at) = self.position(one.id) else { continue };
            let known = self.effects.remove(at);
            self.told(&known, &one);
            if one.result.is_done() {
                let same = self.effects.iter_mut().filter(|kin| kin.entry.key == known.entry.key);
                same.for_each(|kin| kin.memory.is_done = true);
            }
        }
        Ok(())
    }

    fn told(&self, known: &Known, settled: &Settled) {
        let Settled { id: effect, result, attempts, .. } = settled;
        let (lane, key) = (self.outbox.lane(), &known.entry.key);
        let kind = match key {
            EffectKey::Order(_) => Kind::Orderbook,
            EffectKey::Webhook { .. } => Kind::Webhook,
        };
        self.metrics.settled(lane, kind, result.kind());
        match result {
            EffectResult::Refused(refusal) => {
                let to = self.destinations.of(key);
                let description = to.map_or(String::new(), |to| to.shown(&refusal.description));
                let error_type = refusal.error_type.as_deref().unwrap_or("-");
                warn!(
                    %lane, %effect, %key, attempts, status = refusal.status, error_type, description,
                    "effect refused"
                );
            }
            EffectResult::Expired => warn!(%lane, %effect, %key, attempts, "effect expired"),
            EffectResult::Cancelled(why) => {
                info!(%lane, %effect, %key, attempts, why, "effect cancelled");
            }
            result => {
                info!(%lane, %effect, %key, attempts, result = result.kind(), "effect settled");
            }
        }
    }
}

/// The time of the block that asked for an effect, in seconds since 1970.
fn asked_for_at(outbox: &Outbox, known: &Known) -> Result<Option<u64>, StorageError> {
    let journal = outbox.journal();
    let Some(at) = journal.offset_of(known.entry.block)? else { return Ok(None) };
    // A record that cannot be read stops whoever needs it; a figure on a page does not.
    let Some(Ok(stored)) = journal.read(at..at.plus(1)).next() else { return Ok(None) };
    Ok(match stored.record() {
        RecordView::Block(block) => Some(block.timestamp),
        _ => None,
    })
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn seconds() -> u64 {
    since_1970().as_secs()
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Sleeps until then, but not for ever.
async fn sleep_to(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.min(Instant::now() + SLEEP_MAX).into()).await,
        None => std::future::pending().await,
    }
}

async fn any_changed(watched: &mut [watch::Receiver<u64>]) {
    if watched.is_empty() {
        return std::future::pending().await;
    }
    let changes = watched.iter_mut().map(|watched| Box::pin(watched.changed()));
    // A destination lives as long as the sender that holds it.
    let (changed, ..) = select_all(changes).await;
    changed.expect("destinations outlive their senders");
}
