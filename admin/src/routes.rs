//! The paths of the API and what each answers.
//!
//! Every answer is bounded: lists that can grow have pages. What reads the store runs on a
//! blocking thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{
        Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Deserializer, de};
use shepherd_log::{ChainName, LaneId, LogFilter, Offset, RecordView as Record};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    find::{self, Bound, Stretch},
    guard,
    problem::Problem,
    query::{self, QueryError, RECORDS_MAX, VERIFY_RECORDS_MAX},
    server::{ChainReport, Sources},
    view::{
        BlockRefView, ChainView, ChainsView, CursorsView, EffectView, FoundView, HeadView,
        HealthView, JournalView, LaneStateView, NotReadyView, OutboxView, ReadyView, ReorgsView,
        StatView, StateView, VerifyView, block_time,
    },
};

/// How long an answer may take, waiting for new records included.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a request may wait for new records: half of what it may take.
pub const WAIT_SECONDS_MAX: u64 = 30;

/// States in which a chain or a lane is not at work and will not be without help, or not yet.
const NOT_READY: [&str; 3] = ["starting", "halted", "stopped"];

/// What every handler is given.
#[derive(Clone)]
pub struct Context {
    /// Where answers come from.
    pub sources: Arc<Sources>,
    /// The port we are asked on.
    pub port: u16,
    /// Ends what waits for new records.
    pub shutdown: CancellationToken,
    /// Held by what reads a journal at length: one at a time leaves the disk to the lanes.
    pub reading: Arc<tokio::sync::Semaphore>,
}

/// All routes, behind the guard.
pub fn routes(context: Context) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/chains", get(chains))
        .route("/v1/cursors", get(cursors))
        .route("/v1/chains/{chain}/journal", get(journal))
        .route("/v1/chains/{chain}/journal/verify", get(verify))
        .route("/v1/chains/{chain}/journal/stat", get(stat))
        .route("/v1/chains/{chain}/logs", get(logs))
        .route("/v1/chains/{chain}/reorgs", get(reorgs))
        .route("/v1/lanes/{lane}/state", get(state))
        .route("/v1/lanes/{lane}/outbox", get(outbox))
        .route("/v1/lanes/{lane}/effects/{effect}", get(effect))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is no such path") })
        // Layers run outside in: the guard sees a request before the router does.
        .layer(middleware::from_fn_with_state(context.clone(), guarded))
        .with_state(context)
}

async fn guarded(State(context): State<Context>, request: Request, next: Next) -> Response {
    let admitted = guard::admit(request.method(), request.uri(), request.headers(), context.port);
    if let Err(problem) = admitted {
        return problem.into_response();
    }
    timeout(REQUEST_TIME_MAX, next.run(request)).await.unwrap_or_else(|_| {
        let detail = "this took too long; ask for a smaller page";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
    })
}

async fn health() -> Json<HealthView> {
    Json(HealthView {
        status: "alive".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
    })
}

async fn ready(State(context): State<Context>) -> Result<Response, Problem> {
    let (chains, cursors) = everything(&context).await?;
    // A chain that no endpoint has told anything of is still starting, whatever it waits for.
    let chains = chains
        .chains
        .into_iter()
        .filter(|chain| not_at_work(&chain.state) || chain.node_head.is_none())
        .map(|chain| (format!("chain {}", chain.name), chain.state));
    // A lane that nobody runs is no reason: its module was taken out of the configuration.
    let lanes = cursors
        .cursors
        .into_iter()
        .filter(|cursor| not_at_work(&cursor.state))
        .map(|cursor| (format!("lane {}", cursor.lane), cursor.state));
    let reasons: Vec<NotReadyView> = chains
        .chain(lanes)
        .map(|(what, state)| NotReadyView { what, state: state.name, reason: state.reason })
        .collect();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let view = ReadyView { ready: reasons.is_empty(), reasons };
    Ok((status, Json(view)).into_response())
}

fn not_at_work(state: &StateView) -> bool {
    NOT_READY.contains(&state.name.as_str())
}

async fn metrics(State(context): State<Context>) -> Result<Response, Problem> {
    let (chains, cursors) = everything(&context).await?;
    context.sources.metrics.set(&chains.chains, &cursors.cursors);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &context.sources.registry)
        .expect("writing to a string does not fail");
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

async fn chains(State(context): State<Context>) -> Result<Json<ChainsView>, Problem> {
    let (chains, _) = everything(&context).await?;
    Ok(Json(chains))
}

async fn cursors(State(context): State<Context>) -> Result<Json<CursorsView>, Problem> {
    let (_, cursors) = everything(&context).await?;
    Ok(Json(cursors))
}

