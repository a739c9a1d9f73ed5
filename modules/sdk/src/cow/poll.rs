//! What a conditional order's contracts say instead of an order, and what to do then.
//!
//! ```text
//! getTradeableOrderWithSignature ─┬─ returns ──▶ an order: post it
//!                                 └─ reverts ──▶ Verdict ──▶ Next
//! ```
//!
//! A transport failure is no verdict: the host retries it and a module never sees it.
//!
//! A TWAP is asked only while a part is due, and its verdicts are read by
//! [`twap::next`](super::twap::next): its handler calls the time before the start *not valid*, which
//! from any other handler means for ever.

use std::{fmt, time::Duration};

use alloy_primitives::{Bytes, U256};
use alloy_sol_types::{Panic, Revert, SolError};

use super::abi::{ComposableCow, Handler};
use crate::{Moment, When};

/// Farthest a handler can send us away by time. Asking a week later than needed would lose orders
/// and asking a week early costs one call, so a handler that names a day in the far future (the
/// argument is a uint256) is asked again before it.
pub const WAIT_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Farthest a handler can send us away by block: a week of blocks a quarter of a second apart,
/// the fastest of the chains. Where they are slower it is longer, and still not for ever.
pub const WAIT_BLOCKS_MAX: u64 = 4 * 7 * 24 * 60 * 60;

/// What a revert says.
///
/// ```
/// use shepherd_sdk::{
///     Moment, When,
///     alloy_sol_types::SolError,
///     cow::{abi::Handler::PollTryAtEpoch, poll::{Next, Verdict}},
/// };
///
/// let timestamp = "1700003600".parse().unwrap();
/// let revert = PollTryAtEpoch { timestamp, reason: "too early".into() }.abi_encode();
/// let here = Moment { block: 100, time: 1_700_000_000 };
/// assert_eq!(Verdict::of(&revert).next(here), Next::At(When::Time(1_700_003_600)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `PollNever`.
    Never(String),
    /// `OrderNotValid`.
    NotValid(String),
    /// `InvalidHandler`: the handler is no contract, or not one for orders.
    InvalidHandler,
    /// `InvalidFallbackHandler`: the owner cannot sign.
    InvalidFallbackHandler,
    /// `InterfaceNotSupported`: the swap guard or the handler does not speak the interface.
    InterfaceNotSupported,
    /// `SingleOrderNotAuthed`: the owner has not created it, or has removed it.
    SingleOrderNotAuthed,
    /// `ProofNotAuthed`: it is not under the owner's root, or not any more.
    ProofNotAuthed,
    /// `SwapGuardRestricted`: the owner's swap guard says no, for now.
    SwapGuardRestricted,
    /// `PollTryNextBlock`.
    TryNextBlock(String),
    /// `PollTryAtBlock`, with a block that fits or the last there can be.
    TryAtBlock(u64, String),
    /// `PollTryAtEpoch`, with a time in seconds that fits or the last there can be.
    TryAtTime(u64, String),
    /// Anything else: a bug in the handler, a token that reverts, data that does not decode.
    Other(Bytes),
}

/// What a watcher does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Forget the order: nothing will come of it.
    Stop,
    /// The order is cancelled. Forget it once the contract confirms, at the block being handled,
    /// that it is not authorised: a lagging endpoint says the same about a new order.
    Confirm,
    /// Keep it and ask again after [`RETRY_AFTER`].
    Later,
    /// Keep it and ask again then.
    At(When),
    /// Keep it, warn, and ask again after a [back-off](crate::when::back_off) from
    /// [`BACK_OFF_FROM`].
    BackOff,
}

/// When to ask again after [`Next::Later`]. Swap guards are opened by people.
pub const RETRY_AFTER: Duration = Duration::from_secs(10 * 60);

/// Where the back-off of [`Next::BackOff`] begins.
pub const BACK_OFF_FROM: Duration = Duration::from_secs(60);

