//! What a module can ask of Shepherd.

use alloy_primitives::{Address, B256, Bytes, U256};

use crate::{
    Webhook,
    cow::{posting::Posting, uid::Uid},
};

/// Everything outside the module.
///
/// A module imports exactly the functions whose methods it calls, and its manifest must grant
/// their capabilities: `state`, `chain`, `logging`, `clock`, `random`, `effects.place-order`,
/// `effects.webhook`, `orderbook`, `http`.
pub trait Host {
    /// `state`: the value of a key.
    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>>;

    /// `state`: writes a key of 1 to 1024 bytes. The module sees it at once, everyone else when
    /// the step commits.
    fn set(&mut self, key: &[u8], value: &[u8]);

    /// `state`: deletes a key, whether it exists or not.
    fn delete(&mut self, key: &[u8]);

    /// `state`: entries whose key starts with `prefix` and is greater than `after`, in byte
    /// order: at most `limit`, and never more than 1000 or 1 MiB at a time.
    fn list(&mut self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Page;

    /// `chain`: one answer for each request, of its kind, all at the block being handled.
    ///
    /// Put everything you need into one call: it costs one round trip.
    fn read(&mut self, requests: &[Request]) -> Vec<Answer>;

    /// `chain`: the chain's id (EIP-155).
    fn chain_id(&mut self) -> u64;

    /// `effects.place-order`: places an order, and says how it is known everywhere.
    ///
    /// It is sent once this record is durable, at least once and until its `valid_to`; what came
    /// of it arrives as an [`Outcome`](crate::Outcome). An order that is at the orderbook already
    /// is answered without being sent.
    fn place_order(&mut self, posting: &Posting) -> Uid;

    /// `effects.webhook`: calls a webhook, and says under which key.
    fn webhook(&mut self, webhook: &Webhook) -> String;

    /// `orderbook`: one answer for each request, of its kind; at most 1000 at a time.
    ///
    /// These answers are of the moment and not of the block. A replay gets the same.
    fn read_orderbook(&mut self, requests: &[OrderbookRequest]) -> Vec<OrderbookAnswer>;

    /// `http`: gets a document. The URL is `https`, of a host that the manifest lists.
    ///
    /// Any status is an answer, a redirect too; only a server that does not answer, or answers 429
    /// or 5xx, is asked again by the host.
    fn http_get(&mut self, url: &str) -> Response;

    /// `logging`: a line for the operator.
    fn log(&mut self, level: Level, message: &str);

    /// `clock`: the time of the block being handled, in seconds since 1970.
    fn now(&mut self) -> u64;

    /// `random`: the next number of a sequence that a replay repeats. Whoever proposes the block
    /// can foresee it.
    fn random(&mut self) -> u64;
}

/// A page of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values, in byte order of the keys.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether entries follow the last one.
    pub more: bool,
}

/// A question about the chain at the block being handled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// `eth_call`.
    Call {
        /// The contract.
        to: Address,
        /// The call data.
        data: Bytes,
    },
    /// The native balance of an address.
    Balance(Address),
    /// The code at an address.
    Code(Address),
    /// One storage slot.
    Storage {
        /// The contract.
        address: Address,
        /// The slot.
        slot: B256,
    },
}

/// The chain's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What an `eth_call` returned.
    Returned(Bytes),
    /// The raw data an `eth_call` reverted with.
    Reverted(Bytes),
    /// A balance, in wei.
    Balance(U256),
    /// Code; empty where there is none.
    Code(Bytes),
    /// The value of a slot.
    Storage(B256),
}

/// A question to the orderbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OrderbookRequest {
    /// `GET /api/v1/orders/{uid}`.
    Order(Uid),
    /// `GET /api/v1/app_data/{hash}`.
    AppData(B256),
}

/// The orderbook's answer. `None`: it does not know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderbookAnswer {
    /// The order as the orderbook tells it, in JSON; at most 64 KiB.
    Order(Option<String>),
    /// The document itself.
    AppData(Option<String>),
}

/// What a server answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The body, at most 1 MiB.
    pub body: Vec<u8>,
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the module's author.
    Debug,
    /// Worth knowing.
    Info,
    /// Someone should look.
    Warn,
    /// Something failed.
    Error,
}
