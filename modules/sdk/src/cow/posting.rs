//! An order as the orderbook takes it: the body of `POST /api/v1/orders`.
//!
//! Field names and forms are those of the orderbook's OpenAPI document: amounts are decimal
//! strings, everything else of more than four bytes is hex.

use alloy_primitives::{Address, B256, Bytes};
use serde::Serialize;

use super::{app_data::AppData, order::Order};

/// The body of `POST /api/v1/orders`.
///
/// The same posting gives the same bytes every time it is serialised: an order that is sent again
/// is sent as it was.
///
/// ```
/// # use shepherd_sdk::{U256, address, cow::order::*};
/// use shepherd_sdk::cow::{app_data, posting::{Posting, Signature}};
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
/// let posting = Posting::new(&order, owner, &empty, Signature::PreSign)?;
/// let json = serde_json::to_value(&posting).unwrap();
/// assert_eq!(json["sellAmount"], "5000000000000000");
/// assert_eq!(json["signingScheme"], "presign");
/// assert_eq!(json["appData"], "{}");
/// # Ok::<(), shepherd_sdk::cow::posting::WrongAppData>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Posting {
    sell_token: Address,
    buy_token: Address,
    /// Left out when it is zero, which is signed as zero and means the owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    receiver: Option<Address>,
    sell_amount: String,
    buy_amount: String,
    valid_to: u32,
    fee_amount: String,
    kind: &'static str,
    partially_fillable: bool,
    sell_token_balance: &'static str,
    buy_token_balance: &'static str,
    signing_scheme: &'static str,
    signature: Bytes,
    from: Address,
    /// The document, or its hash when nobody has the document.
    app_data: String,
    /// Sent with a document, so that the orderbook refuses one it would hash differently.
    #[serde(skip_serializing_if = "Option::is_none")]
    app_data_hash: Option<B256>,
}

/// How the owner agrees. Shepherd holds no keys, so the contracts have to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
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
    /// An order of this owner, ready to be posted.
    pub fn new(
        order: &Order,
        owner: Address,
        app_data: &AppData,
        signature: Signature,
    ) -> Result<Posting, WrongAppData> {
        if app_data.hash() != order.app_data {
            return Err(WrongAppData { signed: order.app_data, given: app_data.hash() });
        }
        let document = app_data.document();
        let (signing_scheme, signature) = match signature {
            Signature::Eip1271(bytes) => ("eip1271", bytes),
            Signature::PreSign => ("presign", Bytes::new()),
        };
        Ok(Posting {
            sell_token: order.sell_token,
            buy_token: order.buy_token,
            receiver: (!order.receiver.is_zero()).then_some(order.receiver),
            sell_amount: order.sell_amount.to_string(),
            buy_amount: order.buy_amount.to_string(),
            valid_to: order.valid_to,
            fee_amount: order.fee_amount.to_string(),
            kind: order.kind.name(),
            partially_fillable: order.partially_fillable,
            sell_token_balance: order.sell_token_source.name(),
            buy_token_balance: order.buy_token_destination.name(),
            signing_scheme,
            signature,
            from: owner,
            app_data: document.map_or_else(|| order.app_data.to_string(), str::to_owned),
            app_data_hash: document.map(|_| order.app_data),
        })
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{U256, bytes};
    use serde_json::json;

    use super::*;
    use crate::cow::{app_data, order::tests::golden};

    fn posted(order: &Order, app_data: &AppData, signature: Signature) -> serde_json::Value {
        let owner = Address::repeat_byte(0xaa);
        let posting = Posting::new(order, owner, app_data, signature).unwrap();
        serde_json::to_value(posting).unwrap()
    }

    #[test]
    fn a_conditional_order_is_posted_with_the_contracts_signature_unchanged() {
        let empty = app_data::known(app_data::EMPTY_HASH).unwrap();
        let posted = posted(&golden(), &empty, Signature::Eip1271(bytes!("0x5fd7e97d00")));
        let expected = json!({
            "sellToken": "0xfff9976782d46cc05630d1f6ebab18b2324d6b14",
            "buyToken": "0x0625afb445c3b6b7b929342a04a22599fd5dbb59",
            "receiver": "0x7bf140727d27ea64b607e042f1225680b40eca6a",
            "sellAmount": "5000000000000000",
            "buyAmount": "20000000000000000000",
            "validTo": 4_294_967_295u32,
            "feeAmount": "0",
            "kind": "sell",
            "partiallyFillable": false,
            "sellTokenBalance": "erc20",
            "buyTokenBalance": "erc20",
            "signingScheme": "eip1271",
            "signature": "0x5fd7e97d00",
            "from": "0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "appData": "{}",
            "appDataHash": "0xb48d38f93eaa084033fc5970bf96e559c33c4cdc07d889ab00b4d63f9590739d",
        });
        assert_eq!(posted, expected);
    }

    #[test]
    fn a_presigned_order_has_no_signature_and_still_names_its_owner() {
        let empty = app_data::known(app_data::EMPTY_HASH).unwrap();
        let posted = posted(&golden(), &empty, Signature::PreSign);
        assert_eq!(posted["signingScheme"], "presign");
        assert_eq!(posted["signature"], "0x");
        assert_eq!(posted["from"], "0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    }

    #[test]
    fn an_unknown_document_is_posted_as_its_hash_and_a_zero_receiver_is_left_out() {
        let hash = B256::repeat_byte(7);
        let order = Order { receiver: Address::ZERO, app_data: hash, ..golden() };
        let unknown = AppData::answered(hash, None).unwrap();
        let posted = posted(&order, &unknown, Signature::PreSign);
        assert_eq!(posted["appData"], hash.to_string());
        assert_eq!(posted.get("appDataHash"), None);
        assert_eq!(posted.get("receiver"), None);
    }

    #[test]
    fn amounts_keep_all_their_digits() {
        let empty = app_data::known(app_data::EMPTY_HASH).unwrap();
        let order = Order { sell_amount: U256::MAX, ..golden() };
        let posted = posted(&order, &empty, Signature::PreSign);
        assert_eq!(posted["sellAmount"], U256::MAX.to_string());
    }

    #[test]
    fn an_order_is_not_posted_with_app_data_it_does_not_sign() {
        let other = AppData::of("{ }".to_owned());
        let refused = Posting::new(&golden(), Address::ZERO, &other, Signature::PreSign);
        let error = WrongAppData { signed: app_data::EMPTY_HASH, given: app_data::hash("{ }") };
        assert_eq!(refused, Err(error));
    }
}
