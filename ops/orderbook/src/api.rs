//! What the real orderbook has: `/api/v1`.
//!
//! ```text
//! request ─▶ who, what ─▶ stats: it arrived ─▶ faults: what it meets ─▶ the work ─▶ stats, answer
//! ```

use std::{sync::Arc, time::Duration};

use alloy_primitives::{Address, B256, U256, keccak256};
use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cowprotocol::{
    BuyTokenDestination, GPV2_VAULT_RELAYER, OrderData, OrderKind, SellTokenSource, Signature,
    SigningScheme,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    book::{Candidate, Funds, Quoted, Status},
    faults::{Fault, Plan, Route, Visit, chosen},
    order::{AppDataClaim, EthFlowView, OnchainOrderView, OrderCreation, OrderView, Uid, decimal},
    refusal::Refusal,
    server::Shared,
    stats,
    validate::{self, Rules},
};

/// Longest body: a long EIP-1271 signature in hexadecimal beside a long document.
const BODY_BYTES_MAX: usize = 128 << 10;

/// How long a quote is good for when the request does not say, as in the server's defaults.
const QUOTE_SECONDS: u64 = 30 * 60;

/// Ends the connection that a request came by.
#[derive(Clone, Debug)]
pub struct Hangup(pub CancellationToken);

/// The routes, below whatever prefix they are served.
pub fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/orders", post(post_order))
        .route("/orders/{uid}", get(get_order))
        .route("/app_data/{hash}", get(get_app_data).put(put_app_data))
        .route("/quote", post(post_quote))
        .route("/version", get(version))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// A request, as far as faults and statistics care.
struct Asked {
    route: Route,
    key: Vec<u8>,
    owner: Option<Address>,
    /// The order that was posted, and the digest of the body.
    order: Option<(Uid, B256)>,
}

/// What a request is answered with.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: String,
    retry_after_seconds: Option<u64>,
    /// What it is counted as.
    outcome: String,
}

impl Answer {
    fn json(status: StatusCode, view: &impl Serialize) -> Answer {
        Answer {
            status,
            content_type: "application/json",
            body: serde_json::to_string(view).expect("views have string keys"),
            retry_after_seconds: None,
            outcome: status.as_u16().to_string(),
        }
    }

    fn refusal(refusal: &Refusal) -> Answer {
        let (code, error_type) = refusal.kind();
        let answer = Answer::json(status(code), &refusal.envelope());
        Answer { outcome: format!("{code} {error_type}"), ..answer }
    }

    fn created(&self) -> bool {
        self.status == StatusCode::CREATED
    }

    /// What a gateway says: no JSON.
    fn text(status: StatusCode) -> Answer {
        Answer {
            status,
            content_type: "text/plain; charset=utf-8",
            body: status.canonical_reason().unwrap_or("the server failed").to_owned(),
            retry_after_seconds: None,
            outcome: status.as_u16().to_string(),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        (self.status, headers, self.body).into_response()
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("between 100 and 999")
}

/// Answers a request with its work, or with what the faults make of it.
async fn answer(
    shared: &Shared,
    hangup: &CancellationToken,
    asked: Asked,
    work: impl Future<Output = Result<Answer, Refusal>>,
) -> Response {
    let Asked { route, key, owner, order } = asked;
    let plan = {
        let mut state = shared.state();
        let attempt = state.stats.arrived(route, &key, order);
        state.faults.plan(&Visit { route, key: &key, owner, attempt })
    };
    let Plan { latency_ms, fault } = plan;
    let work = async { work.await.unwrap_or_else(|refusal| Answer::refusal(&refusal)) };
    // `None` is no answer at all.
    let (outcome, created, answer) = match fault {
        None | Some(Fault::Latency { .. }) => {
            let answer = work.await;
            (answer.outcome.clone(), answer.created(), Some(answer))
        }
        Some(Fault::AcceptThenDrop) => {
            let lost = work.await;
            (format!("{}, then dropped", lost.outcome), lost.created(), None)
        }
        Some(Fault::AcceptThenServerError { status: code }) => {
            let lost = work.await;
            let answer = Answer::text(status(code));
            (format!("{}, then {code}", lost.outcome), lost.created(), Some(answer))
        }
        Some(Fault::Drop) => ("dropped".to_owned(), false, None),
        Some(fault) => {
            let answer = instead(fault);
            (answer.outcome.clone(), false, Some(answer))
        }
    };
    // The work is counted in the same breath: a client that goes away while it waits for its
    // answer still finds its order counted.
    let accepted = created && route == Route::PostOrder;
    shared.state().stats.answered(route, order.map(|(uid, _)| uid), &outcome, accepted);

    // A sleep of no time takes up to a millisecond.
    if latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(latency_ms)).await;
    }
    match answer {
        Some(answer) => answer.into_response(),
        None => {
            hangup.cancel();
            // The connection ends, and this with it.
            std::future::pending().await
        }
    }
}

