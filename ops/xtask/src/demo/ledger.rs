//! What the modules computed, beside what the chain says at the same block.
//!
//! This is what the demo is for: the modules know nothing but logs and pinned reads, through
//! reorgs and restarts, and still have to agree with the contracts to the last unit.

use anyhow::Context;
use serde_json::{Value, json};

use super::config::CHAIN;
use super::http;

/// Facts of each lane that are compared at each look; the next look takes other ones.
const FACTS_MAX: usize = 12;

/// Entries of a state that are read at each look. The demo's states are smaller.
const ENTRIES_MAX: usize = 500;

/// The first four bytes of `keccak256("balanceOf(address)")`.
const BALANCE_OF: &str = "70a08231";

/// The first four bytes of `keccak256("totalSupply()")`.
const TOTAL_SUPPLY: &str = "18160ddd";

/// One value of a module's state, in the words of the chain. Addresses are hexadecimal
/// digits without a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fact {
    Supply { token: String },
    Balance { token: String, holder: String },
    Ether { holder: String },
}

/// A fact, and what either side says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The block after which it is looked at.
    pub block: u64,
    /// What it is.
    pub what: String,
    /// According to the module.
    pub module: u128,
    /// According to the node.
    pub chain: u128,
}

/// All comparisons so far.
#[derive(Debug, Default)]
pub struct Ledger {
    /// How many agreed.
    pub agreed: u64,
    /// Those that did not.
    pub differences: Vec<Compared>,
    /// Facts that the node will be asked about again.
    doubts: Vec<Claim>,
}

/// What a module says about a fact.
#[derive(Clone, Debug)]
struct Claim {
    fact: Fact,
    value: u128,
    block: Block,
}

/// The block of a cursor.
#[derive(Clone, Debug)]
struct Block {
    number: u64,
    hash: String,
}

impl Ledger {
    /// Compares a part of what each lane computed, at the block of its cursor, and answers
    /// with what could be compared.
    ///
    /// While anvil makes a block, it answers questions about the one before from the state of
    /// the one in the making, for a moment. So when the two sides differ, the node is asked
    /// again at a later look, and what it says once the block is not its newest counts.
    pub fn look(
        &mut self,
        admin_port: u16,
        node_port: u16,
        cursors: &[Value],
    ) -> anyhow::Result<Vec<Compared>> {
        let head = number(http::call(node_port, "eth_blockNumber", json!([]))?.as_str())?;
        let (settled, open): (Vec<_>, Vec<_>) = std::mem::take(&mut self.doubts)
            .into_iter()
            .partition(|claim| u128::from(claim.block.number) < head);
        self.doubts = open;
        let mut compared = Vec::new();
        for claim in settled {
            compared.extend(claim.compare(node_port)?);
        }
        for cursor in cursors {
            for claim in claims(admin_port, cursor)? {
                match claim.compare(node_port)? {
                    Some(one) if one.module == one.chain => compared.push(one),
                    Some(_) => self.doubts.push(claim),
                    None => (),
                }
            }
        }
        let differing = compared.iter().filter(|one| one.module != one.chain);
        self.differences.extend(differing.cloned());
        self.agreed += compared.iter().filter(|one| one.module == one.chain).count() as u64;
        Ok(compared)
    }
}

/// What a lane says at its cursor. Nothing when it moved while we looked.
fn claims(admin_port: u16, cursor: &Value) -> anyhow::Result<Vec<Claim>> {
    let (number_, hash) = (cursor["block"]["number"].as_u64(), cursor["block"]["hash"].as_str());
    let Some((number_, hash)) = number_.zip(hash) else { return Ok(Vec::new()) };
    let block = Block { number: number_, hash: hash.to_owned() };
    let module = cursor["module"].as_str().context("a cursor names its module")?;
    let path = format!("/v1/lanes/{module}@{CHAIN}/state?limit={ENTRIES_MAX}");
    let state = http::get_json(admin_port, &path)?;
    if state["next"] != cursor["next"] {
        return Ok(Vec::new());
    }
    let mut claims = Vec::new();
    for entry in state["entries"].as_array().context("a state has entries")? {
        let (key, value) = (entry["key"].as_str(), entry["value"].as_str());
        let (key, value) = key.zip(value).context("an entry has a key and a value")?;
        if let Some((fact, value)) = fact(module, key, value) {
            claims.push(Claim { fact, value: number(Some(value))?, block: block.clone() });
        }
    }
    Ok(chosen(claims, block.number as usize))
}

impl Claim {
    /// Asks the node; `None` when it no longer has the block.
    fn compare(&self, node_port: u16) -> anyhow::Result<Option<Compared>> {
        let Claim { fact, value, block } = self;
        let (method, params) = question(fact, &block.hash);
        let answer = match http::call(node_port, method, params) {
            Ok(answer) => answer,
            // The node answers for blocks of its chain, which this no longer is.
            Err(_) if !is_canonical(node_port, block)? => return Ok(None),
            Err(error) => return Err(error),
        };
        let chain = number(answer.as_str())?;
        let what = fact.to_string();
        Ok(Some(Compared { block: block.number, what, module: *value, chain }))
    }
}

fn is_canonical(node_port: u16, block: &Block) -> anyhow::Result<bool> {
    let params = json!([format!("{:#x}", block.number), false]);
    Ok(http::call(node_port, "eth_getBlockByNumber", params)?["hash"] == block.hash)
}

