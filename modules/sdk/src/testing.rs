//! A host in memory, for native unit tests of modules.

use std::{collections::BTreeMap, ops::Bound};

use alloy_primitives::{Address, B256, keccak256};

use crate::{
    Answer, Block, EffectKey, EffectResult, Header, Host, Input, Level, Log, OrderbookAnswer,
    OrderbookRequest, Outcome, OutcomeInput, Page, Refusal, Request, Response, RevertInput,
    Triggers, Webhook,
    cow::{app_data, order::Domain, posting::Posting, uid::Uid},
};

/// State, chain, orderbook and effects of one lane, in plain fields that a test fills and looks at.
///
/// It lives on Sepolia unless told otherwise. A clone is a snapshot: put its `state` back to take
/// blocks back.
///
/// ```
/// use shepherd_sdk::{
///     Address, EffectResult, Error, Host, Input, Module, NoConfig,
///     cow::{app_data, order::*, posting::{Posting, Signing}},
///     testing::{MemoryHost, block, header, outcome, refused},
/// };
///
/// /// Places one order, and remembers whether the orderbook took it.
/// struct OneOrder;
///
/// impl Module for OneOrder {
///     type Config = NoConfig;
///
///     fn configure(_: NoConfig) -> Result<OneOrder, Error> {
///         Ok(OneOrder)
///     }
///
///     fn handle(&self, host: &mut impl Host, input: &Input) -> Result<(), Error> {
///         match input {
///             Input::Block(_) => drop(host.place_order(&posting()?)),
///             Input::Outcome(told) => {
///                 let taken = told.outcome.result == EffectResult::Accepted;
///                 host.set(b"taken", &[taken.into()]);
///             }
///             Input::Revert(_) => (),
///         }
///         Ok(())
///     }
/// }
///
/// fn posting() -> Result<Posting, Error> {
///     // …
/// #   let order = Order {
/// #       sell_token: Address::repeat_byte(1), buy_token: Address::repeat_byte(2),
/// #       receiver: Address::ZERO, sell_amount: "1".parse().unwrap(),
/// #       buy_amount: "1".parse().unwrap(), valid_to: 7, app_data: app_data::EMPTY_HASH,
/// #       fee_amount: Default::default(), kind: Kind::Sell, partially_fillable: false,
/// #       sell_token_source: SellTokenSource::Erc20,
/// #       buy_token_destination: BuyTokenDestination::Erc20,
/// #   };
/// #   let app_data = app_data::known(order.app_data).unwrap();
/// #   Ok(Posting::new(order, Address::repeat_byte(3), app_data, Signing::PreSign)?)
/// }
///
/// let mut host = MemoryHost::default();
/// OneOrder.handle(&mut host, &block(7, vec![]))?;
/// let (uid, _) = host.placed[0];
///
/// OneOrder.handle(&mut host, &outcome(header(8), uid, refused("InsufficientBalance")))?;
/// assert_eq!(host.get(b"taken"), Some(vec![0]));
/// OneOrder.handle(&mut host, &outcome(header(9), uid, EffectResult::Accepted))?;
/// assert_eq!(host.get(b"taken"), Some(vec![1]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryHost {
    /// The state. It lasts from one `handle` to the next, as the lane's does.
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How often it was asked for so far.
    pub state_calls: StateCalls,
    /// What the chain answers. A request that is not here fails the test.
    pub answers: BTreeMap<Request, Answer>,
    /// Every `read` so far, with its requests.
    pub reads: Vec<Vec<Request>>,
    /// The chain's id.
    pub chain_id: u64,
    /// What the orderbook answers. A request that is not here fails the test.
    pub orderbook: BTreeMap<OrderbookRequest, OrderbookAnswer>,
    /// Every `read_orderbook` so far, with its requests.
    pub orderbook_reads: Vec<Vec<OrderbookRequest>>,
    /// What servers answer, by URL. One that is not here fails the test.
    pub responses: BTreeMap<String, Response>,
    /// Every `http_get` so far.
    pub gets: Vec<String>,
    /// Every order placed so far, under its UID.
    pub placed: Vec<(Uid, Posting)>,
    /// Every webhook called so far, under its key.
    pub webhooks: Vec<(String, Webhook)>,
    /// Every line so far.
    pub lines: Vec<(Level, String)>,
    /// The time of the block.
    pub now: u64,
    /// How many random numbers have been drawn.
    pub drawn: u64,
}

