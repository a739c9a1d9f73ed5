//! One order: what is remembered of it, and what an answer of the orderbook means.
//!
//! ```text
//!            404, in time           404                        404: the orderbook lost it
//!            ┌──────┐             ┌──────┐                    ┌──────────────┐
//!  placed ──▶│Unknown├─ too late ▶│Missing├─ there ─▶ Known ◀─┘              ▼
//!            └───┬──┘   (warn)    └──────┘              ▲                 Unknown
//!                └───────────── there ──────────────────┘
//!
//!  fulfilled, cancelled, expired, or past its time ──▶ forgotten
//! ```

use std::time::Duration;

use serde::Deserialize;
use shepherd_sdk::{Address, Error, Moment, When, serde_json, when::back_off};

/// First wait while the orderbook does not know an order, and the longest: it indexes a block
/// within seconds, and what it has not found in minutes needs a person and not more questions.
const UNKNOWN: Waits = Waits { first: Duration::from_secs(15), longest: Duration::from_secs(600) };

/// First wait while an order is open, and the longest. These questions only serve to forget it
/// when it is filled; that it is cancelled or refunded is told by the chain.
const OPEN: Waits = Waits { first: Duration::from_secs(60), longest: Duration::from_secs(3_600) };

struct Waits {
    first: Duration,
    longest: Duration,
}

/// What is remembered of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// How far it has come.
    pub stage: Stage,
    /// How often it was looked at in this stage.
    pub checks: u32,
    /// When it was placed: the block's time, in seconds since 1970.
    pub placed_at: u64,
    /// The block that placed it.
    pub placed_block: u64,
    /// The last second at which the user wants it executed.
    pub valid_to: u32,
    /// Who placed it.
    pub user: Address,
}

/// How far an order has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The orderbook does not know it yet, and may take its time.
    Unknown,
    /// The orderbook should know it by now and does not: that has been told.
    Missing,
    /// The orderbook has it.
    Known,
}

/// What the orderbook says about an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It does not know it.
    Nothing,
    /// It has it.
    Order(Status),
    /// It said something that cannot be read.
    Unreadable,
}

/// `status` of an order at the orderbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// It waits for its owner's signature.
    PresignaturePending,
    /// It can be executed.
    Open,
    /// It has been executed.
    Fulfilled,
    /// Its owner has taken it back.
    Cancelled,
    /// Its time is over.
    Expired,
}

/// What someone should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The orderbook has it.
    Confirmed,
    /// The orderbook should have it and does not.
    Missing,
    /// The orderbook has it after all.
    Appeared,
    /// It is over, and how.
    Over(Status),
    /// Its time is over, and the orderbook never had it.
    NeverAppeared,
    /// What the orderbook says cannot be read.
    Unreadable,
}

/// What to do after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Remember this, and look again then.
    Keep(Watch, When),
    /// Forget it.
    Forget,
}

impl Found {
    /// Reads the orderbook's answer.
    pub fn read(order: Option<&str>) -> Found {
        #[derive(Deserialize)]
        struct Order {
            status: Status,
        }

        let Some(order) = order else { return Found::Nothing };
        let read = serde_json::from_str(order);
        read.map_or(Found::Unreadable, |Order { status }| Found::Order(status))
    }
}

impl Status {
    /// As the orderbook spells it.
    pub fn name(self) -> &'static str {
        match self {
            Status::PresignaturePending => "presignaturePending",
            Status::Open => "open",
            Status::Fulfilled => "fulfilled",
            Status::Cancelled => "cancelled",
            Status::Expired => "expired",
        }
    }

    /// Whether it can still be executed.
    fn is_live(self) -> bool {
        matches!(self, Status::PresignaturePending | Status::Open)
    }
}

