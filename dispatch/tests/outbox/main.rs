//! What the sender promises, on a real store, against the orderbook's stand-in.

mod bench;
mod faults;
mod hook;
mod sending;
mod wire;
