//! What to do when the orderbook does not take an order.
//!
//! The table is data: `errorType` values of the orderbook's OpenAPI document and of its source,
//! with what each says about trying again. None of them is ever a reason to forget a conditional
//! order: what is dropped is the one order that was posted, and the next part comes all the same.

use std::time::Duration;

use crate::Refusal;

/// What to do with an order that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is at the orderbook, now or since before: done.
    Placed,
    /// Post it again after this time.
    After(Duration),
    /// Post it again at the next block.
    NextBlock,
    /// It can never be accepted: drop this order, and warn.
    Drop,
    /// We do not know what this means: warn, and post it again after a
    /// [back-off](crate::when::back_off) from this time.
    Park(Duration),
}

/// Whether a refusal is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// This order was not refused for this reason before.
    First,
    /// The same order was refused for the same `errorType` at an earlier block.
    Again,
}

/// Balances and allowances are changed by people.
const FOR_FUNDS: Duration = Duration::from_secs(600);

/// Open orders of one owner go away by and by.
const FOR_FEWER_ORDERS: Duration = Duration::from_secs(3_600);

/// A document that was uploaded a moment ago.
const FOR_APP_DATA: Duration = Duration::from_secs(60);

/// A limit without a time, and things that are not found.
const FOR_THE_SERVER: Duration = Duration::from_secs(600);

/// Someone has to look: sooner would fill the log.
const FOR_A_PERSON: Duration = Duration::from_secs(3_600);

/// Longest we believe a `Retry-After`. A TWAP part is rarely longer, and a mistyped header should
/// not stop an order for ever.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What each `errorType` asks for.
///
/// `InvalidEip1271Signature` is not here as it stands: the second time it is [`Action::Drop`].
pub const TABLE: [(&str, Action); 27] = [
    ("DuplicatedOrder", Action::Placed),
    // The state of the chain is in the way, and changes.
    ("InsufficientBalance", Action::After(FOR_FUNDS)),
    ("InsufficientAllowance", Action::After(FOR_FUNDS)),
    ("TransferSimulationFailed", Action::After(FOR_FUNDS)),
    ("TooManyLimitOrders", Action::After(FOR_FEWER_ORDERS)),
    ("InvalidAppData", Action::After(FOR_APP_DATA)),
    // A moment later it looks different.
    ("QuoteNotFound", Action::NextBlock),
    ("InvalidQuote", Action::NextBlock),
    ("InsufficientValidTo", Action::NextBlock),
    ("InvalidEip1271Signature", Action::NextBlock),
    // The order itself is in the way, and signed as it is.
    ("ZeroAmount", Action::Drop),
    ("SameBuyAndSellToken", Action::Drop),
    ("UnsupportedToken", Action::Drop),
    ("UnsupportedBuyTokenDestination", Action::Drop),
    ("UnsupportedSellTokenSource", Action::Drop),
    ("UnsupportedOrderType", Action::Drop),
    // Of an order placed through EthFlow this is no news: nobody should have posted it.
    ("ExcessiveValidTo", Action::Drop),
    ("InvalidNativeSellToken", Action::Drop),
    ("SellAmountOverflow", Action::Drop),
    ("TooMuchGas", Action::Drop),
    ("AppdataFromMismatch", Action::Drop),
    ("WrongOwner", Action::Drop),
    ("InvalidSignature", Action::Drop),
    ("AppDataHashMismatch", Action::Drop),
    ("IncompatibleSigningScheme", Action::Drop),
    ("MissingFrom", Action::Drop),
    ("NonZeroFee", Action::Drop),
];