/// The answer of a fault that does nothing.
fn instead(fault: Fault) -> Answer {
    match fault {
        Fault::TooManyRequests { retry_after_seconds } => {
            Answer { retry_after_seconds, ..Answer::text(StatusCode::TOO_MANY_REQUESTS) }
        }
        Fault::ServerError { status: 500 } => {
            Answer::refusal(&chosen("InternalServerError".to_owned()))
        }
        Fault::ServerError { status: code } => Answer::text(status(code)),
        Fault::Refuse { error_type } => Answer::refusal(&chosen(error_type)),
        Fault::Latency { .. }
        | Fault::AcceptThenDrop
        | Fault::AcceptThenServerError { .. }
        | Fault::Drop => unreachable!("handled by the caller"),
    }
}

/// A JSON body of the right kind, as the real one reads it.
fn json_body<T>(
    headers: &HeaderMap,
    body: &[u8],
    read: impl FnOnce(&[u8]) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match kind.split(';').next().is_some_and(|kind| kind.trim() == "application/json") {
        true => read(body),
        false => Err(Refusal::NotSentAsJson),
    }
}

fn shape<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let json: Value = serde_json::from_slice(body).map_err(Refusal::NotJson)?;
    serde_json::from_value(json).map_err(Refusal::WrongShape)
}

async fn post_order(
    State(shared): State<Arc<Shared>>,
    Extension(Hangup(hangup)): Extension<Hangup>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let order = json_body(&headers, &body, OrderCreation::parse);
    let digest = stats::digest(&body);
    let named = order.as_ref().ok().and_then(|order| name(&shared, order));
    let asked = Asked {
        route: Route::PostOrder,
        key: named.map_or(digest.to_vec(), |(uid, _)| uid.to_vec()),
        owner: named.map(|(_, owner)| owner),
        order: named.map(|(uid, _)| (uid, digest)),
    };
    answer(&shared, &hangup, asked, async {
        let uid = accept(&shared, order?).await?;
        Ok(Answer::json(StatusCode::CREATED, &uid))
    })
    .await
}

/// The UID and the owner that an order would have, whether or not it is accepted.
fn name(shared: &Shared, order: &OrderCreation) -> Option<(Uid, Address)> {
    let hash = match order.app_data() {
        AppDataClaim::Document(document) => keccak256(document),
        AppDataClaim::Both(_, hash) | AppDataClaim::Hash(hash) => hash,
    };
    let data = order.data(hash);
    let owner = match order.from {
        Some(from) => from,
        None => data.recover_signer(&shared.domain, &order.signature()).ok()??.signer,
    };
    Some((data.uid(&shared.domain, owner), owner))
}

/// Takes an order, or says why not, in the order in which the real one looks.
async fn accept(shared: &Shared, order: OrderCreation) -> Result<Uid, Refusal> {
    let now = shared.now().await?;
    let app_data = {
        let state = shared.state();
        let claim = order.app_data();
        let known = match &claim {
            AppDataClaim::Hash(hash) => state.book.document(*hash),
            _ => None,
        };
        validate::app_data(claim, known)?
    };
    let data = order.data(app_data.hash);
    let owner = validate::owner(&order, &data, &shared.domain, app_data.signer)?;
    let uid = data.uid(&shared.domain, owner);
    let signature = order.signature();
    // EthFlow accepts what it placed, but no such order is taken from here: its `validTo` says so.
    if let (Signature::Eip1271(bytes), Some(node)) = (&signature, &shared.node)
        && shared.eth_flow != Some(owner)
    {
        let digest = B256::from_slice(&uid[..32]);
        if !node.accepts(owner, digest, bytes.clone().into()).await? {
            return Err(Refusal::InvalidEip1271Signature(digest));
        }
    }

    let funds = match &shared.node {
        Some(node) if shared.check_funds => {
            node.funds(owner, data.sell_token, GPV2_VAULT_RELAYER).await?
        }
        _ => Funds::default(),
    };

    let mut state = shared.state();
    let limits = state.limits;
    let rules = Rules { limits, now, wrapped_native: shared.wrapped_native };
    validate::terms(&data, &signature, rules)?;
    let candidate = Candidate {
        uid,
        data,
        owner,
        scheme: signature.scheme(),
        signature: signature.to_bytes().into(),
        app_data,
        quote_id: order.quote_id,
        funds,
    };
    state.book.place(candidate, limits, now)
}