/// Chains and cursors: what most pages are made of. Both are short.
async fn everything(context: &Context) -> Result<(ChainsView, CursorsView), Problem> {
    let sources = context.sources.clone();
    blocking(move || {
        let reports: BTreeMap<LaneId, _> = (sources.lanes)().into_iter().collect();
        let reason = "no module of this name is configured on this chain".to_owned();
        let otherwise = StateView::new("unconfigured", Some(reason), None);
        let cursors = query::cursors(&sources.store, &reports, &otherwise)?;
        let chains = (sources.chains)()
            .into_iter()
            .map(|report| chain_view(&sources, report))
            .collect::<Result<_, QueryError>>()?;
        Ok((ChainsView { chains }, cursors))
    })
    .await
}

fn chain_view(sources: &Sources, report: ChainReport) -> Result<ChainView, QueryError> {
    let journal = query::journal(&sources.store, &report.name)?;
    let tail = journal.tail();
    let head = match tail.head {
        None => None,
        Some(head) => match journal.offset_of(head)? {
            None => None,
            Some(offset) => journal.read(offset..offset.plus(1)).next().transpose()?,
        },
    };
    let head = head.as_ref().and_then(|stored| match stored.record() {
        Record::Block(block) => Some(HeadView {
            block: block.this.into(),
            time: block_time(block.timestamp),
            timestamp: block.timestamp,
            age_seconds: now_seconds().saturating_sub(block.timestamp),
        }),
        Record::Revert(_) | Record::Outcome(_) => None,
    });
    Ok(ChainView {
        name: report.name.to_string(),
        chain_id: report.chain_id,
        state: report.state,
        start: journal.start().into(),
        tail: tail.offset.into(),
        head,
        node_head: report.node_head,
        finalized: report.finalized.map(BlockRefView::from),
        quorum: report.quorum,
        endpoints: report.endpoints,
        retention: report.retention,
    })
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Which records. Unknown parameters are refused: a misspelt limit must not go unnoticed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalQuery {
    /// The first one; the last `limit` records when left out.
    from: Option<u64>,
    limit: Option<u64>,
    /// Seconds to wait when there are none yet.
    wait: Option<u64>,
}

async fn journal(
    State(context): State<Context>,
    chain: Result<Path<String>, PathRejection>,
    query: Result<Query<JournalQuery>, QueryRejection>,
) -> Result<Json<JournalView>, Problem> {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let journal = query::journal(&context.sources.store, &parsed::<ChainName>(chain)?)?;
    let limit = limit(query.limit, 100, RECORDS_MAX)?;
    let mut tails = journal.watch();
    let end = tails.borrow_and_update().offset;
    let from = query.from.map_or(end.get().saturating_sub(limit), |from| from);
    if let Some(wait) = query.wait.filter(|_| end.get() <= from) {
        if wait > WAIT_SECONDS_MAX {
            let detail = format!("`wait` is at most {WAIT_SECONDS_MAX} seconds");
            return Err(bad_request(detail));
        }
        let appended = tails.wait_for(|tail| tail.offset.get() > from);
        let appended = context.shutdown.run_until_cancelled(appended);
        // Nothing new, or the process stopping: either way the page is what there is.
        let _ = timeout(Duration::from_secs(wait), appended).await;
    }
    blocking(move || query::records(&journal, Offset::new(from), limit)).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyQuery {
    from: Option<u64>,
    limit: Option<u64>,
}

async fn verify(
    State(context): State<Context>,
    chain: Result<Path<String>, PathRejection>,
    query: Result<Query<VerifyQuery>, QueryRejection>,
) -> Result<Json<VerifyView>, Problem> {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let journal = query::journal(&context.sources.store, &parsed::<ChainName>(chain)?)?;
    let limit = limit(query.limit, VERIFY_RECORDS_MAX, VERIFY_RECORDS_MAX)?;
    let from = Offset::new(query.from.unwrap_or(0));
    let permit = context.reading.clone().acquire_owned().await.expect("it is never closed");
    blocking(move || {
        // Kept until the work is done, even when nobody waits for the answer any more.
        let _permit = permit;
        query::verify(&journal, from, limit, &*context.sources.check)
    })
    .await
    .map(Json)
}

async fn stat(
    State(context): State<Context>,
    chain: Result<Path<String>, PathRejection>,
) -> Result<Json<StatView>, Problem> {
    let journal = query::journal(&context.sources.store, &parsed::<ChainName>(chain)?)?;
    let permit = context.reading.clone().acquire_owned().await.expect("it is never closed");
    blocking(move || {
        let _permit = permit;
        query::stat(&journal)
    })
    .await
    .map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReorgsQuery {
    last: Option<u64>,
}

async fn reorgs(
    State(context): State<Context>,
    chain: Result<Path<String>, PathRejection>,
    query: Result<Query<ReorgsQuery>, QueryRejection>,
) -> Result<Json<ReorgsView>, Problem> {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let journal = query::journal(&context.sources.store, &parsed::<ChainName>(chain)?)?;
    let last = bounded("last", query.last, 20, query::REORGS_MAX as u64)? as usize;
    blocking(move || query::reorgs(&journal, last)).await.map(Json)
}

/// Which logs. Lists are separated by commas; bounds are included.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsQuery {
    address: Option<String>,
    topic0: Option<String>,
    from_block: Option<u64>,
    to_block: Option<u64>,
    from_time: Option<u64>,
    to_time: Option<u64>,
    #[serde(default)]
    abandoned: bool,
    /// Where the page before this one ended.
    after: Option<u64>,
}

async fn logs(
    State(context): State<Context>,
    chain: Result<Path<String>, PathRejection>,
    query: Result<Query<LogsQuery>, QueryRejection>,
) -> Result<Json<FoundView>, Problem> {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let journal = query::journal(&context.sources.store, &parsed::<ChainName>(chain)?)?;
    let filter = LogFilter {
        addresses: listed("address", query.address.as_deref())?,
        topic0: listed("topic0", query.topic0.as_deref())?,
    };
    let stretch = Stretch {
        from: bound("from", query.from_block, query.from_time)?,
        to: bound("to", query.to_block, query.to_time)?,
        abandoned: query.abandoned,
    };
    let permit = context.reading.clone().acquire_owned().await.expect("it is never closed");
    blocking(move || {
        let _permit = permit;
        find::find(&journal, &filter, stretch, query.after.map(Offset::new))
    })
    .await
    .map(Json)
}

fn listed<T>(name: &str, list: Option<&str>) -> Result<BTreeSet<T>, Problem>
where
    T: std::str::FromStr + Ord,
    T::Err: std::fmt::Display,
{
    let words = list.into_iter().flat_map(|list| list.split(','));
    words
        .map(|word| word.parse().map_err(|error| bad_request(format!("`{name}`: {error}"))))
        .collect()
}

fn bound(name: &str, block: Option<u64>, time: Option<u64>) -> Result<Option<Bound>, Problem> {
    match (block, time) {
        (Some(_), Some(_)) => {
            Err(bad_request(format!("`{name}_block` and `{name}_time` exclude each other")))
        }
        (block, time) => Ok(block.map(Bound::Block).or(time.map(Bound::Time))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateQuery {
    #[serde(default, deserialize_with = "hex_bytes")]
    prefix: Option<Vec<u8>>,
    #[serde(default, deserialize_with = "hex_bytes")]
    after: Option<Vec<u8>>,
    limit: Option<u64>,
}

async fn state(
    State(context): State<Context>,
    lane: Result<Path<String>, PathRejection>,
    query: Result<Query<StateQuery>, QueryRejection>,
) -> Result<Json<LaneStateView>, Problem> {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let lane: LaneId = parsed(lane)?;
    let limit = limit(query.limit, 100, query::ENTRIES_MAX as u64)? as usize;
    let store = context.sources.store.clone();
    blocking(move || {
        let prefix = query.prefix.unwrap_or_default();
        query::state(&store, &lane, &prefix, query.after.as_deref(), limit)
    })
    .await
    .map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutboxQuery {
    after: Option<String>,
    limit: Option<u64>,
}

async fn outbox(
    State(context): State<Context>,
    lane: Result<Path<String>, PathRejection>,
    query: Result<Query<OutboxQuery>, QueryRejection>,
) -> Result<Json<OutboxView>, Problem> {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let lane: LaneId = parsed(lane)?;
    let limit = limit(query.limit, 100, query::EFFECTS_MAX as u64)? as usize;
    let after = query.after.as_deref().map(query::effect_id).transpose().map_err(bad_request)?;
    let store = context.sources.store.clone();
    blocking(move || query::outbox(&store, &lane, after, limit)).await.map(Json)
}

async fn effect(
    State(context): State<Context>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<EffectView>, Problem> {
    let Path((lane, effect)) = path.map_err(|error| bad_request(error.body_text()))?;
    let lane: LaneId = parsed(Ok(Path(lane)))?;
    let effect = query::effect_id(&effect).map_err(bad_request)?;
    let store = context.sources.store.clone();
    blocking(move || query::effect(&store, &lane, effect)).await.map(Json)
}

/// Runs what reads the store where blocking is fine.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QueryError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer.map_err(Problem::from),
        Err(panic) => {
            tracing::error!(%panic, "an admin request panicked");
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "this is a bug; see the log"))
        }
    }
}

fn parsed<T>(path: Result<Path<String>, PathRejection>) -> Result<T, Problem>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let Path(text) = path.map_err(|error| bad_request(error.body_text()))?;
    text.parse().map_err(|error: T::Err| bad_request(error.to_string()))
}

fn limit(asked: Option<u64>, default: u64, max: u64) -> Result<u64, Problem> {
    bounded("limit", asked, default, max)
}

fn bounded(name: &str, asked: Option<u64>, default: u64, max: u64) -> Result<u64, Problem> {
    match asked.unwrap_or(default) {
        limit if (1..=max).contains(&limit) => Ok(limit),
        limit => Err(bad_request(format!("`{name}` is {limit}, it must be between 1 and {max}"))),
    }
}

fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn hex_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.strip_prefix("0x");
    let digits = digits.ok_or_else(|| de::Error::custom("write bytes as 0x and hex digits"))?;
    hex::decode(digits).map(Some).map_err(de::Error::custom)
}
