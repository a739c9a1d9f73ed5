//! Whether an order is accepted: decisions that look at their arguments and nothing else.
//!
//! ```text
//! app data ─▶ owner ─▶ (EIP-1271: ask the chain) ─▶ amounts, balances, validity, tokens, fee
//! ```
//!
//! An order with several faults is refused for the one that the real orderbook finds first.
//! What depends on other orders (quotes, funds, how many, duplicates) is the book's to say.

use alloy_primitives::{Address, B256, keccak256};
use cowprotocol::{
    BUY_ETH_ADDRESS, BuyTokenDestination, DomainSeparator, OrderData, SellTokenSource, Signature,
    SigningScheme,
};
use serde_json::Value;

use crate::{
    config::Limits,
    order::{AppDataClaim, OrderCreation},
    refusal::Refusal,
};

/// Longest document, in bytes, as in the server's defaults.
pub const APP_DATA_BYTES_MAX: usize = 8192;

/// App data that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppData {
    /// What the owner signs.
    pub hash: B256,
    /// What it stands for.
    pub document: String,
    /// Who has to sign, if the document says so.
    pub signer: Option<Address>,
}

/// What is accepted, and when.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The validity window.
    pub limits: Limits,
    /// What time it is, in Unix seconds.
    pub now: u64,
    /// The chain's wrapped native token.
    pub wrapped_native: Address,
}

/// Checks what an order says of its app data; `known` is the document of its hash, if there is one.
pub fn app_data(claim: AppDataClaim, known: Option<&str>) -> Result<AppData, Refusal> {
    match claim {
        AppDataClaim::Document(document) => check_document(document),
        AppDataClaim::Both(document, claimed) => {
            let checked = check_document(document)?;
            if checked.hash != claimed {
                return Err(Refusal::AppDataHashMismatch { claimed, actual: checked.hash });
            }
            Ok(checked)
        }
        AppDataClaim::Hash(hash) => match known {
            Some(document) => Ok(AppData { hash, ..check_document(document.to_owned())? }),
            None => Err(Refusal::InvalidAppData(format!("no document is known for {hash}"))),
        },
    }
}

/// Checks a document by itself.
pub fn check_document(document: String) -> Result<AppData, Refusal> {
    let invalid = |reason: String| Refusal::InvalidAppData(reason);
    if document.len() > APP_DATA_BYTES_MAX {
        return Err(invalid(format!(
            "app data has {} bytes, {APP_DATA_BYTES_MAX} are allowed",
            document.len()
        )));
    }
    let json: Value = serde_json::from_str(&document)
        .map_err(|error| invalid(format!("app data is no JSON: {error}")))?;
    if !json.is_object() {
        return Err(invalid("app data is no JSON object".to_owned()));
    }
    let metadata = &json["metadata"];
    if !metadata.is_null() && !metadata.is_object() {
        return Err(invalid("the metadata of the app data is no object".to_owned()));
    }
    let signer = match &metadata["signer"] {
        Value::Null => None,
        signer => Some(
            serde_json::from_value(signer.clone())
                .map_err(|error| invalid(format!("the signer in the app data: {error}")))?,
        ),
    };
    Ok(AppData { hash: keccak256(&document), document, signer })
}

/// Whose order it is: who signed it, or whose contract will be asked.
pub fn owner(
    order: &OrderCreation,
    data: &OrderData,
    domain: &DomainSeparator,
    signer: Option<Address>,
) -> Result<Address, Refusal> {
    let from = match (order.from, signer) {
        (Some(from), Some(signer)) if from != signer => {
            return Err(Refusal::AppdataFromMismatch { from, signer });
        }
        (from, signer) => from.or(signer),
    };
    let recovered = data.recover_signer(domain, &order.signature());
    let Some(recovered) = recovered.map_err(|_| Refusal::InvalidSignature)? else {
        return from.ok_or(Refusal::MissingFrom);
    };
    let (signer, message) = (recovered.signer, recovered.message);
    match from {
        Some(from) if from != signer => Err(Refusal::WrongOwner { message, signer, from }),
        _ => Ok(signer),
    }
}

/// Checks what can be said of an order by itself.
pub fn terms(data: &OrderData, signature: &Signature, rules: Rules) -> Result<(), Refusal> {
    if data.sell_amount.is_zero() || data.buy_amount.is_zero() {
        return Err(Refusal::ZeroAmount);
    }
    if data.buy_token_balance != BuyTokenDestination::Erc20 {
        return Err(Refusal::UnsupportedBuyTokenDestination(data.buy_token_balance));
    }
    if data.sell_token_balance == SellTokenSource::Internal {
        return Err(Refusal::UnsupportedSellTokenSource(data.sell_token_balance));
    }
    validity(data.valid_to.into(), signature.scheme(), rules)?;
    tokens(data.sell_token, data.buy_token, rules.wrapped_native)?;
    if !data.fee_amount.is_zero() {
        return Err(Refusal::NonZeroFee);
    }
    Ok(())
}

fn validity(valid_to: u64, scheme: SigningScheme, rules: Rules) -> Result<(), Refusal> {
    let Rules { limits, now, .. } = rules;
    if valid_to < now.saturating_add(limits.validity_seconds_min) {
        return Err(Refusal::InsufficientValidTo);
    }
    // Collecting the signatures of a Safe takes as long as it takes.
    if scheme == SigningScheme::PreSign {
        return Ok(());
    }
    if now.saturating_add(limits.validity_seconds_max) < valid_to {
        return Err(Refusal::ExcessiveValidTo);
    }
    Ok(())
}

/// Checks that two tokens can be traded for each other.
pub fn tokens(sell: Address, buy: Address, wrapped_native: Address) -> Result<(), Refusal> {
    if sell == buy || (sell == wrapped_native && buy == BUY_ETH_ADDRESS) {
        return Err(Refusal::SameBuyAndSellToken);
    }
    if sell == BUY_ETH_ADDRESS {
        return Err(Refusal::InvalidNativeSellToken);
    }
    match [sell, buy].into_iter().find(|token| token.is_zero()) {
        Some(nothing) => Err(Refusal::UnsupportedToken(nothing)),
        None => Ok(()),
    }
}
