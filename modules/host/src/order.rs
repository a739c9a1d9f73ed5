//! An order as the orderbook takes it: its UID, and the body of `POST /api/v1/orders`.
//!
//! Field names and forms are those of the orderbook's OpenAPI document: amounts are decimal
//! strings, everything else of more than four bytes is hex. The body is made here, once; whoever
//! sends it sends these bytes.

use alloy_primitives::{Address, B256, Bytes, keccak256};
use cowprotocol::{
    BuyTokenDestination, DomainSeparator, OrderData, OrderKind, SellTokenSource, SigningScheme,
};
use serde::Serialize;
use shepherd_log::{Deliver, Effect, EffectKey};

use crate::{
    fault::{BadRequest, Fault, OutputTooLarge},
    limits::{APP_DATA_BYTES_MAX, SIGNATURE_BYTES_MAX},
};

/// What a module hands over.
#[derive(Clone, Debug)]
pub(crate) struct Posting {
    pub(crate) order: OrderData,
    pub(crate) owner: Address,
    pub(crate) signing: Signing,
    /// The document whose hash is in the order.
    pub(crate) document: Option<String>,
    pub(crate) quote_id: Option<i64>,
}

/// How the owner agrees.
#[derive(Clone, Debug)]
pub(crate) enum Signing {
    /// The owner is a contract that accepts these bytes.
    Eip1271(Bytes),
    /// The owner tells the settlement contract, now or later.
    PreSign,
}

impl Posting {
    /// How many bytes it carries.
    pub(crate) fn bytes(&self) -> usize {
        let signature = match &self.signing {
            Signing::Eip1271(bytes) => bytes.len(),
            Signing::PreSign => 0,
        };
        signature + self.document.as_ref().map_or(0, String::len)
    }

    /// The order as an effect. It expires when it is no longer valid.
    pub(crate) fn effect(
        self,
        domain: &DomainSeparator,
        deliver: Deliver,
    ) -> Result<Effect, Fault> {
        let signed = self.order.app_data;
        if let Some(document) = &self.document {
            let bytes = document.len();
            if bytes > APP_DATA_BYTES_MAX {
                return Err(OutputTooLarge::AppData { bytes }.into());
            }
            let given = keccak256(document);
            if given != signed {
                return Err(BadRequest::OtherAppData { signed, given }.into());
            }
        }
        if let Signing::Eip1271(signature) = &self.signing
            && signature.len() > SIGNATURE_BYTES_MAX
        {
            return Err(OutputTooLarge::Signature { bytes: signature.len() }.into());
        }
        let uid = self.order.uid(domain, self.owner);
        let expires = self.order.valid_to.into();
        let body = serde_json::to_vec(&Body::from(self)).expect("it is text and numbers");
        Ok(Effect { key: EffectKey::Order(uid.0), body, deliver, expires })
    }
}

/// The body, field by field. That of `cowprotocol` insists on the document and asks the clock
/// whether the order is still valid.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    sell_token: Address,
    buy_token: Address,
    /// Left out when it is zero, which is signed as zero and means the owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    receiver: Option<Address>,
    sell_amount: String,
    buy_amount: String,
    valid_to: u32,
    fee_amount: String,
    kind: OrderKind,
    partially_fillable: bool,
    sell_token_balance: SellTokenSource,
    buy_token_balance: BuyTokenDestination,
    signing_scheme: SigningScheme,
    signature: Bytes,
    from: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    quote_id: Option<i64>,
    /// The document, or its hash when the module has no document.
    app_data: String,
    /// Sent with a document, so that the orderbook refuses one it would hash differently.
    #[serde(skip_serializing_if = "Option::is_none")]
    app_data_hash: Option<B256>,
}

