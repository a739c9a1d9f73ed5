//! Counts the transfers of tokens, and says so now and then.
//!
//! ```text
//! key               value
//! token (20 bytes)  how many transfers it has had (8 bytes, big-endian)
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;
use shepherd_sdk::{
    Address, Error, Host, Input, Level, Module,
    abi::{Erc20::Transfer, Event, event},
};

/// `[config]` of module.toml. A key that is not here is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A line for every so many transfers of a token.
    pub tell_every: u64,
}

/// The module.
#[derive(Debug)]
pub struct TransferCounter {
    config: Config,
}

impl Module for TransferCounter {
    type Config = Config;

    fn configure(config: Config) -> Result<TransferCounter, Error> {
        if config.tell_every == 0 {
            return Err(Error::new("`tell_every` is 0: write 1 to be told of every transfer"));
        }
        Ok(TransferCounter { config })
    }

    /// Called once for each block with a log that module.toml subscribes to. Each call starts
    /// afresh: what has to last goes into the state.
    fn handle(&self, host: &mut impl Host, input: &Input) -> Result<(), Error> {
        // The other inputs tell what came of orders and webhooks, and nothing here asks for any.
        let Input::Block(block) = input else {
            return Ok(());
        };
        let mut transfers = BTreeMap::<Address, u64>::new();
        for log in &block.logs {
            // Anyone can emit a log that looks like a transfer and is none: it is passed over.
            if let Event::Is(Transfer { .. }) = event(log) {
                *transfers.entry(log.address).or_default() += 1;
            }
        }
        for (token, new) in transfers {
            let before = count(host, token)?;
            let after = before + new;
            host.set(token.as_slice(), &after.to_be_bytes());
            if before / self.config.tell_every < after / self.config.tell_every {
                host.log(Level::Info, &format!("{token}: {after} transfers"));
            }
        }
        Ok(())
    }
}

shepherd_sdk::export!(TransferCounter);

/// How many transfers of a token have been counted.
fn count(host: &mut impl Host, token: Address) -> Result<u64, Error> {
    let Some(bytes) = host.get(token.as_slice()) else {
        return Ok(0);
    };
    let bytes = bytes.try_into();
    let bytes = bytes.map_err(|_| Error::new("a stored count is not eight bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use shepherd_sdk::{
        Log, U256,
        alloy_sol_types::SolEvent,
        testing::{MemoryHost, block, log},
    };

    use super::*;

    const TOKEN: u8 = 0x70;
    const OTHER: u8 = 0x71;

    fn counter(tell_every: u64) -> TransferCounter {
        TransferCounter::configure(Config { tell_every }).unwrap()
    }

    fn transfer(token: u8, value: u64) -> Log {
        let event = Transfer {
            from: Address::repeat_byte(0xa),
            to: Address::repeat_byte(0xb),
            value: U256::from(value),
        };
        Log {
            topics: event.encode_log_data().topics().try_into().unwrap(),
            data: event.encode_data(),
            ..log(token)
        }
    }

    /// The host after these blocks.
    fn after(counter: &TransferCounter, blocks: Vec<Vec<Log>>) -> MemoryHost {
        let mut host = MemoryHost::default();
        for (logs, number) in blocks.into_iter().zip(1..) {
            counter.handle(&mut host, &block(number, logs)).unwrap();
        }
        host
    }

    fn counted(host: &mut MemoryHost, token: u8) -> u64 {
        count(host, Address::repeat_byte(token)).unwrap()
    }

    #[test]
    fn each_token_has_a_count_of_its_own_that_lasts() {
        let first = vec![transfer(TOKEN, 1), transfer(OTHER, 1), transfer(TOKEN, 2)];
        let mut host = after(&counter(100), vec![first, vec![transfer(TOKEN, 3)]]);
        assert_eq!(counted(&mut host, TOKEN), 3);
        assert_eq!(counted(&mut host, OTHER), 1);
        assert!(host.lines_at(Level::Info).is_empty());
    }

    #[test]
    fn a_line_tells_when_a_multiple_is_reached_or_passed() {
        let two = || vec![transfer(TOKEN, 1), transfer(TOKEN, 1)];
        let host = after(&counter(3), vec![two(), two(), two(), vec![transfer(TOKEN, 1)]]);
        let token = Address::repeat_byte(TOKEN);
        let expected = [format!("{token}: 4 transfers"), format!("{token}: 6 transfers")];
        assert_eq!(host.lines_at(Level::Info), expected);
    }

    #[test]
    fn what_only_looks_like_a_transfer_is_passed_over() {
        let cut = Log { data: vec![0; 31], ..transfer(TOKEN, 1) };
        assert!(after(&counter(1), vec![vec![cut, log(TOKEN)]]).state.is_empty());
    }

    #[test]
    fn a_configuration_that_would_never_tell_is_refused() {
        let error = TransferCounter::configure(Config { tell_every: 0 }).unwrap_err();
        assert!(error.to_string().contains("`tell_every` is 0"), "{error}");
    }
}
