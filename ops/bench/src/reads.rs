//! Three ways to ask a node for many `eth_call`s: batches, calls side by side, and Multicall3.
//!
//! Every way is asked about the same block and must give the same answers, the raw bytes of
//! reverts included; a way that loses them fails the measurement.

use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::{SolCall, sol};
use anyhow::{Context, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use prometheus_client::registry::Registry;
use serde_json::json;
use shepherd_devnet::{
    Anvil,
    cow::{self, ConditionalOrder, Cow, Owner, Twap},
};
use shepherd_rpc::{
    Answer, CALL_GAS, Call, ChainAnswer, ChainRequest, Meaning, Options, Pool, RpcError, classify,
};

use crate::{
    distance::Distance,
    report::{Median, Report},
};

sol! {
    struct Params { address handler; bytes32 salt; bytes staticInput; }
    function getTradeableOrderWithSignature(address owner, Params params, bytes offchainInput, bytes32[] proof) external view;

    struct Call3 { address target; bool allowFailure; bytes callData; }
    struct Call3Result { bool success; bytes returnData; }
    function aggregate3(Call3[] calls) external payable returns (Call3Result[] results);
}

/// Calls of the two columns.
const CALLS: [usize; 2] = [300, 3_000];

/// How far the node is away in the other two columns: a provider on the same continent.
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// Owners of the orders; half of them are Safes.
const OWNERS: u64 = 40;

/// A way to ask.
#[derive(Clone, Copy)]
enum Way {
    /// JSON-RPC batches of so many calls, so many batches at a time.
    Batches { calls: usize, at_a_time: usize },
    /// `aggregate3` of so many calls, so many at a time.
    Multicall { calls: usize, at_a_time: usize },
    /// What modules get.
    PoolRead,
}

const WAYS: &[Way] = &[
    Way::Batches { calls: 100, at_a_time: 1 },
    Way::Batches { calls: usize::MAX, at_a_time: 1 },
    Way::Batches { calls: 25, at_a_time: 4 },
    Way::Batches { calls: 50, at_a_time: 4 },
    Way::Batches { calls: 100, at_a_time: 2 },
    Way::Batches { calls: 100, at_a_time: 4 },
    Way::Batches { calls: 100, at_a_time: 8 },
    Way::Batches { calls: 100, at_a_time: 16 },
    Way::Batches { calls: 1, at_a_time: 32 },
    Way::Multicall { calls: 100, at_a_time: 1 },
    Way::Multicall { calls: 100, at_a_time: 4 },
    Way::Multicall { calls: usize::MAX, at_a_time: 1 },
    Way::PoolRead,
];

impl Way {
    fn name(self) -> String {
        let each = |calls| match calls {
            usize::MAX => "all calls".to_owned(),
            calls => format!("{calls} calls"),
        };
        match self {
            Way::Batches { calls: 1, at_a_time } => {
                format!("single calls, {at_a_time} at a time")
            }
            Way::Batches { calls, at_a_time: 1 } => {
                format!("JSON-RPC batch of {}, one after the other", each(calls))
            }
            Way::Batches { calls, at_a_time } => {
                format!("JSON-RPC batch of {}, {at_a_time} at a time", each(calls))
            }
            Way::Multicall { calls, at_a_time: 1 } => {
                format!("Multicall3 of {}, one after the other", each(calls))
            }
            Way::Multicall { calls, at_a_time } => {
                format!("Multicall3 of {}, {at_a_time} at a time", each(calls))
            }
            Way::PoolRead => "`Pool::read`, what modules get".to_owned(),
        }
    }

    async fn ask(self, pool: &Pool, block: B256, requests: &[(Address, Bytes)]) -> Answers {
        match self {
            Way::Batches { calls, at_a_time } => {
                in_parts(requests, calls, at_a_time, |part| batch(pool, block, part)).await
            }
            Way::Multicall { calls, at_a_time } => {
                in_parts(requests, calls, at_a_time, |part| multicall(pool, block, part)).await
            }
            Way::PoolRead => {
                let requests: Vec<ChainRequest> = requests
                    .iter()
                    .map(|(to, data)| ChainRequest::Call { to: *to, data: data.clone() })
                    .collect();
                Ok(pool.read(block, &requests).await?)
            }
        }
    }
}

type Answers = anyhow::Result<Vec<ChainAnswer>>;

pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let anvil = Anvil::start(Cow::options()).await?;
    let requests = orders(&anvil).await?;
    let block = anvil.head().await?.hash;
    let distance = Distance::to(anvil.port(), ROUND_TRIP).await?;
    let places = [(anvil.http_url().to_string(), "here"), (distance.url(), "away")];
    let mut pools = Vec::new();
    for (url, _) in &places {
        pools.push((pool(url, usize::MAX)?, pool(url, Options::default().batch_calls_max)?));
    }

    // In turn, so that a busy minute of the machine is everybody's. The first time connects.
    let mut samples = vec![vec![Vec::new(); CALLS.len() * places.len()]; WAYS.len()];
    let mut expected: Vec<Vec<ChainAnswer>> = Vec::new();
    for run in 0..=report.runs {
        for (way, samples) in WAYS.iter().zip(&mut samples) {
            let cells = pools.iter().flat_map(|pools| CALLS.map(|calls| (pools, calls)));
            for ((pools, calls), samples) in cells.zip(samples) {
                let pool = if matches!(way, Way::PoolRead) { &pools.1 } else { &pools.0 };
                let started = Instant::now();
                let answers = way.ask(pool, block, &requests[..calls]).await;
                let took = started.elapsed();
                let answers = answers.with_context(|| way.name())?;
                match expected.iter().find(|answers| answers.len() == calls) {
                    Some(expected) => ensure!(answers == *expected, "{} differs", way.name()),
                    None => expected.push(answers),
                }
                if 0 < run {
                    samples.push(took.as_secs_f64() * 1e3);
                }
            }
        }
    }

    let reverted = |answers: &[ChainAnswer]| {
        let is_revert = |answer: &&ChainAnswer| matches!(answer, ChainAnswer::Reverted(_));
        answers.iter().filter(is_revert).count()
    };
    let reverts: Vec<String> = expected
        .iter()
        .map(|answers| format!("{} of {}", reverted(answers), answers.len()))
        .collect();
    report.table(
        "Many reads at one block",
        format!(
            "`getTradeableOrderWithSignature` of TWAPs of {OWNERS} Safes and other owners, half of \
             them due: {} revert. Asked of one anvil on the same two cores through our own HTTP \
             client, at one block by its hash, each call with {} million gas; every way gives the \
             same answers, raw revert bytes included. Away means behind a proxy that makes a round \
             trip {} ms long. Multicall3 is granted {} million gas for each call in it, which of \
             all nodes only this one does. Milliseconds, median and spread.",
            reverts.join(" and "),
            CALL_GAS / 1_000_000,
            ROUND_TRIP.as_millis(),
            CALL_GAS / 1_000_000,
        ),
        &["way", "300 calls", "3 000 calls", "300 calls, away", "3 000 calls, away"],
    );
    for (way, samples) in WAYS.iter().zip(samples) {
        let mut row = vec![way.name()];
        row.extend(samples.into_iter().map(|samples| Median::of(samples).show("ms")));
        report.cells(row);
    }
    Ok(())
}

