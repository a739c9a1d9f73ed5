//! The host's side of `shepherd.wit`: what a module can call, and what each call costs it.

use std::{
    collections::BTreeSet,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256};
use cowprotocol::DomainSeparator;
use shepherd_log::{
    BlockRef, Deliver, EFFECTS_MAX, Effect, LaneId, ROW_OVERHEAD_BYTES, TAPE_BYTES_MAX, TapeEntry,
};
use wasmtime::{
    ResourceLimiter, Result, StoreContextMut,
    component::{ComponentType, Lift, Linker, Lower, WasmList},
};

use crate::{
    bindings::shepherd::module::{logging as wit_logging, types as wit},
    capability::{Capability, interface},
    draws::Draws,
    fault::{Failure, Fault, OutputTooLarge, World},
    imports_effects, imports_reads,
    lent::Lent,
    limits::{BYTE_FUEL, CALL_FUEL, FAULT_BYTES_MAX, KEY_FUEL, TABLE_ELEMENTS_MAX},
    lines::{Lines, LogLevel, escape},
    manifest::Limits,
    occasion::Occasion,
    overlay::Overlay,
    reads::{ReadAnswer, ReadRequest},
    tape,
};

/// Everything the host keeps about one call.
pub(crate) struct Guest {
    /// What the call may use; none while it is being configured.
    pub(crate) record: Option<RecordContext>,
    pub(crate) guard: Guard,
    /// When the call began, moved by the time spent in reads.
    pub(crate) started: Instant,
    pub(crate) deadline: Duration,
    pub(crate) overlay: Overlay,
    pub(crate) effects: Vec<Effect>,
    pub(crate) tape: Vec<TapeEntry>,
    pub(crate) lines: Lines,
    tape_bytes: usize,
    /// Room for the key that is being read, so that it is not allocated for each.
    key: Vec<u8>,
}

/// The limits of the call, and which of them ended it.
pub(crate) struct Guard {
    pub(crate) limits: Limits,
    /// Why the guest was stopped, when we stopped it. It wins over whatever comes after.
    pub(crate) failure: Option<Failure>,
}

impl Guard {
    /// Remembers why the guest is stopped, and makes the error that stops it.
    fn stop(&mut self, failure: impl Into<Failure>) -> wasmtime::Error {
        let failure = failure.into();
        let error = wasmtime::Error::msg(failure.to_string());
        self.failure.get_or_insert(failure);
        error
    }
}

/// What a lane's calls have in common.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) lane: LaneId,
    pub(crate) chain_id: u64,
    /// What orders of this chain are signed under.
    pub(crate) domain: DomainSeparator,
    /// When effects leave that do not say it themselves.
    pub(crate) deliver: Deliver,
    /// Where webhooks may go.
    pub(crate) webhooks: BTreeSet<String>,
    /// Whose documents may be got.
    pub(crate) http_hosts: BTreeSet<String>,
}

/// What `handle` works on.
pub(crate) struct RecordContext {
    pub(crate) terms: Arc<Terms>,
    pub(crate) lent: Lent,
    pub(crate) block: BlockRef,
    pub(crate) timestamp: u64,
    pub(crate) occasion: Occasion,
    pub(crate) draws: Draws,
}

impl Guest {
    pub(crate) fn new(limits: Limits, deadline: Duration) -> Guest {
        Guest {
            record: None,
            guard: Guard { limits, failure: None },
            started: Instant::now(),
            deadline,
            overlay: Overlay::default(),
            effects: Vec::new(),
            tape: Vec::new(),
            lines: Lines::default(),
            tape_bytes: 0,
            key: Vec::new(),
        }
    }

    /// Ends the call for this reason.
    pub(crate) fn stop(&mut self, failure: impl Into<Failure>) -> wasmtime::Error {
        self.guard.stop(failure)
    }

    /// The record being handled: while `configure` runs there is none yet.
    pub(crate) fn record(&mut self, function: &'static str) -> Result<&mut RecordContext> {
        match &mut self.record {
            Some(record) => Ok(record),
            None => Err(self.guard.stop(Fault::CallWhileConfigured { function })),
        }
    }

    /// Keeps an effect, within the limits that it shares with the writes.
    pub(crate) fn emit(&mut self, effect: Effect) -> Result<(), OutputTooLarge> {
        if self.effects.len() == EFFECTS_MAX {
            return Err(OutputTooLarge::Effects);
        }
        self.overlay.reserve(effect.bytes() + ROW_OVERHEAD_BYTES)?;
        self.effects.push(effect);
        Ok(())
    }