impl Watch {
    /// What an answer means for the order, and what to tell.
    ///
    /// `within` is how long after the placement the orderbook should know it.
    pub fn look(self, found: Found, now: Moment, within: Duration) -> (Next, Vec<News>) {
        let over = u64::from(self.valid_to) < now.time;
        match found {
            Found::Nothing => self.not_found(over, now, within),
            Found::Order(status) => {
                let mut news = self.arrival();
                if over || !status.is_live() {
                    let end = if status.is_live() { Status::Expired } else { status };
                    news.push(News::Over(end));
                    return (Next::Forget, news);
                }
                (self.again(Stage::Known, now, within), news)
            }
            Found::Unreadable if over => (Next::Forget, vec![News::Unreadable]),
            Found::Unreadable => (self.again(self.stage, now, within), vec![News::Unreadable]),
        }
    }

    fn not_found(self, over: bool, now: Moment, within: Duration) -> (Next, Vec<News>) {
        let late = self.deadline(within) <= now.time;
        match self.stage {
            // It was there. Nobody has to be told that an order which is over is gone.
            Stage::Known if over => (Next::Forget, vec![News::Over(Status::Expired)]),
            // The orderbook may see another branch of the chain for a moment.
            Stage::Known => (self.again(Stage::Unknown, now, within), Vec::new()),
            Stage::Unknown if over => (Next::Forget, vec![News::Missing, News::NeverAppeared]),
            Stage::Unknown if late => {
                (self.again(Stage::Missing, now, within), vec![News::Missing])
            }
            Stage::Missing if over => (Next::Forget, vec![News::NeverAppeared]),
            Stage::Unknown | Stage::Missing => (self.again(self.stage, now, within), Vec::new()),
        }
    }

    /// What it means that the orderbook has it.
    fn arrival(&self) -> Vec<News> {
        match self.stage {
            Stage::Unknown => vec![News::Confirmed],
            Stage::Missing => vec![News::Appeared],
            Stage::Known => Vec::new(),
        }
    }

    /// Remembers the stage, and looks again after a wait that doubles, but not later than
    /// something is to be told.
    fn again(self, stage: Stage, now: Moment, within: Duration) -> Next {
        let checks = if stage == self.stage { self.checks.saturating_add(1) } else { 1 };
        let waits = if stage == Stage::Known { OPEN } else { UNKNOWN };
        let wait = back_off(waits.first, checks).min(waits.longest);
        let mut time = now.time.saturating_add(wait.as_secs());
        time = time.min(u64::from(self.valid_to) + 1);
        let deadline = self.deadline(within);
        if stage == Stage::Unknown && now.time < deadline {
            time = time.min(deadline);
        }
        Next::Keep(Watch { stage, checks, ..self }, When::Time(time))
    }

    fn deadline(&self, within: Duration) -> u64 {
        self.placed_at.saturating_add(within.as_secs())
    }

    /// As it is stored.
    pub fn encode(&self) -> [u8; 45] {
        let mut bytes = [0; 45];
        bytes[0] = self.stage.to_byte();
        bytes[1..5].copy_from_slice(&self.checks.to_be_bytes());
        bytes[5..13].copy_from_slice(&self.placed_at.to_be_bytes());
        bytes[13..21].copy_from_slice(&self.placed_block.to_be_bytes());
        bytes[21..25].copy_from_slice(&self.valid_to.to_be_bytes());
        bytes[25..].copy_from_slice(self.user.as_slice());
        bytes
    }

    /// Reads what is stored.
    pub fn decode(bytes: &[u8]) -> Result<Watch, Error> {
        let read = || {
            let (stage, rest) = bytes.split_first()?;
            let (checks, rest) = rest.split_first_chunk::<4>()?;
            let (placed_at, rest) = rest.split_first_chunk::<8>()?;
            let (placed_block, rest) = rest.split_first_chunk::<8>()?;
            let (valid_to, user) = rest.split_first_chunk::<4>()?;
            let user: [u8; 20] = user.try_into().ok()?;
            Some(Watch {
                stage: Stage::from_byte(*stage)?,
                checks: u32::from_be_bytes(*checks),
                placed_at: u64::from_be_bytes(*placed_at),
                placed_block: u64::from_be_bytes(*placed_block),
                valid_to: u32::from_be_bytes(*valid_to),
                user: user.into(),
            })
        };
        read().ok_or_else(|| Error::new("what is stored of an order is none"))
    }
}

