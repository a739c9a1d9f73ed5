//! The glue between a module and `shepherd.wit`, in the component only.

use std::{panic, sync::OnceLock};

use alloy_primitives::{Address, B256, U256};

use crate::{
    Answer, Block, Deliver, EffectKey, EffectResult, Header, Host, Input, Level, Log, Module,
    OrderbookAnswer, OrderbookRequest, Outcome, OutcomeInput, Page, Refusal, Request, Response,
    RevertInput, Topics, Triggers, Webhook,
    cow::{
        order::{BuyTokenDestination, Kind, Order, SellTokenSource},
        posting::{Posting, Signing},
        uid::Uid,
    },
};

/// `shepherd.wit` as Rust types, generated.
#[allow(missing_docs, reason = "the documentation is in the WIT file")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "module",
        pub_export_macro: true,
        default_bindings_module: "shepherd_sdk::guest::bindings",
    });
}

use bindings::shepherd::module::{
    chain, clock, effects, http, logging, orderbook, panic as last_words, random, state, types,
};

/// Reads the configuration and makes the module.
pub fn configure<M: Module>(module: &OnceLock<M>, config: &str) -> Result<(), String> {
    // A panic aborts, and all that would be left of it is "unreachable".
    panic::set_hook(Box::new(|info| last_words::panicked(&info.to_string())));
    let config = serde_json::from_str(config).map_err(|error| error.to_string())?;
    let made = M::configure(config).map_err(|error| error.to_string())?;
    module.set(made).map_err(|_| "configured twice".to_owned())
}

/// Hands the input to the module.
pub fn handle<M: Module>(module: &OnceLock<M>, input: bindings::Input) -> Result<(), String> {
    let module = module.get().ok_or("not configured")?;
    module.handle(&mut Imports, &input.into()).map_err(|error| error.to_string())
}

/// The real host.
struct Imports;

impl Host for Imports {
    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        state::get(key)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        state::set(key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        state::delete(key);
    }