/// The claims of one look: the supplies, which sum up all others, and then each balance in
/// its turn.
fn chosen(claims: Vec<Claim>, turn: usize) -> Vec<Claim> {
    let (mut chosen, mut others): (Vec<_>, Vec<_>) =
        claims.into_iter().partition(|claim| matches!(claim.fact, Fact::Supply { .. }));
    if !others.is_empty() {
        let start = turn * FACTS_MAX % others.len();
        others.rotate_left(start);
    }
    chosen.extend(others);
    chosen.truncate(FACTS_MAX);
    chosen
}

/// What an entry of a module's state is about, and the part of its value that the chain knows
/// too; `None` for what the module keeps for itself.
fn fact<'v>(module: &str, key: &str, value: &'v str) -> Option<(Fact, &'v str)> {
    let key = key.strip_prefix("0x")?;
    match (module, key.len()) {
        // 'b' token holder
        ("token-ledger", 82) => {
            let (token, holder) = key.strip_prefix("62")?.split_at(40);
            let fact = Fact::Balance { token: token.to_owned(), holder: holder.to_owned() };
            Some((fact, value))
        }
        // 't' token
        ("token-ledger", 42) => {
            Some((Fact::Supply { token: key.strip_prefix("74")?.to_owned() }, value))
        }
        // address = balance, and what it was at the last warning
        ("balance-tracker", 40) => {
            Some((Fact::Ether { holder: key.to_owned() }, value.get(..2 + 64)?))
        }
        _ => None,
    }
}

/// How the node is asked about a fact, after the block with this hash.
fn question(fact: &Fact, block: &str) -> (&'static str, Value) {
    let at = json!({ "blockHash": block });
    let call = |token: &str, data: String| {
        ("eth_call", json!([{ "to": format!("0x{token}"), "data": data }, at]))
    };
    match fact {
        Fact::Supply { token } => call(token, format!("0x{TOTAL_SUPPLY}")),
        Fact::Balance { token, holder } => call(token, format!("0x{BALANCE_OF}{holder:0>64}")),
        Fact::Ether { holder } => ("eth_getBalance", json!([format!("0x{holder}"), at])),
    }
}

impl std::fmt::Display for Fact {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fact::Supply { token } => write!(out, "supply of {}", short(token)),
            Fact::Balance { token, holder } => {
                write!(out, "{} of {}", short(token), short(holder))
            }
            Fact::Ether { holder } => write!(out, "wei of {}", short(holder)),
        }
    }
}

fn short(address: &str) -> String {
    format!("0x{}…{}", &address[..4], &address[address.len() - 4..])
}

/// A number as either side writes it: hexadecimal, with or without zeroes in front. What the
/// demo moves fits sixteen bytes by far.
fn number(text: Option<&str>) -> anyhow::Result<u128> {
    let text = text.context("a number is a string")?;
    let digits = text.strip_prefix("0x").unwrap_or(text).trim_start_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    u128::from_str_radix(digits, 16).with_context(|| format!("{text} as a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_by_value() {
        assert_eq!(number(Some("0x")).unwrap(), 0);
        assert_eq!(number(Some("0x0")).unwrap(), 0);
        assert_eq!(number(Some("0x2a")).unwrap(), 42);
        assert_eq!(number(Some(&format!("0x{:0>64}", "2a"))).unwrap(), 42);
        assert!(number(Some("0xzz")).is_err());
        assert!(number(Some(&"f".repeat(33))).is_err());
        assert!(number(None).is_err());
    }

    #[test]
    fn a_holder_is_asked_for_as_the_contract_expects() {
        let [token, holder] = ["aa".repeat(20), "bb".repeat(20)];
        let key = format!("0x62{token}{holder}");
        let (fact, value) = fact("token-ledger", &key, "0x2a").unwrap();
        assert_eq!((fact.to_string().as_str(), value), ("0xaaaa…aaaa of 0xbbbb…bbbb", "0x2a"));
        let (method, params) = question(&fact, "0x01");
        assert_eq!(method, "eth_call");
        assert_eq!(params[0]["to"], format!("0x{token}"));
        let data = params[0]["data"].as_str().unwrap();
        assert_eq!(data.len(), 2 + 8 + 64);
        assert!(data.ends_with(&holder));
        assert_eq!(params[1]["blockHash"], "0x01");
    }

    #[test]
    fn what_a_module_keeps_for_itself_is_not_compared() {
        let address = "aa".repeat(20);
        let value = format!("0x{:0>64}{:0>64}", "2a", "7");
        let (fact_, balance) = fact("balance-tracker", &format!("0x{address}"), &value).unwrap();
        assert_eq!(fact_, Fact::Ether { holder: address.clone() });
        assert_eq!(number(Some(balance)).unwrap(), 42);
        assert_eq!(fact("balance-tracker", "0x01", &value), None);
        assert_eq!(fact("token-ledger", &format!("0x75{address}"), &value), None);
        assert_eq!(fact("another", &format!("0x{address}"), &value), None);
    }

    #[test]
    fn supplies_are_always_chosen_and_balances_in_turn() {
        let block = Block { number: 7, hash: "0x01".to_owned() };
        let claim = |fact| Claim { fact, value: 0, block: block.clone() };
        let supply = Fact::Supply { token: "t".to_owned() };
        let mut claims: Vec<_> =
            (0..30).map(|holder: u8| claim(Fact::Ether { holder: holder.to_string() })).collect();
        claims.push(claim(supply.clone()));
        let mut seen = std::collections::BTreeSet::new();
        for turn in 0..30 {
            let chosen = chosen(claims.clone(), turn);
            assert_eq!(chosen.len(), FACTS_MAX);
            assert_eq!(chosen[0].fact, supply);
            seen.extend(chosen.iter().map(|claim| format!("{:?}", claim.fact)));
        }
        assert_eq!(seen.len(), 31);
        assert!(chosen(Vec::new(), 3).is_empty());
    }
}
