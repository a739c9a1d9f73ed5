//! What a record's handling asked the world and what it was told, with the questions themselves.
//!
//! A tape keeps digests of questions, so the questions are heard again while the record is handled
//! once more.

use alloy_primitives::{U256, hex};
use serde::{Deserialize, Serialize};
use shepherd_dispatch::Venue;
use shepherd_host::{At, ReadAnswer, ReadRequest, Reads, World};
use shepherd_log::{BlockRef, Deliveries, Effect, EffectId, Offset, Outcome};

use crate::explain::{
    known::{self, Argument, Said},
    shown,
};

/// A source of reads that remembers what the newest record asked.
pub(crate) struct Overheard<'r, R: ?Sized> {
    source: &'r mut R,
    calls: Vec<ReadCall>,
}

impl<'r, R: ?Sized> Overheard<'r, R> {
    pub fn new(source: &'r mut R) -> Overheard<'r, R> {
        Overheard { source, calls: Vec::new() }
    }

    /// The calls of the newest record, in order.
    pub fn calls(self) -> Vec<ReadCall> {
        self.calls
    }
}

impl<R: Reads + ?Sized> Reads for Overheard<'_, R> {
    fn begin(&mut self, record: Offset) {
        self.calls.clear();
        self.source.begin(record);
    }

    fn read(
        &mut self,
        block: BlockRef,
        requests: &[ReadRequest],
    ) -> Result<Vec<ReadAnswer>, World> {
        let answers = self.source.read(block, requests)?;
        let questions = requests.iter().zip(&answers).map(|(ask, told)| Question::new(ask, told));
        self.calls.push(ReadCall { block: block.number, questions: questions.collect() });
        Ok(answers)
    }
}

impl<R: Venue + ?Sized> Venue for Overheard<'_, R> {
    fn asked(&mut self, at: At, effects: &[(EffectId, Effect)]) {
        self.source.asked(at, effects);
    }

    fn due(&mut self, offset: Offset, at: At) -> Vec<Outcome> {
        self.source.due(offset, at)
    }

    fn reverted(&mut self, ancestor: BlockRef) -> Deliveries {
        self.source.reverted(ancestor)
    }

    fn waits(&self) -> bool {
        self.source.waits()
    }

    fn committed(&mut self) {
        self.source.committed();
    }

    fn dropped(&mut self) {
        self.source.dropped();
    }
}

/// One read call: questions that were answered together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCall {
    /// Height of the block it was answered at.
    pub block: u64,
    /// What was asked, and the answers.
    pub questions: Vec<Question>,
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// `call`, `balance`, `code`, `storage`, `order`, `app-data` or `get`.
    pub kind: String,
    /// The contract or holder, the order's UID, the hash or the URL.
    pub of: String,
    /// The contract's name, where it has the same address on every chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    /// Call data or slot, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// What the call data says, when the function is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<Said>,
    /// `returned`, `reverted`, `is`, `unknown` or an HTTP status.
    pub answered: String,
    /// The answer: hex, a decimal number of wei, or text.
    pub answer: String,
    /// What was returned, when the function is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub says: Vec<Argument>,
    /// What it reverted with, when the error is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Said>,
}

impl Question {
    /// A question and its answer in words.
    pub(crate) fn new(request: &ReadRequest, answer: &ReadAnswer) -> Question {
        let mut question = Question {
            kind: String::new(),
            of: String::new(),
            contract: None,
            data: None,
            asks: None,
            answered: "is".to_owned(),
            answer: String::new(),
            says: Vec::new(),
            error: None,
        };
        question.ask(request);
        let call_data = match request {
            ReadRequest::Call { data, .. } => data.as_ref(),
            _ => &[],
        };
        question.tell(call_data, answer);
        question
    }

