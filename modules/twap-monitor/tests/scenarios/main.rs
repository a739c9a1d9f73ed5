//! What the module does over many blocks, against a contract and an orderbook in memory.

mod component;
mod others;
mod support;
mod twap;
