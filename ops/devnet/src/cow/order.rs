//! Orders: the one that the settlement verifies, and the conditions that make one.
//!
//! ```text
//! Twap, StopLoss, … ──with a salt──▶ ConditionalOrder ──when its time has come──▶ Order ──▶ Uid
//!                                    id, create, remove                          digest
//! ```
//!
//! Everything is computed here once more, from the facts and not with the code under test.

use alloy_primitives::{Address, B256, Bytes, I256, U256, b256, keccak256};
use alloy_sol_types::{SolCall, SolValue};

use super::abi;
use super::address::{
    COMPOSABLE_COW, ETH_FLOW, GOOD_AFTER_TIME, HINTS, SETTLEMENT, STOP_LOSS, TIMESTAMP_FACTORY,
    TRADE_ABOVE_THRESHOLD, TWAP, WETH,
};
use super::owner::Call;
use crate::anvil::Transaction;

/// keccak256 of `{}`, the app data that says nothing.
pub const EMPTY_APP_DATA: B256 =
    b256!("b48d38f93eaa084033fc5970bf96e559c33c4cdc07d889ab00b4d63f9590739d");

const SELL: B256 = b256!("f3b277728b3fee749481eb3e0b3b48980dbbab78658fc419025cb16eee346775");
const BUY: B256 = b256!("6ed88e868af0a1983e3886d5f3e95a2fafbd6c3450bc229e27342283dc429ccc");
const ERC20: B256 = b256!("5a28e9363bb942b639270062aa6bb295f434bcdfc42c97267bf003f272060dc9");
const TYPE_HASH: B256 = b256!("d5a25ba2e97094ad7d83dc28a6572da797d6b3e7fc6663bd93efb789fc17e489");

/// Gas of a placement: several times what it needs.
const ETH_FLOW_GAS: u64 = 1_000_000;

/// Digest, owner and end of an order: 56 bytes.
pub type Uid = alloy_primitives::FixedBytes<56>;

/// The order that the settlement verifies: from ERC-20 balance to ERC-20 balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What is sold.
    pub sell_token: Address,
    /// What is bought.
    pub buy_token: Address,
    /// Who gets it; zero is the owner.
    pub receiver: Address,
    /// How much is sold.
    pub sell_amount: U256,
    /// How much is bought.
    pub buy_amount: U256,
    /// Until when, in Unix seconds.
    pub valid_to: u32,
    /// Digest of the app data.
    pub app_data: B256,
    /// Fee, in the sold token.
    pub fee_amount: U256,
    /// Which amount is exact.
    pub kind: Kind,
    /// Whether less than everything may be traded.
    pub partially_fillable: bool,
}

/// Which amount of an order is exact; the other one is a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The sold one.
    Sell,
    /// The bought one.
    Buy,
}

impl Order {
    /// A fill-or-kill order that sells, without a fee and with nothing in its app data.
    pub fn sell(sell: (Address, U256), buy: (Address, U256), receiver: Address) -> Order {
        Order {
            sell_token: sell.0,
            buy_token: buy.0,
            receiver,
            sell_amount: sell.1,
            buy_amount: buy.1,
            valid_to: u32::MAX,
            app_data: EMPTY_APP_DATA,
            fee_amount: U256::ZERO,
            kind: Kind::Sell,
            partially_fillable: false,
        }
    }

    /// What the owner agrees to, in a settlement's domain.
    pub fn digest(&self, domain: B256) -> B256 {
        let fields = keccak256([TYPE_HASH.to_vec(), self.words().abi_encode()].concat());
        keccak256([&[0x19, 0x01], domain.as_slice(), fields.as_slice()].concat())
    }

    /// What the orderbook calls the order.
    pub fn uid(&self, domain: B256, owner: Address) -> Uid {
        let digest = self.digest(domain);
        let parts = [digest.as_slice(), owner.as_slice(), &self.valid_to.to_be_bytes()];
        Uid::from_slice(&parts.concat())
    }

    fn words(&self) -> abi::Order {
        abi::Order {
            sellToken: self.sell_token,
            buyToken: self.buy_token,
            receiver: self.receiver,
            sellAmount: self.sell_amount,
            buyAmount: self.buy_amount,
            validTo: self.valid_to,
            appData: self.app_data,
            feeAmount: self.fee_amount,
            kind: match self.kind {
                Kind::Sell => SELL,
                Kind::Buy => BUY,
            },
            partiallyFillable: self.partially_fillable,
            sellTokenBalance: ERC20,
            buyTokenBalance: ERC20,
        }
    }

