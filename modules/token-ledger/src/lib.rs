//! Balances per holder and totals per token, from ERC-20 `Transfer` logs.
//!
//! ```text
//! key                               value
//! 'b' token (20 bytes) holder (20)  what the holder received less what it sent
//! 't' token (20 bytes)              what was minted less what was burnt
//! ```
//!
//! Values are 256-bit two's complement, big-endian, and count **from the first journaled block**.
//! A holder that already had tokens then can send more than we saw it receive: its value is
//! negative, and correct once the balance at that block is added. Had we stopped at zero, the
//! amount would be lost for ever and the holders of a token would no longer add up to its total.
//! Zero values are not stored.

use std::collections::BTreeMap;

use shepherd_sdk::{Address, B256, Error, Host, Input, Log, Module, NoConfig, U256, b256};

/// `Transfer(address,address,uint256)`.
pub const TRANSFER: B256 =
    b256!("0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// The module.
pub struct TokenLedger;

impl Module for TokenLedger {
    type Config = NoConfig;

    fn configure(_: NoConfig) -> Result<TokenLedger, Error> {
        Ok(TokenLedger)
    }

    fn handle(&self, host: &mut impl Host, input: &Input) -> Result<(), Error> {
        let Input::Block(block) = input else { return Ok(()) };
        // Each key is read and written once per block, however often it changes in it. The map
        // also puts the writes in an order that does not depend on anything else.
        let mut changes = BTreeMap::new();
        for transfer in block.logs.iter().filter_map(transfer) {
            for (key, change) in transfer.changes() {
                let sum: &mut U256 = changes.entry(key).or_default();
                *sum = sum.wrapping_add(change);
            }
        }
        for (key, change) in changes.into_iter().filter(|(_, change)| !change.is_zero()) {
            add(host, key.bytes(), change)?;
        }
        Ok(())
    }
}

shepherd_sdk::export!(TokenLedger);

/// One amount from one holder to another. The zero address mints and burns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transfer {
    token: Address,
    from: Address,
    to: Address,
    amount: U256,
}

/// The transfer a log stands for, or `None` when it is not one of ERC-20: ERC-721 has the same
/// signature and four topics, and some old tokens index nothing.
fn transfer(log: &Log) -> Option<Transfer> {
    let [TRANSFER, from, to] = log.topics[..] else { return None };
    let amount: [u8; 32] = log.data.as_slice().try_into().ok()?;
    Some(Transfer {
        token: log.address,
        from: holder(&from)?,
        to: holder(&to)?,
        amount: U256::from_be_bytes(amount),
    })
}

/// An address as a topic, which has twelve zero bytes in front.
fn holder(topic: &B256) -> Option<Address> {
    let (padding, address) = topic.split_at(12);
    padding.iter().all(|byte| *byte == 0).then(|| Address::from_slice(address))
}

impl Transfer {
    /// What it changes: one value at the sender's side and one at the receiver's.
    fn changes(&self) -> [(Key, U256); 2] {
        let out = U256::ZERO.wrapping_sub(self.amount);
        match (self.from == Address::ZERO, self.to == Address::ZERO) {
            (false, false) => {
                [(self.balance(self.from), out), (self.balance(self.to), self.amount)]
            }
            (true, false) => [(self.total(), self.amount), (self.balance(self.to), self.amount)],
            (false, true) => [(self.balance(self.from), out), (self.total(), out)],
            (true, true) => [(self.total(), self.amount), (self.total(), out)],
        }
    }

    fn balance(&self, holder: Address) -> Key {
        Key::Balance { token: self.token, holder }
    }

    fn total(&self) -> Key {
        Key::Total { token: self.token }
    }
}

/// A key of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Balance { token: Address, holder: Address },
    Total { token: Address },
}

impl Key {
    fn bytes(self) -> Vec<u8> {
        match self {
            Key::Balance { token, holder } => {
                [b"b".as_slice(), token.as_slice(), holder.as_slice()].concat()
            }
            Key::Total { token } => [b"t".as_slice(), token.as_slice()].concat(),
        }
    }
}