    fn list(&mut self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Page {
        let page = state::list(prefix, after, limit);
        let entries = page.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
        Page { entries, more: page.more }
    }

    fn read(&mut self, requests: &[Request]) -> Vec<Answer> {
        let requests: Vec<chain::Request> = requests.iter().map(chain::Request::from).collect();
        chain::read(&requests).into_iter().map(Answer::from).collect()
    }

    fn chain_id(&mut self) -> u64 {
        chain::id()
    }

    fn place_order(&mut self, posting: &Posting) -> Uid {
        uid(&effects::place_order(&posting.into()))
    }

    fn webhook(&mut self, webhook: &Webhook) -> String {
        effects::webhook(&webhook.into())
    }

    fn read_orderbook(&mut self, requests: &[OrderbookRequest]) -> Vec<OrderbookAnswer> {
        let requests: Vec<_> = requests.iter().map(orderbook::Request::from).collect();
        orderbook::read(&requests).into_iter().map(OrderbookAnswer::from).collect()
    }

    fn http_get(&mut self, url: &str) -> Response {
        let response = http::get(url);
        Response { status: response.status, body: response.body }
    }

    fn log(&mut self, level: Level, message: &str) {
        let level = match level {
            Level::Debug => logging::Level::Debug,
            Level::Info => logging::Level::Info,
            Level::Warn => logging::Level::Warn,
            Level::Error => logging::Level::Error,
        };
        logging::log(level, message);
    }

    fn now(&mut self) -> u64 {
        clock::now()
    }

    fn random(&mut self) -> u64 {
        random::next()
    }
}

impl From<bindings::Input> for Input {
    fn from(input: bindings::Input) -> Input {
        match input {
            bindings::Input::Block(block) => Input::Block(Block {
                header: block.header.into(),
                triggers: Triggers {
                    logs: block.triggers.logs,
                    block: block.triggers.block,
                    tick: block.triggers.tick,
                },
                logs: block.logs.into_iter().map(Log::from).collect(),
            }),
            bindings::Input::Outcome(told) => Input::Outcome(OutcomeInput {
                header: told.header.into(),
                outcome: told.outcome.into(),
            }),
            bindings::Input::Revert(told) => Input::Revert(RevertInput {
                header: told.header.into(),
                outcomes: told.outcomes.into_iter().map(Outcome::from).collect(),
            }),
        }
    }
}

impl From<types::BlockHeader> for Header {
    fn from(header: types::BlockHeader) -> Header {
        Header {
            number: header.number,
            hash: hash(header.hash),
            parent_hash: hash(header.parent_hash),
            timestamp: header.timestamp,
        }
    }
}

impl From<types::Outcome> for Outcome {
    fn from(outcome: types::Outcome) -> Outcome {
        let key = match outcome.key {
            types::EffectKey::Order(bytes) => EffectKey::Order(uid(&bytes)),
            types::EffectKey::Webhook(key) => EffectKey::Webhook(key),
        };
        let result = match outcome.result {
            types::EffectResult::Accepted => EffectResult::Accepted,
            types::EffectResult::AlreadyThere => EffectResult::AlreadyThere,
            types::EffectResult::Refused(refusal) => EffectResult::Refused(Refusal {
                status: refusal.status,
                error_type: refusal.error_type,
                description: refusal.description,
                body: refusal.body,
                retry_after: refusal.retry_after,
            }),
            types::EffectResult::Expired => EffectResult::Expired,
            types::EffectResult::Cancelled(reason) => EffectResult::Cancelled(reason),
            types::EffectResult::DryRun => EffectResult::DryRun,
        };
        Outcome { key, result, abandoned: outcome.abandoned }
    }
}

impl From<types::Log> for Log {
    fn from(log: types::Log) -> Log {
        let topics = log.topics;
        let words = [topics.first, topics.second, topics.third, topics.fourth].map(hash);
        Log {
            address: address(log.address),
            topics: Topics::first(topics.count, words),
            data: log.data,
            index: log.index,
            transaction_index: log.transaction_index,
            transaction_hash: hash(log.transaction_hash),
        }
    }
}

impl From<&Request> for chain::Request {
    fn from(request: &Request) -> chain::Request {
        match request {
            Request::Call { to, data } => {
                chain::Request::Call(chain::Call { to: address_words(to), data: data.to_vec() })
            }
            Request::Balance(of) => chain::Request::Balance(address_words(of)),
            Request::Code(of) => chain::Request::Code(address_words(of)),
            Request::Storage { address, slot } => chain::Request::Storage(chain::Slot {
                address: address_words(address),
                key: words(slot),
            }),
        }
    }
}

impl From<chain::Answer> for Answer {
    fn from(answer: chain::Answer) -> Answer {
        match answer {
            chain::Answer::Returned(data) => Answer::Returned(data.into()),
            chain::Answer::Reverted(data) => Answer::Reverted(data.into()),
            chain::Answer::Balance(wei) => Answer::Balance(U256::from_be_bytes(hash(wei).0)),
            chain::Answer::Code(code) => Answer::Code(code.into()),
            chain::Answer::Storage(value) => Answer::Storage(hash(value)),
        }
    }
}

impl From<&OrderbookRequest> for orderbook::Request {
    fn from(request: &OrderbookRequest) -> orderbook::Request {
        match request {
            OrderbookRequest::Order(uid) => orderbook::Request::Order(uid.to_bytes().to_vec()),
            OrderbookRequest::AppData(hash) => orderbook::Request::AppData(words(hash)),
        }
    }
}

impl From<orderbook::Answer> for OrderbookAnswer {
    fn from(answer: orderbook::Answer) -> OrderbookAnswer {
        match answer {
            orderbook::Answer::Order(order) => OrderbookAnswer::Order(order),
            orderbook::Answer::AppData(document) => OrderbookAnswer::AppData(document),
        }
    }
}

impl From<&Posting> for effects::OrderPosting {
    fn from(posting: &Posting) -> effects::OrderPosting {
        effects::OrderPosting {
            order: posting.order().into(),
            owner: address_words(&posting.owner),
            signing: match &posting.signing {
                Signing::Eip1271(bytes) => effects::Signing::Eip1271(bytes.to_vec()),
                Signing::PreSign => effects::Signing::PreSign,
            },
            app_data_document: posting.document().map(str::to_owned),
            quote_id: posting.quote_id,
            deliver: posting.deliver.map(effects::Deliver::from),
        }
    }
}

impl From<&Order> for effects::Order {
    fn from(order: &Order) -> effects::Order {
        effects::Order {
            sell_token: address_words(&order.sell_token),
            buy_token: address_words(&order.buy_token),
            receiver: address_words(&order.receiver),
            sell_amount: words(&order.sell_amount.into()),
            buy_amount: words(&order.buy_amount.into()),
            valid_to: order.valid_to,
            app_data: words(&order.app_data),
            fee_amount: words(&order.fee_amount.into()),
            kind: match order.kind {
                Kind::Sell => effects::OrderKind::Sell,
                Kind::Buy => effects::OrderKind::Buy,
            },
            partially_fillable: order.partially_fillable,
            sell_token_source: match order.sell_token_source {
                SellTokenSource::Erc20 => effects::SellTokenSource::Erc20,
                SellTokenSource::External => effects::SellTokenSource::External,
                SellTokenSource::Internal => effects::SellTokenSource::Internal,
            },
            buy_token_destination: match order.buy_token_destination {
                BuyTokenDestination::Erc20 => effects::BuyTokenDestination::Erc20,
                BuyTokenDestination::Internal => effects::BuyTokenDestination::Internal,
            },
        }
    }
}

impl From<&Webhook> for effects::WebhookPosting {
    fn from(webhook: &Webhook) -> effects::WebhookPosting {
        effects::WebhookPosting {
            destination: webhook.destination.clone(),
            key: webhook.key.clone(),
            body: webhook.body.clone(),
            deliver: webhook.deliver.map(effects::Deliver::from),
            expires: webhook.expires,
        }
    }
}

impl From<Deliver> for effects::Deliver {
    fn from(deliver: Deliver) -> effects::Deliver {
        match deliver {
            Deliver::Instant => effects::Deliver::Instant,
            Deliver::Confirmations(blocks) => effects::Deliver::Confirmations(blocks),
            Deliver::Finalized => effects::Deliver::Finalized,
        }
    }
}

fn uid(bytes: &[u8]) -> Uid {
    Uid::try_from(bytes).expect("the host names an order by 56 bytes")
}

fn hash(words: types::Hash) -> B256 {
    let mut bytes = B256::ZERO;
    for (to, word) in
        bytes.chunks_exact_mut(8).zip([words.first, words.second, words.third, words.fourth])
    {
        to.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

fn words(bytes: &B256) -> types::Hash {
    let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    types::Hash { first: word(0), second: word(8), third: word(16), fourth: word(24) }
}

fn address(words: types::Address) -> Address {
    let mut bytes = Address::ZERO;
    bytes[..8].copy_from_slice(&words.high.to_be_bytes());
    bytes[8..16].copy_from_slice(&words.middle.to_be_bytes());
    bytes[16..].copy_from_slice(&words.low.to_be_bytes());
    bytes
}

fn address_words(address: &Address) -> types::Address {
    let word = |at: usize| u64::from_be_bytes(address[at..at + 8].try_into().expect("eight bytes"));
    let low = u32::from_be_bytes(address[16..].try_into().expect("four bytes"));
    types::Address { high: word(0), middle: word(8), low }
}
