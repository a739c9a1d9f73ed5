//! What a module can ask of Shepherd.

use alloy_primitives::{Address, B256, Bytes, U256};

/// Everything outside the module.
///
/// A module imports exactly the interfaces whose methods it calls, and its manifest must grant
/// them: `state`, `chain`, `logging`, `clock`, `random`.
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