/// Adds to a stored value; a sum of zero is stored as nothing.
fn add(host: &mut impl Host, key: Vec<u8>, change: U256) -> Result<(), Error> {
    let before = match host.get(&key) {
        Some(bytes) => U256::try_from_be_slice(&bytes).filter(|_| bytes.len() == 32),
        None => Some(U256::ZERO),
    };
    let before = before.ok_or_else(|| Error::new("a stored value is not 32 bytes"))?;
    let after = before.wrapping_add(change);
    if after.is_zero() {
        host.delete(&key);
    } else {
        host.set(&key, &after.to_be_bytes::<32>());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use shepherd_sdk::{
        I256, Topics,
        alloy_primitives::keccak256,
        testing::{MemoryHost, block, log},
    };

    use super::*;

    const NOBODY: u8 = 0;
    const ALICE: u8 = 0xa;
    const BOB: u8 = 0xb;
    const TOKEN: u8 = 0x70;
    const OTHER: u8 = 0x71;

    fn topic(holder: u8) -> B256 {
        Address::repeat_byte(holder).into_word()
    }

    fn sent(token: u8, from: u8, to: u8, amount: u64) -> Log {
        Log {
            topics: [TRANSFER, topic(from), topic(to)].as_slice().try_into().unwrap(),
            data: U256::from(amount).to_be_bytes_vec(),
            ..log(token)
        }
    }

    fn handled(blocks: Vec<Vec<Log>>) -> MemoryHost {
        let mut host = MemoryHost::default();
        for (logs, number) in blocks.into_iter().zip(1..) {
            TokenLedger.handle(&mut host, &block(number, logs)).unwrap();
        }
        host
    }

    fn value(host: &MemoryHost, key: Key) -> I256 {
        let stored = host.state.get(&key.bytes());
        stored.map_or(I256::ZERO, |bytes| I256::from_raw(U256::from_be_slice(bytes)))
    }

    fn balance(host: &MemoryHost, token: u8, holder: u8) -> i64 {
        let (token, holder) = (Address::repeat_byte(token), Address::repeat_byte(holder));
        value(host, Key::Balance { token, holder }).try_into().unwrap()
    }

    fn total(host: &MemoryHost, token: u8) -> i64 {
        value(host, Key::Total { token: Address::repeat_byte(token) }).try_into().unwrap()
    }

    #[test]
    fn the_topic_is_the_hash_of_the_signature() {
        assert_eq!(TRANSFER, keccak256("Transfer(address,address,uint256)"));
    }

    #[test]
    fn transfers_move_mints_add_and_burns_remove() {
        let host = handled(vec![
            vec![sent(TOKEN, NOBODY, ALICE, 100), sent(OTHER, NOBODY, BOB, 7)],
            vec![sent(TOKEN, ALICE, BOB, 30), sent(TOKEN, ALICE, BOB, 5)],
            vec![sent(TOKEN, BOB, NOBODY, 10)],
        ]);
        assert_eq!(balance(&host, TOKEN, ALICE), 65);
        assert_eq!(balance(&host, TOKEN, BOB), 25);
        assert_eq!(total(&host, TOKEN), 90);
        assert_eq!(balance(&host, OTHER, BOB), 7);
        assert_eq!(total(&host, OTHER), 7);
    }

    #[test]
    fn a_holder_from_before_the_journal_goes_below_zero_and_sums_still_agree() {
        let host = handled(vec![vec![sent(TOKEN, ALICE, BOB, 40)]]);
        assert_eq!(balance(&host, TOKEN, ALICE), -40);
        assert_eq!(balance(&host, TOKEN, BOB), 40);
        assert_eq!(total(&host, TOKEN), 0);
    }

    #[test]
    fn what_comes_back_to_zero_is_not_stored() {
        let there = sent(TOKEN, ALICE, BOB, 40);
        let back = sent(TOKEN, BOB, ALICE, 40);
        assert!(handled(vec![vec![there.clone()], vec![back.clone()]]).state.is_empty());
        assert!(handled(vec![vec![there, back]]).state.is_empty());
        assert!(handled(vec![vec![sent(TOKEN, ALICE, ALICE, 1)]]).state.is_empty());
        assert!(handled(vec![vec![sent(TOKEN, NOBODY, NOBODY, 1)]]).state.is_empty());
    }

    #[test]
    fn how_transfers_fall_into_blocks_does_not_matter() {
        let transfers = vec![
            sent(TOKEN, NOBODY, ALICE, 100),
            sent(TOKEN, ALICE, BOB, 60),
            sent(OTHER, BOB, ALICE, 3),
            sent(TOKEN, BOB, NOBODY, 20),
        ];
        let one_block = handled(vec![transfers.clone()]);
        let one_each = handled(transfers.into_iter().map(|transfer| vec![transfer]).collect());
        assert_eq!(one_block.state, one_each.state);
    }

    #[test]
    fn logs_of_other_standards_are_ignored() {
        let erc20 = sent(TOKEN, ALICE, BOB, 1);
        let topics = |topics: &[B256]| Topics::try_from(topics).unwrap();
        let id = B256::with_last_byte(1);
        let ignored = [
            Log {
                topics: topics(&[TRANSFER, topic(ALICE), topic(BOB), id]),
                data: vec![],
                ..erc20.clone()
            },
            Log { topics: topics(&[TRANSFER]), data: vec![0; 96], ..erc20.clone() },
            Log { topics: topics(&[id, topic(ALICE), topic(BOB)]), ..erc20.clone() },
            Log {
                topics: topics(&[TRANSFER, B256::repeat_byte(ALICE), topic(BOB)]),
                ..erc20.clone()
            },
            Log { data: vec![0; 31], ..erc20.clone() },
            Log { data: vec![0; 64], ..erc20.clone() },
            log(TOKEN),
        ];
        assert!(transfer(&erc20).is_some());
        for log in ignored {
            assert_eq!(transfer(&log), None, "{log:?}");
        }
    }

    #[test]
    fn a_stored_value_of_another_length_is_an_error() {
        let mut host = handled(vec![vec![sent(TOKEN, ALICE, BOB, 1)]]);
        host.state.values_mut().next().unwrap().pop();
        let again = block(2, vec![sent(TOKEN, ALICE, BOB, 1)]);
        assert!(TokenLedger.handle(&mut host, &again).is_err());
    }
}
