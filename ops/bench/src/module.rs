//! What it costs to start an instance and to call it.

use std::{collections::BTreeMap, fs, path::Path};

use alloy_primitives::{Address, B256, U256, b256};
use anyhow::Context;
use shepherd_host::{
    BlockInput, BoundModule, Engine, EngineOptions, Input, LogRef, Manifest, Overrides, Triggers,
};
use shepherd_log::BlockRef;

use crate::{
    lane::answers,
    report::{Report, seconds},
    synthetic::{CHAIN, CHAIN_ID},
};

/// Calls of one run.
const CALLS: u32 = 2_000;

/// Addresses in a large configuration.
const HANDLERS: u64 = 1_000;

/// A module from its folder in this repository, for the synthetic chain.
pub fn load(folder: &str, config: &str) -> anyhow::Result<BoundModule> {
    load_for(folder, CHAIN, CHAIN_ID, config)
}

/// A module from its folder in this repository.
pub fn load_for(
    folder: &str,
    chain: &str,
    chain_id: u64,
    config: &str,
) -> anyhow::Result<BoundModule> {
    let file = Path::new("modules").join(folder).join("module.toml");
    let text = fs::read_to_string(&file)
        .with_context(|| format!("{}: run this from the repository's root", file.display()))?;
    let manifest = Manifest::parse(&text, &file)?;
    let component = fs::read(manifest.component()).context("run `cargo xtask guests` first")?;
    let engine = Engine::new(EngineOptions::default())?;
    let config = config.parse().context("the configuration is TOML")?;
    let overrides = Overrides { config, ..Overrides::default() };
    Ok(engine.load(&manifest, &component)?.bind(&chain.parse()?, chain_id, &overrides)?)
}

pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    report.section(
        "Instances and calls",
        "A fresh instance from the pool, `configure`, and `handle`, for every block; the state is a \
         map in memory. Each log moves tokens between two holders of its own: two balances read \
         and written. The difference between the rows is the cost of logs, of host calls, and of a \
         large configuration.",
    );
    let runs = report.runs;
    let hostile = load("fixtures/hostile", "")?;
    let ledger = load("token-ledger", "")?;
    let tracker = load("balance-tracker", "")?;
    // A module whose configuration is most of its work: read again for every record.
    let handlers: Vec<String> = (0..HANDLERS)
        .map(|n| format!("\"{}\"", Address::left_padding_from(&n.to_be_bytes())))
        .collect();
    let monitor = load("twap-monitor", "")?;
    let configured = load("twap-monitor", &format!("twap_handlers = [{}]", handlers.join(", ")))?;
    let transfer = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
    let topics: Vec<[B256; 3]> = (0..1000u64)
        .map(|n| {
            let holder = |n: u64| Address::left_padding_from(&n.to_be_bytes()).into_word();
            [transfer, holder(2 * n + 1), holder(2 * n + 2)]
        })
        .collect();
    let value = U256::from(7).to_be_bytes::<32>();
    let logs = |count: usize| -> Vec<LogRef<'_>> {
        topics[..count]
            .iter()
            .zip(0..)
            .map(|(topics, index)| LogRef {
                address: Address::repeat_byte(9),
                topics,
                data: &value,
                index,
                transaction_index: 0,
                transaction_hash: B256::ZERO,
            })
            .collect()
    };
    let cases = [
        ("instance, configure, 2 host calls", &hostile, 0),
        ("balance-tracker: one read, 1 balance", &tracker, 0),
        ("twap-monitor: nothing due", &monitor, 0),
        ("twap-monitor: nothing due, 1 000 configured addresses", &configured, 0),
        ("token-ledger: 1 log", &ledger, 1),
        ("token-ledger: 50 logs", &ledger, 50),
        ("token-ledger: 300 logs", &ledger, 300),
        ("token-ledger: 1 000 logs", &ledger, 1000),
    ];
    for (what, module, count) in cases {
        let logs = logs(count);
        let mut state = BTreeMap::new();
        let took = seconds(runs, || {
            for number in 0..u64::from(CALLS) {
                let input = Input::Block(BlockInput {
                    this: BlockRef { number, hash: B256::ZERO },
                    parent: B256::ZERO,
                    timestamp: number,
                    triggers: Triggers { logs: count > 0, block: true, tick: false },
                    logs: logs.clone(),
                });
                let handled = module.handle(&input, &mut state, &mut answers)?;
                for (key, value) in handled.writes {
                    match value {
                        Some(value) => state.insert(key, value),
                        None => state.remove(&key),
                    };
                }
            }
            Ok(())
        })?;
        let each = took.rate(f64::from(CALLS));
        let beside = match count {
            0 => String::new(),
            count => format!("{} in the module alone", each.rate_of(count).show("logs/s")),
        };
        report.row(what, each.microseconds().show("µs"), beside);
    }
    Ok(())
}
