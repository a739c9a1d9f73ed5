//! A node whose chain and whose faults are written by the test.
//!
//! It speaks JSON-RPC over HTTP on the loopback interface. Blocks have real hashes and blooms, so
//! that everything an honest node sends verifies; [`Nasty`] says how the next answers are not
//! honest. Blocks are kept as JSON, so that the node is never what a test waits for.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use alloy::consensus::{Header, Receipt, ReceiptEnvelope, TxType, proofs::calculate_receipt_root};
use alloy_primitives::{Address, B256, Bloom, Bytes, LogData, keccak256};
use serde_json::{Value, json};
use shepherd_log::BlockRef;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A fault to play.
#[derive(Clone, Debug, PartialEq)]
pub enum Nasty {
    /// The result is replaced.
    Result(Value),
    /// The call is answered with an error.
    Error(i64, &'static str),
    /// The last log of the block is left out.
    LogMissing,
    /// The data of the last log is another, which its bloom does not show.
    OtherData,
    /// The header's bloom is empty, its hash as it should be.
    BloomMissing,
    /// The message is answered with a status and a `Retry-After`, if any.
    Status(u16, Option<&'static str>),
    /// The message is answered with this text.
    Body(String),
    /// The message is never answered.
    Stall,
    /// The connection is closed.
    HangUp,
    /// The answers of a batch come in reverse, with a foreign one among them.
    Shuffled,
    /// A batch lacks its last answer, and has `null` instead of its first.
    Incomplete,
}

/// A scripted node. Dropping it ends it.
pub struct Node {
    port: u16,
    script: Arc<Mutex<Script>>,
    _server: JoinSet<()>,
}

/// Up to where logs by range are answered.
#[derive(Clone, Copy, Debug)]
pub struct RangeLimit {
    /// Most blocks.
    pub blocks: u64,
    /// Most logs.
    pub logs: usize,
    /// The error beyond.
    pub error: (i64, &'static str),
}

/// A block, and the JSON that describes it.
#[derive(Clone, Debug)]
pub struct ScriptedBlock {
    pub number: u64,
    pub hash: B256,
    pub parent: B256,
    pub logs: usize,
    pub timestamp: u64,
    header_json: Arc<str>,
    logs_json: Arc<str>,
    receipts_json: Arc<str>,
}

impl ScriptedBlock {
    pub fn reference(&self) -> BlockRef {
        BlockRef { number: self.number, hash: self.hash }
    }
}

/// How often a node was asked for blocks by tags.
#[derive(Default)]
struct Asked {
    latest: usize,
    finalized: usize,
}

struct Script {
    chain_id: u64,
    /// The canonical chain from genesis.
    chain: Vec<ScriptedBlock>,
    /// All blocks, abandoned ones too.
    known: HashMap<B256, ScriptedBlock>,
    /// What `latest` is, when it is not the end of the chain.
    pretended_head: Option<u64>,
    /// What `finalized` is, if that is a tag here.
    finalized: Option<u64>,
    /// Makes blocks of equal height differ.
    salt: u64,
    faults: Vec<(&'static str, usize, Nasty)>,
    refuses_batches: bool,
    /// Messages of more calls than this are given up on.
    calls_max: usize,
    /// Whether a range of so many blocks, with so many logs, is refused, and how.
    range_limit: Option<RangeLimit>,
    /// Answers to ranges are silently cut off after this many logs.
    range_cut: Option<usize>,
    /// Blocks of each range of logs that was asked for.
    ranges: Vec<u64>,
    calls: HashMap<String, usize>,
    /// How often it was asked for the newest block, and for the finalized one.
    asked: watch::Sender<Asked>,
    messages: usize,
}

impl Node {
    /// A node with a genesis block.
    pub async fn start(chain_id: u64) -> Node {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut script = Script {
            chain_id,
            chain: Vec::new(),
            known: HashMap::new(),
            pretended_head: None,
            finalized: None,
            salt: 0,
            faults: Vec::new(),
            refuses_batches: false,
            calls_max: usize::MAX,
            range_limit: None,
            range_cut: None,
            ranges: Vec::new(),
            calls: HashMap::new(),
            asked: watch::Sender::default(),
            messages: 0,
        };
        script.push(0);
        let script = Arc::new(Mutex::new(script));
        let mut server = JoinSet::new();
        server.spawn(accept(listener, script.clone()));
        Node { port, script, _server: server }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Adds blocks with this many logs each.
    pub fn extend(&self, blocks: u64, logs: usize) {
        let mut script = self.script();
        for _ in 0..blocks {
            script.push(logs);
        }
    }

    /// Adds blocks whose logs are alike, so that the bloom does not show how many there are.
    pub fn extend_alike(&self, blocks: u64, logs: usize) {
        self.extend_with(blocks, logs, &|log| {
            log["address"] = json!(Address::repeat_byte(9));
            log["topics"] = json!([B256::repeat_byte(9)]);
        });
    }

    /// Adds blocks with one log that carries so much data.
    pub fn extend_fat(&self, blocks: u64, data_bytes: usize) {
        let data = json!(Bytes::from(vec![7; data_bytes]));
        self.extend_with(blocks, 1, &|log| log["data"] = data.clone());
    }

    fn extend_with(&self, blocks: u64, logs: usize, change: &dyn Fn(&mut Value)) {
        let mut script = self.script();
        for _ in 0..blocks {
            script.push_with(logs, change);
        }
    }

    /// Replaces the last blocks by as many others and one more.
    pub fn reorg(&self, depth: u64, logs: usize) {
        self.cut(depth);
        self.extend(depth + 1, logs);
    }

    /// Takes the last blocks away; what comes after will be other blocks.
    pub fn cut(&self, depth: u64) {
        let mut script = self.script();
        let length = script.chain.len() - depth as usize;
        script.chain.truncate(length);
        script.salt += 1;
    }

    /// Becomes another chain with the same id.
    pub fn wipe(&self) {
        let mut script = self.script();
        script.chain.clear();
        script.known.clear();
        script.salt += 1;
        script.push(0);
    }

    /// Answers `latest` with an older block of the chain, or honestly again.
    pub fn pretend_head(&self, number: Option<u64>) {
        self.script().pretended_head = number;
    }

    /// Knows the tag `finalized` from now on, as the block of this height.
    pub fn finalize(&self, number: u64) {
        self.script().finalized = Some(number);
    }

    /// Waits until it was asked this many times more for the newest block.
    pub async fn until_asked_for_latest(&self, times: usize) {
        let mut asked = self.script().asked.subscribe();
        let before = asked.borrow().latest;
        asked.wait_for(|asked| before + times <= asked.latest).await.unwrap();
    }

    /// Waits until it was asked this many times more for the finalized block.
    pub async fn until_asked_for_finalized(&self, times: usize) {
        let mut asked = self.script().asked.subscribe();
        let before = asked.borrow().finalized;
        asked.wait_for(|asked| before + times <= asked.finalized).await.unwrap();
    }

    /// Knows the same chain as another node from now on.
    pub fn copy(&self, other: &Node) {
        let (chain, known) = {
            let other = other.script();
            (other.chain.clone(), other.known.clone())
        };
        let mut script = self.script();
        script.chain = chain;
        script.known.extend(known);
    }

    /// Plays a fault at the next calls of a method. Faults of one method come one after another.
    pub fn play(&self, method: &'static str, times: usize, fault: Nasty) {
        self.script().faults.push((method, times, fault));
    }

    /// Answers one call per message from now on, and refuses batches.
    pub fn refuse_batches(&self) {
        self.script().refuses_batches = true;
    }

    /// Says from now on, of messages of more calls than this, what a gateway says whose node takes
    /// too long.
    pub fn give_up_above(&self, calls_max: usize) {
        self.script().calls_max = calls_max;
    }

    /// Refuses ranges of logs beyond a limit from now on.
    pub fn limit_ranges(&self, limit: RangeLimit) {
        self.script().range_limit = Some(limit);
    }

    /// Silently cuts off answers to ranges of logs after so many from now on.
    pub fn cut_ranges(&self, logs: usize) {
        self.script().range_cut = Some(logs);
    }

    /// Blocks of each range of logs that was asked for.
    pub fn ranges(&self) -> Vec<u64> {
        self.script().ranges.clone()
    }

    /// Whether all faults were played.
    pub fn is_honest_again(&self) -> bool {
        self.script().faults.is_empty()
    }

    pub fn chain(&self) -> Vec<ScriptedBlock> {
        self.script().chain.clone()
    }

    pub fn head(&self) -> ScriptedBlock {
        self.script().chain.last().unwrap().clone()
    }

    /// How often a method was called.
    pub fn calls(&self, method: &str) -> usize {
        self.script().calls.get(method).copied().unwrap_or(0)
    }

    /// How many messages came, each with one call or many.
    pub fn messages(&self) -> usize {
        self.script().messages
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }
}

impl Script {
    fn push(&mut self, logs: usize) {
        self.push_with(logs, &|_| ());
    }

    fn push_with(&mut self, logs: usize, change: &dyn Fn(&mut Value)) {
        let parent = self.chain.last();
        let number = parent.map_or(0, |parent| parent.number + 1);
        let salt = self.salt;
        let mut logs: Vec<Value> = (0..logs).map(|index| log(number, salt, index)).collect();
        logs.iter_mut().for_each(change);
        let receipts = receipts(&logs);
        let header = Header {
            number,
            receipts_root: calculate_receipt_root(&receipts),
            parent_hash: parent.map_or(B256::ZERO, |parent| parent.hash),
            timestamp: parent.map_or(1_700_000_000, |parent| parent.timestamp + 12),
            extra_data: Bytes::from(salt.to_be_bytes()),
            logs_bloom: bloom(&logs),
            gas_limit: 30_000_000,
            base_fee_per_gas: Some(7),
            withdrawals_root: Some(B256::ZERO),
            ..Header::default()
        };
        let hash = header.hash_slow();
        let mut header_json = serde_json::to_value(&header).unwrap();
        header_json["hash"] = json!(hash);
        header_json["size"] = json!("0x220");
        header_json["uncles"] = json!([]);
        let transactions: Vec<B256> =
            (0..receipts.len()).map(|index| transaction_hash(number, salt, index)).collect();
        header_json["transactions"] = json!(transactions);
        let logs_json: Vec<Value> = logs
            .into_iter()
            .map(|mut log| {
                log["blockHash"] = json!(hash);
                log["blockTimestamp"] = header_json["timestamp"].clone();
                log
            })
            .collect();
        let receipts_json = transactions.iter().zip(receipts).zip(logs_json.chunks(2)).enumerate();
        let receipts_json = receipts_json.map(|(index, ((transaction, receipt), logs))| {
            json!({
                "type": "0x2",
                "status": "0x1",
                "cumulativeGasUsed": format!("{:#x}", receipt.cumulative_gas_used()),
                "logs": logs,
                "blockHash": hash,
                "blockNumber": header_json["number"],
                "transactionIndex": format!("{index:#x}"),
                "transactionHash": transaction,
            })
        });
        let receipts_json: Value = receipts_json.collect();
        let block = ScriptedBlock {
            number,
            hash,
            parent: header.parent_hash,
            logs: logs_json.len(),
            timestamp: header.timestamp,
            header_json: header_json.to_string().into(),
            logs_json: Value::from(logs_json).to_string().into(),
            receipts_json: receipts_json.to_string().into(),
        };
        self.known.insert(hash, block.clone());
        self.chain.push(block);
    }

    /// The next fault for a method, if one is due.
    fn fault(&mut self, method: &str) -> Option<Nasty> {
        let index = self.faults.iter().position(|(of, ..)| *of == method)?;
        let (_, times, fault) = &mut self.faults[index];
        let fault = fault.clone();
        *times -= 1;
        if *times == 0 {
            self.faults.remove(index);
        }
        Some(fault)
    }

    fn latest(&self) -> &ScriptedBlock {
        let end = self.chain.len() - 1;
        let head = self.pretended_head.map_or(end, |number| end.min(number as usize));
        &self.chain[head]
    }

    /// `result` or `error` of an honest answer.
    fn honest(&self, method: &str, params: &Value) -> String {
        let block = |block: Option<&ScriptedBlock>| match block {
            Some(block) => format!(r#""result":{}"#, block.header_json),
            None => r#""result":null"#.to_owned(),
        };
        match method {
            "eth_chainId" => format!(r#""result":"{:#x}""#, self.chain_id),
            "eth_getBlockByNumber" => match params[0].as_str().unwrap() {
                "latest" => block(Some(self.latest())),
                "finalized" if self.finalized.is_some() => {
                    block(self.finalized.and_then(|number| self.chain.get(number as usize)))
                }
                tag if !tag.starts_with("0x") => {
                    r#""error":{"code":-32602,"message":"unknown tag"}"#.to_owned()
                }
                number => {
                    let number = u64::from_str_radix(&number[2..], 16).unwrap();
                    let reached = number <= self.latest().number;
                    block(self.chain.get(number as usize).filter(|_| reached))
                }
            },
            "eth_getBlockByHash" => {
                let hash: B256 = params[0].as_str().unwrap().parse().unwrap();
                block(self.known.get(&hash))
            }
            "eth_getLogs" if params[0]["fromBlock"].is_string() => self.logs_by_range(params),
            "eth_getLogs" => {
                let hash = params[0]["blockHash"].as_str().and_then(|hash| hash.parse().ok());
                match hash.and_then(|hash: B256| self.known.get(&hash)) {
                    Some(block) => format!(r#""result":{}"#, block.logs_json),
                    None => r#""error":{"code":-32000,"message":"unknown block"}"#.to_owned(),
                }
            }
            "eth_getBlockReceipts" => {
                let hash = params[0].as_str().and_then(|hash| hash.parse().ok());
                let block = hash.and_then(|hash: B256| self.known.get(&hash));
                let receipts = block.map(|block| &*block.receipts_json);
                format!(r#""result":{}"#, receipts.unwrap_or("null"))
            }
            "eth_getTransactionReceipt" => {
                let receipt = self.chain.iter().rev().find_map(|block| {
                    let receipts: Value = serde_json::from_str(&block.receipts_json).unwrap();
                    let mut receipts = receipts.as_array().unwrap().iter();
                    receipts.find(|receipt| receipt["transactionHash"] == params[0]).cloned()
                });
                format!(r#""result":{}"#, receipt.unwrap_or(Value::Null))
            }
            _ => r#""error":{"code":-32601,"message":"no such method"}"#.to_owned(),
        }
    }

    /// `result` or `error` of an answer to a range. Blocks that are not there are passed over, as
    /// nodes do.
    fn logs_by_range(&self, params: &Value) -> String {
        let (start, end) = range(params);
        let reached = self.latest().number + 1;
        let blocks = &self.chain[start.min(reached) as usize..end.min(reached) as usize];
        let logs: usize = blocks.iter().map(|block| block.logs).sum();
        if let Some(limit) = self.range_limit
            && (limit.blocks < end - start || limit.logs < logs)
        {
            let (code, message) = limit.error;
            return format!(r#""error":{{"code":{code},"message":"{message}"}}"#);
        }
        let mut parts: Vec<&str> = Vec::new();
        let mut cut: Vec<Value> = Vec::new();
        let mut room = self.range_cut.unwrap_or(usize::MAX);
        for block in blocks {
            if block.logs <= room {
                parts.extend(
                    Some(block.logs_json.trim_matches(['[', ']'])).filter(|l| !l.is_empty()),
                );
                room -= block.logs;
            } else {
                let logs: Vec<Value> = serde_json::from_str(&block.logs_json).unwrap();
                cut.extend(logs.into_iter().take(room));
                break;
            }
        }
        let cut: Vec<String> = cut.iter().map(Value::to_string).collect();
        parts.extend(cut.iter().map(String::as_str));
        format!(r#""result":[{}]"#, parts.join(","))
    }

    /// Answers a message, or says how it is not answered.
    fn answer(&mut self, message: &Value) -> Result<String, Nasty> {
        self.messages += 1;
        let batch = message.as_array();
        if batch.is_some() && self.refuses_batches {
            let refusal = r#"{"id":null,"error":{"code":-32600,"message":"no batches"}}"#;
            return Ok(refusal.to_owned());
        }
        let calls = batch.map_or(std::slice::from_ref(message), Vec::as_slice);
        if self.calls_max < calls.len() {
            return Err(Nasty::Status(504, None));
        }
        let mut answers = Vec::new();
        let (mut shuffled, mut incomplete) = (false, false);
        for call in calls {
            let method = call["method"].as_str().unwrap();
            *self.calls.entry(method.to_owned()).or_default() += 1;
            if call["params"][0]["fromBlock"].is_string() {
                let (start, end) = range(&call["params"]);
                self.ranges.push(end - start);
            }
            let honest = self.honest(method, &call["params"]);
            // What is final is asked beside everything else, and must not take another's fault.
            let tag = call["params"][0].as_str();
            match tag {
                Some("latest") => self.asked.send_modify(|asked| asked.latest += 1),
                Some("finalized") => self.asked.send_modify(|asked| asked.finalized += 1),
                _ => (),
            }
            let fault = match tag == Some("finalized") {
                true => None,
                false => self.fault(method),
            };
            let content = match fault {
                None => honest,
                Some(Nasty::Result(value)) => format!(r#""result":{value}"#),
                Some(Nasty::Error(code, message)) => {
                    format!(r#""error":{{"code":{code},"message":"{message}"}}"#)
                }
                Some(Nasty::LogMissing) => changed(&honest, |logs| {
                    logs.as_array_mut().unwrap().pop();
                }),
                Some(Nasty::OtherData) => changed(&honest, |answer| {
                    let last = answer.as_array_mut().unwrap().last_mut().unwrap();
                    match last.get_mut("logs") {
                        None => last["data"] = json!("0xbad0"),
                        Some(logs) => logs[0]["data"] = json!("0xbad0"),
                    }
                }),
                Some(Nasty::BloomMissing) => changed(&honest, |header| {
                    header["logsBloom"] = json!(Bloom::ZERO);
                }),
                Some(Nasty::Shuffled) => {
                    shuffled = true;
                    honest
                }
                Some(Nasty::Incomplete) => {
                    incomplete = true;
                    honest
                }
                Some(fault) => return Err(fault),
            };
            answers.push(format!(r#"{{"jsonrpc":"2.0","id":{},{content}}}"#, call["id"]));
        }
        if shuffled {
            answers.push(r#"{"jsonrpc":"2.0","id":9999,"result":"0x1"}"#.to_owned());
            answers.reverse();
        }
        if incomplete {
            answers.pop();
            if let Some(first) = answers.first_mut() {
                *first = "null".to_owned();
            }
        }
        match batch {
            Some(_) => Ok(format!("[{}]", answers.join(","))),
            None => answers.pop().ok_or(Nasty::HangUp),
        }
    }
}

/// The heights of a range of logs, half-open.
fn range(params: &Value) -> (u64, u64) {
    let number = |name: &str| {
        u64::from_str_radix(&params[0][name].as_str().unwrap()[2..], 16).expect("a height")
    };
    (number("fromBlock"), number("toBlock") + 1)
}

/// An honest answer, changed.
fn changed(honest: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut result: Value =
        serde_json::from_str(honest.strip_prefix(r#""result":"#).unwrap()).unwrap();
    change(&mut result);
    format!(r#""result":{result}"#)
}

/// A Transfer of one of three tokens, different for each block, branch and position.
fn log(number: u64, salt: u64, index: usize) -> Value {
    let seed = keccak256([number.to_be_bytes(), salt.to_be_bytes(), index.to_be_bytes()].concat());
    let account = |n: u8| B256::left_padding_from(&keccak256([&seed[..], &[n]].concat())[..20]);
    json!({
        "address": Address::repeat_byte(1 + seed[0] % 3),
        "topics": [keccak256("Transfer(address,address,uint256)"), account(1), account(2)],
        "data": B256::with_last_byte(seed[1]),
        "blockNumber": format!("{number:#x}"),
        "logIndex": format!("{index:#x}"),
        "transactionIndex": format!("{:#x}", index / 2),
        "transactionHash": transaction_hash(number, salt, index / 2),
        "removed": false,
    })
}

/// The receipts of the transactions that logged these, two logs each.
fn receipts(logs: &[Value]) -> Vec<ReceiptEnvelope> {
    let log = |log: &Value| alloy_primitives::Log {
        address: serde_json::from_value(log["address"].clone()).unwrap(),
        data: LogData::new_unchecked(
            serde_json::from_value(log["topics"].clone()).unwrap(),
            serde_json::from_value(log["data"].clone()).unwrap(),
        ),
    };
    let receipt = |(index, logs): (usize, &[Value])| {
        let cumulative_gas_used = 50_000 * (index as u64 + 1);
        let logs = logs.iter().map(log).collect();
        let receipt = Receipt { status: true.into(), cumulative_gas_used, logs };
        ReceiptEnvelope::from_typed(TxType::Eip1559, receipt)
    };
    logs.chunks(2).enumerate().map(receipt).collect()
}

fn transaction_hash(number: u64, salt: u64, index: usize) -> B256 {
    let position = [number.to_be_bytes(), salt.to_be_bytes(), index.to_be_bytes()].concat();
    keccak256([&position[..], b"transaction"].concat())
}

fn bloom(logs: &[Value]) -> Bloom {
    let mut bloom = Bloom::ZERO;
    for log in logs {
        let address = serde_json::from_value(log["address"].clone()).unwrap();
        let topics: Vec<B256> = serde_json::from_value(log["topics"].clone()).unwrap();
        bloom.accrue_raw_log(address, &topics);
    }
    bloom
}

async fn accept(listener: TcpListener, script: Arc<Mutex<Script>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let script = script.clone();
        // Whatever ends a connection ends it for the client too; the test looks at that side.
        connections.spawn(async move {
            let _ = serve(stream, script).await;
        });
    }
}

async fn serve(stream: TcpStream, script: Arc<Mutex<Script>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let message = serde_json::from_slice(&body)?;
        let answer = script.lock().unwrap().answer(&message);
        let (status, retry_after, body) = match answer {
            Ok(body) => (200, None, body),
            Err(Nasty::Body(body)) => (200, None, body),
            Err(Nasty::Status(status, retry_after)) => (status, retry_after, String::new()),
            Err(Nasty::Stall) => std::future::pending().await,
            Err(_) => return Ok(()),
        };
        let retry_after =
            retry_after.map_or(String::new(), |after| format!("retry-after: {after}\r\n"));
        let length = body.len();
        let head = format!("HTTP/1.1 {status} -\r\n{retry_after}content-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.flush().await?;
    }
}