    /// Reads a contract's order; none if it is one this type cannot say.
    pub(super) fn read(order: &abi::Order) -> Option<Order> {
        let kind = match order.kind {
            SELL => Kind::Sell,
            BUY => Kind::Buy,
            _ => return None,
        };
        if [order.sellTokenBalance, order.buyTokenBalance] != [ERC20; 2] {
            return None;
        }
        Some(Order {
            sell_token: order.sellToken,
            buy_token: order.buyToken,
            receiver: order.receiver,
            sell_amount: order.sellAmount,
            buy_amount: order.buyAmount,
            valid_to: order.validTo,
            app_data: order.appData,
            fee_amount: order.feeAmount,
            kind,
            partially_fillable: order.partiallyFillable,
        })
    }
}

/// Asks the settlement to count an order as signed by whoever does the call, or no longer.
pub fn set_pre_signature(uid: Uid, signed: bool) -> Call {
    let order_uid = Bytes::copy_from_slice(uid.as_slice());
    let call = abi::Settlement::setPreSignatureCall { orderUid: order_uid, signed };
    Call { to: SETTLEMENT, data: call.abi_encode().into() }
}

/// Lets `guard` forbid the orders of whoever does the call; zero lets all of them pass again.
pub fn set_swap_guard(guard: Address) -> Call {
    composable(&abi::ComposableCow::setSwapGuardCall { swapGuard: guard })
}

/// An order that exists under a condition: what `ComposableCoW` calls its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConditionalOrder {
    /// The contract that knows the condition.
    pub handler: Address,
    /// Tells orders apart that are otherwise the same.
    pub salt: B256,
    /// What the handler is told.
    pub static_input: Bytes,
}

impl ConditionalOrder {
    /// What `ComposableCoW` and its events call the order.
    pub fn id(&self) -> B256 {
        keccak256(self.params().abi_encode())
    }

    /// The call by which an owner creates the order and tells everybody.
    pub fn create(&self) -> Call {
        let call = abi::ComposableCow::createCall { params: self.params(), dispatch: true };
        composable(&call)
    }

    /// The call by which an owner creates the order and tells nobody.
    pub fn create_silently(&self) -> Call {
        let call = abi::ComposableCow::createCall { params: self.params(), dispatch: false };
        composable(&call)
    }

    /// The call by which an owner creates the order with the block's time in the cabinet.
    pub fn create_with_time(&self) -> Call {
        composable(&abi::ComposableCow::createWithContextCall {
            params: self.params(),
            factory: TIMESTAMP_FACTORY,
            data: Bytes::new(),
            dispatch: true,
        })
    }

    /// The call by which an owner takes the order back. It leaves no trace in the logs.
    pub fn remove(&self) -> Call {
        composable(&abi::ComposableCow::removeCall { singleOrderHash: self.id() })
    }

    pub(super) fn params(&self) -> abi::ConditionalOrderParams {
        abi::ConditionalOrderParams {
            handler: self.handler,
            salt: self.salt,
            staticInput: self.static_input.clone(),
        }
    }
}

pub(super) fn composable(call: &impl SolCall) -> Call {
    Call { to: COMPOSABLE_COW, data: call.abi_encode().into() }
}

/// Sells in parts: `n` of them, one every `t` seconds from `t0` on, each within `span` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twap {
    /// What is sold.
    pub sell_token: Address,
    /// What is bought.
    pub buy_token: Address,
    /// Who gets it; zero is the owner.
    pub receiver: Address,
    /// How much each part sells.
    pub part_sell_amount: U256,
    /// How much each part has to buy.
    pub min_part_limit: U256,
    /// When the first part begins, in Unix seconds; 0 is the time in the cabinet.
    pub t0: u64,
    /// Parts.
    pub n: u64,
    /// Seconds from one part to the next.
    pub t: u64,
    /// Seconds in which a part is valid; 0 is until the next one.
    pub span: u64,
    /// Digest of the app data.
    pub app_data: B256,
}

impl Twap {
    /// The order of this schedule.
    pub fn order(&self, salt: B256) -> ConditionalOrder {
        let data = abi::TwapData {
            sellToken: self.sell_token,
            buyToken: self.buy_token,
            receiver: self.receiver,
            partSellAmount: self.part_sell_amount,
            minPartLimit: self.min_part_limit,
            t0: U256::from(self.t0),
            n: U256::from(self.n),
            t: U256::from(self.t),
            span: U256::from(self.span),
            appData: self.app_data,
        };
        ConditionalOrder { handler: TWAP, salt, static_input: data.abi_encode().into() }
    }

    /// The order of a part, counted from 0, when the first one began at `start`.
    pub fn part(&self, start: u64, part: u64) -> Order {
        let begin = start + part * self.t;
        let length = if self.span == 0 { self.t } else { self.span };
        let sell = (self.sell_token, self.part_sell_amount);
        let buy = (self.buy_token, self.min_part_limit);
        Order {
            valid_to: u32::try_from(begin + length - 1).expect("a schedule ends before 2106"),
            app_data: self.app_data,
            ..Order::sell(sell, buy, self.receiver)
        }
    }
}

