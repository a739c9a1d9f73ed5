//! What a client posts, what it is answered with, and the name both have in common.

use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256};
use cowprotocol::{
    BuyTokenDestination, OrderData, OrderKind, SellTokenSource, Signature, SigningScheme,
};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::{book::Status, refusal::Refusal};

/// An order's name: its digest, its owner and its `validTo`.
pub type Uid = FixedBytes<56>;

/// The body of `POST /api/v1/orders`, once it has the right shape.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCreation {
    sell_token: Address,
    buy_token: Address,
    #[serde(default)]
    receiver: Option<Address>,
    #[serde(deserialize_with = "decimal")]
    sell_amount: U256,
    #[serde(deserialize_with = "decimal")]
    buy_amount: U256,
    valid_to: u32,
    #[serde(deserialize_with = "decimal")]
    fee_amount: U256,
    kind: OrderKind,
    partially_fillable: bool,
    #[serde(default)]
    sell_token_balance: SellTokenSource,
    #[serde(default)]
    buy_token_balance: BuyTokenDestination,
    signing_scheme: SigningScheme,
    signature: Bytes,
    /// Whose order it is said to be.
    #[serde(default)]
    pub from: Option<Address>,
    /// The quote it follows.
    #[serde(default)]
    pub quote_id: Option<i64>,
    #[serde(default)]
    app_data: Option<String>,
    #[serde(default)]
    app_data_hash: Option<B256>,
}

/// What an order says of its app data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppDataClaim {
    /// The document; its hash follows.
    Document(String),
    /// The document and the hash it should have.
    Both(String, B256),
    /// The hash of a document that is known already.
    Hash(B256),
}

impl OrderCreation {
    /// Reads a body. The real one tells text that is no JSON from JSON of another shape.
    pub fn parse(body: &[u8]) -> Result<OrderCreation, Refusal> {
        let json: Value = serde_json::from_slice(body).map_err(Refusal::NotJson)?;
        let order: OrderCreation = serde_json::from_value(json).map_err(Refusal::WrongShape)?;
        let shape = |text| Refusal::WrongShape(de::Error::custom(text));
        if order.app_data.is_none() && order.app_data_hash.is_none() {
            return Err(shape("missing field `appData`".to_owned()));
        }
        Signature::from_bytes(order.signing_scheme, &order.signature)
            .map_err(|error| shape(error.to_string()))?;
        Ok(order)
    }

    /// The document, its hash, or both.
    pub fn app_data(&self) -> AppDataClaim {
        match (&self.app_data, self.app_data_hash) {
            (Some(document), Some(hash)) => AppDataClaim::Both(document.clone(), hash),
            (Some(text), None) => match hash_text(text) {
                Some(hash) => AppDataClaim::Hash(hash),
                None => AppDataClaim::Document(text.clone()),
            },
            (None, Some(hash)) => AppDataClaim::Hash(hash),
            (None, None) => unreachable!("refused by `parse`"),
        }
    }

    /// What the owner signs, given the app data's hash.
    pub fn data(&self, app_data: B256) -> OrderData {
        OrderData {
            sell_token: self.sell_token,
            buy_token: self.buy_token,
            receiver: self.receiver,
            sell_amount: self.sell_amount,
            buy_amount: self.buy_amount,
            valid_to: self.valid_to,
            app_data,
            fee_amount: self.fee_amount,
            kind: self.kind,
            partially_fillable: self.partially_fillable,
            sell_token_balance: self.sell_token_balance,
            buy_token_balance: self.buy_token_balance,
        }
    }

    /// How the owner agreed.
    pub fn signature(&self) -> Signature {
        Signature::from_bytes(self.signing_scheme, &self.signature).expect("checked by `parse`")
    }
}

/// `0x` and 64 digits, which is a hash and no document.
fn hash_text(text: &str) -> Option<B256> {
    text.strip_prefix("0x").and_then(|digits| digits.parse().ok())
}

/// Amounts are strings of decimal digits: no JSON reader may round them.
pub fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<U256, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(de::Error::custom(format!("{text:?} is no decimal number")));
    }
    U256::from_str_radix(&text, 10).map_err(de::Error::custom)
}

/// `GET /api/v1/orders/{uid}`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderView {
    /// What was signed.
    #[serde(flatten)]
    pub data: OrderData,
    /// The order's name.
    pub uid: Uid,
    /// Whose order it is.
    pub owner: Address,
    /// How the owner agreed.
    pub signing_scheme: SigningScheme,
    /// The bytes by which the owner agreed.
    pub signature: Bytes,
    /// When the order came, by the orderbook's clock.
    pub creation_date: String,
    /// Where it stands.
    pub status: Status,
    /// `limit`: the fee is zero, and is taken from the surplus.
    pub class: String,
    /// Whether it was cancelled.
    pub invalidated: bool,
    /// Sold so far.
    pub executed_sell_amount: String,
    /// Sold so far; without fees, which are none.
    pub executed_sell_amount_before_fees: String,
    /// Bought so far.
    pub executed_buy_amount: String,
    /// Always zero.
    pub executed_fee_amount: String,
    /// Always zero.
    pub executed_fee: String,
    /// What fees are counted in.
    pub executed_fee_token: Address,
    /// Always false.
    pub is_liquidity_order: bool,
    /// The app data's document, when it is known.
    pub full_app_data: Option<String>,
    /// The settlement contract.
    pub settlement_contract: Address,
    /// Always empty.
    pub interactions: InteractionsView,
    /// Who placed the order through a contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onchain_user: Option<Address>,
    /// The placement, of an order that came from the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onchain_order_data: Option<OnchainOrderView>,
    /// What EthFlow keeps beside the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ethflow_data: Option<EthFlowView>,
}