/// How often the state was called: what a block costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCalls {
    /// `get`.
    pub gets: usize,
    /// `set` and `delete`.
    pub writes: usize,
    /// `list`.
    pub lists: usize,
    /// Entries that were listed.
    pub listed: usize,
}

/// Where a [`MemoryHost`] is unless it is told otherwise.
pub const SEPOLIA: u64 = 11_155_111;

impl Default for MemoryHost {
    fn default() -> MemoryHost {
        MemoryHost {
            state: BTreeMap::new(),
            state_calls: StateCalls::default(),
            answers: BTreeMap::new(),
            reads: Vec::new(),
            chain_id: SEPOLIA,
            orderbook: BTreeMap::new(),
            orderbook_reads: Vec::new(),
            responses: BTreeMap::new(),
            gets: Vec::new(),
            placed: Vec::new(),
            webhooks: Vec::new(),
            lines: Vec::new(),
            now: 0,
            drawn: 0,
        }
    }
}

impl MemoryHost {
    /// Scripts the answer to a request, from now on.
    pub fn answer(&mut self, request: Request, answer: Answer) {
        self.answers.insert(request, answer);
    }

    /// Scripts what the orderbook says about an order, from now on: its JSON, or that it is not
    /// there.
    pub fn order(&mut self, uid: Uid, order: Option<&str>) {
        let answer = OrderbookAnswer::Order(order.map(str::to_owned));
        self.orderbook.insert(OrderbookRequest::Order(uid), answer);
    }

    /// Makes the orderbook know an app-data document, and says what its hash is.
    pub fn document(&mut self, document: &str) -> B256 {
        let hash = app_data::hash(document);
        let answer = OrderbookAnswer::AppData(Some(document.to_owned()));
        self.orderbook.insert(OrderbookRequest::AppData(hash), answer);
        hash
    }

    /// Makes the orderbook answer that it knows no document with this hash.
    pub fn no_document(&mut self, hash: B256) {
        self.orderbook.insert(OrderbookRequest::AppData(hash), OrderbookAnswer::AppData(None));
    }

    /// The lines at this level, oldest first.
    pub fn lines_at(&self, level: Level) -> Vec<&str> {
        let lines = self.lines.iter().filter(|(of, _)| *of == level);
        lines.map(|(_, message)| message.as_str()).collect()
    }
}

