//! How much a module may take, and the price of what it asks of us.
//!
//! All of these are part of what a module can observe: changing one can change what an old
//! record does when it is replayed.

/// What a record may write and read is decided by what a step can commit.
pub use shepherd_log::{
    EFFECTS_MAX, STATE_KEY_BYTES_MAX as KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX as VALUE_BYTES_MAX,
    TAPE_BYTES_MAX, WRITES_BYTES_MAX,
};

/// Largest component we compile.
///
/// A module with ABI decoding is 60 to 200 KB. Compiling takes about a second per megabyte, and
/// code of this size is a sign that something else was passed by mistake.
pub const COMPONENT_BYTES_MAX: usize = 8 << 20;

/// Largest configuration, as JSON text.
///
/// It is parsed again for every record: ten thousand addresses already cost half a millisecond.
pub const CONFIG_BYTES_MAX: usize = 512 << 10;

/// Fuel of one record when the manifest says nothing. One unit is about one instruction, and a
/// thousand million take roughly a second.
pub const FUEL_DEFAULT: u64 = 1_000_000_000;

/// Most fuel a manifest may ask for: some twenty seconds, still inside the deadline.
pub const FUEL_MAX: u64 = 20_000_000_000;

/// Linear memory when the manifest says nothing, in MiB.
pub const MEMORY_MIB_DEFAULT: u32 = 64;

/// Most linear memory a manifest may ask for, in MiB. The pool reserves this much address space
/// (not memory) for each of its slots.
pub const MEMORY_MIB_MAX: u32 = 256;

/// Native stack of a call. Rust code rarely needs a tenth of it; an endless recursion ends here.
pub const STACK_BYTES_MAX: usize = 512 << 10;

/// Elements of all tables of an instance together. Rust modules have a few hundred.
pub const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Core instances in a component: the module, and what `wit-component` puts around it.
pub const INSTANCES_MAX: usize = 16;

/// Tables in a component: the module's own, and the one `wit-component` adds.
pub const TABLES_MAX: usize = 4;

/// Memories in a component. Two would take two of the pool's slots for one call.
pub const MEMORIES_MAX: usize = 1;

/// Component handles alive at a time. The contract has no resources, so any is already odd.
pub const HANDLES_MAX: usize = 1_000;

/// Bytes a module may hand over in one host call, or return.
pub const HOSTCALL_BYTES_MAX: usize = 4 << 20;

/// Entries in a page of `state.list`.
pub const LIST_ENTRIES_MAX: usize = 1_000;

/// Keys and values in a page of `state.list`, unless its first entry alone is larger.
pub const LIST_BYTES_MAX: usize = 1 << 20;

/// What is kept of the data a call reverted with. The longest reasons of honest contracts have a
/// few hundred bytes, and six hundred answers of this size still fit [`TAPE_BYTES_MAX`].
pub const REVERT_BYTES_MAX: usize = 3 << 10;

/// Requests in one `chain.read`.
pub const REQUESTS_PER_CALL_MAX: usize = 4_096;

/// Requests in one `orderbook.read`.
pub const ORDERBOOK_REQUESTS_MAX: usize = 1_000;

/// Largest answer of the orderbook to one request.
///
/// An order with the longest signature and the largest document that can be placed here takes
/// about fifty kilobytes.
pub const ORDERBOOK_ANSWER_BYTES_MAX: usize = 64 << 10;

/// Longest signature of an order.
///
/// A conditional order in a tree of a million has a signature of two kilobytes. In hex this many
/// still fit an answer of the orderbook, so that what was placed can be read again.
pub const SIGNATURE_BYTES_MAX: usize = 16 << 10;

/// Largest app-data document: what the orderbook takes.
pub const APP_DATA_BYTES_MAX: usize = 8_192;

/// Largest body of a webhook.
pub const WEBHOOK_BODY_BYTES_MAX: usize = 64 << 10;

/// Longest key of a webhook.
pub const WEBHOOK_KEY_BYTES_MAX: usize = 128;

/// How long a webhook is worth delivering when the module does not say, in seconds.
pub const WEBHOOK_EXPIRES_SECONDS: u64 = 86_400;

/// Longest URL a module may get.
pub const URL_BYTES_MAX: usize = 8 << 10;

/// Largest body of a document a module gets.
pub const HTTP_BODY_BYTES_MAX: usize = 1 << 20;

/// Longest line a module may write, after escaping.
pub const LINE_BYTES_MAX: usize = 8 << 10;

/// Lines kept of one record.
pub const LINES_MAX: usize = 256;

/// Bytes of lines kept of one record.
pub const LINES_BYTES_MAX: usize = 64 << 10;

/// Longest text kept of a fault: an error a module returned, a panic, a trap.
pub const FAULT_BYTES_MAX: usize = 8 << 10;

/// Fuel of a host call, whatever it does.
///
/// Without a price a module could keep us busy for ever on little fuel, and only the deadline
/// would notice. A call takes about as long as some hundred instructions.
pub const CALL_FUEL: u64 = 500;

/// Fuel of each byte that crosses the boundary in a host call.
pub const BYTE_FUEL: u64 = 1;

/// Fuel of each state key that is read, written or listed: a lookup in the store.
pub const KEY_FUEL: u64 = 2_000;

/// Fuel of each request to the chain, the orderbook or a server.
pub const REQUEST_FUEL: u64 = 10_000;

/// Fuel of each effect: a few hashes, and rows to commit and to settle.
pub const EFFECT_FUEL: u64 = 20_000;
