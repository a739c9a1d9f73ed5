//! What a test decides and reads: `/admin`, for this machine only.
//!
//! | path | |
//! |---|---|
//! | `GET PUT /admin/faults` | `{"seed": 7, "rules": [{"fault": "accept_then_drop", "rate": 0.2}]}` |
//! | `GET /admin/stats` | requests by outcome, bodies by UID |
//! | `GET /admin/orders` | all orders, whatever their status; `?after=…&limit=…` |
//! | `GET PUT /admin/clock` | `{"clock": "system"}`, `"chain"`, `{"fixed": 1700000000}` |
//! | `GET PUT /admin/limits` | validity window, open orders of one owner |
//! | `PUT /admin/funds` | `{"owner", "token", "balance"?, "allowance"?}`, decimal strings |
//! | `POST /admin/fill`, `cancel`, `presign` | `{"uid"}` |

use std::{net::SocketAddr, sync::Arc};

use alloy_primitives::{Address, U256};
use axum::{
    Extension, Json, Router,
    extract::{Query, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    api,
    book::{Funds, Mark},
    clock::Clock,
    config::Limits,
    faults::{Faults, FaultsView, Rule},
    order::{OrderView, Uid, decimal},
    refusal::Refusal,
    server::Shared,
    stats::StatsView,
};

/// Orders on one page.
const ORDERS_MAX: usize = 10_000;

/// Who asks, as the connection says.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// The routes, below `/admin`.
pub fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/faults", get(faults).put(set_faults))
        .route("/stats", get(stats))
        .route("/orders", get(orders))
        .route("/clock", get(clock).put(set_clock))
        .route("/limits", get(limits).put(set_limits))
        .route("/funds", put(set_funds))
        .route("/fill", post(fill))
        .route("/cancel", post(cancel))
        .route("/presign", post(presign))
        .layer(middleware::from_fn(guard))
}

/// Programs on this machine may ask; other machines and pages in a browser may not.
async fn guard(Extension(Peer(peer)): Extension<Peer>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    // A page can point its own name at this machine; the browser still sends that name.
    let ours = host.is_some_and(|host| {
        let names = ["localhost", "127.0.0.1", "[::1]"];
        names.iter().any(|name| {
            let rest = host.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })
    });
    let foreign = request.headers().contains_key(header::ORIGIN);
    if !peer.ip().is_loopback() || !ours || foreign {
        return problem(StatusCode::FORBIDDEN, "only programs on this machine may ask");
    }
    next.run(request).await
}

fn problem(status: StatusCode, detail: impl ToString) -> Response {
    (status, Json(json!({ "detail": detail.to_string() }))).into_response()
}

fn refused(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.kind().0).expect("between 100 and 999");
    problem(status, refusal)
}

async fn faults(State(shared): State<Arc<Shared>>) -> Json<FaultsView> {
    Json(shared.state().faults.view())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultsRequest {
    /// As before when absent.
    seed: Option<u64>,
    rules: Vec<Rule>,
}

async fn set_faults(
    State(shared): State<Arc<Shared>>,
    Json(request): Json<FaultsRequest>,
) -> Response {
    let mut state = shared.state();
    let seed = request.seed.unwrap_or(state.faults.seed());
    match Faults::new(seed, request.rules) {
        Ok(faults) => {
            state.faults = faults;
            Json(state.faults.view()).into_response()
        }
        Err(error) => problem(StatusCode::UNPROCESSABLE_ENTITY, error),
    }
}

async fn stats(State(shared): State<Arc<Shared>>) -> Json<StatsView> {
    Json(shared.stats())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrdersQuery {
    #[serde(default)]
    after: usize,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct OrdersView {
    /// How many there are in all.
    total: usize,
    orders: Vec<OrderView>,
}

async fn orders(State(shared): State<Arc<Shared>>, Query(query): Query<OrdersQuery>) -> Response {
    let now = match shared.now().await {
        Ok(now) => now,
        Err(error) => return refused(&error.into()),
    };
    let uids = shared.state().book.uids();
    let limit = query.limit.unwrap_or(ORDERS_MAX).min(ORDERS_MAX);
    let page = uids.iter().skip(query.after).take(limit);
    let orders = page.filter_map(|uid| api::view(&shared, *uid, now, 0)).collect();
    Json(OrdersView { total: uids.len(), orders }).into_response()
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ClockView {
    clock: Clock,
}

async fn clock(State(shared): State<Arc<Shared>>) -> Json<ClockView> {
    Json(ClockView { clock: shared.state().clock })
}

async fn set_clock(
    State(shared): State<Arc<Shared>>,
    Json(ClockView { clock }): Json<ClockView>,
) -> Response {
    shared.state().clock = clock;
    match shared.now().await {
        Ok(now) => Json(json!({ "clock": clock, "now": now })).into_response(),
        Err(error) => refused(&error.into()),
    }
}

async fn limits(State(shared): State<Arc<Shared>>) -> Json<Limits> {
    Json(shared.state().limits)
}

async fn set_limits(State(shared): State<Arc<Shared>>, Json(limits): Json<Limits>) -> Json<Limits> {
    shared.state().limits = limits;
    Json(limits)
}

#[derive(Clone, Copy, Deserialize)]
struct Amount(#[serde(deserialize_with = "decimal")] U256);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FundsRequest {
    owner: Address,
    token: Address,
    balance: Option<Amount>,
    allowance: Option<Amount>,
}

async fn set_funds(
    State(shared): State<Arc<Shared>>,
    Json(request): Json<FundsRequest>,
) -> StatusCode {
    let amount = |amount: Option<Amount>| amount.map(|Amount(amount)| amount);
    let funds = Funds { balance: amount(request.balance), allowance: amount(request.allowance) };
    shared.state().book.set_funds(request.owner, request.token, funds);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkRequest {
    uid: Uid,
}

async fn fill(shared: State<Arc<Shared>>, request: Json<MarkRequest>) -> Response {
    mark(shared, request, Mark::Fill)
}

async fn cancel(shared: State<Arc<Shared>>, request: Json<MarkRequest>) -> Response {
    mark(shared, request, Mark::Cancel)
}

async fn presign(shared: State<Arc<Shared>>, request: Json<MarkRequest>) -> Response {
    mark(shared, request, Mark::PreSign)
}

fn mark(
    State(shared): State<Arc<Shared>>,
    Json(request): Json<MarkRequest>,
    mark: Mark,
) -> Response {
    match shared.state().book.mark(request.uid, mark) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refused(&refusal),
    }
}
