//! An order of GPv2, its digest, and its UID.
//!
//! ```text
//! digest = keccak(0x1901 ‖ domain separator ‖ keccak(type hash ‖ twelve words))     EIP-712
//! UID    = digest (32) ‖ owner (20) ‖ validTo (4)
//! ```
//!
//! The UID is what everything is about: the orderbook knows an order by it, the settlement counts
//! fills by it, and an effect that places an order is identified by it.

use alloy_primitives::{Address, B256, U256, b256, keccak256};
use alloy_sol_types::SolValue;

use super::{abi::OrderData, addresses::SETTLEMENT, uid::Uid};

/// Hash of the EIP-712 type of an order: `GPv2Order.TYPE_HASH`.
pub const TYPE_HASH: B256 =
    b256!("0xd5a25ba2e97094ad7d83dc28a6572da797d6b3e7fc6663bd93efb789fc17e489");

/// `keccak256("erc20")`. These words are written down because hashing them would be half the work
/// of reading an order.
const ERC20: B256 = b256!("0x5a28e9363bb942b639270062aa6bb295f434bcdfc42c97267bf003f272060dc9");

/// `keccak256("external")`.
const EXTERNAL: B256 = b256!("0xabee3b73373acd583a130924aad6dc38cfdc44ba0555ba94ce2ff63980ea0632");

/// `keccak256("internal")`.
const INTERNAL: B256 = b256!("0x4ac99ace14ee0a5ef932dc609df0943ab7ac16b7583634612f8dc35a4289a6ce");

/// An order of GPv2.
///
/// ```
/// use shepherd_sdk::{
///     U256, address,
///     cow::{
///         app_data,
///         order::{BuyTokenDestination, Domain, Kind, Order, SellTokenSource},
///     },
/// };
///
/// let owner = address!("0x7bF140727D27ea64b607E042f1225680B40ECa6A");
/// let order = Order {
///     sell_token: address!("0xfFf9976782d46CC05630D1f6eBAb18b2324d6B14"),
///     buy_token: address!("0x0625aFB445C3B6B7B929342a04A22599fd5dBB59"),
///     receiver: owner,
///     sell_amount: U256::from(5_000_000_000_000_000u64),
///     buy_amount: U256::from(20_000_000_000_000_000_000u128),
///     valid_to: u32::MAX,
///     app_data: app_data::EMPTY_HASH,
///     fee_amount: U256::ZERO,
///     kind: Kind::Sell,
///     partially_fillable: false,
///     sell_token_source: SellTokenSource::Erc20,
///     buy_token_destination: BuyTokenDestination::Erc20,
/// };
/// let uid = order.uid(Domain::of_chain(11_155_111), owner);
/// assert_eq!(
///     uid.to_string(),
///     "0xc2b9cb4ea1ee5a86d8049ac09d8f494bf04cca0a68407285f31e2e6379800be8\
///      7bf140727d27ea64b607e042f1225680b40eca6affffffff",
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What the owner gives.
    pub sell_token: Address,
    /// What the owner gets.
    pub buy_token: Address,
    /// Who gets it. Zero means the owner, and is signed as zero.
    pub receiver: Address,
    /// How much is sold: exactly for [`Kind::Sell`], at most for [`Kind::Buy`].
    pub sell_amount: U256,
    /// How much is bought: at least for [`Kind::Sell`], exactly for [`Kind::Buy`].
    pub buy_amount: U256,
    /// The last second at which the order can be executed.
    pub valid_to: u32,
    /// Hash of the app-data document.
    pub app_data: B256,
    /// A signed fee. The orderbook takes orders without one only.
    pub fee_amount: U256,
    /// Which amount is exact.
    pub kind: Kind,
    /// Whether it may be executed bit by bit.
    pub partially_fillable: bool,
    /// Where the sell token comes from.
    pub sell_token_source: SellTokenSource,
    /// Where the buy token goes.
    pub buy_token_destination: BuyTokenDestination,
}

/// Which amount of an order is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sells exactly the sell amount.
    Sell,
    /// Buys exactly the buy amount.
    Buy,
}

/// Where the sell token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SellTokenSource {
    /// The owner's balance, with an allowance for the vault relayer.
    Erc20,
    /// The owner's balance, with an allowance for the Balancer vault.
    External,
    /// The owner's balance inside the Balancer vault.
    Internal,
}

