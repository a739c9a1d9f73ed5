//! Native balances of configured addresses, with a warning when one changes by a threshold.
//!
//! ```text
//! key               value
//! address (20)      balance (32 bytes) reference (32 bytes), big-endian
//! ```
//!
//! `reference` is the balance at first sight or at the last warning. The change is measured from
//! there and not from the block before, so that an account that drains slowly is noticed too.

use serde::Deserialize;
use shepherd_sdk::{
    Address, Answer, Error, Host, Input, Level, Module, Request, U256, config::decimal,
};

/// Whom to watch, and what to warn about.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    addresses: Vec<Address>,
    #[serde(deserialize_with = "decimal")]
    threshold_wei: U256,
}

/// The module.
#[derive(Debug)]
pub struct BalanceTracker(Config);

impl Module for BalanceTracker {
    type Config = Config;

    fn configure(config: Config) -> Result<BalanceTracker, Error> {
        if config.addresses.is_empty() {
            return Err(Error::new("`addresses` is empty: there is nothing to watch"));
        }
        if config.threshold_wei.is_zero() {
            return Err(Error::new("`threshold_wei` is 0: every block would warn"));
        }
        Ok(BalanceTracker(config))
    }

    fn handle(&self, host: &mut impl Host, input: &Input) -> Result<(), Error> {
        let Input::Block(block) = input else { return Ok(()) };
        let requests: Vec<Request> =
            self.0.addresses.iter().copied().map(Request::Balance).collect();
        let answers = host.read(&requests);
        for (address, answer) in self.0.addresses.iter().zip(answers) {
            let Answer::Balance(balance) = answer else {
                return Err(Error::new("the host answered a balance with something else"));
            };
            let before = host.get(address.as_slice());
            let before = before.as_deref().map(Seen::decode).transpose()?;
            let (seen, warning) = look(before, balance, self.0.threshold_wei);
            if let Some(Warning { from, to }) = warning {
                let number = block.header.number;
                let line = format!("{address}: {from} wei became {to} wei by block {number}");
                host.log(Level::Warn, &line);
            }
            if before != Some(seen) {
                host.set(address.as_slice(), &seen.encode());
            }
        }
        Ok(())
    }
}

shepherd_sdk::export!(BalanceTracker);

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// The balance at the last block.
    balance: U256,
    /// The balance at first sight or at the last warning.
    reference: U256,
}

/// A change that reached the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Warning {
    from: U256,
    to: U256,
}

/// Compares a balance with what is known. At first sight there is nothing to compare it with.
fn look(before: Option<Seen>, balance: U256, threshold: U256) -> (Seen, Option<Warning>) {
    let Some(Seen { reference, .. }) = before else {
        return (Seen { balance, reference: balance }, None);
    };
    if balance.abs_diff(reference) < threshold {
        return (Seen { balance, reference }, None);
    }
    (Seen { balance, reference: balance }, Some(Warning { from: reference, to: balance }))
}

impl Seen {
    fn encode(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.balance.to_be_bytes::<32>());
        bytes[32..].copy_from_slice(&self.reference.to_be_bytes::<32>());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Seen, Error> {
        let Some((balance, reference)) = bytes.split_at_checked(32).filter(|_| bytes.len() == 64)
        else {
            return Err(Error::new("a stored value is not 64 bytes"));
        };
        Ok(Seen {
            balance: U256::from_be_slice(balance),
            reference: U256::from_be_slice(reference),
        })
    }
}

#[cfg(test)]
mod tests {
    use shepherd_sdk::testing::{MemoryHost, block};

    use super::*;

    const ALICE: Address = Address::repeat_byte(0xa);
    const BOB: Address = Address::repeat_byte(0xb);

    fn tracker(threshold: u64) -> BalanceTracker {
        let threshold_wei = U256::from(threshold);
        BalanceTracker::configure(Config { addresses: vec![ALICE, BOB], threshold_wei }).unwrap()
    }

    /// Runs one block after another with these balances of Alice, and says after which she is
    /// warned about.
    fn warned(threshold: u64, balances: &[u64]) -> Vec<usize> {
        let mut host = MemoryHost::default();
        host.answer(Request::Balance(BOB), Answer::Balance(U256::ZERO));
        let mut warned = Vec::new();
        for (position, balance) in balances.iter().enumerate() {
            host.answer(Request::Balance(ALICE), Answer::Balance(U256::from(*balance)));
            host.lines.clear();
            tracker(threshold).handle(&mut host, &block(position as u64, vec![])).unwrap();
            if !host.lines.is_empty() {
                assert_eq!(host.lines_at(Level::Warn).len(), 1);
                assert!(host.lines[0].1.starts_with(&ALICE.to_string()), "{:?}", host.lines);
                warned.push(position);
            }
            let seen = Seen::decode(&host.state[ALICE.as_slice()]).unwrap();
            assert_eq!(seen.balance, U256::from(*balance));
        }
        warned
    }

    #[test]
    fn the_first_sight_of_an_address_is_no_change() {
        assert_eq!(warned(1, &[1_000_000]), [0; 0]);
    }

    #[test]
    fn a_change_up_or_down_by_the_threshold_warns_once() {
        assert_eq!(warned(10, &[100, 109, 110, 110, 101, 100]), [2, 5]);
        assert_eq!(warned(10, &[100, 91, 90, 90]), [2]);
        assert_eq!(warned(10, &[100, 0]), [1]);
    }

    #[test]
    fn a_slow_drain_is_noticed_when_it_adds_up() {
        assert_eq!(warned(10, &[100, 97, 94, 91, 88, 85]), [4]);
    }

    #[test]
    fn all_addresses_are_read_in_one_batch_and_unchanged_ones_are_not_written_again() {
        let mut host = MemoryHost::default();
        host.answer(Request::Balance(ALICE), Answer::Balance(U256::from(1)));
        host.answer(Request::Balance(BOB), Answer::Balance(U256::from(2)));
        tracker(1).handle(&mut host, &block(1, vec![])).unwrap();
        assert_eq!(host.reads, [[Request::Balance(ALICE), Request::Balance(BOB)]]);
        assert_eq!(host.state.len(), 2);
        assert!(host.lines.is_empty());
    }

    #[test]
    fn a_configuration_that_watches_nothing_or_warns_always_is_refused() {
        let refusal = |addresses: Vec<Address>, threshold: u64| {
            let threshold_wei = U256::from(threshold);
            BalanceTracker::configure(Config { addresses, threshold_wei }).unwrap_err().to_string()
        };
        assert!(refusal(vec![], 1).contains("`addresses`"));
        assert!(refusal(vec![ALICE], 0).contains("`threshold_wei`"));
    }

    #[test]
    fn a_stored_value_of_another_length_is_an_error() {
        assert!(Seen::decode(&[0; 64]).is_ok());
        assert!(Seen::decode(&[0; 63]).is_err());
        assert!(Seen::decode(&[0; 65]).is_err());
    }
}
