//! When the parts of a TWAP are due.
//!
//! ```text
//! t0          t0+t                          t0+n·t
//! ├── part 0 ──┼── part 1 ──┼── … ──┼─ part n-1 ─┤
//! ├span┤       ├span┤               ├span┤            span 0: the whole part
//!   ▲      ▲                                   ▲
//!  Part  Between                            Finished
//! ```
//!
//! The handler never says when to come back, and calls three different things *not valid*, two of
//! which pass. So the watcher computes the schedule itself, from the order's static input and
//! nothing else.
//!
//! `OrderNotValid` from this handler is no verdict on the order: [`next`] believes the schedule.

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{SolValue, abi::AbiDecoderConfig};

use super::{
    abi::TwapData,
    order::{BuyTokenDestination, Kind, Order, SellTokenSource},
    poll::{Next, Verdict},
};
use crate::Moment;

/// Bytes of a static input: ten words.
const STATIC_INPUT_BYTES: usize = 320;

/// Longest time between two parts: `365 days` in `TWAPOrder.validate`.
const BETWEEN_PARTS_MAX: u64 = 365 * 24 * 60 * 60;

/// Where a TWAP stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It can never become an order.
    Invalid(Invalid),
    /// It starts when it was created, and the cabinet holds no time for it: it is not set, or not
    /// any more. Confirm that at the block being handled before it is forgotten.
    NotSet,
    /// It has not started.
    NotStarted {
        /// When it starts.
        until: u64,
    },
    /// A part can be placed now. The handler answers it even when it is placed or filled already.
    Part {
        /// Which, from 0.
        part: u32,
        /// The last second of it.
        valid_to: u32,
        /// When the next part is due, once this one is placed. `None` for the last: it is then
        /// finished.
        next: Option<u64>,
    },
    /// The window of a part is over and the next part has not begun.
    Between {
        /// When it begins.
        until: u64,
    },
    /// There is no part left.
    Finished,
}

/// Why a TWAP can never become an order: the checks of `TWAPOrder.validate`, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The handler cannot read it either, and reverts without data.
    #[error("the static input is not that of a TWAP")]
    Undecodable,
    /// Both tokens are the same.
    #[error("it sells the token it buys")]
    SameToken,
    /// A token is the zero address.
    #[error("a token is the zero address")]
    ZeroToken,
    /// A part sells nothing.
    #[error("a part sells nothing")]
    ZeroPart,
    /// A part may be sold for nothing.
    #[error("a part may be sold for nothing")]
    ZeroLimit,
    /// The start is no time an order can have.
    #[error("the start does not fit into 32 bits")]
    Start,
    /// Fewer than two parts, or more than 32 bits can count.
    #[error("the number of parts is not between 2 and 2^32 - 1")]
    Parts,
    /// No time between two parts, or more than 365 days.
    #[error("the time between parts is not between 1 second and 365 days")]
    Frequency,
    /// The window of a part is longer than the part.
    #[error("the window of a part is longer than the part")]
    Span,
    /// A part would end later than an order can: in the year 2106.
    #[error("the parts end later than an order can")]
    BeyondTime,
}

/// A reason for which the handler says `OrderNotValid` and that depends on the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotValid {
    /// It passes: before the start, or between two windows.
    Temporary,
    /// It does not: after the end.
    Permanent,
}

impl NotValid {
    /// Reads the reason of an `OrderNotValid` of this handler; `None` for those that do not
    /// depend on the time (the ones [`Invalid`] foresees).
    ///
    /// ```
    /// use shepherd_sdk::cow::twap::NotValid;
    ///
    /// assert_eq!(NotValid::of("before twap start"), Some(NotValid::Temporary));
    /// assert_eq!(NotValid::of("after twap finish"), Some(NotValid::Permanent));
    /// ```
    pub fn of(reason: &str) -> Option<NotValid> {
        match reason {
            "before twap start" | "not within span" => Some(NotValid::Temporary),
            "after twap finish" => Some(NotValid::Permanent),
            _ => None,
        }
    }
}

/// Whether the start is in the cabinet: `cabinet(owner, order id)`, for an order under a merkle
/// root `cabinet(owner, 0)`.
pub fn starts_by_cabinet(twap: &TwapData) -> bool {
    twap.t0.is_zero()
}

