//! Where the contracts are: the same on mainnet, Gnosis, Sepolia, Arbitrum and Base.
//!
//! They were deployed with CREATE2, so a chain that gets them later gets them here too. The
//! staging deployment of EthFlow is not among them: public sources disagree about it, so a module
//! that wants it takes it from its configuration.

use alloy_primitives::{Address, address};

/// `GPv2Settlement`: executes orders, and verifies their signatures.
pub const SETTLEMENT: Address = address!("0x9008D19f58AAbD9eD0D60971565AA8510560ab41");

/// `GPv2VaultRelayer`: what owners give their allowance to.
pub const VAULT_RELAYER: Address = address!("0xC92E8bdf79f0507f65a392b0ab4667716BFE0110");

/// `ComposableCoW`: registers conditional orders.
pub const COMPOSABLE_COW: Address = address!("0xfdaFc9d1902f4e0b84f65F49f244b32b31013b74");

/// The handler of TWAP orders.
pub const TWAP: Address = address!("0x6cF1e9cA41f7611dEf408122793c358a3d11E5a5");

/// The handler of stop-loss orders.
pub const STOP_LOSS: Address = address!("0x412c36e5011cd2517016d243a2dfb37f73a242e7");

/// The handler of orders that are good after a time.
pub const GOOD_AFTER_TIME: Address = address!("0xdaf33924925e03c9cc3a10d434016d6cfad0add5");

/// The handler of orders that trade a balance above a threshold.
pub const TRADE_ABOVE_THRESHOLD: Address = address!("0x812308712a6d1367f437e1c1e4af85c854e1e9f6");

/// The handler of perpetual swaps between stable coins.
pub const PERPETUAL_STABLE_SWAP: Address = address!("0x519BA24e959E33b3B6220CA98bd353d8c2D89920");

/// `CurrentBlockTimestampFactory`: puts the creation time of an order into the cabinet.
pub const CURRENT_BLOCK_TIMESTAMP_FACTORY: Address =
    address!("0x52eD56Da04309Aca4c3FECC595298d80C2f16BAc");

/// `ExtensibleFallbackHandler`: signs conditional orders for a Safe.
pub const EXTENSIBLE_FALLBACK_HANDLER: Address =
    address!("0x2f55e8b20D0B9FEFA187AA7d00B6Cbe563605bF5");

/// `CoWSwapEthFlow`, production.
pub const ETHFLOW: Address = address!("0xbA3cB449bD2B4ADddBc894D8697F5170800EAdeC");

/// `Multicall3`, which everyone uses.
pub const MULTICALL3: Address = address!("0xcA11bde05977b3631167028862bE2a173976CA11");
