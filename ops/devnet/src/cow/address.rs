//! Where the contracts are: the same on each chain of CoW Protocol, and on the devnet.

use alloy_primitives::{Address, address};

/// Sepolia, whose name and contracts the devnet has.
pub const CHAIN_ID: u64 = 11_155_111;

/// Keeps and checks conditional orders.
pub const COMPOSABLE_COW: Address = address!("fdaFc9d1902f4e0b84f65F49f244b32b31013b74");
/// Makes the parts of a TWAP.
pub const TWAP: Address = address!("6cF1e9cA41f7611dEf408122793c358a3d11E5a5");
/// Makes an order once a price is low enough.
pub const STOP_LOSS: Address = address!("412c36e5011cd2517016d243a2dfb37f73a242e7");
/// Makes an order from a time on.
pub const GOOD_AFTER_TIME: Address = address!("daf33924925e03c9cc3a10d434016d6cfad0add5");
/// Makes an order of a balance that is large enough.
pub const TRADE_ABOVE_THRESHOLD: Address = address!("812308712a6d1367f437e1c1e4af85c854e1e9f6");
/// Remembers when an order was created.
pub const TIMESTAMP_FACTORY: Address = address!("52eD56Da04309Aca4c3FECC595298d80C2f16BAc");
/// Answers for a Safe.
pub const FALLBACK_HANDLER: Address = address!("2f55e8b20D0B9FEFA187AA7d00B6Cbe563605bF5");
/// Settles orders, and is what they are signed for.
pub const SETTLEMENT: Address = address!("9008D19f58AAbD9eD0D60971565AA8510560ab41");
/// Takes what is sold; owners approve it.
pub const VAULT_RELAYER: Address = address!("C92E8bdf79f0507f65a392b0ab4667716BFE0110");
/// Sells ether.
pub const ETH_FLOW: Address = address!("bA3cB449bD2B4ADddBc894D8697F5170800EAdeC");
/// Many reads in one.
pub const MULTICALL: Address = address!("cA11bde05977b3631167028862bE2a173976CA11");
/// Wrapped ether on Sepolia.
pub const WETH: Address = address!("fFf9976782d46CC05630D1f6eBAb18b2324d6B14");
/// The COW token on Sepolia; here a token that anyone may mint.
pub const COW_TOKEN: Address = address!("0625aFB445C3B6B7B929342a04A22599fd5dBB59");
/// Chainlink's price of ether in dollars on Sepolia; here one that anyone may move.
pub const ETH_USD_FEED: Address = address!("694AA1769357215DE4FAC081bf1f309aDC325306");

/// Who may name solvers, and the code behind it.
pub const AUTHENTICATION: Address = address!("2c4c28DDBdAc9C5E7055b4C863b72eA0149D8aFE");
pub(super) const AUTHENTICATION_CODE: Address =
    address!("9E7Ae8Bdba9AA346739792d219a808884996Db67");
/// The code of every Safe, version 1.4.1.
pub const SAFE_SINGLETON: Address = address!("41675C099F32341bf84BFc5382aF534df5C7461a");
/// Makes Safes.
pub const SAFE_FACTORY: Address = address!("4e1DCf7AD4e460CfD30791CCC4F9c8a4f820ec67");

/// Gives any answer a handler can give. Only the devnet has it; the address spells "hint".
pub const HINTS: Address = address!("0000000000000000000000000000000068696e74");
/// A swap guard that lets nothing pass. Only the devnet has it; the address spells "closed".
pub const CLOSED_GUARD: Address = address!("0000000000000000000000000000636c6f736564");
/// Does many calls as one. Only the devnet has it; the address spells "batch".
pub const BATCH: Address = address!("0000000000000000000000000000006261746368");