/// Calls around a trade. This orderbook runs none.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InteractionsView {
    /// Before it.
    pub pre: Vec<Value>,
    /// After it.
    pub post: Vec<Value>,
}

/// A placement on the chain.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OnchainOrderView {
    /// Who placed it.
    pub sender: Address,
}

/// What EthFlow keeps beside an order.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EthFlowView {
    /// Until when the user wants it; the order itself is valid for ever.
    pub user_valid_to: u32,
    /// The transaction that gave the ether back after the end.
    pub refund_tx_hash: Option<B256>,
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{address, keccak256};
    use cowprotocol::{GPV2_SETTLEMENT, settlement_domain};
    use serde_json::json;

    use super::*;

    fn body() -> Value {
        json!({
            "sellToken": "0xfFf9976782d46CC05630D1f6eBAb18b2324d6B14",
            "buyToken": "0x0625aFB445C3B6B7B929342a04A22599fd5dBB59",
            "receiver": "0x7bF140727D27ea64b607E042f1225680B40ECa6A",
            "sellAmount": "5000000000000000",
            "buyAmount": "20000000000000000000",
            "validTo": u32::MAX,
            "feeAmount": "0",
            "kind": "sell",
            "partiallyFillable": false,
            "signingScheme": "presign",
            "signature": "0x",
            "appData": "{}",
        })
    }

    #[test]
    fn the_golden_order_has_the_golden_uid() {
        let order = OrderCreation::parse(body().to_string().as_bytes()).unwrap();
        let AppDataClaim::Document(document) = order.app_data() else { panic!("a document") };
        let data = order.data(keccak256(document));
        let owner = address!("7bF140727D27ea64b607E042f1225680B40ECa6A");
        let uid = data.uid(&settlement_domain(11_155_111, GPV2_SETTLEMENT), owner);
        assert_eq!(
            uid.to_string(),
            "0xc2b9cb4ea1ee5a86d8049ac09d8f494bf04cca0a68407285f31e2e6379800be8\
             7bf140727d27ea64b607e042f1225680b40eca6affffffff"
        );
    }

    /// The digest put together from the constants of the contracts, not by the library.
    #[test]
    fn an_order_of_every_other_kind_has_the_uid_that_the_contract_computes() {
        let mut body = body();
        body["kind"] = json!("buy");
        body["partiallyFillable"] = json!(true);
        body["sellTokenBalance"] = json!("external");
        body["buyTokenBalance"] = json!("internal");
        body["validTo"] = json!(1_700_000_000);
        body.as_object_mut().unwrap().remove("receiver");
        let order = OrderCreation::parse(body.to_string().as_bytes()).unwrap();
        let app_data = B256::repeat_byte(9);

        let word = |hex: &str| hex.parse::<B256>().unwrap();
        let number = |number: U256| B256::from(number);
        let words = [
            word("d5a25ba2e97094ad7d83dc28a6572da797d6b3e7fc6663bd93efb789fc17e489"),
            order.sell_token.into_word(),
            order.buy_token.into_word(),
            B256::ZERO,
            number(U256::from(5_000_000_000_000_000u64)),
            number(U256::from(20_000_000_000_000_000_000u128)),
            number(U256::from(1_700_000_000)),
            app_data,
            B256::ZERO,
            word("6ed88e868af0a1983e3886d5f3e95a2fafbd6c3450bc229e27342283dc429ccc"),
            number(U256::ONE),
            word("abee3b73373acd583a130924aad6dc38cfdc44ba0555ba94ce2ff63980ea0632"),
            word("4ac99ace14ee0a5ef932dc609df0943ab7ac16b7583634612f8dc35a4289a6ce"),
        ];
        let domain = word("daee378bd0eb30ddf479272accf91761e697bc00e067a268f95f1d2732ed230b");
        let order_hash = keccak256(words.concat());
        let digest = keccak256([&[0x19, 0x01], &domain[..], &order_hash[..]].concat());
        let owner = Address::repeat_byte(0xab);
        let uid = [&digest[..], &owner[..], &1_700_000_000u32.to_be_bytes()].concat();

        let domain = settlement_domain(11_155_111, GPV2_SETTLEMENT);
        assert_eq!(order.data(app_data).uid(&domain, owner)[..], uid);
    }

    #[test]
    fn app_data_is_a_document_unless_it_is_32_bytes_of_hexadecimal() {
        let check = |fields: Value, expected: AppDataClaim| {
            let mut body = body();
            body.as_object_mut().unwrap().remove("appData");
            body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let order = OrderCreation::parse(body.to_string().as_bytes()).unwrap();
            assert_eq!(order.app_data(), expected);
        };
        let hash = B256::repeat_byte(7);
        let text = || "{}".to_owned();
        check(json!({ "appData": "{}" }), AppDataClaim::Document(text()));
        check(json!({ "appData": hash }), AppDataClaim::Hash(hash));
        check(json!({ "appDataHash": hash }), AppDataClaim::Hash(hash));
        check(json!({ "appData": "{}", "appDataHash": hash }), AppDataClaim::Both(text(), hash));
        check(json!({ "appData": "0x07" }), AppDataClaim::Document("0x07".to_owned()));
    }
}