/// Reads the static input as the handler does: what is behind the ten words does not matter, and
/// an address with something in front of it is no address.
pub fn decode(static_input: &[u8]) -> Result<TwapData, Invalid> {
    let words = static_input.get(..STATIC_INPUT_BYTES).ok_or(Invalid::Undecodable)?;
    let strictly = AbiDecoderConfig::new().validate(true);
    TwapData::abi_decode_with_config(words, strictly).map_err(|_| Invalid::Undecodable)
}

/// Where a TWAP stands at a block's time.
///
/// `cabinet` is what the cabinet answered; it counts only where [`starts_by_cabinet`].
///
/// ```
/// use shepherd_sdk::{
///     Address, B256, U256,
///     cow::{abi::TwapData, twap::{Phase, phase}},
/// };
///
/// let twap = TwapData {
///     sellToken: Address::repeat_byte(1),
///     buyToken: Address::repeat_byte(2),
///     partSellAmount: U256::from(10),
///     minPartLimit: U256::from(1),
///     t0: U256::from(1_700_000_000),
///     n: U256::from(3),
///     t: U256::from(3_600),
///     ..TwapData::default()
/// };
/// let at = |now| phase(&twap, B256::ZERO, now);
/// assert_eq!(at(1_699_999_999), Phase::NotStarted { until: 1_700_000_000 });
/// let (valid_to, next) = (1_700_007_199, Some(1_700_007_200));
/// assert_eq!(at(1_700_003_600), Phase::Part { part: 1, valid_to, next });
/// assert_eq!(at(1_700_010_800), Phase::Finished);
/// ```
pub fn phase(twap: &TwapData, cabinet: B256, now: u64) -> Phase {
    match Schedule::of(twap, cabinet) {
        Ok(Some(schedule)) => schedule.phase(now),
        Ok(None) => Phase::NotSet,
        Err(invalid) => Phase::Invalid(invalid),
    }
}

/// What to do about a verdict on a TWAP that was asked for a part which is due.
///
/// By its schedule the order is valid at this block. If the handler says it is not, one of the two
/// is wrong, and that is for someone to look at and no reason to forget an order: the schedule
/// ends it when it is over.
///
/// ```
/// use shepherd_sdk::{Moment, cow::{poll::{Next, Verdict}, twap}};
///
/// let here = Moment { block: 100, time: 1_700_000_000 };
/// let verdict = Verdict::NotValid("before twap start".to_owned());
/// assert_eq!(verdict.next(here), Next::Stop);
/// assert_eq!(twap::next(&verdict, here), Next::BackOff);
/// ```
pub fn next(verdict: &Verdict, here: Moment) -> Next {
    match verdict {
        Verdict::NotValid(_) => Next::BackOff,
        other => other.next(here),
    }
}

/// The order of a part: what the handler answers for it.
pub fn part(twap: &TwapData, valid_to: u32) -> Order {
    Order {
        sell_token: twap.sellToken,
        buy_token: twap.buyToken,
        receiver: twap.receiver,
        sell_amount: twap.partSellAmount,
        buy_amount: twap.minPartLimit,
        valid_to,
        app_data: twap.appData,
        fee_amount: U256::ZERO,
        kind: Kind::Sell,
        partially_fillable: false,
        sell_token_source: SellTokenSource::Erc20,
        buy_token_destination: BuyTokenDestination::Erc20,
    }
}

/// The times of a TWAP that is not invalid. All of them together stay below 2^58: nothing here
/// overflows.
struct Schedule {
    start: u64,
    parts: u64,
    between: u64,
    span: u64,
}

