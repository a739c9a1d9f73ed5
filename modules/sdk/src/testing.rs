//! A host in memory, for native unit tests of modules.

use std::{collections::BTreeMap, ops::Bound};

use alloy_primitives::{Address, B256, keccak256};

use crate::{Answer, Block, Host, Input, Level, Log, Page, Request, Triggers};

/// State, chain and log of one lane, in plain fields that a test fills and looks at.
#[derive(Clone, Debug, Default)]
pub struct MemoryHost {
    /// The state. It lasts from one `handle` to the next, as the lane's does.
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What the chain answers. A request that is not here fails the test.
    pub answers: BTreeMap<Request, Answer>,
    /// Every `read` so far, with its requests.
    pub reads: Vec<Vec<Request>>,
    /// Every line so far.
    pub lines: Vec<(Level, String)>,
    /// The time of the block.
    pub now: u64,
    /// How many random numbers have been drawn.
    pub drawn: u64,
}

impl MemoryHost {
    /// Scripts the answer to a request, from now on.
    pub fn answer(&mut self, request: Request, answer: Answer) {
        self.answers.insert(request, answer);
    }

    /// The lines at this level, oldest first.
    pub fn lines_at(&self, level: Level) -> Vec<&str> {
        let lines = self.lines.iter().filter(|(of, _)| *of == level);
        lines.map(|(_, message)| message.as_str()).collect()
    }
}

impl Host for MemoryHost {
    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.state.get(key).cloned()
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        assert!((1..=1024).contains(&key.len()), "a key of {} bytes is a fault", key.len());
        assert!(value.len() <= 1 << 20, "a value of {} bytes is a fault", value.len());
        self.state.insert(key.to_vec(), value.to_vec());
    }

    fn delete(&mut self, key: &[u8]) {
        self.state.remove(key);
    }

    fn list(&mut self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Page {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut entries = self
            .state
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix));
        let limit = (limit as usize).clamp(1, 1000);
        let page = entries.by_ref().take(limit).map(|(key, value)| (key.clone(), value.clone()));
        Page { entries: page.collect(), more: entries.next().is_some() }
    }

    fn read(&mut self, requests: &[Request]) -> Vec<Answer> {
        self.reads.push(requests.to_vec());
        let answer = |request: &Request| {
            let scripted = self.answers.get(request).cloned();
            scripted.unwrap_or_else(|| panic!("no answer is scripted for {request:?}"))
        };
        requests.iter().map(answer).collect()
    }

    fn log(&mut self, level: Level, message: &str) {
        self.lines.push((level, message.to_owned()));
    }

    fn now(&mut self) -> u64 {
        self.now
    }

    fn random(&mut self) -> u64 {
        self.drawn += 1;
        let [a, b, c, d, e, f, g, h, ..] = keccak256(self.drawn.to_be_bytes()).0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// A block of this height with these logs, twelve seconds after the one before.
pub fn block(number: u64, logs: Vec<Log>) -> Input {
    let hash = |number: u64| keccak256(number.to_be_bytes());
    Input::Block(Block {
        number,
        hash: hash(number),
        parent_hash: hash(number.wrapping_sub(1)),
        timestamp: 1_700_000_000 + 12 * number,
        triggers: Triggers { logs: !logs.is_empty(), block: true, tick: false },
        logs,
    })
}

/// A log without topics or data, of the contract whose address repeats this byte.
pub fn log(contract: u8) -> Log {
    Log {
        address: Address::repeat_byte(contract),
        transaction_hash: B256::repeat_byte(contract),
        ..Log::default()
    }
}