async fn get_order(
    State(shared): State<Arc<Shared>>,
    Extension(Hangup(hangup)): Extension<Hangup>,
    Path(uid): Path<String>,
) -> Response {
    let uid: Option<Uid> = uid.parse().ok();
    let asked = Asked {
        route: Route::GetOrder,
        key: uid.map_or(Vec::new(), |uid| uid.to_vec()),
        owner: uid.map(|uid| Address::from_slice(&uid[32..52])),
        order: None,
    };
    answer(&shared, &hangup, asked, async {
        let now = shared.now().await?;
        let view = uid.and_then(|uid| view(&shared, uid, now, shared.delay_blocks));
        Ok(Answer::json(StatusCode::OK, &view.ok_or(Refusal::OrderNotFound)?))
    })
    .await
}

/// An order as it is shown; one from the chain when `delay` blocks came after its own.
pub fn view(shared: &Shared, uid: Uid, now: u64, delay: u64) -> Option<OrderView> {
    let state = shared.state();
    let book = &state.book;
    let placement = book.facts.placement(uid, delay);
    let (data, owner, signing_scheme, signature, created) = match (book.order(uid), placement) {
        (Some(entry), _) => {
            let created = entry.created;
            (entry.data, entry.owner, entry.scheme, entry.signature.clone(), created)
        }
        (None, Some(placed)) => {
            (placed.data, placed.owner, placed.scheme, placed.signature.clone(), now)
        }
        (None, None) => return None,
    };
    let status = book.status(uid, now)?;
    let filled = status == Status::Fulfilled;
    let executed = |amount: U256| if filled { amount.to_string() } else { "0".to_owned() };
    Some(OrderView {
        uid,
        owner,
        signing_scheme,
        signature,
        creation_date: rfc3339(created),
        status,
        class: "limit".to_owned(),
        invalidated: status == Status::Cancelled,
        executed_sell_amount: executed(data.sell_amount),
        executed_sell_amount_before_fees: executed(data.sell_amount),
        executed_buy_amount: executed(data.buy_amount),
        executed_fee_amount: "0".to_owned(),
        executed_fee: "0".to_owned(),
        executed_fee_token: data.sell_token,
        is_liquidity_order: false,
        full_app_data: book.document(data.app_data).map(str::to_owned),
        settlement_contract: shared.settlement,
        interactions: Default::default(),
        onchain_user: placement.map(|placed| placed.user),
        onchain_order_data: placement.map(|placed| OnchainOrderView { sender: placed.user }),
        ethflow_data: placement.map(|placed| EthFlowView {
            user_valid_to: placed.user_valid_to,
            refund_tx_hash: book.facts.refund(uid),
        }),
        data,
    })
}

/// A time as the API writes it.
fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// `{"fullAppData": "…"}`, both ways.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct AppDataView {
    full_app_data: String,
}

fn asked_for_app_data(route: Route, hash: Option<B256>) -> Asked {
    Asked { route, key: hash.map_or(Vec::new(), |hash| hash.to_vec()), owner: None, order: None }
}

async fn get_app_data(
    State(shared): State<Arc<Shared>>,
    Extension(Hangup(hangup)): Extension<Hangup>,
    Path(hash): Path<String>,
) -> Response {
    let hash: Option<B256> = hash.parse().ok();
    answer(&shared, &hangup, asked_for_app_data(Route::GetAppData, hash), async {
        let state = shared.state();
        let document = hash.and_then(|hash| state.book.document(hash));
        let full_app_data = document.ok_or(Refusal::AppDataNotFound)?.to_owned();
        Ok(Answer::json(StatusCode::OK, &AppDataView { full_app_data }))
    })
    .await
}

async fn put_app_data(
    State(shared): State<Arc<Shared>>,
    Extension(Hangup(hangup)): Extension<Hangup>,
    Path(hash): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let hash: Option<B256> = hash.parse().ok();
    answer(&shared, &hangup, asked_for_app_data(Route::PutAppData, hash), async {
        let AppDataView { full_app_data } = json_body(&headers, &body, shape)?;
        let claim = match hash {
            Some(hash) => AppDataClaim::Both(full_app_data, hash),
            None => AppDataClaim::Document(full_app_data),
        };
        let app_data = validate::app_data(claim, None)?;
        let hash = app_data.hash;
        let new = shared.state().book.keep(app_data);
        let status = if new { StatusCode::CREATED } else { StatusCode::OK };
        Ok(Answer::json(status, &hash))
    })
    .await
}