impl Schedule {
    /// `None` when the cabinet holds no start.
    fn of(twap: &TwapData, cabinet: B256) -> Result<Option<Schedule>, Invalid> {
        if twap.sellToken == twap.buyToken {
            return Err(Invalid::SameToken);
        }
        if twap.sellToken == Address::ZERO || twap.buyToken == Address::ZERO {
            return Err(Invalid::ZeroToken);
        }
        if twap.partSellAmount.is_zero() {
            return Err(Invalid::ZeroPart);
        }
        if twap.minPartLimit.is_zero() {
            return Err(Invalid::ZeroLimit);
        }
        // The handler puts the cabinet's value in the place of t0 before it checks it, and any
        // factory may have written it.
        let start = if starts_by_cabinet(twap) { cabinet.into() } else { twap.t0 };
        let start = number(start).filter(|start| *start < u64::from(u32::MAX));
        let start = start.ok_or(Invalid::Start)?;
        let parts = number(twap.n).filter(|n| (2..=u64::from(u32::MAX)).contains(n));
        let between = number(twap.t).filter(|t| (1..=BETWEEN_PARTS_MAX).contains(t));
        let (parts, between) = (parts.ok_or(Invalid::Parts)?, between.ok_or(Invalid::Frequency)?);
        let span = number(twap.span).filter(|span| *span <= between).ok_or(Invalid::Span)?;
        // With a start of zero the handler would count parts from 1970. Whoever reads that as an
        // order that is over forgets one whose cabinet could not be read yet.
        Ok((start != 0).then_some(Schedule { start, parts, between, span }))
    }

    fn phase(&self, now: u64) -> Phase {
        if now < self.start {
            return Phase::NotStarted { until: self.start };
        }
        let part = (now - self.start) / self.between;
        if self.parts <= part {
            return Phase::Finished;
        }
        let begins = self.start + part * self.between;
        let length = if self.span == 0 { self.between } else { self.span };
        let valid_to = begins + length - 1;
        let next = (part + 1 < self.parts).then_some(begins + self.between);
        if valid_to < now {
            return next.map_or(Phase::Finished, |until| Phase::Between { until });
        }
        let Ok(valid_to) = u32::try_from(valid_to) else {
            return Phase::Invalid(Invalid::BeyondTime);
        };
        let part = u32::try_from(part).expect("there are fewer parts than 2^32");
        Phase::Part { part, valid_to, next }
    }
}