    pub(crate) fn read(&mut self, requests: &[ReadRequest]) -> Result<Vec<ReadAnswer>, Failure> {
        let record = self.record.as_mut().expect("checked by the caller");
        let asked_at = Instant::now();
        let answers = record.lent.reads().read(record.block, requests);
        self.started += asked_at.elapsed();
        let answers: Vec<ReadAnswer> = answers?.into_iter().map(ReadAnswer::cut).collect();
        let fits = answers.len() == requests.len()
            && answers.iter().zip(requests).all(|(answer, request)| answer.answers(request));
        if !fits {
            let (requests, answers) = (requests.len(), answers.len());
            return Err(World::Answers { requests, answers }.into());
        }
        for (request, answer) in requests.iter().zip(&answers) {
            imports_reads::check_size(request, answer)?;
        }
        let call = u32::try_from(self.tape.len()).expect("fuel ends a record long before");
        let entry = tape::record(call, record.block, requests, &answers);
        self.tape_bytes += entry.answer.len() + ROW_OVERHEAD_BYTES;
        if self.tape_bytes > TAPE_BYTES_MAX {
            return Err(OutputTooLarge::Answers { bytes: self.tape_bytes }.into());
        }
        self.tape.push(entry);
        Ok(answers)
    }
}

impl ResourceLimiter for Guard {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        let limit_mib = self.limits.memory_mib;
        if desired > (limit_mib as usize) << 20 || maximum.is_some_and(|most| desired > most) {
            // Refusing would let the module choose what to do about it, and most choose to
            // trap with a message about something else.
            return Err(self.stop(Fault::OutOfMemory { limit_mib }));
        }
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> Result<()> {
        Err(self.stop(World::Instance(format!("{error:#}"))))
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX && maximum.is_none_or(|most| desired <= most))
    }
}

pub(crate) type Caller<'a> = StoreContextMut<'a, Guest>;

/// Takes the price of a host call from the fuel of the record.
///
/// The engine does not count what we do on a module's behalf, and a module that only calls us
/// would run for ever.
pub(crate) fn charge(caller: &mut Caller<'_>, fuel: u64) -> Result<()> {
    let left = caller.get_fuel()?;
    let Some(left) = left.checked_sub(fuel) else {
        caller.set_fuel(0)?;
        let limit = caller.data().guard.limits.fuel;
        return Err(caller.data_mut().stop(Fault::OutOfFuel { limit }));
    };
    caller.set_fuel(left)
}

/// The price of a call that moves this many bytes for this many keys.
fn state_fuel(keys: usize, bytes: usize) -> u64 {
    CALL_FUEL + KEY_FUEL * keys as u64 + BYTE_FUEL * bytes as u64
}

/// Links what is granted, and the last words every module may have.
pub(crate) fn link(linker: &mut Linker<Guest>, granted: &BTreeSet<Capability>) -> Result<()> {
    for capability in granted {
        match capability {
            Capability::State => link_state(linker)?,
            Capability::Chain => imports_reads::link_chain(linker)?,
            Capability::Logging => link_logging(linker)?,
            Capability::Clock => link_clock(linker)?,
            Capability::Random => link_random(linker)?,
            Capability::Orderbook => imports_reads::link_orderbook(linker)?,
            Capability::Http => imports_reads::link_http(linker)?,
            // Two functions of one interface, which is linked once.
            Capability::PlaceOrder | Capability::Webhook => (),
        }
    }
    imports_effects::link(linker, granted)?;
    let mut panic = linker.instance(&interface("panic"))?;
    panic.func_wrap("panicked", |mut caller: Caller<'_>, (message,): (String,)| -> Result<()> {
        let message = escape(&message, FAULT_BYTES_MAX);
        Err(caller.data_mut().stop(Fault::Panicked(message)))
    })
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct WitEntry {
    key: Vec<u8>,
    value: Vec<u8>,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct WitPage {
    entries: Vec<WitEntry>,
    more: bool,
}

fn link_state(linker: &mut Linker<Guest>) -> Result<()> {
    let mut state = linker.instance(&Capability::State.import())?;
    state.func_wrap("get", |mut caller: Caller<'_>, (key,): (WasmList<u8>,)| {
        caller.data_mut().record("state.get")?;
        let mut bytes = mem::take(&mut caller.data_mut().key);
        bytes.clear();
        bytes.extend_from_slice(key.as_le_slice(&caller));
        charge(&mut caller, state_fuel(1, bytes.len()))?;
        let guest = caller.data_mut();
        let record = guest.record.as_mut().expect("checked above");
        let value = guest.overlay.get(record.lent.state(), &bytes);
        guest.key = bytes;
        let value = value.map_err(|failure| guest.stop(failure))?;
        charge(&mut caller, BYTE_FUEL * value.as_ref().map_or(0, Vec::len) as u64)?;
        Ok((value,))
    })?;
    state.func_wrap("set", |caller: Caller<'_>, (key, value): (Vec<u8>, Vec<u8>)| {
        write(caller, "state.set", key, Some(value))
    })?;
    state.func_wrap("delete", |caller: Caller<'_>, (key,): (Vec<u8>,)| {
        write(caller, "state.delete", key, None)
    })?;
    type List = (Vec<u8>, Option<Vec<u8>>, u32);
    state.func_wrap("list", |mut caller: Caller<'_>, (prefix, after, limit): List| {
        caller.data_mut().record("state.list")?;
        charge(&mut caller, state_fuel(1, prefix.len()))?;
        let guest = caller.data_mut();
        let record = guest.record.as_mut().expect("checked above");
        let page = guest
            .overlay
            .list(record.lent.state(), &prefix, after.as_deref(), limit)
            .map_err(|world| guest.stop(world))?;
        let bytes = page.entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        charge(&mut caller, state_fuel(page.entries.len(), bytes))?;
        let entries =
            page.entries.into_iter().map(|(key, value)| WitEntry { key, value }).collect();
        Ok((WitPage { entries, more: page.more },))
    })
}