/// What to do about a refusal.
///
/// ```
/// use std::time::Duration;
/// use shepherd_sdk::{Refusal, cow::refusal::{Action, Seen, action}};
///
/// let refused = |error_type: &str| {
///     let error_type = Some(error_type.to_owned());
///     action(&Refusal { status: 400, error_type, ..Refusal::default() }, Seen::First)
/// };
/// assert_eq!(refused("InsufficientBalance"), Action::After(Duration::from_secs(600)));
/// assert_eq!(refused("ZeroAmount"), Action::Drop);
/// // Something new is never a reason to lose an order.
/// assert!(matches!(refused("NewInTheNextRelease"), Action::Park(_)));
/// ```
pub fn action(refusal: &Refusal, seen: Seen) -> Action {
    let error_type = refusal.error_type.as_deref();
    // Signatures are checked at the orderbook's own block, which may be behind ours: the first
    // refusal says nothing yet.
    if error_type == Some("InvalidEip1271Signature") && seen == Seen::Again {
        return Action::Drop;
    }
    let listed = TABLE.iter().find(|(listed, _)| Some(*listed) == error_type);
    if let Some((_, action)) = listed {
        return *action;
    }
    match refusal.status {
        403 => Action::Drop,
        404 => Action::After(FOR_THE_SERVER),
        429 => {
            let wait = refusal.retry_after.map(|seconds| Duration::from_secs(seconds.into()));
            Action::After(wait.map_or(FOR_THE_SERVER, |wait| wait.min(RETRY_AFTER_MAX)))
        }
        _ => Action::Park(FOR_A_PERSON),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, error_type: &str) -> Refusal {
        let error_type = Some(error_type.to_owned()).filter(|name| !name.is_empty());
        Refusal { status, error_type, ..Refusal::default() }
    }

    #[track_caller]
    fn check(status: u16, error_type: &str, expected: Action) {
        let found = action(&refusal(status, error_type), Seen::First);
        assert_eq!(found, expected, "{status} {error_type}");
    }

    fn after(seconds: u64) -> Action {
        Action::After(Duration::from_secs(seconds))
    }

    /// Every row once more, as people would say it.
    fn rows() -> [(&'static str, Action); 27] {
        [
            ("DuplicatedOrder", Action::Placed),
            ("InsufficientBalance", after(600)),
            ("InsufficientAllowance", after(600)),
            ("TransferSimulationFailed", after(600)),
            ("TooManyLimitOrders", after(3600)),
            ("InvalidAppData", after(60)),
            ("QuoteNotFound", Action::NextBlock),
            ("InvalidQuote", Action::NextBlock),
            ("InsufficientValidTo", Action::NextBlock),
            ("InvalidEip1271Signature", Action::NextBlock),
            ("ZeroAmount", Action::Drop),
            ("SameBuyAndSellToken", Action::Drop),
            ("UnsupportedToken", Action::Drop),
            ("UnsupportedBuyTokenDestination", Action::Drop),
            ("UnsupportedSellTokenSource", Action::Drop),
            ("UnsupportedOrderType", Action::Drop),
            ("ExcessiveValidTo", Action::Drop),
            ("InvalidNativeSellToken", Action::Drop),
            ("SellAmountOverflow", Action::Drop),
            ("TooMuchGas", Action::Drop),
            ("AppdataFromMismatch", Action::Drop),
            ("WrongOwner", Action::Drop),
            ("InvalidSignature", Action::Drop),
            ("AppDataHashMismatch", Action::Drop),
            ("IncompatibleSigningScheme", Action::Drop),
            ("MissingFrom", Action::Drop),
            ("NonZeroFee", Action::Drop),
        ]
    }

    #[test]
    fn every_row_of_the_table_says_what_to_do() {
        for (error_type, action) in rows() {
            check(400, error_type, action);
        }
        assert_eq!(TABLE.map(|(name, _)| name), rows().map(|(name, _)| name));
    }

    #[test]
    fn a_signature_refused_again_at_a_later_block_drops_the_part() {
        let again = |error_type: &str| action(&refusal(400, error_type), Seen::Again);
        assert_eq!(again("InvalidEip1271Signature"), Action::Drop);
        // For any other refusal it makes no difference.
        for (error_type, expected) in
            rows().into_iter().filter(|(name, _)| *name != "InvalidEip1271Signature")
        {
            assert_eq!(again(error_type), expected, "{error_type}");
        }
    }

    #[test]
    fn a_status_speaks_where_no_error_type_does() {
        check(403, "", Action::Drop);
        check(403, "Forbidden", Action::Drop);
        check(404, "", after(600));
        check(404, "NoLiquidity", after(600));
        check(429, "", after(600));
        check(400, "DuplicatedOrder", Action::Placed);
        check(404, "QuoteNotFound", Action::NextBlock);
    }

    #[test]
    fn a_limit_is_waited_for_as_long_as_it_says_within_reason() {
        let limited = |seconds| {
            let refusal = Refusal { retry_after: Some(seconds), ..refusal(429, "") };
            action(&refusal, Seen::First)
        };
        assert_eq!(limited(7), after(7));
        assert_eq!(limited(86_400), after(86_400));
        assert_eq!(limited(u32::MAX), after(86_400));
    }

    #[test]
    fn what_nobody_knows_is_parked_and_never_dropped() {
        let park = Action::Park(Duration::from_secs(3_600));
        for error_type in ["", "Unheard", "duplicatedorder", "InvalidValidFrom", "QuoteNotVerified"]
        {
            check(400, error_type, park);
            check(422, error_type, park);
        }
        // The sender keeps 5xx to itself. If one came through, it would be no reason to lose an order.
        for status in [200, 202, 301, 401, 405, 409, 418, 500, 503] {
            check(status, "", park);
        }
    }
}
