//! The sandbox: one hardened, deterministic engine for all modules of a process.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::limits::{
    INSTANCES_MAX, MEMORIES_MAX, MEMORY_MIB_MAX, STACK_BYTES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX,
};

/// How often the deadline is looked at. A tick costs nothing while no module is running.
const TICK: Duration = Duration::from_millis(50);

/// How much of its memory a slot of the pool keeps between calls: what a call over a thousand logs
/// writes to. The sixteen slots that stay warm keep 16 MiB at most.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;

/// How an engine runs modules.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Calls that run at the same time; more wait for their turn. Each reserves 256 MiB of
    /// address space, and up to as much memory as its module may have.
    pub concurrent_max: u32,
    /// The longest one call may take, reads not counted, before it is the world's failure.
    /// Fuel ends a call long before; this catches a machine that stands still.
    pub deadline: Duration,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions { concurrent_max: 64, deadline: Duration::from_secs(60) }
    }
}

/// An engine that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The WebAssembly engine refused: usually address space is limited.
    #[error("the WebAssembly engine could not be set up: {0}")]
    Engine(String),
    /// The thread that watches the deadline did not start.
    #[error("the deadline thread could not be started")]
    Thread(#[from] std::io::Error),
}

/// The sandbox. Cheap to clone; it and its thread end with the last clone and module.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    engine: wasmtime::Engine,
    deadline: Duration,
    slots: Slots,
    /// Dropping it ends the ticker.
    ticker: Option<(mpsc::Sender<()>, thread::JoinHandle<()>)>,
}

impl Engine {
    /// An engine with these options, and its thread.
    pub fn new(options: EngineOptions) -> Result<Engine, EngineError> {
        let engine = wasmtime::Engine::new(&hardened(options.concurrent_max))
            .map_err(|source| EngineError::Engine(format!("{source:#}")))?;
        let (stop, stopped) = mpsc::channel::<()>();
        let ticking = engine.clone();
        let ticker = thread::Builder::new().name("epoch".to_owned()).spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(TICK) {
                ticking.increment_epoch();
            }
        })?;
        Ok(Engine(Arc::new(Shared {
            engine,
            deadline: options.deadline,
            slots: Slots::new(options.concurrent_max),
            ticker: Some((stop, ticker)),
        })))
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.0.engine
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.0.deadline
    }

    /// Waits for a place in the pool. A wait is bounded by the deadline of those inside.
    pub(crate) fn slot(&self) -> Slot<'_> {
        self.0.slots.take()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("deadline", &self.0.deadline).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some((stop, ticker)) = self.ticker.take() {
            drop(stop);
            // It only waits and counts: there is no panic to pass on.
            let _ = ticker.join();
        }
    }
}

/// Takes away every source of difference and everything modules do not need.
///
/// Threads, shared memory, garbage collection, exceptions, stack switching and component-model
/// async are compiled out of the engine (Cargo features) and therefore not named here.
fn hardened(concurrent_max: u32) -> Config {
    let mut config = Config::new();

    // The same input gives the same output, on any machine.
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);
    config.wasm_relaxed_simd(false);
    config.consume_fuel(true); // Epochs follow the wall clock; fuel does not.
    config.epoch_interruption(true);

    // What no module needs can have no bugs for a module to use.
    config.wasm_memory64(false);
    config.wasm_multi_memory(false);
    config.wasm_custom_page_sizes(false);
    config.wasm_wide_arithmetic(false);
    config.wasm_tail_call(false);
    config.shared_memory(false);
    config.gc_support(false);
    config.concurrency_support(false);
    config.max_wasm_stack(STACK_BYTES_MAX);

    // A pool: instances are made by mapping the module's memory image copy-on-write.
    //
    // What an instance costs is what the kernel does for it, so the pool is set to ask it for as
    // little as possible (ops/docs/decisions.md has the figures). Where the kernel can tell which
    // pages a call wrote to, those are put back by hand and stay mapped: no page is given back,
    // and none has to be faulted in again by the next call. Beyond the bytes kept, and on older
    // kernels, pages are given back.
    let memory_bytes = (MEMORY_MIB_MAX as usize) << 20;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(concurrent_max)
        .total_core_instances(concurrent_max * INSTANCES_MAX as u32)
        .total_memories(concurrent_max * MEMORIES_MAX as u32)
        .total_tables(concurrent_max * TABLES_MAX as u32)
        .max_core_instances_per_component(INSTANCES_MAX as u32)
        .max_memories_per_component(MEMORIES_MAX as u32)
        .max_tables_per_component(TABLES_MAX as u32)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(memory_bytes)
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(match PoolingAllocationConfig::is_pagemap_scan_available() {
            true => KEEP_RESIDENT_BYTES,
            // All of these would be overwritten after every call, touched or not.
            false => 0,
        })
        // A table is a few kilobytes, and overwriting those is cheaper than any system call.
        .table_keep_resident(64 << 10)
        .max_unused_warm_slots(16);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config.memory_init_cow(true);
    // The usual 4 GiB for every slot would save bounds checks, and take 256 GiB of address
    // space that containers and `ulimit -v` do not always give.
    config.memory_reservation(memory_bytes as u64);
    config.memory_guard_size(64 << 10);
    config.memory_reservation_for_growth(0);
    config
}

/// Places in the pool. Instantiating beyond its size would be an error, so callers wait here.
struct Slots {
    free: Mutex<u32>,
    freed: Condvar,
}

/// A place in the pool, free again when dropped.
pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    fn new(count: u32) -> Slots {
        Slots { free: Mutex::new(count), freed: Condvar::new() }
    }

    fn take(&self) -> Slot<'_> {
        // A count cannot be left half-changed, so a poisoned lock is as good as any.
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
