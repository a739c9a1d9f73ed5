//! Turns an honest answer into a lie.
//!
//! Lies are told about small chains, so here answers may be trees of values.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bloom};
use rand::{
    RngExt,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};
use serde_json::{Value, json};

use crate::Lie;

/// Makes an honest result a lie. `other` is an honest answer to the same question about another
/// block. Returns false when it would still be the truth, or when the lie would go unnoticed by
/// those who are to notice it.
pub(crate) fn tamper(lie: Lie, result: &mut Value, other: &Value, random: &mut StdRng) -> bool {
    if result.is_null() {
        return false;
    }
    let honest = result.clone();
    match lie {
        Lie::Null => *result = Value::Null,
        Lie::WrongChainId => *result = json!("0x539"),
        Lie::OtherBlock => *result = other.clone(),
        Lie::WrongBloom => change_digit(&mut result["logsBloom"], random),
        Lie::WrongReceiptsRoot => change_digit(&mut result["receiptsRoot"], random),
        Lie::WrongHash => change_digit(&mut result["hash"], random),
        Lie::MixedCase => mix_case(result, random),
        Lie::OptionalMissing => forget_optional(result),
        Lie::EmptyLogs => *result = json!([]),
        // Without any logs it would not show whose they are.
        Lie::OtherBlocksLogs if list_is_empty(other) => return false,
        Lie::OtherBlocksLogs => *result = other.clone(),
        Lie::TruncatedReceipts => drop(list(result).pop()),
        Lie::AlteredReceipt => {
            let receipt = match result.is_object() {
                true => Some(&mut *result),
                false => choose(list(result), random),
            };
            if let Some(receipt) = receipt {
                let member = ["status", "cumulativeGasUsed"].choose(random).expect("there are two");
                let said = receipt[*member].as_str().unwrap_or_default().to_owned();
                receipt[*member] = json!(if said == "0x1" { "0x0" } else { "0x1" });
            }
        }
        Lie::TruncatedLogs | Lie::QuietlyTruncatedLogs => truncate(logs_in(result, random), random),
        Lie::AlteredData => {
            if let Some(log) = choose(logs_in(result, random), random) {
                change_digit(&mut log["data"], random);
            }
        }
        Lie::InventedLog => {
            let logs = list(result);
            if let Some(mut invented) = logs.last().cloned() {
                invented["address"] = json!(Address::from(random.random::<[u8; 20]>()));
                let index = invented["logIndex"]
                    .as_str()
                    .and_then(|text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok());
                invented["logIndex"] = json!(format!("{:#x}", index.unwrap_or(0) + 1));
                logs.push(invented);
            }
        }
        Lie::DuplicatedIndex => {
            let logs = list(result);
            if let Some(at) = (0..logs.len()).collect::<Vec<_>>().choose(random) {
                logs.insert(*at, logs[*at].clone());
            }
        }
        Lie::LogsShuffled => list(result).shuffle(random),
        Lie::RemovedLog => {
            if let Some(log) = choose(list(result), random) {
                log["removed"] = json!(true);
            }
        }
        _ => return false,
    }
    match lie {
        // Who looks at blooms must be able to notice.
        Lie::TruncatedLogs | Lie::InventedLog => blooms(result) != blooms(&honest),
        _ => *result != honest,
    }
}

fn list_is_empty(value: &Value) -> bool {
    value.as_array().is_none_or(Vec::is_empty)
}

/// The entries, if it is a list; else none.
fn list(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("it was just made one")
}

/// The logs, or those of one receipt where the result is of receipts.
fn logs_in<'r>(result: &'r mut Value, random: &mut StdRng) -> &'r mut Vec<Value> {
    if result["logs"].is_array() {
        return list(&mut result["logs"]);
    }
    let receipts: Vec<usize> = result
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .filter(|(_, receipt)| receipt["logs"].as_array().is_some_and(|logs| !logs.is_empty()))
        .map(|(n, _)| n)
        .collect();
    match receipts.choose(random) {
        Some(receipt) => list(&mut result[*receipt]["logs"]),
        None => list(result),
    }
}

fn choose<'r>(entries: &'r mut [Value], random: &mut StdRng) -> Option<&'r mut Value> {
    if entries.is_empty() {
        return None;
    }
    let at = random.random_range(0..entries.len());
    entries.get_mut(at)
}

