//! Places the orders of every conditional order of ComposableCoW, TWAP and all others.
//!
//! ```text
//! logs ──▶ index ──▶ book ◀──▶ poll ──▶ orders placed
//!                      ▲                     │
//!                      └────── outcome ◀─────┘
//! ```
//!
//! - [`order`]: a conditional order, and where it stands at a time by itself;
//! - [`book`]: what is remembered;
//! - [`index`]: from logs to watches;
//! - [`poll`]: what is due: ask the contracts, place what they answer;
//! - [`outcome`]: what came of it;
//! - [`room`]: how much of all that fits into a block.

use shepherd_sdk::{Error, Host, Input, Module, Moment};

pub mod book;
pub mod config;
pub mod index;
pub mod order;
pub mod outcome;
pub mod poll;
pub mod room;

pub use config::Config;

/// The module.
#[derive(Debug)]
pub struct TwapMonitor(Config);

impl Module for TwapMonitor {
    type Config = Config;

    fn configure(config: Config) -> Result<TwapMonitor, Error> {
        Ok(TwapMonitor(config.checked()?))
    }

    fn handle(&self, host: &mut impl Host, input: &Input) -> Result<(), Error> {
        let here = Moment::from(input);
        match input {
            Input::Block(block) => {
                let mut room = room::Room::of_a_block();
                index::index(&self.0, host, block, &mut room)?;
                poll::poll(&self.0, host, here, &mut room)
            }
            Input::Outcome(told) => outcome::note(&self.0, host, here, &told.outcome),
            Input::Revert(told) => {
                outcome::note_revert(host, told);
                Ok(())
            }
        }
    }
}

shepherd_sdk::export!(TwapMonitor);