/// Trades `order` once the price of what is sold, in what is bought, is at the strike or below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopLoss {
    /// What is then traded.
    pub order: Order,
    /// The price of what is sold.
    pub sell_feed: Address,
    /// The price of what is bought.
    pub buy_feed: Address,
    /// With eighteen decimals.
    pub strike: I256,
    /// Seconds after which a price counts for nothing.
    pub price_age_max: u64,
}

impl StopLoss {
    /// The order of this condition.
    pub fn order(&self, salt: B256) -> ConditionalOrder {
        let data = abi::StopLossData {
            sellToken: self.order.sell_token,
            buyToken: self.order.buy_token,
            sellAmount: self.order.sell_amount,
            buyAmount: self.order.buy_amount,
            appData: self.order.app_data,
            receiver: self.order.receiver,
            isSellOrder: self.order.kind == Kind::Sell,
            isPartiallyFillable: self.order.partially_fillable,
            validTo: self.order.valid_to,
            sellTokenPriceOracle: self.sell_feed,
            buyTokenPriceOracle: self.buy_feed,
            strike: self.strike,
            maxTimeSinceLastOracleUpdate: U256::from(self.price_age_max),
        };
        ConditionalOrder { handler: STOP_LOSS, salt, static_input: data.abi_encode().into() }
    }
}

/// Trades `order` from a time on, if there is enough to sell. It says itself when to come back.
///
/// The order's amount to buy is not part of it: without an off-chain input it is one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoodAfterTime {
    /// What is then traded.
    pub order: Order,
    /// From when on, in Unix seconds.
    pub start: u64,
    /// How much of what is sold the owner has to have.
    pub balance_min: U256,
}

impl GoodAfterTime {
    /// The order of this condition.
    pub fn order(&self, salt: B256) -> ConditionalOrder {
        let data = abi::GoodAfterTimeData {
            sellToken: self.order.sell_token,
            buyToken: self.order.buy_token,
            receiver: self.order.receiver,
            sellAmount: self.order.sell_amount,
            minSellBalance: self.balance_min,
            startTime: U256::from(self.start),
            endTime: U256::from(self.order.valid_to),
            allowPartialFill: self.order.partially_fillable,
            priceCheckerPayload: Bytes::new(),
            appData: self.order.app_data,
        };
        // With a member of its own length, a struct is encoded behind an offset.
        let static_input = data.abi_encode().into();
        ConditionalOrder { handler: GOOD_AFTER_TIME, salt, static_input }
    }
}

/// Sells all that the owner has of a token, whenever that is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradeAboveThreshold {
    /// What is sold.
    pub sell_token: Address,
    /// What is bought, for one unit or more.
    pub buy_token: Address,
    /// Who gets it; zero is the owner.
    pub receiver: Address,
    /// Orders end at multiples of so many seconds.
    pub bucket_seconds: u32,
    /// How much is enough.
    pub threshold: U256,
    /// Digest of the app data.
    pub app_data: B256,
}

impl TradeAboveThreshold {
    /// The order of this condition.
    pub fn order(&self, salt: B256) -> ConditionalOrder {
        let data = abi::AboveThresholdData {
            sellToken: self.sell_token,
            buyToken: self.buy_token,
            receiver: self.receiver,
            validityBucketSeconds: self.bucket_seconds,
            threshold: self.threshold,
            appData: self.app_data,
        };
        let static_input = data.abi_encode().into();
        ConditionalOrder { handler: TRADE_ABOVE_THRESHOLD, salt, static_input }
    }
}

/// What a handler says while there is no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// `PollTryNextBlock("hint")`.
    TryNextBlock,
    /// `PollTryAtBlock(…, "hint")`.
    TryAtBlock(U256),
    /// `PollTryAtEpoch(…, "hint")`.
    TryAtEpoch(U256),
    /// `PollNever("hint")`.
    Never,
    /// `OrderNotValid("hint")`.
    NotValid,
    /// `Unheard(…)`, an error that nobody has heard of.
    UnknownError(U256),
    /// `Panic(1)`, a failed assertion.
    Panic,
    /// A revert without data.
    NoData,
}

/// Says `hint` until both the block and the time have come, and then trades `order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hinted {
    /// What is then traded: sold, fill or kill.
    pub order: Order,
    /// What is said before.
    pub hint: Hint,
    /// The first block in which there is an order.
    pub from_block: u64,
    /// The first time at which there is an order, in Unix seconds.
    pub from_time: u64,
}