impl Stage {
    const ALL: [Stage; 3] = [Stage::Unknown, Stage::Missing, Stage::Known];

    fn to_byte(self) -> u8 {
        match self {
            Stage::Unknown => b'u',
            Stage::Missing => b'm',
            Stage::Known => b'k',
        }
    }

    fn from_byte(byte: u8) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.to_byte() == byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACED: u64 = 1_700_000_000;
    const WITHIN: Duration = Duration::from_secs(100);
    /// The order is valid for an hour.
    const VALID_TO: u64 = PLACED + 3_600;

    fn watch(stage: Stage, checks: u32) -> Watch {
        Watch {
            stage,
            checks,
            placed_at: PLACED,
            placed_block: 7,
            valid_to: VALID_TO as u32,
            user: Address::repeat_byte(0xaa),
        }
    }

    fn look(before: Watch, found: Found, time: u64) -> (Next, Vec<News>) {
        before.look(found, Moment { block: 8, time }, WITHIN)
    }

    #[track_caller]
    fn keeps(before: Watch, found: Found, time: u64, after: Watch, until: u64, news: &[News]) {
        let expected = (Next::Keep(after, When::Time(until)), news.to_vec());
        assert_eq!(look(before, found, time), expected);
    }

    #[track_caller]
    fn forgets(before: Watch, found: Found, time: u64, news: &[News]) {
        assert_eq!(look(before, found, time), (Next::Forget, news.to_vec()));
    }

    #[test]
    fn an_unknown_order_is_looked_at_again_with_back_off_and_at_its_deadline() {
        use Stage::Unknown;
        let nothing = Found::Nothing;
        let fresh = watch(Unknown, 0);
        keeps(fresh, nothing, PLACED + 12, watch(Unknown, 1), PLACED + 27, &[]);
        keeps(watch(Unknown, 1), nothing, PLACED + 27, watch(Unknown, 2), PLACED + 57, &[]);
        keeps(watch(Unknown, 2), nothing, PLACED + 57, watch(Unknown, 3), PLACED + 100, &[]);
    }

    #[test]
    fn an_order_that_does_not_appear_in_time_is_told_once() {
        use Stage::{Missing, Unknown};
        let (nothing, told) = (Found::Nothing, [News::Missing]);
        keeps(watch(Unknown, 3), nothing, PLACED + 100, watch(Missing, 1), PLACED + 115, &told);
        keeps(watch(Missing, 1), nothing, PLACED + 115, watch(Missing, 2), PLACED + 145, &[]);
        // The wait stops doubling, and never passes the end of the order.
        keeps(watch(Missing, 9), nothing, PLACED + 900, watch(Missing, 10), PLACED + 1_500, &[]);
        let late = VALID_TO - 5;
        keeps(watch(Missing, 9), nothing, late, watch(Missing, 10), VALID_TO + 1, &[]);
        forgets(watch(Missing, 10), nothing, VALID_TO + 1, &[News::NeverAppeared]);
        let both = [News::Missing, News::NeverAppeared];
        forgets(watch(Unknown, 1), nothing, VALID_TO + 1, &both);
    }