fn pool(url: &str, batch_calls_max: usize) -> anyhow::Result<Pool> {
    let metrics = shepherd_rpc::Metrics::new(&mut Registry::default());
    let options = Options { batch_calls_max, ..Options::default() };
    Ok(Pool::connect("sepolia", cow::CHAIN_ID, vec![url.parse()?], options, &metrics))
}

/// A chain with many orders, and the questions after all of them.
async fn orders(anvil: &Anvil) -> anyhow::Result<Vec<(Address, Bytes)>> {
    let deployed = Cow::deploy(anvil).await?;
    let mut owners = deployed.safes(anvil, 0..OWNERS / 2).await?;
    owners.extend(deployed.forwarders(anvil, 0..OWNERS / 2).await?);
    let now = anvil.time().await?;
    let orders: Vec<(Owner, ConditionalOrder)> = (0..CALLS[1])
        .map(|number| {
            let owner = owners[number % owners.len()];
            let is_due = number / owners.len() % 2 == 0;
            let t0 = if is_due { now - 60 } else { now + 86_400 };
            (owner, twap(&owner, number, t0).order(salt(number)))
        })
        .collect();
    for orders in orders.chunks(1_000) {
        deployed.create(anvil, orders).await?;
    }
    // For each call, anvil encodes the block it is pinned to: asked at the block that holds
    // all these transactions, it would do little else.
    anvil.mine(1).await?;
    Ok(orders.iter().map(|(owner, order)| question(owner, order)).collect())
}

