//! What a module is written with: a pure function over a host.
//!
//! ```
//! use shepherd_sdk::{Error, Host, Input, Module};
//!
//! /// Counts the logs it is given.
//! pub struct LogCounter;
//!
//! impl Module for LogCounter {
//!     type Config = shepherd_sdk::NoConfig;
//!
//!     fn configure(_: Self::Config) -> Result<LogCounter, Error> {
//!         Ok(LogCounter)
//!     }
//!
//!     fn handle(&self, host: &mut impl Host, input: &Input) -> Result<(), Error> {
//!         let Input::Block(block) = input else { return Ok(()) };
//!         let count = match host.get(b"count") {
//!             Some(bytes) => u64::from_be_bytes(
//!                 bytes.try_into().map_err(|_| Error::new("the count is not eight bytes"))?,
//!             ),
//!             None => 0,
//!         };
//!         host.set(b"count", &(count + block.logs.len() as u64).to_be_bytes());
//!         Ok(())
//!     }
//! }
//!
//! shepherd_sdk::export!(LogCounter);
//!
//! // The same function runs natively, on a host in memory.
//! let mut host = shepherd_sdk::testing::MemoryHost::default();
//! let block = shepherd_sdk::testing::block(7, vec![shepherd_sdk::testing::log(0xaa)]);
//! LogCounter.handle(&mut host, &block)?;
//! assert_eq!(host.state[b"count".as_slice()], 1u64.to_be_bytes());
//! # Ok::<(), Error>(())
//! ```
//!
//! Every record runs in a fresh instance: whatever has to last goes into the state.
//!
//! What a module wants done outside it asks the [`Host`] for: [`Host::place_order`],
//! [`Host::webhook`]. What came of it arrives as an input of its own ([`effect`]).
//!
//! What many modules need is here, as functions of their arguments; a module that does not use
//! them is not larger for it:
//!
//! - [`abi`]: calls, and events out of logs; [`cow`]: CoW Protocol;
//! - [`due`]: what is due when, so that a block touches nothing else ([`When`], [`Moment`]);
//! - [`chainlink`], [`Decimal`], [`crossing`]: prices, thresholds, and one alert per crossing.

pub mod abi;
pub mod chainlink;
pub mod config;
pub mod cow;
pub mod crossing;
pub mod decimal;
pub mod due;
pub mod effect;
mod error;
#[cfg(target_arch = "wasm32")]
pub mod guest;
mod host;
mod input;
#[cfg(target_arch = "wasm32")]
mod memory;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod when;

pub use alloy_primitives::{self, Address, B256, Bytes, I256, U256, address, b256};
pub use alloy_sol_types;
pub use config::NoConfig;
pub use decimal::Decimal;
pub use effect::{Deliver, EffectKey, EffectResult, Outcome, Refusal, Webhook};
pub use error::Error;
pub use host::{Answer, Host, Level, OrderbookAnswer, OrderbookRequest, Page, Request, Response};
pub use input::{Block, Header, Input, Log, OutcomeInput, RevertInput, Topics, Triggers};
pub use serde_json;
pub use when::{Moment, When};

use serde::de::DeserializeOwned;

/// A module.
pub trait Module: Sized + Send + Sync + 'static {
    /// Its configuration: `[config]` of the manifest. Derive `Deserialize` with
    /// `#[serde(deny_unknown_fields)]`, so that a misspelt key is refused.
    type Config: DeserializeOwned;

    /// Makes the module, or refuses the configuration and says what to write instead.
    ///
    /// It runs on every fresh instance and must depend on the configuration alone.
    fn configure(config: Self::Config) -> Result<Self, Error>;

    /// Handles one input. An error halts the lane at this record: return one only when going
    /// on would be wrong.
    ///
    /// The host is a type parameter and not a trait object, so that a module imports what it
    /// calls and nothing else.
    fn handle(&self, host: &mut impl Host, input: &Input) -> Result<(), Error>;
}

/// Makes a type the component's module.
///
/// Call it once per crate. Natively it only checks that the type is a [`Module`].
#[macro_export]
macro_rules! export {
    ($module:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            static MODULE: std::sync::OnceLock<$module> = std::sync::OnceLock::new();

            struct Exports;

            impl $crate::guest::bindings::Guest for Exports {
                fn configure(config: String) -> Result<(), String> {
                    $crate::guest::configure(&MODULE, &config)
                }

                fn handle(input: $crate::guest::bindings::Input) -> Result<(), String> {
                    $crate::guest::handle(&MODULE, input)
                }
            }

    $crate::guest::bindings::export!(Exports with_types_in $crate::guest::bindings);
        };

        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = || {
            fn is_a_module<M: $crate::Module>() {}
            is_a_module::<$module>();
        };
    };
}
