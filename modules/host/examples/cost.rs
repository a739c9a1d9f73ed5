//! What a call costs: instance start, configuration, and logs through a guest.
//!
//! `cargo xtask guests && cargo run --release -p shepherd-host --example cost`

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, U256, b256};
use shepherd_host::{
    BlockInput, BoundModule, Engine, EngineOptions, Input, LogRef, Manifest, Overrides, Triggers,
    World,
};
use shepherd_log::BlockRef;

const TRANSFER: B256 = b256!("0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let engine = Engine::new(EngineOptions::default())?;
    println!("engine                        {:>10.1?}", started.elapsed());

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../token-ledger/module.toml");
    let manifest = Manifest::parse(&fs::read_to_string(&folder)?, &folder)?;
    let component = fs::read(manifest.component())?;
    let started = Instant::now();
    let module = engine.load(&manifest, &component)?;
    println!("load token-ledger             {:>10.1?}", started.elapsed());
    let bound = module.bind(&"devnet".parse()?, 31_337, &Overrides::default())?;

    for logs_per_block in [0, 1, 10, 50, 200, 1000] {
        measure(&bound, logs_per_block)?;
    }
    let both = Instant::now();
    let logs: Vec<f64> = thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| measure(&bound, 50).ok()));
        threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    });
    println!("two lanes at once: {:.0} logs/s in {:.1?}", logs.iter().sum::<f64>(), both.elapsed());
    println!("resident                      {:>10}", resident());
    Ok(())
}

/// Logs a second, and a line about it.
fn measure(bound: &BoundModule, logs_per_block: usize) -> Result<f64, Box<dyn Error>> {
    let holders: Vec<B256> =
        (1..=500u64).map(|n| Address::left_padding_from(&n.to_be_bytes()).into_word()).collect();
    let amount = U256::ONE.to_be_bytes::<32>();
    let topics: Vec<[B256; 3]> = (0..logs_per_block)
        .map(|n| [TRANSFER, holders[n * 7 % 500], holders[(n * 13 + 1) % 500]])
        .collect();
    let log = |n: usize| LogRef {
        address: Address::repeat_byte(0x70),
        topics: &topics[n],
        data: &amount,
        index: n as u32,
        transaction_index: n as u32,
        transaction_hash: B256::ZERO,
    };
    let input = Input::Block(BlockInput {
        this: BlockRef { number: 1, hash: B256::ZERO },
        parent: B256::ZERO,
        timestamp: 0,
        triggers: Triggers { logs: true, ..Triggers::default() },
        logs: (0..logs_per_block).map(log).collect(),
    });
    let mut state = BTreeMap::<Vec<u8>, Vec<u8>>::new();
    let mut reads = |_, _: &[_]| Err(World::chain("there is no chain here"));

    let mut calls = 0u32;
    let mut fuel = 0;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        let handled = bound.handle(&input, &mut state, &mut reads)?;
        fuel = handled.fuel;
        calls += 1;
        for (key, value) in handled.writes {
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(&key),
            };
        }
    }
    let each = started.elapsed() / calls;
    let logs = logs_per_block as f64 / each.as_secs_f64();
    println!(
        "{logs_per_block:>5} logs: a call takes     {each:>10.1?} {logs:>12.0} logs/s {fuel:>12} fuel"
    );
    Ok(logs)
}

fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines =
        status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmSize"));
    lines.collect::<Vec<_>>().join(" ")
}