/// Where the buy token goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuyTokenDestination {
    /// The receiver's balance.
    Erc20,
    /// The receiver's balance inside the Balancer vault.
    Internal,
}

/// Where a signature counts: the EIP-712 domain of one chain's settlement contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain(B256);

/// Why an order is never posted, whatever the orderbook would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Pointless {
    /// An amount is zero.
    #[error("an amount is zero")]
    ZeroAmount,
    /// A token is the zero address.
    #[error("a token is the zero address")]
    ZeroToken,
    /// It sells what it buys.
    #[error("it sells the token it buys")]
    SameToken,
}

/// A word of an order that stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownMarker {
    /// Neither sell nor buy.
    #[error("{0} is no kind of order")]
    Kind(B256),
    /// No place for the sell token to come from.
    #[error("{0} is no source of the sell token")]
    SellTokenSource(B256),
    /// No place for the buy token to go to.
    #[error("{0} is no destination of the buy token")]
    BuyTokenDestination(B256),
}

impl Order {
    /// What the owner signs.
    pub fn digest(&self, domain: Domain) -> B256 {
        let mut words = TYPE_HASH.to_vec();
        words.extend(OrderData::from(*self).abi_encode());
        keccak256([&[0x19, 0x01], domain.separator().as_slice(), &keccak256(words)[..]].concat())
    }

    /// How the order is known everywhere.
    pub fn uid(&self, domain: Domain, owner: Address) -> Uid {
        Uid { digest: self.digest(domain), owner, valid_to: self.valid_to }
    }

    /// Whether there is any point in posting it.
    ///
    /// A handler answers such an order when it has nothing better to say: it is no mistake that
    /// the orderbook should tell us about.
    pub fn worth_posting(&self) -> Result<(), Pointless> {
        if self.sell_amount.is_zero() || self.buy_amount.is_zero() {
            return Err(Pointless::ZeroAmount);
        }
        if self.sell_token.is_zero() || self.buy_token.is_zero() {
            return Err(Pointless::ZeroToken);
        }
        if self.sell_token == self.buy_token {
            return Err(Pointless::SameToken);
        }
        Ok(())
    }
}

impl Domain {
    /// The domain of a chain.
    pub fn of_chain(chain_id: u64) -> Domain {
        let domain = (
            keccak256(
                "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)",
            ),
            keccak256("Gnosis Protocol"),
            keccak256("v2"),
            U256::from(chain_id),
            SETTLEMENT,
        );
        Domain(keccak256(domain.abi_encode()))
    }

    /// The domain separator.
    pub fn separator(self) -> B256 {
        self.0
    }
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Sell, Kind::Buy];

    /// Its name at the orderbook.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sell => "sell",
            Kind::Buy => "buy",
        }
    }

    /// The word that stands for it in the contracts: the hash of its name.
    pub fn marker(self) -> B256 {
        match self {
            Kind::Sell => {
                b256!("0xf3b277728b3fee749481eb3e0b3b48980dbbab78658fc419025cb16eee346775")
            }
            Kind::Buy => {
                b256!("0x6ed88e868af0a1983e3886d5f3e95a2fafbd6c3450bc229e27342283dc429ccc")
            }
        }
    }
}

impl SellTokenSource {
    const ALL: [SellTokenSource; 3] =
        [SellTokenSource::Erc20, SellTokenSource::External, SellTokenSource::Internal];

    /// Its name at the orderbook.
    pub fn name(self) -> &'static str {
        match self {
            SellTokenSource::Erc20 => "erc20",
            SellTokenSource::External => "external",
            SellTokenSource::Internal => "internal",
        }
    }

    /// The word that stands for it in the contracts: the hash of its name.
    pub fn marker(self) -> B256 {
        match self {
            SellTokenSource::Erc20 => ERC20,
            SellTokenSource::External => EXTERNAL,
            SellTokenSource::Internal => INTERNAL,
        }
    }
}

impl BuyTokenDestination {
    const ALL: [BuyTokenDestination; 2] =
        [BuyTokenDestination::Erc20, BuyTokenDestination::Internal];