/// The body of `POST /api/v1/quote`, as far as it is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuoteRequest {
    sell_token: Address,
    buy_token: Address,
    from: Address,
    receiver: Option<Address>,
    kind: OrderKind,
    sell_amount_before_fee: Option<Amount>,
    sell_amount_after_fee: Option<Amount>,
    buy_amount_after_fee: Option<Amount>,
    valid_to: Option<u32>,
    valid_for: Option<u32>,
    app_data: Option<String>,
    app_data_hash: Option<B256>,
    #[serde(default)]
    partially_fillable: bool,
    #[serde(default)]
    sell_token_balance: SellTokenSource,
    #[serde(default)]
    buy_token_balance: BuyTokenDestination,
    #[serde(default)]
    signing_scheme: SigningScheme,
}

#[derive(Clone, Copy, Deserialize)]
struct Amount(#[serde(deserialize_with = "decimal")] U256);

/// The answer to a quote.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QuoteView {
    quote: QuotedOrderView,
    from: Address,
    expiration: String,
    id: i64,
    verified: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QuotedOrderView {
    #[serde(flatten)]
    data: OrderData,
    signing_scheme: SigningScheme,
}

/// Quotes one smallest unit for one, whatever the tokens, and no fee.
async fn post_quote(
    State(shared): State<Arc<Shared>>,
    Extension(Hangup(hangup)): Extension<Hangup>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let key = stats::digest(&body).to_vec();
    let asked = Asked { route: Route::Quote, key, owner: None, order: None };
    answer(&shared, &hangup, asked, async {
        let request: QuoteRequest = json_body(&headers, &body, shape)?;
        let now = shared.now().await?;
        let data = quoted(&request, now)?;
        validate::tokens(data.sell_token, data.buy_token, shared.wrapped_native)?;
        let OrderData { sell_token, buy_token, kind, .. } = data;
        let id = shared.state().book.quote(Quoted { sell_token, buy_token, kind });
        let quote = QuotedOrderView { data, signing_scheme: request.signing_scheme };
        let expiration = rfc3339(data.valid_to.into());
        let view = QuoteView { quote, from: request.from, expiration, id, verified: false };
        Ok(Answer::json(StatusCode::OK, &view))
    })
    .await
}

fn quoted(request: &QuoteRequest, now: u64) -> Result<OrderData, Refusal> {
    let fixed = match request.kind {
        OrderKind::Sell => request.sell_amount_before_fee.or(request.sell_amount_after_fee),
        OrderKind::Buy => request.buy_amount_after_fee,
    };
    let missing = || serde::de::Error::custom("the amount that the kind fixes is missing");
    let Amount(amount) = fixed.ok_or_else(|| Refusal::WrongShape(missing()))?;
    if amount.is_zero() {
        return Err(Refusal::ZeroAmount);
    }
    let claim = match (&request.app_data, request.app_data_hash) {
        (Some(text), _) if text.parse::<B256>().is_err() => Some(keccak256(text)),
        (Some(hash), _) => hash.parse().ok(),
        (None, hash) => hash,
    };
    let lasting = now + request.valid_for.map_or(QUOTE_SECONDS, u64::from);
    Ok(OrderData {
        sell_token: request.sell_token,
        buy_token: request.buy_token,
        receiver: request.receiver,
        sell_amount: amount,
        buy_amount: amount,
        valid_to: request.valid_to.unwrap_or(u32::try_from(lasting).unwrap_or(u32::MAX)),
        app_data: claim.unwrap_or(keccak256(cowprotocol::EMPTY_APP_DATA_JSON)),
        fee_amount: U256::ZERO,
        kind: request.kind,
        partially_fillable: request.partially_fillable,
        sell_token_balance: request.sell_token_balance,
        buy_token_balance: request.buy_token_balance,
    })
}

async fn version(
    State(shared): State<Arc<Shared>>,
    Extension(Hangup(hangup)): Extension<Hangup>,
) -> Response {
    let asked = Asked { route: Route::Version, key: Vec::new(), owner: None, order: None };
    answer(&shared, &hangup, asked, async {
        Ok(Answer::json(
            StatusCode::OK,
            &json!({
                "version": concat!("shepherd-orderbook ", env!("CARGO_PKG_VERSION")),
            }),
        ))
    })
    .await
}