impl Verdict {
    /// Reads what `getTradeableOrderWithSignature` reverted with.
    ///
    /// Data that begins like an error we know and does not decode as one is [`Verdict::Other`]:
    /// no order is forgotten over it.
    pub fn of(revert: &[u8]) -> Verdict {
        let read = || -> Option<Verdict> {
            let (selector, arguments) = revert.split_first_chunk::<4>()?;
            Some(match *selector {
                Handler::PollNever::SELECTOR => {
                    Verdict::Never(Handler::PollNever::abi_decode_raw(arguments).ok()?.reason)
                }
                Handler::OrderNotValid::SELECTOR => Verdict::NotValid(
                    Handler::OrderNotValid::abi_decode_raw(arguments).ok()?.reason,
                ),
                ComposableCow::InvalidHandler::SELECTOR => Verdict::InvalidHandler,
                ComposableCow::InvalidFallbackHandler::SELECTOR => Verdict::InvalidFallbackHandler,
                ComposableCow::InterfaceNotSupported::SELECTOR => Verdict::InterfaceNotSupported,
                ComposableCow::SingleOrderNotAuthed::SELECTOR => Verdict::SingleOrderNotAuthed,
                ComposableCow::ProofNotAuthed::SELECTOR => Verdict::ProofNotAuthed,
                ComposableCow::SwapGuardRestricted::SELECTOR => Verdict::SwapGuardRestricted,
                Handler::PollTryNextBlock::SELECTOR => {
                    let hint = Handler::PollTryNextBlock::abi_decode_raw(arguments).ok()?;
                    Verdict::TryNextBlock(hint.reason)
                }
                Handler::PollTryAtBlock::SELECTOR => {
                    let hint = Handler::PollTryAtBlock::abi_decode_raw(arguments).ok()?;
                    Verdict::TryAtBlock(fitting(hint.blockNumber), hint.reason)
                }
                Handler::PollTryAtEpoch::SELECTOR => {
                    let hint = Handler::PollTryAtEpoch::abi_decode_raw(arguments).ok()?;
                    Verdict::TryAtTime(fitting(hint.timestamp), hint.reason)
                }
                _ => return None,
            })
        };
        read().unwrap_or_else(|| Verdict::Other(Bytes::copy_from_slice(revert)))
    }

    /// What to do about it. A hint is never followed into the past nor farther than a week.
    pub fn next(&self, here: Moment) -> Next {
        match self {
            Verdict::Never(_)
            | Verdict::NotValid(_)
            | Verdict::InvalidHandler
            | Verdict::InvalidFallbackHandler
            | Verdict::InterfaceNotSupported => Next::Stop,
            Verdict::SingleOrderNotAuthed | Verdict::ProofNotAuthed => Next::Confirm,
            Verdict::SwapGuardRestricted => Next::Later,
            Verdict::TryNextBlock(_) => Next::At(here.next_block()),
            Verdict::TryAtBlock(block, _) if *block <= here.block => Next::At(here.next_block()),
            Verdict::TryAtBlock(block, _) => {
                let farthest = here.block.saturating_add(WAIT_BLOCKS_MAX);
                Next::At(When::Block(farthest.min(*block)))
            }
            Verdict::TryAtTime(time, _) if *time <= here.time => Next::At(here.next_block()),
            Verdict::TryAtTime(time, _) => Next::At(When::Time(*time).min(here.after(WAIT_MAX))),
            Verdict::Other(_) => Next::BackOff,
        }
    }
}

/// For the operator: the error as Solidity would write it.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Never(reason) => write!(f, "PollNever({reason:?})"),
            Verdict::NotValid(reason) => write!(f, "OrderNotValid({reason:?})"),
            Verdict::InvalidHandler => f.write_str("InvalidHandler()"),
            Verdict::InvalidFallbackHandler => f.write_str("InvalidFallbackHandler()"),
            Verdict::InterfaceNotSupported => f.write_str("InterfaceNotSupported()"),
            Verdict::SingleOrderNotAuthed => f.write_str("SingleOrderNotAuthed()"),
            Verdict::ProofNotAuthed => f.write_str("ProofNotAuthed()"),
            Verdict::SwapGuardRestricted => f.write_str("SwapGuardRestricted()"),
            Verdict::TryNextBlock(reason) => write!(f, "PollTryNextBlock({reason:?})"),
            Verdict::TryAtBlock(block, reason) => write!(f, "PollTryAtBlock({block}, {reason:?})"),
            Verdict::TryAtTime(time, reason) => write!(f, "PollTryAtEpoch({time}, {reason:?})"),
            Verdict::Other(revert) => match (Revert::abi_decode(revert), Panic::abi_decode(revert))
            {
                (Ok(error), _) => write!(f, "Error({:?})", error.reason),
                (_, Ok(panic)) => write!(f, "Panic({:#x})", panic.code),
                _ => write!(f, "a revert with {revert}"),
            },
        }
    }
}

/// Chains count blocks and seconds in 64 bits: whatever is beyond is as far away as the last.
fn fitting(number: U256) -> u64 {
    number.saturating_to()
}

#[cfg(test)]
mod tests {
    use alloy_primitives::hex;

    use super::*;
    use crate::cow::abi::{ComposableCow::*, Handler::*};

    const HERE: Moment = Moment { block: 1_000, time: 1_700_000_000 };

    fn check(revert: impl SolError, verdict: Verdict, next: Next, text: &str) {
        let found = Verdict::of(&revert.abi_encode());
        assert_eq!(found, verdict);
        assert_eq!(found.next(HERE), next, "{verdict}");
        assert_eq!(found.to_string(), text);
    }