    /// Its name at the orderbook.
    pub fn name(self) -> &'static str {
        match self {
            BuyTokenDestination::Erc20 => "erc20",
            BuyTokenDestination::Internal => "internal",
        }
    }

    /// The word that stands for it in the contracts: the hash of its name.
    pub fn marker(self) -> B256 {
        match self {
            BuyTokenDestination::Erc20 => ERC20,
            BuyTokenDestination::Internal => INTERNAL,
        }
    }
}

impl From<Order> for OrderData {
    fn from(order: Order) -> OrderData {
        OrderData {
            sellToken: order.sell_token,
            buyToken: order.buy_token,
            receiver: order.receiver,
            sellAmount: order.sell_amount,
            buyAmount: order.buy_amount,
            validTo: order.valid_to,
            appData: order.app_data,
            feeAmount: order.fee_amount,
            kind: order.kind.marker(),
            partiallyFillable: order.partially_fillable,
            sellTokenBalance: order.sell_token_source.marker(),
            buyTokenBalance: order.buy_token_destination.marker(),
        }
    }
}

impl TryFrom<&OrderData> for Order {
    type Error = UnknownMarker;

    /// Reads what a contract answered. Handlers are anyone's code: what they put into the words
    /// that stand for something is checked here, once.
    fn try_from(data: &OrderData) -> Result<Order, UnknownMarker> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.marker() == data.kind);
        let source = SellTokenSource::ALL
            .into_iter()
            .find(|source| source.marker() == data.sellTokenBalance);
        let destination = BuyTokenDestination::ALL
            .into_iter()
            .find(|destination| destination.marker() == data.buyTokenBalance);
        Ok(Order {
            sell_token: data.sellToken,
            buy_token: data.buyToken,
            receiver: data.receiver,
            sell_amount: data.sellAmount,
            buy_amount: data.buyAmount,
            valid_to: data.validTo,
            app_data: data.appData,
            fee_amount: data.feeAmount,
            kind: kind.ok_or(UnknownMarker::Kind(data.kind))?,
            partially_fillable: data.partiallyFillable,
            sell_token_source: source
                .ok_or(UnknownMarker::SellTokenSource(data.sellTokenBalance))?,
            buy_token_destination: destination
                .ok_or(UnknownMarker::BuyTokenDestination(data.buyTokenBalance))?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use alloy_primitives::address;

    use super::*;
    use crate::cow::app_data;

    const OWNER: Address = address!("0x7bF140727D27ea64b607E042f1225680B40ECa6A");

    /// The order of the golden vector: placed on Sepolia, where the orderbook knows it.
    pub(crate) fn golden() -> Order {
        Order {
            sell_token: address!("0xfFf9976782d46CC05630D1f6eBAb18b2324d6B14"),
            buy_token: address!("0x0625aFB445C3B6B7B929342a04A22599fd5dBB59"),
            receiver: OWNER,
            sell_amount: U256::from(5_000_000_000_000_000u64),
            buy_amount: U256::from(20_000_000_000_000_000_000u128),
            valid_to: u32::MAX,
            app_data: app_data::EMPTY_HASH,
            fee_amount: U256::ZERO,
            kind: Kind::Sell,
            partially_fillable: false,
            sell_token_source: SellTokenSource::Erc20,
            buy_token_destination: BuyTokenDestination::Erc20,
        }
    }

    #[test]
    fn the_type_hash_is_the_hash_of_the_type() {
        // To a signer kind and balances are strings; their hashes are what is encoded.
        let order_type = "Order(address sellToken,address buyToken,address receiver,\
            uint256 sellAmount,uint256 buyAmount,uint32 validTo,bytes32 appData,\
            uint256 feeAmount,string kind,bool partiallyFillable,string sellTokenBalance,\
            string buyTokenBalance)";
        assert_eq!(keccak256(order_type), TYPE_HASH);
    }

    #[test]
    #[rustfmt::skip]
    fn the_domain_of_a_chain_is_what_its_settlement_contract_answers() {
        let check = |chain_id: u64, separator: &str| {
            assert_eq!(Domain::of_chain(chain_id).separator().to_string(), separator, "{chain_id}");
        };
        check(1, "0xc078f884a2676e1345748b1feace7b0abee5d00ecadb6e574dcdd109a63e8943");
        check(100, "0x8f05589c4b810bc2f706854508d66d447cd971f8354a4bb0b3471ceb0a466bc7");
        check(11_155_111, "0xdaee378bd0eb30ddf479272accf91761e697bc00e067a268f95f1d2732ed230b");
        check(42_161, "0x69d78e7a7cafcaf924483f99f65e8f4e303a99a446db7ab319f9d40e940bced2");
        check(8_453, "0xd72ffa789b6fae41254d0b5a13e6e1e92ed947ec6a251edf1cf0b6c02c257b4b");
    }

    #[test]
    fn markers_are_the_hashes_of_the_names() {
        for kind in Kind::ALL {
            assert_eq!(kind.marker(), keccak256(kind.name()));
        }
        for source in SellTokenSource::ALL {
            assert_eq!(source.marker(), keccak256(source.name()));
        }
        for destination in BuyTokenDestination::ALL {
            assert_eq!(destination.marker(), keccak256(destination.name()));
        }
    }

    #[test]
    fn the_golden_order_has_the_uid_the_orderbook_gave_it() {
        let uid = golden().uid(Domain::of_chain(11_155_111), OWNER);
        assert_eq!(
            uid.to_string(),
            "0xc2b9cb4ea1ee5a86d8049ac09d8f494bf04cca0a68407285f31e2e6379800be8\
             7bf140727d27ea64b607e042f1225680b40eca6affffffff"
        );
    }

    #[test]
    fn every_field_takes_part_in_the_digest() {
        let domain = Domain::of_chain(1);
        let other = Address::repeat_byte(9);
        let two = U256::from(2);
        let changed = [
            Order { sell_token: other, ..golden() },
            Order { buy_token: other, ..golden() },
            Order { receiver: Address::ZERO, ..golden() },
            Order { sell_amount: two, ..golden() },
            Order { buy_amount: two, ..golden() },
            Order { valid_to: 2, ..golden() },
            Order { app_data: B256::ZERO, ..golden() },
            Order { fee_amount: two, ..golden() },
            Order { kind: Kind::Buy, ..golden() },
            Order { partially_fillable: true, ..golden() },
            Order { sell_token_source: SellTokenSource::External, ..golden() },
            Order { buy_token_destination: BuyTokenDestination::Internal, ..golden() },
        ];
        let mut digests: Vec<B256> = changed.iter().map(|order| order.digest(domain)).collect();
        digests.push(golden().digest(domain));
        digests.push(golden().digest(Domain::of_chain(2)));
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), changed.len() + 2);
    }

    #[test]
    fn an_order_survives_the_contracts_form_and_a_word_that_stands_for_nothing_does_not() {
        let order = Order {
            kind: Kind::Buy,
            sell_token_source: SellTokenSource::Internal,
            buy_token_destination: BuyTokenDestination::Internal,
            ..golden()
        };
        let data = OrderData::from(order);
        assert_eq!(data.abi_encode().len(), 384);
        assert_eq!(Order::try_from(&data), Ok(order));

        let odd = B256::repeat_byte(1);
        let check = |data: OrderData, error| assert_eq!(Order::try_from(&data), Err(error));
        check(OrderData { kind: odd, ..data.clone() }, UnknownMarker::Kind(odd));
        check(
            OrderData { sellTokenBalance: odd, ..data.clone() },
            UnknownMarker::SellTokenSource(odd),
        );
        // The vault takes tokens from an external balance but gives them to none.
        let external = SellTokenSource::External.marker();
        check(
            OrderData { buyTokenBalance: external, ..data },
            UnknownMarker::BuyTokenDestination(external),
        );
    }

    #[test]
    fn orders_about_nothing_are_not_posted() {
        let check = |order: Order, expected| assert_eq!(order.worth_posting(), expected);
        check(golden(), Ok(()));
        check(Order { sell_amount: U256::ZERO, ..golden() }, Err(Pointless::ZeroAmount));
        check(Order { buy_amount: U256::ZERO, ..golden() }, Err(Pointless::ZeroAmount));
        check(Order { sell_token: Address::ZERO, ..golden() }, Err(Pointless::ZeroToken));
        check(Order { buy_token: Address::ZERO, ..golden() }, Err(Pointless::ZeroToken));
        check(Order { buy_token: golden().sell_token, ..golden() }, Err(Pointless::SameToken));
    }
}