/// Keeps as many as providers like to stop at, if there are more; else one fewer at least.
fn truncate(logs: &mut Vec<Value>, random: &mut StdRng) {
    let round = [10_000, 1000, 100, 10].into_iter().find(|round| *round < logs.len());
    let kept = match round {
        Some(round) if random.random_bool(0.5) => round,
        _ if logs.is_empty() => 0,
        _ => random.random_range(0..logs.len()),
    };
    logs.truncate(kept);
}

/// The bloom of the logs of each block.
fn blooms(logs: &Value) -> BTreeMap<String, Bloom> {
    let mut blooms = BTreeMap::<String, Bloom>::new();
    for log in logs.as_array().into_iter().flatten() {
        let bloom = blooms.entry(log["blockHash"].to_string()).or_default();
        let address: Option<Address> = serde_json::from_value(log["address"].clone()).ok();
        let topics: Option<Vec<B256>> = serde_json::from_value(log["topics"].clone()).ok();
        bloom.accrue_raw_log(address.unwrap_or_default(), &topics.unwrap_or_default());
    }
    blooms
}

fn change_digit(text: &mut Value, random: &mut StdRng) {
    let Some(said) = text.as_str().filter(|said| said.len() > 2) else { return };
    let mut digits = said.to_owned().into_bytes();
    let at = random.random_range(2..digits.len());
    digits[at] = if digits[at] == b'0' { b'1' } else { b'0' };
    *text = json!(String::from_utf8(digits).expect("a digit replaced a digit"));
}

fn mix_case(value: &mut Value, random: &mut StdRng) {
    match value {
        Value::String(text) if text.starts_with("0x") => {
            let mix = |digit: char| match random.random_bool(0.5) {
                true => digit.to_ascii_uppercase(),
                false => digit,
            };
            *text = "0x".chars().chain(text.chars().skip(2).map(mix)).collect();
        }
        Value::Array(entries) => entries.iter_mut().for_each(|entry| mix_case(entry, random)),
        Value::Object(members) => {
            members.iter_mut().for_each(|(_, member)| mix_case(member, random));
        }
        _ => (),
    }
}

/// Takes away what some nodes do not send.
fn forget_optional(value: &mut Value) {
    match value {
        Value::Array(entries) => entries.iter_mut().for_each(forget_optional),
        Value::Object(members) => {
            for optional in [
                "totalDifficulty",
                "size",
                "uncles",
                "withdrawals",
                "blockTimestamp",
                "removed",
                "effectiveGasPrice",
                "contractAddress",
                "to",
            ] {
                members.remove(optional);
            }
            members.iter_mut().for_each(|(_, member)| forget_optional(member));
        }
        _ => (),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn logs(count: u8) -> Value {
        let log = |n: u8| {
            json!({ "address": Address::repeat_byte(n), "topics": [B256::repeat_byte(n)],
                "data": "0x0102", "blockHash": B256::repeat_byte(7), "logIndex": format!("{n:#x}"),
                "removed": false })
        };
        Value::from((0..count).map(log).collect::<Vec<_>>())
    }

    #[test]
    fn a_lie_is_never_the_truth() {
        let other = json!([{ "blockHash": B256::repeat_byte(8) }]);
        for lie in [
            Lie::Null,
            Lie::EmptyLogs,
            Lie::TruncatedLogs,
            Lie::QuietlyTruncatedLogs,
            Lie::AlteredData,
            Lie::InventedLog,
            Lie::OtherBlocksLogs,
            Lie::DuplicatedIndex,
            Lie::RemovedLog,
            Lie::OptionalMissing,
        ] {
            for seed in 0..20 {
                let mut random = StdRng::seed_from_u64(seed);
                let mut told = logs(12);
                assert!(tamper(lie, &mut told, &other, &mut random), "{lie:?}");
                assert_ne!(told, logs(12), "{lie:?}");
                let mut nothing = json!([]);
                let lied = tamper(lie, &mut nothing, &other, &mut random);
                assert_eq!(lied, nothing != json!([]), "{lie:?}");
            }
        }
    }

    #[test]
    fn a_log_that_the_bloom_does_not_miss_is_not_left_out_loudly() {
        let mut random = StdRng::seed_from_u64(1);
        let mut twins = logs(1);
        let twin = twins[0].clone();
        twins.as_array_mut().unwrap().push(twin);
        let refused = (0..50)
            .filter(|_| {
                let mut told = twins.clone();
                let lied = tamper(Lie::TruncatedLogs, &mut told, &json!([]), &mut random);
                assert_eq!(lied, told == json!([]));
                !lied
            })
            .count();
        assert!(refused > 10, "{refused}");
    }
}