impl Host for MemoryHost {
    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.state_calls.gets += 1;
        self.state.get(key).cloned()
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        assert!((1..=1024).contains(&key.len()), "a key of {} bytes is a fault", key.len());
        assert!(value.len() <= 1 << 20, "a value of {} bytes is a fault", value.len());
        self.state_calls.writes += 1;
        self.state.insert(key.to_vec(), value.to_vec());
    }

    fn delete(&mut self, key: &[u8]) {
        self.state_calls.writes += 1;
        self.state.remove(key);
    }

    fn list(&mut self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Page {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut entries = self
            .state
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix));
        let limit = (limit as usize).clamp(1, 1000);
        let page = entries.by_ref().take(limit).map(|(key, value)| (key.clone(), value.clone()));
        let page = Page { entries: page.collect(), more: entries.next().is_some() };
        self.state_calls.lists += 1;
        self.state_calls.listed += page.entries.len();
        page
    }

    fn read(&mut self, requests: &[Request]) -> Vec<Answer> {
        self.reads.push(requests.to_vec());
        let answer = |request: &Request| {
            let scripted = self.answers.get(request).cloned();
            scripted.unwrap_or_else(|| panic!("no answer is scripted for {request:?}"))
        };
        requests.iter().map(answer).collect()
    }

    fn chain_id(&mut self) -> u64 {
        self.chain_id
    }

    fn place_order(&mut self, posting: &Posting) -> Uid {
        let uid = posting.order().uid(Domain::of_chain(self.chain_id), posting.owner);
        self.placed.push((uid, posting.clone()));
        uid
    }

    fn webhook(&mut self, webhook: &Webhook) -> String {
        let derived = || format!("derived-{}", self.webhooks.len());
        let key = webhook.key.clone().unwrap_or_else(derived);
        let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        assert!(printable && (1..=128).contains(&key.len()), "the key {key:?} is a fault");
        assert!(webhook.body.len() <= 64 << 10, "{} bytes are a fault", webhook.body.len());
        let document = serde_json::from_str::<serde_json::Value>(&webhook.body);
        assert!(document.is_ok(), "a body that is not JSON is a fault: {}", webhook.body);
        self.webhooks.push((key.clone(), webhook.clone()));
        key
    }

    fn read_orderbook(&mut self, requests: &[OrderbookRequest]) -> Vec<OrderbookAnswer> {
        assert!(requests.len() <= 1000, "{} requests at once are a fault", requests.len());
        self.orderbook_reads.push(requests.to_vec());
        let answer = |request: &OrderbookRequest| {
            let scripted = self.orderbook.get(request).cloned();
            scripted.unwrap_or_else(|| panic!("no answer is scripted for {request:?}"))
        };
        requests.iter().map(answer).collect()
    }

    fn http_get(&mut self, url: &str) -> Response {
        self.gets.push(url.to_owned());
        let scripted = self.responses.get(url).cloned();
        scripted.unwrap_or_else(|| panic!("no response is scripted for {url}"))
    }

    fn log(&mut self, level: Level, message: &str) {
        self.lines.push((level, message.to_owned()));
    }

    fn now(&mut self) -> u64 {
        self.now
    }

    fn random(&mut self) -> u64 {
        self.drawn += 1;
        let [a, b, c, d, e, f, g, h, ..] = keccak256(self.drawn.to_be_bytes()).0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// The header of a block of this height, twelve seconds after the one before.
pub fn header(number: u64) -> Header {
    let hash = |number: u64| keccak256(number.to_be_bytes());
    Header {
        number,
        hash: hash(number),
        parent_hash: hash(number.wrapping_sub(1)),
        timestamp: 1_700_000_000 + 12 * number,
    }
}

/// A block of this height with these logs, twelve seconds after the one before.
pub fn block(number: u64, logs: Vec<Log>) -> Input {
    block_at(header(number), logs)
}

/// The block of this header with these logs.
pub fn block_at(header: Header, logs: Vec<Log>) -> Input {
    let triggers = Triggers { logs: !logs.is_empty(), block: true, tick: false };
    Input::Block(Block { header, triggers, logs })
}

/// What came of an order that was placed.
pub fn outcome(header: Header, uid: Uid, result: EffectResult) -> Input {
    let outcome = Outcome { key: EffectKey::Order(uid), result, abandoned: false };
    Input::Outcome(OutcomeInput { header, outcome })
}

/// What came of a webhook that was called.
pub fn webhook_outcome(header: Header, key: &str, result: EffectResult) -> Input {
    let outcome = Outcome { key: EffectKey::Webhook(key.to_owned()), result, abandoned: false };
    Input::Outcome(OutcomeInput { header, outcome })
}

/// Blocks were taken back down to this one, and with them what asked for these orders, of which
/// this had come.
pub fn revert(header: Header, outcomes: Vec<(Uid, EffectResult)>) -> Input {
    let outcomes = outcomes
        .into_iter()
        .map(|(uid, result)| Outcome { key: EffectKey::Order(uid), result, abandoned: true })
        .collect();
    Input::Revert(RevertInput { header, outcomes })
}

/// The orderbook refuses an order with a 400 and this `errorType`.
pub fn refused(error_type: &str) -> EffectResult {
    let envelope = serde_json::json!({ "errorType": error_type, "description": "as scripted" });
    EffectResult::Refused(Refusal {
        status: 400,
        error_type: Some(error_type.to_owned()),
        description: "as scripted".to_owned(),
        body: envelope.to_string().into_bytes(),
        retry_after: None,
    })
}

/// A receiver refuses with a status and nothing that says why.
pub fn refused_with(status: u16, retry_after: Option<u32>) -> EffectResult {
    EffectResult::Refused(Refusal { status, retry_after, ..Refusal::default() })
}

/// A log without topics or data, of the contract whose address repeats this byte.
pub fn log(contract: u8) -> Log {
    Log {
        address: Address::repeat_byte(contract),
        transaction_hash: B256::repeat_byte(contract),
        ..Log::default()
    }
}
