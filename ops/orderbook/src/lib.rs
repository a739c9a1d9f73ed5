//! A stand-in for the CoW Protocol orderbook: what a keeper meets there, on one machine.
//!
//! ```text
//!                 faults: late, dropped, 429, 5xx, refused
//!                   │
//! POST /orders ─────┴──▶ validate ──▶ book ◀── GET /orders/{uid}
//!   │                                  ▲ ▲
//!   └─▶ stats: which bytes,            │ └──── /admin: fill, cancel, funds, clock
//!       how often, what came of it     └────── indexer: what the chain says (EthFlow)
//! ```
//!
//! It refuses what the real one refuses, in the order in which the real one looks, and it fails
//! on request. Nothing is matched, priced or settled: an order is filled when a test says so.
//! Everything is kept in memory.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use shepherd_orderbook::{Config, Fault, Orderbook, Rule};
//!
//! let orderbook = Orderbook::start(Config::default()).await?;
//! // Each order is stored at its first attempt, and nobody is told.
//! let lost = Rule { first_attempts: Some(1), ..Rule::always(Fault::AcceptThenDrop) };
//! orderbook.set_rules(vec![lost])?;
//! // … a keeper posts to `orderbook.url()` …
//! assert!(orderbook.stats().orders.values().all(|order| order.accepted == 1));
//! # Ok(())
//! # }
//! ```

mod admin;
mod api;
mod book;
mod chain;
mod clock;
mod config;
mod faults;
mod indexer;
mod order;
mod refusal;
mod server;
mod stats;
mod validate;

pub use book::{Funds, Status};
pub use clock::Clock;
pub use config::{ChainConfig, Config, Limits};
pub use faults::{Fault, FaultsView, Route, Rule, RuleError, RuleView};
pub use order::{OrderView, Uid};
pub use server::{Orderbook, Refused, StartError, Stopped};
pub use stats::{OrderStats, StatsView};