    #[test]
    fn an_order_that_appears_is_confirmed_once_and_then_looked_at_rarely() {
        use Stage::{Known, Missing, Unknown};
        let open = Found::Order(Status::Open);
        let confirmed = [News::Confirmed];
        keeps(watch(Unknown, 2), open, PLACED + 20, watch(Known, 1), PLACED + 80, &confirmed);
        keeps(watch(Known, 1), open, PLACED + 80, watch(Known, 2), PLACED + 200, &[]);
        keeps(
            watch(Missing, 4),
            open,
            PLACED + 200,
            watch(Known, 1),
            PLACED + 260,
            &[News::Appeared],
        );
        let pending = Found::Order(Status::PresignaturePending);
        keeps(watch(Unknown, 0), pending, PLACED, watch(Known, 1), PLACED + 60, &confirmed);
        let for_years = Watch { valid_to: u32::MAX, ..watch(Known, 30) };
        let after = Watch { checks: 31, ..for_years };
        keeps(for_years, open, PLACED, after, PLACED + 3_600, &[]);
    }

    #[test]
    fn an_order_that_is_over_is_forgotten() {
        use Stage::{Known, Unknown};
        for status in [Status::Fulfilled, Status::Cancelled, Status::Expired] {
            let over = News::Over(status);
            forgets(watch(Known, 3), Found::Order(status), PLACED + 50, &[over]);
            let news = [News::Confirmed, over];
            forgets(watch(Unknown, 0), Found::Order(status), PLACED + 50, &news);
        }
        let expired = [News::Over(Status::Expired)];
        forgets(watch(Known, 3), Found::Order(Status::Open), VALID_TO + 1, &expired);
        forgets(watch(Known, 3), Found::Nothing, VALID_TO + 1, &expired);
        let fulfilled = [News::Over(Status::Fulfilled)];
        forgets(watch(Known, 3), Found::Order(Status::Fulfilled), VALID_TO + 1, &fulfilled);
        // At its last second it is not over.
        let (next, _) = look(watch(Known, 3), Found::Order(Status::Open), VALID_TO);
        assert_ne!(next, Next::Forget);
    }

    #[test]
    fn an_order_that_the_orderbook_loses_is_unknown_again_and_then_missing() {
        use Stage::{Known, Missing, Unknown};
        let time = PLACED + 1_000;
        keeps(watch(Known, 3), Found::Nothing, time, watch(Unknown, 1), time + 15, &[]);
        let told = [News::Missing];
        keeps(watch(Unknown, 1), Found::Nothing, time, watch(Missing, 1), time + 15, &told);
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_told_and_changes_nothing_else() {
        for stage in Stage::ALL {
            let (next, news) = look(watch(stage, 1), Found::Unreadable, PLACED + 10);
            let Next::Keep(after, _) = next else { panic!("{stage:?} is forgotten") };
            assert_eq!((after, news), (watch(stage, 2), vec![News::Unreadable]));
            forgets(watch(stage, 1), Found::Unreadable, VALID_TO + 1, &[News::Unreadable]);
        }
    }

    #[test]
    fn the_orderbooks_answer_is_read_for_its_status() {
        let check = |order: Option<&str>, found| assert_eq!(Found::read(order), found, "{order:?}");
        check(None, Found::Nothing);
        let all = [
            Status::PresignaturePending,
            Status::Open,
            Status::Fulfilled,
            Status::Cancelled,
            Status::Expired,
        ];
        for status in all {
            let order = format!(r#"{{"uid":"0x00","status":"{}"}}"#, status.name());
            check(Some(&order), Found::Order(status));
        }
        for bad in ["", "{}", r#"{"status":"new"}"#, "null"] {
            check(Some(bad), Found::Unreadable);
        }
    }

    #[test]
    fn what_is_known_of_an_order_survives_being_stored() {
        for stage in Stage::ALL {
            let watch = watch(stage, 0x0102_0304);
            assert_eq!(Watch::decode(&watch.encode()), Ok(watch));
        }
        let good = watch(Stage::Known, 1).encode();
        for bad in [&good[..44], &[&good[..], &[0]].concat(), &[0; 45], &[]] {
            assert!(Watch::decode(bad).is_err(), "{bad:?}");
        }
    }
}