    fn ask(&mut self, request: &ReadRequest) {
        let (kind, of) = match request {
            ReadRequest::Call { to, data } => {
                self.contract = known::contract(to).map(str::to_owned);
                self.data = Some(hex::encode_prefixed(data));
                self.asks = known::call(data);
                ("call", to.to_string())
            }
            ReadRequest::Balance(holder) => ("balance", holder.to_string()),
            ReadRequest::Code(address) => ("code", address.to_string()),
            ReadRequest::Storage { address, slot } => {
                self.data = Some(slot.to_string());
                ("storage", address.to_string())
            }
            ReadRequest::Order(uid) => ("order", hex::encode_prefixed(uid)),
            ReadRequest::AppData(hash) => ("app-data", hash.to_string()),
            ReadRequest::Get(url) => ("get", url.to_string()),
        };
        self.kind = kind.to_owned();
        self.of = of;
    }

    fn tell(&mut self, call_data: &[u8], answer: &ReadAnswer) {
        self.answer = match answer {
            ReadAnswer::Returned(data) => {
                self.answered = "returned".to_owned();
                self.says = known::returned(call_data, data).unwrap_or_default();
                hex::encode_prefixed(data)
            }
            ReadAnswer::Reverted(data) => {
                self.answered = "reverted".to_owned();
                self.error = known::error(data);
                hex::encode_prefixed(data)
            }
            ReadAnswer::Balance(wei) => wei.to_string(),
            ReadAnswer::Code(code) => hex::encode_prefixed(code),
            ReadAnswer::Storage(value) => value.to_string(),
            ReadAnswer::Order(Some(text)) | ReadAnswer::AppData(Some(text)) => text.clone(),
            ReadAnswer::Order(None) | ReadAnswer::AppData(None) => {
                self.answered = "unknown".to_owned();
                String::new()
            }
            ReadAnswer::Response { status, body } => {
                self.answered = status.to_string();
                shown::bytes(body)
            }
        };
    }

    /// What a call returned, as the number that one word of it would be.
    pub(crate) fn number(&self) -> Option<U256> {
        let word = self.answer.strip_prefix("0x").filter(|word| word.len() == 64)?;
        U256::from_str_radix(word, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, Bytes};

    use super::*;

    #[test]
    fn only_the_newest_record_is_remembered() {
        let mut source = |_: BlockRef, requests: &[ReadRequest]| {
            Ok(requests.iter().map(|_| ReadAnswer::Balance(U256::from(7))).collect())
        };
        let mut overheard = Overheard::new(&mut source);
        let block = BlockRef { number: 3, hash: alloy_primitives::B256::ZERO };
        for (record, holder) in [(1, 0xa), (2, 0xb)] {
            overheard.begin(Offset::new(record));
            let request = ReadRequest::Balance(Address::repeat_byte(holder));
            overheard.read(block, std::slice::from_ref(&request)).unwrap();
        }
        let [call] = &overheard.calls()[..] else { panic!("one call") };
        assert_eq!((call.block, call.questions.len()), (3, 1));
        let Question { kind, of, answered, answer, .. } = &call.questions[0];
        assert_eq!(
            (kind.as_str(), of.clone(), answered.as_str(), answer.as_str()),
            ("balance", Address::repeat_byte(0xb).to_string(), "is", "7")
        );
    }

    #[test]
    fn a_question_survives_being_kept() {
        let selector = Bytes::from_static(&hex!("feaf968c"));
        let request = ReadRequest::Call { to: Address::repeat_byte(1), data: selector };
        let answer = ReadAnswer::Reverted(Bytes::from_static(&hex!("7a933234")));
        let question = Question::new(&request, &answer);
        assert_eq!(question.asks.as_ref().unwrap().name, "latestRoundData");
        assert_eq!(question.error.as_ref().unwrap().name, "SingleOrderNotAuthed");
        let kept = serde_json::to_string(&question).unwrap();
        assert_eq!(serde_json::from_str::<Question>(&kept).unwrap(), question);
    }
}