impl From<Posting> for Body {
    fn from(posting: Posting) -> Body {
        let Posting { order, owner, signing, document, quote_id } = posting;
        let (signing_scheme, signature) = match signing {
            Signing::Eip1271(signature) => (SigningScheme::Eip1271, signature),
            Signing::PreSign => (SigningScheme::PreSign, Bytes::new()),
        };
        Body {
            sell_token: order.sell_token,
            buy_token: order.buy_token,
            receiver: order.receiver.filter(|receiver| !receiver.is_zero()),
            sell_amount: order.sell_amount.to_string(),
            buy_amount: order.buy_amount.to_string(),
            valid_to: order.valid_to,
            fee_amount: order.fee_amount.to_string(),
            kind: order.kind,
            partially_fillable: order.partially_fillable,
            sell_token_balance: order.sell_token_balance,
            buy_token_balance: order.buy_token_balance,
            signing_scheme,
            signature,
            from: owner,
            quote_id,
            app_data_hash: document.is_some().then_some(order.app_data),
            app_data: document.unwrap_or_else(|| order.app_data.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{U256, address, b256, hex};
    use cowprotocol::{GPV2_SETTLEMENT, settlement_domain};

    use super::*;

    const OWNER: Address = address!("0x7bF140727D27ea64b607E042f1225680B40ECa6A");

    /// The order that everyone who computes UIDs is compared by.
    fn golden() -> Posting {
        let order = OrderData {
            sell_token: address!("0xfFf9976782d46CC05630D1f6eBAb18b2324d6B14"),
            buy_token: address!("0x0625aFB445C3B6B7B929342a04A22599fd5dBB59"),
            receiver: Some(OWNER),
            sell_amount: U256::from(5_000_000_000_000_000u64),
            buy_amount: U256::from(20_000_000_000_000_000_000u128),
            valid_to: u32::MAX,
            app_data: b256!("0xb48d38f93eaa084033fc5970bf96e559c33c4cdc07d889ab00b4d63f9590739d"),
            fee_amount: U256::ZERO,
            kind: OrderKind::Sell,
            partially_fillable: false,
            sell_token_balance: SellTokenSource::Erc20,
            buy_token_balance: BuyTokenDestination::Erc20,
        };
        Posting {
            order,
            owner: OWNER,
            signing: Signing::PreSign,
            document: Some("{}".to_owned()),
            quote_id: None,
        }
    }

    fn placed(posting: Posting) -> Result<Effect, Fault> {
        posting.effect(&settlement_domain(11_155_111, GPV2_SETTLEMENT), Deliver::Instant)
    }

    fn body(posting: Posting) -> String {
        String::from_utf8(placed(posting).unwrap().body).unwrap()
    }

    #[test]
    fn the_golden_order_has_its_uid_and_its_body() {
        let effect = placed(golden()).unwrap();
        let uid = hex!(
            "c2b9cb4ea1ee5a86d8049ac09d8f494bf04cca0a68407285f31e2e6379800be8"
            "7bf140727d27ea64b607e042f1225680b40eca6a"
            "ffffffff"
        );
        assert_eq!(effect.key, EffectKey::Order(uid));
        assert_eq!(effect.expires, 4_294_967_295);
        let expected = concat!(
            r#"{"sellToken":"0xfff9976782d46cc05630d1f6ebab18b2324d6b14","#,
            r#""buyToken":"0x0625afb445c3b6b7b929342a04a22599fd5dbb59","#,
            r#""receiver":"0x7bf140727d27ea64b607e042f1225680b40eca6a","#,
            r#""sellAmount":"5000000000000000","buyAmount":"20000000000000000000","#,
            r#""validTo":4294967295,"feeAmount":"0","kind":"sell","partiallyFillable":false,"#,
            r#""sellTokenBalance":"erc20","buyTokenBalance":"erc20","#,
            r#""signingScheme":"presign","signature":"0x","#,
            r#""from":"0x7bf140727d27ea64b607e042f1225680b40eca6a","appData":"{}","#,
            r#""appDataHash":"0xb48d38f93eaa084033fc5970bf96e559c33c4cdc07d889ab00b4d63f9590739d"}"#,
        );
        assert_eq!(body(golden()), expected);
    }

    #[test]
    fn the_uid_depends_on_the_chain() {
        let on = |chain_id| {
            let domain = settlement_domain(chain_id, GPV2_SETTLEMENT);
            golden().effect(&domain, Deliver::Instant).unwrap()
        };
        assert_ne!(on(1).key, on(100).key);
        assert_eq!(on(1).body, on(100).body);
    }

    #[test]
    fn every_field_takes_its_other_form() {
        let mut other = golden();
        other.document = None;
        other.quote_id = Some(-7);
        other.signing = Signing::Eip1271(Bytes::from_static(&[0x5f, 0xd7]));
        other.order.receiver = Some(Address::ZERO);
        other.order.sell_amount = U256::MAX;
        other.order.kind = OrderKind::Buy;
        other.order.partially_fillable = true;
        other.order.sell_token_balance = SellTokenSource::External;
        other.order.buy_token_balance = BuyTokenDestination::Internal;
        other.order.valid_to = 1;
        let expected = concat!(
            r#"{"sellToken":"0xfff9976782d46cc05630d1f6ebab18b2324d6b14","#,
            r#""buyToken":"0x0625afb445c3b6b7b929342a04a22599fd5dbb59","#,
            r#""sellAmount":"115792089237316195423570985008687907853269984665640564039457584007913129639935","#,
            r#""buyAmount":"20000000000000000000","#,
            r#""validTo":1,"feeAmount":"0","kind":"buy","partiallyFillable":true,"#,
            r#""sellTokenBalance":"external","buyTokenBalance":"internal","#,
            r#""signingScheme":"eip1271","signature":"0x5fd7","#,
            r#""from":"0x7bf140727d27ea64b607e042f1225680b40eca6a","quoteId":-7,"#,
            r#""appData":"0xb48d38f93eaa084033fc5970bf96e559c33c4cdc07d889ab00b4d63f9590739d"}"#,
        );
        assert_eq!(body(other), expected);
    }

    #[test]
    fn an_order_goes_only_with_the_document_it_is_signed_over() {
        let mut other = golden();
        other.document = Some("{ }".to_owned());
        let signed = other.order.app_data;
        let given = keccak256("{ }");
        assert_eq!(placed(other), Err(BadRequest::OtherAppData { signed, given }.into()));
    }

    #[test]
    fn what_no_orderbook_takes_is_not_placed() {
        let mut large = golden();
        let document = "x".repeat(APP_DATA_BYTES_MAX);
        large.order.app_data = keccak256(&document);
        large.document = Some(document.clone());
        large.signing = Signing::Eip1271(vec![1; SIGNATURE_BYTES_MAX].into());
        placed(large.clone()).expect("as large as can be");

        let mut larger = large.clone();
        larger.document = Some(document + "x");
        let bytes = APP_DATA_BYTES_MAX + 1;
        assert_eq!(placed(larger), Err(OutputTooLarge::AppData { bytes }.into()));

        large.signing = Signing::Eip1271(vec![1; SIGNATURE_BYTES_MAX + 1].into());
        let bytes = SIGNATURE_BYTES_MAX + 1;
        assert_eq!(placed(large), Err(OutputTooLarge::Signature { bytes }.into()));
    }
}
