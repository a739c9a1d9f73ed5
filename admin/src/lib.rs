//! The admin HTTP server: what people and monitoring may see.
//!
//! ```text
//! connection ─▶ guard ─▶ routes ─▶ query ─▶ store
//!               Host,     paths,    pages     ▲
//!               Origin    limits    as views  │
//!                                             └── the CLI asks `query` itself when no daemon runs
//! ```
//!
//! The server listens on loopback only and changes nothing: every route is a GET. What it answers
//! are the types of [`view`], which the CLI reads back, so both print the same.

pub mod find;
mod guard;
mod metrics;
mod problem;
pub mod query;
mod routes;
mod server;
pub mod view;

pub use metrics::Metrics;
pub use query::LaneReport;
pub use server::{ChainReport, Sources, serve};