fn twap(owner: &Owner, number: usize, t0: u64) -> Twap {
    Twap {
        sell_token: cow::WETH,
        buy_token: cow::COW_TOKEN,
        receiver: owner.address,
        part_sell_amount: U256::from(1_000 + number),
        min_part_limit: U256::ONE,
        t0,
        n: 4,
        t: 3_600,
        span: 0,
        app_data: cow::EMPTY_APP_DATA,
    }
}

fn salt(number: usize) -> B256 {
    B256::left_padding_from(&number.to_be_bytes())
}

fn question(owner: &Owner, order: &ConditionalOrder) -> (Address, Bytes) {
    let call = getTradeableOrderWithSignatureCall {
        owner: owner.address,
        params: Params {
            handler: order.handler,
            salt: order.salt,
            staticInput: order.static_input.clone(),
        },
        offchainInput: Bytes::new(),
        proof: Vec::new(),
    };
    (cow::COMPOSABLE_COW, call.abi_encode().into())
}

/// Asks in parts, so many at a time, and puts the answers together again.
async fn in_parts<'r, F: Future<Output = Answers>>(
    requests: &'r [(Address, Bytes)],
    calls: usize,
    at_a_time: usize,
    ask: impl Fn(&'r [(Address, Bytes)]) -> F,
) -> Answers {
    let parts = requests.chunks(calls.min(requests.len())).map(ask);
    let answers: Vec<_> = stream::iter(parts).buffered(at_a_time).try_collect().await?;
    Ok(answers.concat())
}

fn call(block: B256, to: Address, data: &Bytes, gas: u64) -> Call {
    let call = json!({ "to": to, "data": data, "gas": format!("{gas:#x}") });
    let pin = json!({ "blockHash": block, "requireCanonical": false });
    Call { method: "eth_call", params: json!([call, pin]) }
}

async fn batch(pool: &Pool, block: B256, requests: &[(Address, Bytes)]) -> Answers {
    let calls: Vec<Call> =
        requests.iter().map(|(to, data)| call(block, *to, data, CALL_GAS)).collect();
    pool.batch(&calls).await?.answers.into_iter().map(read).collect()
}

fn read(answer: Result<Answer, RpcError>) -> anyhow::Result<ChainAnswer> {
    match answer {
        Ok(answer) => Ok(ChainAnswer::Returned(answer.parse()?)),
        Err(error) => match classify(&error) {
            Meaning::Reverted(data) => Ok(ChainAnswer::Reverted(data)),
            _ => bail!("the node refuses: {error}"),
        },
    }
}

async fn multicall(pool: &Pool, block: B256, requests: &[(Address, Bytes)]) -> Answers {
    let calls = requests
        .iter()
        .map(|(to, data)| Call3 { target: *to, allowFailure: true, callData: data.clone() })
        .collect();
    let data = aggregate3Call { calls }.abi_encode().into();
    let gas = CALL_GAS * requests.len() as u64;
    let mut answers = pool.batch(&[call(block, cow::MULTICALL, &data, gas)]).await?.answers;
    let ChainAnswer::Returned(data) = read(answers.pop().context("one answer to one call")?)?
    else {
        bail!("Multicall3 reverted");
    };
    let results = aggregate3Call::abi_decode_returns(&data)?;
    ensure!(results.len() == requests.len(), "{} results", results.len());
    Ok(results
        .into_iter()
        .map(|Call3Result { success, returnData }| match success {
            true => ChainAnswer::Returned(returnData),
            false => ChainAnswer::Reverted(returnData),
        })
        .collect())
}