    fn text(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn what_can_never_be_is_stopped() {
        let never = PollNever { reason: text("over") };
        check(never, Verdict::Never(text("over")), Next::Stop, r#"PollNever("over")"#);
        let not_valid = OrderNotValid { reason: text("no") };
        check(not_valid, Verdict::NotValid(text("no")), Next::Stop, r#"OrderNotValid("no")"#);
        check(InvalidHandler {}, Verdict::InvalidHandler, Next::Stop, "InvalidHandler()");
        check(
            InterfaceNotSupported {},
            Verdict::InterfaceNotSupported,
            Next::Stop,
            "InterfaceNotSupported()",
        );
        check(
            InvalidFallbackHandler {},
            Verdict::InvalidFallbackHandler,
            Next::Stop,
            "InvalidFallbackHandler()",
        );
    }

    #[test]
    fn what_is_cancelled_is_confirmed_first() {
        check(
            SingleOrderNotAuthed {},
            Verdict::SingleOrderNotAuthed,
            Next::Confirm,
            "SingleOrderNotAuthed()",
        );
        check(ProofNotAuthed {}, Verdict::ProofNotAuthed, Next::Confirm, "ProofNotAuthed()");
    }

    #[test]
    fn a_swap_guard_keeps_the_order_for_later() {
        check(
            SwapGuardRestricted {},
            Verdict::SwapGuardRestricted,
            Next::Later,
            "SwapGuardRestricted()",
        );
    }

    #[test]
    fn hints_are_followed() {
        check(
            PollTryNextBlock { reason: text("soon") },
            Verdict::TryNextBlock(text("soon")),
            Next::At(When::Block(1_001)),
            r#"PollTryNextBlock("soon")"#,
        );
        check(
            PollTryAtBlock { blockNumber: U256::from(1_500), reason: text("") },
            Verdict::TryAtBlock(1_500, text("")),
            Next::At(When::Block(1_500)),
            r#"PollTryAtBlock(1500, "")"#,
        );
        check(
            PollTryAtEpoch { timestamp: U256::from(1_700_000_001), reason: text("t") },
            Verdict::TryAtTime(1_700_000_001, text("t")),
            Next::At(When::Time(1_700_000_001)),
            r#"PollTryAtEpoch(1700000001, "t")"#,
        );
    }

    #[test]
    fn a_hint_leads_neither_into_the_past_nor_farther_than_a_week() {
        let at_block = |block: U256| {
            let hint = PollTryAtBlock { blockNumber: block, reason: text("") };
            Verdict::of(&hint.abi_encode()).next(HERE)
        };
        let at_time = |time: U256| {
            let hint = PollTryAtEpoch { timestamp: time, reason: text("") };
            Verdict::of(&hint.abi_encode()).next(HERE)
        };
        let next_block = Next::At(When::Block(1_001));
        let last_block = Next::At(When::Block(1_000 + WAIT_BLOCKS_MAX));
        let last_time = Next::At(When::Time(1_700_000_000 + 604_800));
        for past in [0u64, 1, 999, 1_000] {
            assert_eq!(at_block(U256::from(past)), next_block);
            assert_eq!(at_time(U256::from(past)), next_block);
        }
        assert_eq!(at_block(U256::from(1_001)), next_block);
        assert_eq!(at_time(U256::from(1_700_000_000)), next_block);
        for far in [U256::MAX, U256::from(u64::MAX), U256::from(u64::MAX) + U256::from(5)] {
            assert_eq!(at_block(far), last_block);
            assert_eq!(at_time(far), last_time);
        }
        assert_eq!(at_block(U256::from(1_000 + WAIT_BLOCKS_MAX)), last_block);
        assert_eq!(at_block(U256::from(1_001 + WAIT_BLOCKS_MAX)), last_block);
        let almost = Next::At(When::Time(1_700_000_000 + 604_799));
        assert_eq!(at_time(U256::from(1_700_000_000 + 604_799)), almost);
    }

    #[test]
    fn anything_else_is_kept_with_a_back_off() {
        let check = |revert: &[u8], text: &str| {
            let verdict = Verdict::of(revert);
            assert_eq!(verdict, Verdict::Other(Bytes::copy_from_slice(revert)));
            assert_eq!(verdict.next(HERE), Next::BackOff);
            assert_eq!(verdict.to_string(), text);
        };
        check(&[], "a revert with 0x");
        check(&[0x98, 0x1b], "a revert with 0x981b");
        check(&hex!("deadbeef00"), "a revert with 0xdeadbeef00");
        check(&Revert::from("ERC20: paused").abi_encode(), r#"Error("ERC20: paused")"#);
        check(&Panic::from(0x11).abi_encode(), "Panic(0x11)");
        // These begin like errors that stop an order, and are not.
        check(&PollNever::SELECTOR, "a revert with 0x981b64cd");
        check(&[&OrderNotValid::SELECTOR[..], &[0xff; 64]].concat(), &{
            format!("a revert with 0xc8fc2725{}", "ff".repeat(64))
        });
    }
}
