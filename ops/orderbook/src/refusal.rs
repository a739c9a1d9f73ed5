//! Why something is refused, in the words of the real one.
//!
//! The status and the `errorType` are what clients decide by; they are in one table below.

use alloy_primitives::{Address, B256};
use cowprotocol::{BuyTokenDestination, SellTokenSource};
use serde_json::{Value, json};

use crate::chain::NodeError;

/// An answer other than the one hoped for.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the body is no JSON: {0}")]
    NotJson(serde_json::Error),
    #[error("{0}")]
    WrongShape(serde_json::Error),
    #[error("the body has to be sent as application/json")]
    NotSentAsJson,
    #[error("{0}")]
    InvalidAppData(String),
    #[error("the app data has the hash {actual}, the order says {claimed}")]
    AppDataHashMismatch { claimed: B256, actual: B256 },
    #[error("the order is from {from}, its app data names the signer {signer}")]
    AppdataFromMismatch { from: Address, signer: Address },
    #[error("an on-chain signature needs the address it is from")]
    MissingFrom,
    #[error("no signer can be recovered from the signature")]
    InvalidSignature,
    #[error("the signer of {message} is {signer}, the order is from {from}")]
    WrongOwner { message: B256, signer: Address, from: Address },
    #[error("the owner does not accept the signature for {0}")]
    InvalidEip1271Signature(B256),
    #[error("the sell or the buy amount is zero")]
    ZeroAmount,
    #[error("tokens cannot be bought into {0:?}")]
    UnsupportedBuyTokenDestination(BuyTokenDestination),
    #[error("tokens cannot be sold from {0:?}")]
    UnsupportedSellTokenSource(SellTokenSource),
    #[error("validTo is not far enough in the future")]
    InsufficientValidTo,
    #[error("validTo is too far in the future")]
    ExcessiveValidTo,
    #[error("the token sold is the token bought")]
    SameBuyAndSellToken,
    #[error("the native token cannot be sold; sell the wrapped one")]
    InvalidNativeSellToken,
    #[error("there is no token at {0}")]
    UnsupportedToken(Address),
    #[error("the fee has to be zero")]
    NonZeroFee,
    #[error("there is no quote {0}")]
    QuoteNotFound(i64),
    #[error("quote {0} is for another order")]
    InvalidQuote(i64),
    #[error("the owner has too little of the token sold")]
    InsufficientBalance,
    #[error("the owner lets the vault relayer have too little of the token sold")]
    InsufficientAllowance,
    #[error("the owner has too many open orders")]
    TooManyLimitOrders,
    #[error("the order is already there")]
    DuplicatedOrder,
    #[error("there is no such order")]
    OrderNotFound,
    #[error("there is no such app data")]
    AppDataNotFound,
    /// A node that does not answer is no fault of the order.
    #[error("the chain could not be asked: {0}")]
    Chain(#[from] NodeError),
    /// A fault asked for by name.
    #[error("{description}")]
    Chosen { error_type: String, description: String },
}

impl Refusal {
    /// Its status and its `errorType`.
    pub fn kind(&self) -> (u16, &str) {
        match self {
            Refusal::NotJson(_) => (400, "InvalidJson"),
            Refusal::WrongShape(_) => (422, "InvalidJson"),
            Refusal::NotSentAsJson => (415, "InvalidJson"),
            Refusal::InvalidAppData(_) => (400, "InvalidAppData"),
            Refusal::AppDataHashMismatch { .. } => (400, "AppDataHashMismatch"),
            Refusal::AppdataFromMismatch { .. } => (400, "AppdataFromMismatch"),
            Refusal::MissingFrom => (400, "MissingFrom"),
            Refusal::InvalidSignature => (400, "InvalidSignature"),
            Refusal::WrongOwner { .. } => (400, "WrongOwner"),
            Refusal::InvalidEip1271Signature(_) => (400, "InvalidEip1271Signature"),
            Refusal::ZeroAmount => (400, "ZeroAmount"),
            Refusal::UnsupportedBuyTokenDestination(_) => (400, "UnsupportedBuyTokenDestination"),
            Refusal::UnsupportedSellTokenSource(_) => (400, "UnsupportedSellTokenSource"),
            Refusal::InsufficientValidTo => (400, "InsufficientValidTo"),
            Refusal::ExcessiveValidTo => (400, "ExcessiveValidTo"),
            Refusal::SameBuyAndSellToken => (400, "SameBuyAndSellToken"),
            Refusal::InvalidNativeSellToken => (400, "InvalidNativeSellToken"),
            Refusal::UnsupportedToken(_) => (400, "UnsupportedToken"),
            Refusal::NonZeroFee => (400, "NonZeroFee"),
            Refusal::QuoteNotFound(_) => (400, "QuoteNotFound"),
            Refusal::InvalidQuote(_) => (400, "InvalidQuote"),
            Refusal::InsufficientBalance => (400, "InsufficientBalance"),
            Refusal::InsufficientAllowance => (400, "InsufficientAllowance"),
            Refusal::TooManyLimitOrders => (400, "TooManyLimitOrders"),
            Refusal::DuplicatedOrder => (400, "DuplicatedOrder"),
            Refusal::OrderNotFound | Refusal::AppDataNotFound => (404, "NotFound"),
            Refusal::Chain(_) => (500, "InternalServerError"),
            Refusal::Chosen { error_type, .. } => match error_type.as_str() {
                "Forbidden" => (403, error_type),
                "NotFound" => (404, error_type),
                // The real one answers so, though it is the order's fault.
                "SellAmountOverflow" | "InternalServerError" => (500, error_type),
                _ => (400, error_type),
            },
        }
    }

    /// The body clients read.
    pub fn envelope(&self) -> Value {
        json!({ "errorType": self.kind().1, "description": self.to_string() })
    }
}
