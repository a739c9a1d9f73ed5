//! Files that cryo wrote, see `testdata/cryo/README.md`.

mod chains;

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use alloy::consensus;
use alloy_primitives::{Address, B256, Bytes};
use axum::{Json, Router, extract::State, routing::post};
use chains::{progress, records, testdata};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use shepherd_exchange::{ImportError, ParquetImport, import_parquet};
use shepherd_ingest::{Checks, Trust};
use shepherd_log::{Block, Journal, Options, Record, Store};
use shepherd_rpc::{Metrics, Pool, Redacted};
use tempfile::tempdir;
use tokio::{net::TcpListener, task::AbortHandle};
use tokio_util::sync::CancellationToken;

/// The chain that the files are of: `anvil --chain-id 1`.
fn open(folder: &Path) -> Journal {
    let store = Store::open(folder, Options::default()).unwrap();
    store.journal(&"mainnet".parse().unwrap(), 1).unwrap()
}

/// Blocks as the node answered about them when the files were made.
fn answers() -> Vec<Value> {
    let lines = fs::read_to_string(testdata("cryo/headers.jsonl")).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A node that knows headers and nothing else. It ends when it is dropped.
struct Headers {
    address: SocketAddr,
    server: AbortHandle,
}

impl Headers {
    async fn serve(blocks: Vec<Value>) -> Headers {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", post(answer)).with_state(Arc::new(blocks));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Headers { address, server: server.abort_handle() }
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(blocks): State<Arc<Vec<Value>>>, Json(request): Json<Value>) -> Json<Value> {
    Json(match request {
        Value::Array(calls) => calls.iter().map(|call| answer_one(&blocks, call)).collect(),
        call => answer_one(&blocks, &call),
    })
}

fn answer_one(blocks: &[Value], call: &Value) -> Value {
    let result = match call["method"].as_str().unwrap() {
        "eth_chainId" => json!("0x1"),
        "eth_getBlockByNumber" => {
            let number = &call["params"][0];
            blocks.iter().find(|block| block["number"] == *number).cloned().unwrap_or_default()
        }
        method => {
            let message = format!("{method} is not what an import needs");
            return json!({ "jsonrpc": "2.0", "id": call["id"], "error": { "code": -32601, "message": message } });
        }
    };
    json!({ "jsonrpc": "2.0", "id": call["id"], "result": result })
}

fn pool(headers: &Headers) -> Pool {
    let url: Redacted = format!("http://{}", headers.address).parse().unwrap();
    let metrics = Metrics::new(&mut Registry::default());
    Pool::connect("mainnet", 1, vec![url.into()], shepherd_rpc::Options::default(), &metrics)
}

/// Imports the files of a folder, and says what is in the journal then.
async fn import(
    folder: &Path,
    trust: Trust,
    headers: Option<Pool>,
) -> (Result<(), ImportError>, Vec<Block>) {
    let store = tempdir().unwrap();
    let journal = open(store.path());
    let import = ParquetImport {
        paths: vec![folder.to_owned()],
        checks: Checks { trust, ..Checks::default() },
        headers,
    };
    let done = import_parquet(&journal, &import, &progress(), &CancellationToken::new()).await;
    let blocks = records(&journal).into_iter().map(|record| match record {
        Record::Block(block) => block,
        other => panic!("{other:?} in a file"),
    });
    (done.map(drop), blocks.collect())
}

/// The logs that `make.py` had emitted.
fn emitted(number: u64) -> Vec<(usize, Vec<u8>)> {
    let transactions = [0, 0, 1, 3, 2, 0][number as usize];
    let data = |transaction: usize| vec![number as u8; 20 * transaction];
    (0..transactions).flat_map(|nth| (0..5).map(move |topics| (topics, data(nth)))).collect()
}

#[tokio::test]
async fn logs_of_cryo_and_headers_of_an_endpoint_make_verified_blocks() {
    let headers = Headers::serve(answers()).await;
    for folder in ["cryo/default", "cryo/hex"] {
        let (done, blocks) = import(&testdata(folder), Trust::Bloom, Some(pool(&headers))).await;
        done.unwrap();
        let hashes: Vec<B256> = blocks.iter().map(|block| block.header.this.hash).collect();
        let expected: Vec<B256> = answers().iter().map(|block| parse(&block["hash"])).collect();
        assert_eq!(hashes, expected);
        for block in &blocks {
            let number = block.header.this.number;
            let logs: Vec<(usize, Vec<u8>)> =
                block.logs.iter().map(|log| (log.topics.len(), log.data.to_vec())).collect();
            assert_eq!(logs, emitted(number), "block {number} of {folder}");
            for log in &block.logs {
                let topics = (0..4).map(|n| B256::repeat_byte(0xa0 + n));
                assert_eq!(log.topics, topics.take(log.topics.len()).collect::<Vec<_>>());
                assert_eq!(log.address, Address::with_last_byte(0xee));
            }
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

#[tokio::test]
async fn files_with_logs_alone_are_enough_beside_an_endpoint() {
    let headers = Headers::serve(answers()).await;
    let folder = tempdir().unwrap();
    for name in chains::names(&testdata("cryo/default")) {
        if name.contains("__logs__") {
            fs::copy(testdata("cryo/default").join(&name), folder.path().join(&name)).unwrap();
        }
    }
    let (done, alone) = import(folder.path(), Trust::Bloom, Some(pool(&headers))).await;
    done.unwrap();
    let files = testdata("cryo/default");
    let (_, both) = import(&files, Trust::Bloom, Some(pool(&headers))).await;
    assert_eq!((alone.len(), alone), (6, both));
}

#[tokio::test]
async fn without_headers_the_import_is_refused_with_what_to_do() {
    let cases =
        [("cryo/default", Trust::Bloom), ("cryo/hex", Trust::Bloom), ("cryo/default", Trust::Link)];
    for (folder, trust) in cases {
        let (done, blocks) = import(&testdata(folder), trust, None).await;
        let refused = done.unwrap_err().to_string();
        let parts = ["header of block 0", "name an endpoint", "--include-columns parent_hash"];
        for part in parts {
            assert!(refused.contains(part), "{refused}");
        }
        assert_eq!(blocks, []);
    }
}

#[tokio::test]
async fn under_trust_link_cryos_own_columns_are_enough() {
    let headers = Headers::serve(answers()).await;
    let files = testdata("cryo/hex");
    let (_, mut full) = import(&files, Trust::Bloom, Some(pool(&headers))).await;
    let (done, blocks) = import(&files, Trust::Link, None).await;
    done.unwrap();
    for block in &mut full {
        block.header.rlp = Bytes::new();
    }
    assert_eq!((blocks.len(), blocks), (6, full));
}

#[tokio::test]
async fn an_endpoint_on_another_branch_than_the_files_is_refused() {
    let mut blocks = answers();
    let mut header: consensus::Header = parse(&blocks[3]);
    header.extra_data = Bytes::from_static(b"another branch");
    blocks[3] = serde_json::to_value(&header).unwrap();
    blocks[3]["hash"] = json!(header.hash_slow());
    let headers = Headers::serve(blocks).await;
    let files = testdata("cryo/default");
    let (done, journaled) = import(&files, Trust::Bloom, Some(pool(&headers))).await;
    let refused = done.unwrap_err();
    assert!(matches!(refused, ImportError::OtherBlock { number: 3, .. }), "{refused}");
    assert_eq!(journaled.len(), 3);
}