fn number(word: U256) -> Option<u64> {
    u64::try_from(word).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000;
    const HOUR: u64 = 3_600;

    /// Three parts, an hour each.
    fn twap() -> TwapData {
        TwapData {
            sellToken: Address::repeat_byte(1),
            buyToken: Address::repeat_byte(2),
            receiver: Address::repeat_byte(3),
            partSellAmount: U256::from(10),
            minPartLimit: U256::from(5),
            t0: U256::from(START),
            n: U256::from(3),
            t: U256::from(HOUR),
            span: U256::ZERO,
            appData: B256::repeat_byte(4),
        }
    }

    #[track_caller]
    fn check(twap: &TwapData, now: u64, expected: Phase) {
        assert_eq!(phase(twap, B256::ZERO, now), expected);
    }

    fn at(part: u32, valid_to: u64, next: Option<u64>) -> Phase {
        Phase::Part { part, valid_to: valid_to as u32, next }
    }

    #[test]
    fn before_its_start_it_waits_for_it() {
        check(&twap(), 0, Phase::NotStarted { until: START });
        check(&twap(), START - 1, Phase::NotStarted { until: START });
    }

    #[test]
    fn without_a_span_every_second_belongs_to_a_part() {
        let second = START + HOUR;
        let third = START + 2 * HOUR;
        check(&twap(), START, at(0, second - 1, Some(second)));
        check(&twap(), second - 1, at(0, second - 1, Some(second)));
        check(&twap(), second, at(1, third - 1, Some(third)));
        check(&twap(), third - 1, at(1, third - 1, Some(third)));
        check(&twap(), third, at(2, START + 3 * HOUR - 1, None));
        check(&twap(), START + 3 * HOUR - 1, at(2, START + 3 * HOUR - 1, None));
    }

    #[test]
    fn after_its_last_part_it_is_finished() {
        check(&twap(), START + 3 * HOUR, Phase::Finished);
        check(&twap(), u64::MAX, Phase::Finished);
    }

    #[test]
    fn with_a_span_it_waits_between_windows_and_is_finished_after_the_last() {
        let twap = TwapData { span: U256::from(600), ..twap() };
        let second = START + HOUR;
        let third = START + 2 * HOUR;
        check(&twap, START, at(0, START + 599, Some(second)));
        check(&twap, START + 599, at(0, START + 599, Some(second)));
        check(&twap, START + 600, Phase::Between { until: second });
        check(&twap, second - 1, Phase::Between { until: second });
        check(&twap, second, at(1, second + 599, Some(third)));
        check(&twap, second + 600, Phase::Between { until: third });
        check(&twap, third, at(2, third + 599, None));
        check(&twap, third + 599, at(2, third + 599, None));
        check(&twap, third + 600, Phase::Finished);
        check(&twap, START + 3 * HOUR, Phase::Finished);
    }

    #[test]
    fn a_span_as_long_as_the_part_is_like_none() {
        let whole = TwapData { span: U256::from(HOUR), ..twap() };
        for now in (START - 2..START + 3 * HOUR + 2).step_by(7) {
            assert_eq!(phase(&whole, B256::ZERO, now), phase(&twap(), B256::ZERO, now));
        }
    }

    #[test]
    fn a_span_of_a_second_leaves_a_second() {
        let twap = TwapData { span: U256::from(1), ..twap() };
        check(&twap, START, at(0, START, Some(START + HOUR)));
        check(&twap, START + 1, Phase::Between { until: START + HOUR });
    }

    #[test]
    fn what_can_never_become_an_order_says_why() {
        let check = |twap: TwapData, why: Invalid| {
            for now in [0, START, u64::MAX] {
                let cabinet = B256::from(U256::from(START));
                assert_eq!(phase(&twap, cabinet, now), Phase::Invalid(why), "{twap:?}");
            }
        };
        let one = U256::ONE;
        let last = U256::from(u32::MAX);
        check(TwapData { buyToken: twap().sellToken, ..twap() }, Invalid::SameToken);
        check(TwapData { sellToken: Address::ZERO, ..twap() }, Invalid::ZeroToken);
        check(TwapData { buyToken: Address::ZERO, ..twap() }, Invalid::ZeroToken);
        check(TwapData { partSellAmount: U256::ZERO, ..twap() }, Invalid::ZeroPart);
        check(TwapData { minPartLimit: U256::ZERO, ..twap() }, Invalid::ZeroLimit);
        check(TwapData { t0: last, ..twap() }, Invalid::Start);
        check(TwapData { t0: U256::MAX, ..twap() }, Invalid::Start);
        check(TwapData { n: U256::ZERO, ..twap() }, Invalid::Parts);
        check(TwapData { n: one, ..twap() }, Invalid::Parts);
        check(TwapData { n: last + one, ..twap() }, Invalid::Parts);
        check(TwapData { n: U256::MAX, ..twap() }, Invalid::Parts);
        check(TwapData { t: U256::ZERO, ..twap() }, Invalid::Frequency);
        check(TwapData { t: U256::from(365 * 86_400 + 1), ..twap() }, Invalid::Frequency);
        check(TwapData { t: U256::MAX, ..twap() }, Invalid::Frequency);
        check(TwapData { span: U256::from(HOUR + 1), ..twap() }, Invalid::Span);
        check(TwapData { span: U256::MAX, ..twap() }, Invalid::Span);
    }

    #[test]
    fn the_last_values_that_are_allowed_are_allowed() {
        let last = u64::from(u32::MAX);
        let most = TwapData { n: U256::from(last), t: U256::from(365 * 86_400), ..twap() };
        let year = 365 * 86_400;
        check(&most, START, at(0, START + year - 1, Some(START + year)));
        let two = TwapData { n: U256::from(2), t: U256::from(1), ..twap() };
        check(&two, START, at(0, START, Some(START + 1)));
        check(&two, START + 1, at(1, START + 1, None));
        check(&two, START + 2, Phase::Finished);
        let late = TwapData { t0: U256::from(last - 1), t: U256::from(2), ..twap() };
        check(&late, 0, Phase::NotStarted { until: last - 1 });
        check(&late, last - 1, at(0, last, Some(last + 1)));
    }

    #[test]
    fn a_part_that_ends_later_than_an_order_can_is_none() {
        let last = u64::from(u32::MAX);
        let late = TwapData { t0: U256::from(last - 1), t: U256::from(3), ..twap() };
        check(&late, last - 1, Phase::Invalid(Invalid::BeyondTime));
        let most = TwapData { n: U256::from(last), t: U256::from(365 * 86_400), ..twap() };
        check(&most, START + last * 365 * 86_400 - 1, Phase::Invalid(Invalid::BeyondTime));
        check(&most, START + last * 365 * 86_400, Phase::Finished);
    }

    #[test]
    fn an_order_that_starts_when_created_takes_its_start_from_the_cabinet() {
        let twap = TwapData { t0: U256::ZERO, ..twap() };
        assert!(starts_by_cabinet(&twap));
        let with = |cabinet: u64, now: u64| phase(&twap, B256::from(U256::from(cabinet)), now);
        assert_eq!(with(START, START - 1), Phase::NotStarted { until: START });
        assert_eq!(with(START, START), at(0, START + HOUR - 1, Some(START + HOUR)));
        assert_eq!(with(START, START + 3 * HOUR), Phase::Finished);
        assert_eq!(with(u64::from(u32::MAX), START), Phase::Invalid(Invalid::Start));
        assert_eq!(phase(&twap, B256::repeat_byte(0xff), START), Phase::Invalid(Invalid::Start));
    }

    #[test]
    fn an_empty_cabinet_is_neither_the_end_nor_the_year_1970() {
        let twap = TwapData { t0: U256::ZERO, ..twap() };
        check(&twap, START, Phase::NotSet);
        // A hundred years from 1970 would have a part today.
        let century = TwapData { n: U256::from(100), t: U256::from(365 * 86_400), ..twap };
        check(&century, START, Phase::NotSet);
    }

    #[test]
    fn the_cabinet_does_not_move_a_start_that_is_given() {
        assert!(!starts_by_cabinet(&twap()));
        let cabinet = B256::from(U256::from(START + 500));
        assert_eq!(phase(&twap(), cabinet, START), phase(&twap(), B256::ZERO, START));
    }

    #[test]
    fn of_the_handlers_reasons_two_pass_and_one_does_not() {
        let check = |reason: &str, expected| assert_eq!(NotValid::of(reason), expected, "{reason}");
        check("before twap start", Some(NotValid::Temporary));
        check("not within span", Some(NotValid::Temporary));
        check("after twap finish", Some(NotValid::Permanent));
        check("same token", None);
        check("", None);
    }

    #[test]
    fn no_verdict_on_the_time_forgets_an_order_and_all_others_count() {
        let here = Moment { block: 7, time: START };
        for reason in ["before twap start", "not within span", "after twap finish", "else"] {
            assert_eq!(next(&Verdict::NotValid(reason.to_owned()), here), Next::BackOff);
        }
        assert_eq!(next(&Verdict::SingleOrderNotAuthed, here), Next::Confirm);
        assert_eq!(next(&Verdict::SwapGuardRestricted, here), Next::Later);
        assert_eq!(next(&Verdict::InvalidHandler, here), Next::Stop);
    }

    #[test]
    fn a_static_input_is_read_as_the_handler_reads_it() {
        let encoded = twap().abi_encode();
        assert_eq!(encoded.len(), STATIC_INPUT_BYTES);
        assert_eq!(decode(&encoded), Ok(twap()));
        assert_eq!(decode(&[&encoded[..], &[1, 2, 3]].concat()), Ok(twap()));
        assert_eq!(decode(&encoded[..319]), Err(Invalid::Undecodable));
        assert_eq!(decode(&[]), Err(Invalid::Undecodable));
        let mut dirty = encoded;
        dirty[0] = 1;
        assert_eq!(decode(&dirty), Err(Invalid::Undecodable));
    }

    #[test]
    fn the_order_of_a_part_sells_its_amount_for_at_least_its_limit() {
        let order = part(&twap(), 77);
        assert_eq!((order.sell_amount, order.buy_amount), (U256::from(10), U256::from(5)));
        assert_eq!((order.valid_to, order.app_data), (77, B256::repeat_byte(4)));
        assert_eq!(order.receiver, Address::repeat_byte(3));
        assert_eq!(order.worth_posting(), Ok(()));
    }
}