fn write(
    mut caller: Caller<'_>,
    function: &'static str,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
) -> Result<()> {
    caller.data_mut().record(function)?;
    let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
    charge(&mut caller, state_fuel(1, bytes))?;
    let guest = caller.data_mut();
    guest.overlay.write(key, value).map_err(|output| guest.stop(output))
}

fn link_logging(linker: &mut Linker<Guest>) -> Result<()> {
    let mut logging = linker.instance(&Capability::Logging.import())?;
    type Line = (wit_logging::Level, String);
    logging.func_wrap("log", |mut caller: Caller<'_>, (level, message): Line| {
        charge(&mut caller, CALL_FUEL + BYTE_FUEL * message.len() as u64)?;
        let guest = caller.data_mut();
        // A line about the configuration would come again with every record.
        if guest.record.is_some() {
            guest.lines.push(level.into(), &message);
        }
        Ok(())
    })
}

fn link_clock(linker: &mut Linker<Guest>) -> Result<()> {
    let mut clock = linker.instance(&Capability::Clock.import())?;
    clock.func_wrap("now", |mut caller: Caller<'_>, (): ()| {
        let timestamp = caller.data_mut().record("clock.now")?.timestamp;
        charge(&mut caller, CALL_FUEL)?;
        Ok((timestamp,))
    })
}

fn link_random(linker: &mut Linker<Guest>) -> Result<()> {
    let mut random = linker.instance(&Capability::Random.import())?;
    random.func_wrap("next", |mut caller: Caller<'_>, (): ()| {
        caller.data_mut().record("random.next")?;
        charge(&mut caller, CALL_FUEL)?;
        Ok((caller.data_mut().record("random.next")?.draws.next(),))
    })
}

impl From<wit_logging::Level> for LogLevel {
    fn from(level: wit_logging::Level) -> LogLevel {
        match level {
            wit_logging::Level::Debug => LogLevel::Debug,
            wit_logging::Level::Info => LogLevel::Info,
            wit_logging::Level::Warn => LogLevel::Warn,
            wit_logging::Level::Error => LogLevel::Error,
        }
    }
}

/// Thirty-two bytes as the contract spells them.
pub(crate) fn words(bytes: &B256) -> wit::Hash {
    let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    wit::Hash { first: word(0), second: word(8), third: word(16), fourth: word(24) }
}

pub(crate) fn from_words(hash: wit::Hash) -> B256 {
    let mut bytes = B256::ZERO;
    for (to, word) in
        bytes.chunks_exact_mut(8).zip([hash.first, hash.second, hash.third, hash.fourth])
    {
        to.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// Twenty bytes as the contract spells them.
pub(crate) fn address_words(address: &Address) -> wit::Address {
    let [high, middle] =
        [0, 8].map(|at| u64::from_be_bytes(address[at..at + 8].try_into().expect("eight bytes")));
    let low = u32::from_be_bytes(address[16..].try_into().expect("four bytes"));
    wit::Address { high, middle, low }
}

pub(crate) fn address(words: wit::Address) -> Address {
    let mut bytes = Address::ZERO;
    bytes[..8].copy_from_slice(&words.high.to_be_bytes());
    bytes[8..16].copy_from_slice(&words.middle.to_be_bytes());
    bytes[16..].copy_from_slice(&words.low.to_be_bytes());
    bytes
}
