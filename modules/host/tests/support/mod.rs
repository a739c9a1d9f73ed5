//! Real components in the real host, with a map as the state and a script as the chain.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{collections::BTreeMap, fs, path::Path};

use alloy_primitives::{B256, Bytes, U256};
use shepherd_host::{
    At, BindError, BlockInput, BoundModule, Engine, EngineOptions, Failure, Handled, Input, LogRef,
    Manifest, Overrides, ReadAnswer, ReadRequest, Reads, Triggers, World,
};
use shepherd_log::BlockRef;

/// Sepolia's, which the golden order is signed for.
pub const CHAIN_ID: u64 = 11_155_111;

pub type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// A built component. `cargo xtask guests` makes them.
pub fn component(name: &str) -> Vec<u8> {
    // Where manifests look for it too, whatever directory cargo itself builds into.
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/modules");
    let file = modules.join(name).with_extension("wasm");
    fs::read(&file).unwrap_or_else(|error| {
        panic!("{} cannot be read ({error}): run `cargo xtask guests` first", file.display())
    })
}

/// The manifest that lies next to a module.
pub fn manifest(folder: &str) -> Manifest {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join("module.toml");
    Manifest::parse(&fs::read_to_string(&file).unwrap(), &file).unwrap()
}

pub fn engine() -> Engine {
    Engine::new(EngineOptions { concurrent_max: 4, ..EngineOptions::default() }).unwrap()
}

/// A manifest of the hostile module with this much fuel, in the form people write.
pub fn hostile_manifest(capabilities: &str, fuel: u64) -> Manifest {
    let listed = |capability: &str, line| if capabilities.contains(capability) { line } else { "" };
    let webhooks = listed("effects.webhook", "webhooks = [\"alerts\"]\n");
    let http_hosts = listed("http", "http_hosts = [\"example.org\", \"127.0.0.1\"]\n");
    let text = format!(
        "name = \"hostile\"\ncomponent = \"hostile.wasm\"\ncapabilities = [{capabilities}]\n\
         {webhooks}{http_hosts}deliver = \"finalized\"\n\
         [subscribe]\nblock_every = 1\n[limits]\nfuel = {fuel}\nmemory_mib = 32\n\
         [config]\nbehaviour = \"behave\"\n"
    );
    Manifest::parse(&text, Path::new("hostile/module.toml")).unwrap()
}

pub const EVERYTHING: &str = r#""state", "chain", "logging", "clock", "random", "orderbook", "http",
    "effects.place-order", "effects.webhook""#;

/// The hostile module, set to misbehave from this block on.
pub fn try_hostile(
    engine: &Engine,
    behaviour: &str,
    at_block: u64,
) -> Result<BoundModule, BindError> {
    bind_hostile(engine, &format!("behaviour = \"{behaviour}\"\nat_block = {at_block}"))
}

/// The hostile module with this configuration.
pub fn bind_hostile(engine: &Engine, config: &str) -> Result<BoundModule, BindError> {
    let manifest = hostile_manifest(EVERYTHING, 200_000_000);
    let module = engine.load(&manifest, &component("hostile")).unwrap();
    let overrides = Overrides { config: toml::from_str(config).unwrap(), ..Overrides::default() };
    module.bind(&"devnet".parse().unwrap(), CHAIN_ID, &overrides)
}

pub fn hostile(engine: &Engine, behaviour: &str) -> BoundModule {
    try_hostile(engine, behaviour, 0).unwrap()
}

pub fn block(number: u64) -> Input<'static> {
    block_with(number, Vec::new())
}

/// Where the chain is at that block.
pub fn at(number: u64) -> At {
    block(number).at()
}

pub fn block_with(number: u64, logs: Vec<LogRef<'_>>) -> Input<'_> {
    Input::Block(BlockInput {
        this: BlockRef { number, hash: B256::with_last_byte(number as u8) },
        parent: B256::with_last_byte(number.wrapping_sub(1) as u8),
        timestamp: 1_700_000_000 + 12 * number,
        triggers: Triggers { logs: !logs.is_empty(), block: true, tick: false },
        logs,
    })
}

/// A chain on which every address has one wei, no code, and calls return what they are given.
#[expect(clippy::unnecessary_wraps, reason = "a source of reads can fail")]
pub fn chain(_: BlockRef, requests: &[ReadRequest]) -> Result<Vec<ReadAnswer>, World> {
    let answer = |request: &ReadRequest| match request {
        ReadRequest::Call { data, .. } if data.is_empty() => ReadAnswer::Reverted(Bytes::new()),
        ReadRequest::Call { data, .. } => ReadAnswer::Returned(data.clone()),
        ReadRequest::Balance(_) => ReadAnswer::Balance(U256::ONE),
        ReadRequest::Code(_) => ReadAnswer::Code(Bytes::new()),
        ReadRequest::Storage { slot, .. } => ReadAnswer::Storage(*slot),
        ReadRequest::Order(_) => ReadAnswer::Order(Some("{}".to_owned())),
        ReadRequest::AppData(_) => ReadAnswer::AppData(None),
        ReadRequest::Get(url) => {
            ReadAnswer::Response { status: 200, body: url.to_string().into_bytes().into() }
        }
    };
    Ok(requests.iter().map(answer).collect())
}

/// Handles a block and keeps its writes, as a step would.
pub fn advance(
    module: &BoundModule,
    input: &Input<'_>,
    state: &mut State,
    reads: &mut dyn Reads,
) -> Result<Handled, Failure> {
    let handled = module.handle(input, state, reads)?;
    for (key, value) in &handled.writes {
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
    Ok(handled)
}
