//! EthFlow: orders that sell the native token, placed on chain.
//!
//! The EthFlow contract owns the order, and keeps it open for ever on paper (`validTo` is the
//! last second there is): when it really ends is in the event's data. The orderbook reads these
//! orders from the chain by itself and refuses them when they are posted, so a watcher computes the
//! UID and looks whether the orderbook has it.

use alloy_primitives::Address;

use super::{
    abi::EthFlow::OrderPlacement,
    order::{Domain, Order, UnknownMarker},
    uid::Uid,
};

/// An order placed through EthFlow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// How the orderbook knows it.
    pub uid: Uid,
    /// The order as it is signed.
    pub order: Order,
    /// Who placed it and paid.
    pub user: Address,
    /// The quote it was made from, if any: 0 when not.
    pub quote_id: i64,
    /// The last second at which the user wants it executed.
    pub user_valid_to: u32,
}

/// A placement that makes no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlacement {
    /// The order holds a word that stands for nothing.
    #[error("the order cannot be read")]
    Order(#[from] UnknownMarker),
    /// The data is not a quote id and a time.
    #[error("the event's data has {0} bytes and not 12")]
    Data(usize),
}

impl Placement {
    /// Reads the event of this EthFlow contract.
    ///
    /// ```
    /// use shepherd_sdk::{
    ///     Address,
    ///     cow::{
    ///         abi::{EthFlow::OrderPlacement, OnchainSignature, OnchainSigningScheme, OrderData},
    ///         addresses::ETHFLOW,
    ///         ethflow::Placement,
    ///         order::{BuyTokenDestination, Domain, Kind, SellTokenSource},
    ///     },
    /// };
    ///
    /// let event = OrderPlacement {
    ///     sender: Address::repeat_byte(1),
    ///     order: OrderData {
    ///         validTo: u32::MAX,
    ///         kind: Kind::Sell.marker(),
    ///         sellTokenBalance: SellTokenSource::Erc20.marker(),
    ///         buyTokenBalance: BuyTokenDestination::Erc20.marker(),
    ///         ..Default::default()
    ///     },
    ///     data: vec![0, 0, 0, 0, 0, 0, 0, 9, 0x65, 0, 0, 0].into(),
    ///     signature: OnchainSignature {
    ///         scheme: OnchainSigningScheme::Eip1271,
    ///         data: ETHFLOW.to_vec().into(),
    ///     },
    /// };
    /// let placement = Placement::read(&event, ETHFLOW, Domain::of_chain(11_155_111))?;
    /// assert_eq!((placement.quote_id, placement.user_valid_to), (9, 0x6500_0000));
    /// assert_eq!((placement.uid.owner, placement.uid.valid_to), (ETHFLOW, u32::MAX));
    /// # Ok::<(), shepherd_sdk::cow::ethflow::InvalidPlacement>(())
    /// ```
    pub fn read(
        event: &OrderPlacement,
        ethflow: Address,
        domain: Domain,
    ) -> Result<Placement, InvalidPlacement> {
        let data: [u8; 12] =
            event.data[..].try_into().map_err(|_| InvalidPlacement::Data(event.data.len()))?;
        let [q0, q1, q2, q3, q4, q5, q6, q7, valid_to @ ..] = data;
        let order = Order::try_from(&event.order)?;
        Ok(Placement {
            uid: order.uid(domain, ethflow),
            order,
            user: event.sender,
            quote_id: i64::from_be_bytes([q0, q1, q2, q3, q4, q5, q6, q7]),
            user_valid_to: u32::from_be_bytes(valid_to),
        })
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;
    use alloy_sol_types::SolEvent;

    use super::*;
    use crate::{
        Log,
        abi::{Event, event},
        cow::{
            abi::{OnchainSignature, OnchainSigningScheme, OrderData},
            addresses::ETHFLOW,
            order::tests::golden,
        },
    };

    fn placement() -> OrderPlacement {
        OrderPlacement {
            sender: Address::repeat_byte(0xaa),
            order: golden().into(),
            signature: OnchainSignature {
                scheme: OnchainSigningScheme::Eip1271,
                data: ETHFLOW.to_vec().into(),
            },
            data: [&(-3i64).to_be_bytes()[..], &1_700_000_000u32.to_be_bytes()].concat().into(),
        }
    }

    #[test]
    fn a_placement_is_read_from_its_log_and_belongs_to_the_contract() {
        let log = Log {
            topics: placement().encode_log_data().topics().try_into().unwrap(),
            data: placement().encode_data(),
            ..Log::default()
        };
        let Event::Is(found) = event::<OrderPlacement>(&log) else { panic!("{log:?}") };
        assert_eq!(found, placement());
        let domain = Domain::of_chain(11_155_111);
        let expected = Placement {
            uid: golden().uid(domain, ETHFLOW),
            order: golden(),
            user: Address::repeat_byte(0xaa),
            quote_id: -3,
            user_valid_to: 1_700_000_000,
        };
        assert_eq!(Placement::read(&found, ETHFLOW, domain), Ok(expected));
    }

    #[test]
    fn a_placement_that_makes_no_order_says_why() {
        let check = |event: OrderPlacement, error: InvalidPlacement| {
            assert_eq!(Placement::read(&event, ETHFLOW, Domain::of_chain(1)), Err(error));
        };
        let data = vec![0; 11].into();
        check(OrderPlacement { data, ..placement() }, InvalidPlacement::Data(11));
        let order = OrderData { kind: B256::ZERO, ..golden().into() };
        check(OrderPlacement { order, ..placement() }, UnknownMarker::Kind(B256::ZERO).into());
    }
}
