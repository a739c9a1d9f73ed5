//! A local chain for the demo, the tests and the benchmarks.
//!
//! A real node ([`Anvil`]), driven over the loopback interface: mined, reorganised, frozen,
//! stopped and started again with the chain it had.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use shepherd_devnet::{Anvil, Options};
//!
//! let anvil = Anvil::start(Options::default()).await?;
//! anvil.mine(10).await?;
//! anvil.reorg(3).await?;
//! let anvil = anvil.stop().await?.start().await?;
//! assert_eq!(anvil.block_number().await?, 10);
//! # Ok(())
//! # }
//! ```

mod anvil;
mod process;
mod rpc;

pub use anvil::{Anvil, BlockId, Mining, Options, Snapshot, Stopped, Transaction, find_anvil};
pub use process::{Pipes, Process, Signal};
pub use rpc::Rpc;
