//! A JSON-RPC node with a synthetic chain that can be told to lie.
//!
//! ```text
//!   Shape ──▶ Chain ──▶ Oracle ──┬─▶ Node ──▶ HTTP, WebSocket
//!   (seed)    all it ever was    └─▶ Node ──▶ HTTP, WebSocket
//!                                     ▲
//!                                   Script: what this endpoint says instead of the truth
//! ```
//!
//! Two uses: benchmarks read a chain of any size from it, faster than they can write it down; and
//! tests follow a chain that forks, through endpoints that lie, and compare with what really
//! happened.

mod chain;
mod content;
mod endpoint;
mod lie;
mod node;
mod oracle;
mod random;
mod receipts;
mod render;
mod rpc;
mod script;
mod server;
mod shape;
mod tamper;
mod universe;
mod websocket;

pub use chain::{Block, Chain, Log};
pub use lie::{Lie, Notice};
pub use node::Node;
pub use oracle::Oracle;
pub use rpc::Limits;
pub use script::{Script, Told};
pub use shape::Shape;