impl Hinted {
    /// The order of this condition.
    pub fn order(&self, salt: B256) -> ConditionalOrder {
        let (answer, argument) = match self.hint {
            Hint::TryNextBlock => (1, U256::ZERO),
            Hint::TryAtBlock(number) => (2, number),
            Hint::TryAtEpoch(seconds) => (3, seconds),
            Hint::Never => (4, U256::ZERO),
            Hint::NotValid => (5, U256::ZERO),
            Hint::UnknownError(argument) => (6, argument),
            Hint::Panic => (7, U256::ZERO),
            Hint::NoData => (8, U256::ZERO),
        };
        let data = abi::HintData {
            answer,
            argument,
            fromBlock: U256::from(self.from_block),
            fromTime: U256::from(self.from_time),
            sellToken: self.order.sell_token,
            buyToken: self.order.buy_token,
            receiver: self.order.receiver,
            sellAmount: self.order.sell_amount,
            buyAmount: self.order.buy_amount,
            validTo: self.order.valid_to,
            appData: self.order.app_data,
        };
        ConditionalOrder { handler: HINTS, salt, static_input: data.abi_encode().into() }
    }
}

/// A swap of ether through the EthFlow contract.
///
/// Neither `valid_to` nor `quote_id` is part of the order that the settlement sees, so two that
/// differ in nothing else are one, and the second is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthFlowOrder {
    /// What is bought.
    pub buy_token: Address,
    /// Who gets it; must not be zero.
    pub receiver: Address,
    /// How much ether is sold, in wei.
    pub sell_amount: U256,
    /// How much is bought.
    pub buy_amount: U256,
    /// Digest of the app data.
    pub app_data: B256,
    /// Until when the user wants it, in Unix seconds.
    pub valid_to: u32,
    /// The quote's number.
    pub quote_id: i64,
}

impl EthFlowOrder {
    /// The transaction that places it, with its ether.
    pub fn place(&self, from: Address) -> Transaction {
        let call = abi::EthFlow::createOrderCall { order: self.data() };
        Transaction { value: self.sell_amount, ..transaction(from, &call) }
    }

    /// The transaction that takes it back: from the user an invalidation, and after its end
    /// from anybody a refund. The contract announces one or the other.
    pub fn invalidate(&self, from: Address) -> Transaction {
        transaction(from, &abi::EthFlow::invalidateOrderCall { order: self.data() })
    }

    /// The order that the settlement sees. Its owner is the EthFlow contract.
    pub fn order(&self) -> Order {
        let sell = (WETH, self.sell_amount);
        let buy = (self.buy_token, self.buy_amount);
        Order { app_data: self.app_data, ..Order::sell(sell, buy, self.receiver) }
    }

    fn data(&self) -> abi::EthFlowData {
        abi::EthFlowData {
            buyToken: self.buy_token,
            receiver: self.receiver,
            sellAmount: self.sell_amount,
            buyAmount: self.buy_amount,
            appData: self.app_data,
            feeAmount: U256::ZERO,
            validTo: self.valid_to,
            partiallyFillable: false,
            quoteId: self.quote_id,
        }
    }
}

fn transaction(from: Address, call: &impl SolCall) -> Transaction {
    let data = call.abi_encode().into();
    let gas = Some(ETH_FLOW_GAS);
    Transaction { from, to: Some(ETH_FLOW), value: U256::ZERO, data, gas }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{address, fixed_bytes};

    use super::*;

    #[test]
    fn the_golden_order_has_its_golden_uid() {
        let owner = address!("7bF140727D27ea64b607E042f1225680B40ECa6A");
        let sell = (WETH, U256::from(5_000_000_000_000_000u64));
        let buy = (super::super::address::COW_TOKEN, U256::from(20_000_000_000_000_000_000u128));
        let uid = Order::sell(sell, buy, owner).uid(super::super::DOMAIN, owner);
        let golden = fixed_bytes!(
            "c2b9cb4ea1ee5a86d8049ac09d8f494bf04cca0a68407285f31e2e6379800be8"
            "7bf140727d27ea64b607e042f1225680b40eca6affffffff"
        );
        assert_eq!(uid, golden);
    }

    #[test]
    fn a_part_ends_with_its_span_or_before_the_next() {
        let twap = Twap {
            sell_token: Address::repeat_byte(1),
            buy_token: Address::repeat_byte(2),
            receiver: Address::ZERO,
            part_sell_amount: U256::from(3),
            min_part_limit: U256::from(4),
            t0: 1000,
            n: 3,
            t: 600,
            span: 0,
            app_data: EMPTY_APP_DATA,
        };
        assert_eq!(twap.part(1000, 0).valid_to, 1599);
        assert_eq!(twap.part(1000, 2).valid_to, 2799);
        assert_eq!(Twap { span: 60, ..twap }.part(1000, 1).valid_to, 1659);
    }
}
