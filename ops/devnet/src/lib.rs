//! A local chain for the demo, the tests and the benchmarks.
//!
//! A real node ([`Anvil`]), driven over the loopback interface: mined, reorganised, frozen,
//! stopped and started again with the chain it had. On it a [`Token`], which makes as many
//! Transfer logs as it is asked for, and a [`Load`], which fills blocks with them; or CoW
//! Protocol ([`cow`]), with its contracts, owners and orders.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use shepherd_devnet::{Anvil, Load, Options, Plan};
//!
//! let anvil = Anvil::start(Options::default()).await?;
//! let load = Load::start(&anvil, Plan { logs_per_block: 200, ..Plan::default() }).await?;
//! let made = load.blocks(&anvil, 10).await?;
//! assert_eq!(made.logs, 2000);
//!
//! anvil.reorg(3).await?;
//! let anvil = anvil.stop().await?.start().await?;
//! assert_eq!(anvil.block_number().await?, *made.blocks.end());
//! # Ok(())
//! # }
//! ```

mod anvil;
mod contracts;
pub mod cow;
mod load;
mod process;
mod rpc;
mod token;

pub use anvil::{
    Answer, Anvil, BlockId, Mining, Options, Snapshot, Stopped, Transaction, find_anvil,
};
pub use load::{Load, Made, Plan};
pub use process::{Pipes, Process, Signal};
pub use rpc::{Refused, Rpc};
pub use token::{Churn, Token};
