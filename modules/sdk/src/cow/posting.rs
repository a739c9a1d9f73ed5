//! An order, ready to be placed: what the orderbook is told besides the order itself.
//!
//! The host makes the body of `POST /api/v1/orders` out of it, and the UID.

use alloy_primitives::{Address, B256, Bytes};

use super::{app_data::AppData, order::Order};
use crate::Deliver;

/// An order of an owner, with the app data it is signed over.
///
/// ```
/// # use shepherd_sdk::{U256, address, cow::order::*};
/// use shepherd_sdk::{Host, cow::{app_data, posting::{Posting, Signing}}, testing::MemoryHost};
///
/// # let owner = address!("0x7bF140727D27ea64b607E042f1225680B40ECa6A");
/// # let order = Order {
/// #     sell_token: address!("0xfFf9976782d46CC05630D1f6eBAb18b2324d6B14"),
/// #     buy_token: address!("0x0625aFB445C3B6B7B929342a04A22599fd5dBB59"),
/// #     receiver: owner,
/// #     sell_amount: U256::from(5_000_000_000_000_000u64),
/// #     buy_amount: U256::from(20_000_000_000_000_000_000u128),
/// #     valid_to: u32::MAX,
/// #     app_data: app_data::EMPTY_HASH,
/// #     fee_amount: U256::ZERO,
/// #     kind: Kind::Sell,
/// #     partially_fillable: false,
/// #     sell_token_source: SellTokenSource::Erc20,
/// #     buy_token_destination: BuyTokenDestination::Erc20,
/// # };
/// let empty = app_data::known(order.app_data).unwrap();
/// let posting = Posting::new(order, owner, empty, Signing::PreSign)?;
///
/// let mut host = MemoryHost::default(); // On Sepolia.
/// let uid = host.place_order(&posting);
/// assert_eq!(uid, order.uid(Domain::of_chain(11_155_111), owner));
/// assert_eq!(host.placed, [(uid, posting)]);
/// # Ok::<(), shepherd_sdk::cow::posting::WrongAppData>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    order: Order,
    app_data: AppData,
    /// Whose order it is.
    pub owner: Address,
    /// How the owner agrees.
    pub signing: Signing,
    /// The quote it was made from.
    pub quote_id: Option<i64>,
    /// When it may leave. `None` takes what the manifest says.
    pub deliver: Option<Deliver>,
}

/// How the owner agrees. Shepherd holds no keys, so the contracts have to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signing {
    /// The owner is a contract that accepts these bytes (EIP-1271): those that
    /// `getTradeableOrderWithSignature` answered, unchanged. The owner in front of them is for
    /// settlements only.
    Eip1271(Bytes),
    /// The owner tells the settlement contract by `setPreSignature`, now or later. Until then the
    /// order is `presignaturePending`.
    PreSign,
}

/// An order is posted with app data it was not signed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the order is signed over the app data {signed}, not over {given}")]
pub struct WrongAppData {
    /// The hash in the order.
    pub signed: B256,
    /// The hash of what it should be posted with.
    pub given: B256,
}

impl Posting {
    /// An order of this owner, without a quote, leaving when the manifest says.
    pub fn new(
        order: Order,
        owner: Address,
        app_data: AppData,
        signing: Signing,
    ) -> Result<Posting, WrongAppData> {
        if app_data.hash() != order.app_data {
            return Err(WrongAppData { signed: order.app_data, given: app_data.hash() });
        }
        Ok(Posting { order, app_data, owner, signing, quote_id: None, deliver: None })
    }

    /// The order as it is signed.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// The document whose hash is in the order. Without it the hash is posted.
    pub fn document(&self) -> Option<&str> {
        self.app_data.document()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cow::{app_data, order::tests::golden};

    #[test]
    fn an_order_is_not_posted_with_app_data_it_does_not_sign() {
        let other = AppData::of("{ }".to_owned());
        let refused = Posting::new(golden(), Address::ZERO, other, Signing::PreSign);
        let error = WrongAppData { signed: app_data::EMPTY_HASH, given: app_data::hash("{ }") };
        assert_eq!(refused, Err(error));
    }

    #[test]
    fn a_document_nobody_knows_is_posted_as_its_hash() {
        let hash = B256::repeat_byte(7);
        let order = Order { app_data: hash, ..golden() };
        let unknown = AppData::answered(hash, None).unwrap();
        let posting = Posting::new(order, Address::ZERO, unknown, Signing::PreSign).unwrap();
        assert_eq!((posting.order().app_data, posting.document()), (hash, None));
    }
}
