//! CoW Protocol: what a keeper has to know about its contracts and its orderbook.
//!
//! ```text
//!  ConditionalOrderCreated ──▶ conditional  params, order id, authorisation by merkle proof
//!                                  │
//!                    ┌─────────────┴───────────────┐
//!                    ▼                             ▼
//!                  twap   when is a part due?    poll   what does this revert ask for?
//!                    └─────────────┬───────────────┘
//!                                  ▼
//!          order ──▶ digest, UID   │   app_data ──▶ document or hash
//!                    └───────▶ posting ◀──┘
//!                                  ▼
//!                              refusal    and what to do when the orderbook says no
//! ```
//!
//! Everything here looks at its arguments and nothing else. The types as Solidity has them are in
//! [`abi`]; the others say more than a word of 256 bits can.

pub mod abi;
pub mod addresses;
pub mod app_data;
pub mod conditional;
pub mod ethflow;
pub mod merkle;
pub mod order;
pub mod poll;
pub mod posting;
pub mod refusal;
pub mod twap;
pub mod uid;
