//! One pre-signed sell order, placed when a price feed crosses a trigger.
//!
//! ```text
//! feed ──▶ fresh? across the trigger? ──▶ order ──▶ outbox ──▶ outcome ──▶ placed, or asked again
//!
//! key       value
//! 'order'   phase (1)  number (8)  feed (1)  refusals (4)  uid (56)
//!           length of `arm` (1)  `arm`  `errorType` of the last refusal
//! ```
//!
//! The order is placed once. What is over stays over, whatever the price does, until the
//! configuration has another `arm`.

use shepherd_sdk::{
    EffectKey, Error, Header, Host, Input, Level, Module, Moment, Outcome, When,
    chainlink::{Feed, Round, requests},
    cow::{
        addresses::SETTLEMENT,
        order::Domain,
        posting::{Posting, Signing},
        uid::Uid,
    },
    crossing::{Change, Side, State},
};

use config::{Config, Plan};
use progress::{End, Phase, Progress, Start};

mod config;
mod progress;

/// Where the progress is kept.
const KEY: &[u8] = b"order";

/// The module.
#[derive(Debug)]
pub struct StopLoss(Plan);

impl Module for StopLoss {
    type Config = Config;

    fn configure(config: Config) -> Result<StopLoss, Error> {
        Ok(StopLoss(config.try_into()?))
    }

    fn handle(&self, host: &mut impl Host, input: &Input) -> Result<(), Error> {
        match input {
            Input::Block(block) => self.step(host, &block.header),
            Input::Outcome(input) => hear(host, &input.header, &input.outcome),
            Input::Revert(input) => {
                input.outcomes.iter().for_each(|outcome| outcome.tell(host));
                Ok(())
            }
        }
    }
}

shepherd_sdk::export!(StopLoss);

impl StopLoss {
    fn step(&self, host: &mut impl Host, header: &Header) -> Result<(), Error> {
        let Plan { order, owner, arm, .. } = &self.0;
        let uid = order.uid(Domain::of_chain(host.chain_id()), *owner);
        let stored = host.get(KEY);
        let decoded = stored.as_deref().map(Progress::decode).transpose()?;
        let (mut progress, start) = Progress::under(decoded, arm, uid);
        self.tell_start(host, &progress, start);

        let now = Moment::from(header);
        let expired = u64::from(order.valid_to) < now.time;
        match progress.phase {
            Phase::Sent | Phase::Over(_) => (),
            Phase::Armed | Phase::Waiting(_) if expired => {
                let line = format!("order {uid} is given up: it was valid to {}", order.valid_to);
                host.log(Level::Warn, &line);
                progress.phase = Phase::Over(End::Expired);
            }
            Phase::Armed => self.watch(host, header, &mut progress)?,
            Phase::Waiting(until) if until.is_due(now) => {
                self.place(host)?;
                progress.phase = Phase::Sent;
            }
            Phase::Waiting(_) => (),
        }

        let encoded = progress.encode();
        if stored.as_ref() != Some(&encoded) {
            host.set(KEY, &encoded);
        }
        Ok(())
    }

    /// Looks at the feed, and places the order when the price has crossed the trigger. A feed that
    /// is stale or broken does not trigger: nobody knows the price.
    fn watch(
        &self,
        host: &mut impl Host,
        header: &Header,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let Plan { feed: address, direction, price: trigger_price, trigger, age_max, .. } = &self.0;
        let round = Round::read(&host.read(&requests(*address)));
        let (feed, news) = progress.feed.look(&round, header.timestamp, *age_max);
        progress.feed = feed;
        if let Some((level, news)) = news {
            host.log(level, &format!("feed {address} {news}"));
        }
        let (Ok(round), Feed::Fresh) = (round, feed) else { return Ok(()) };
        if trigger.look(State::Armed, round.price) != Change::Fires {
            return Ok(());
        }
        let line = format!(
            "{} is {} {trigger_price} at block {}: placing order {}",
            round.price,
            side(*direction),
            header.number,
            progress.uid
        );
        host.log(Level::Warn, &line);
        self.place(host)?;
        progress.phase = Phase::Sent;
        Ok(())
    }

    fn place(&self, host: &mut impl Host) -> Result<(), Error> {
        let Plan { order, owner, app_data, .. } = &self.0;
        let posting = Posting::new(*order, *owner, app_data.clone(), Signing::PreSign)?;
        host.place_order(&posting);
        Ok(())
    }

    fn tell_start(&self, host: &mut impl Host, progress: &Progress, start: Start) {
        let Plan { feed, direction, price, arm, owner, .. } = &self.0;
        let (uid, direction) = (progress.uid, side(*direction));
        match start {
            Start::GoesOn => (),
            Start::Armed => {
                let line = format!(
                    "armed ({arm}): order {uid} is placed when {feed} is {direction} {price}. \
                     {owner} signs it by setPreSignature at {SETTLEMENT}"
                );
                host.log(Level::Info, &line);
            }
            Start::Replaced => {
                let line = format!(
                    "order {uid} is left alone: the configuration has another one. Change `arm` to \
                     place that"
                );
                host.log(Level::Warn, &line);
            }
        }
    }
}

/// Hears what came of the order.
fn hear(host: &mut impl Host, header: &Header, outcome: &Outcome) -> Result<(), Error> {
    let stored = host.get(KEY);
    let progress = stored.as_deref().map(Progress::decode).transpose()?;
    // An outcome is about the order that is under way, or nothing in the state speaks of it.
    let under_way = |progress: &Progress| {
        let its_own = outcome.key == EffectKey::Order(progress.uid);
        its_own && !outcome.abandoned && progress.phase == Phase::Sent
    };
    let Some(progress) = progress.filter(under_way) else {
        outcome.tell(host);
        return Ok(());
    };
    let uid = progress.uid;
    let progress = progress.after(&outcome.result, Moment::from(header));
    let (level, line) = told(uid, &progress, outcome);
    host.log(level, &line);
    host.set(KEY, &progress.encode());
    Ok(())
}

/// The line about an outcome that counts.
fn told(uid: Uid, progress: &Progress, outcome: &Outcome) -> (Level, String) {
    let (level, line) = outcome.line();
    match progress.phase {
        Phase::Over(End::Placed) => (Level::Info, format!("order {uid} is at the orderbook")),
        Phase::Over(End::Refused) => {
            (Level::Error, format!("{line}. It is given up: correct it, and change `arm`"))
        }
        Phase::Waiting(until) => {
            let until = match until {
                When::Block(block) => format!("at block {block}"),
                When::Time(time) => format!("at time {time}"),
            };
            (Level::Warn, format!("{line}. It is placed again {until}"))
        }
        Phase::Armed | Phase::Sent | Phase::Over(_) => (level, line),
    }
}

fn side(direction: Side) -> &'static str {
    match direction {
        Side::Above => "above",
        Side::Below => "below",
    }
}

#[cfg(test)]
mod tests {
    use shepherd_sdk::{
        Answer, EffectResult, I256, U256,
        abi::Aggregator::{decimalsCall, latestRoundDataCall, latestRoundDataReturn},
        alloy_sol_types::SolCall,
        serde_json::{self, Value},
        testing::{MemoryHost, block, header, outcome, refused, revert},
    };

    use super::*;
    use crate::config::tests::{config, with};

    fn module(config: Value) -> StopLoss {
        StopLoss::configure(serde_json::from_value(config).unwrap()).unwrap()
    }

    fn golden() -> Uid {
        "0xc2b9cb4ea1ee5a86d8049ac09d8f494bf04cca0a68407285f31e2e6379800be8\
         7bf140727d27ea64b607e042f1225680b40eca6affffffff"
            .parse()
            .unwrap()
    }

    /// From now on the feed says that this price, in cents, was reported at this time.
    fn report(host: &mut MemoryHost, module: &StopLoss, cents: i64, updated_at: u64) {
        let [latest, decimals] = requests(module.0.feed);
        let round = latestRoundDataReturn {
            answer: I256::try_from(cents).unwrap(),
            updatedAt: U256::from(updated_at),
            ..Default::default()
        };
        let round = latestRoundDataCall::abi_encode_returns(&round);
        host.answer(latest, Answer::Returned(round.into()));
        host.answer(decimals, Answer::Returned(decimalsCall::abi_encode_returns(&2).into()));
    }

    /// Handles the block, with this price in cents reported at it.
    fn at(host: &mut MemoryHost, module: &StopLoss, number: u64, cents: i64) {
        report(host, module, cents, header(number).timestamp);
        module.handle(host, &block(number, vec![])).unwrap();
    }

    fn hears(host: &mut MemoryHost, module: &StopLoss, number: u64, result: EffectResult) {
        module.handle(host, &outcome(header(number), golden(), result)).unwrap();
    }

    fn placed(host: &MemoryHost) -> Vec<Uid> {
        host.placed.iter().map(|(uid, _)| *uid).collect()
    }

    fn phase(host: &MemoryHost) -> Phase {
        Progress::decode(&host.state[KEY]).unwrap().phase
    }

    /// A host where the order was placed at block 2.
    fn fired(module: &StopLoss) -> MemoryHost {
        let mut host = MemoryHost::default();
        at(&mut host, module, 1, 160_000);
        assert!(host.placed.is_empty());
        at(&mut host, module, 2, 149_999);
        host
    }

    #[test]
    fn the_price_crosses_and_the_golden_order_is_placed_pre_signed() {
        let module = module(config());
        let host = fired(&module);
        let [(uid, posting)] = &host.placed[..] else { panic!("{:?}", host.placed) };
        assert_eq!(*uid, golden());
        assert_eq!(posting.signing, Signing::PreSign);
        assert_eq!(posting.document(), Some("{}"));
        assert_eq!((posting.quote_id, posting.deliver), (None, None));
        assert_eq!(phase(&host), Phase::Sent);
        let line = format!("1499.99 is below 1500 at block 2: placing order {}", golden());
        assert_eq!(host.lines_at(Level::Warn), [line]);
    }

    #[test]
    fn the_trigger_itself_fires_and_above_means_above() {
        for (direction, quiet, fires) in
            [("below", 150_001, 150_000), ("above", 149_999, 150_000), ("above", 100, 200_000)]
        {
            let module = module(with("/direction", direction));
            let mut host = MemoryHost::default();
            at(&mut host, &module, 1, quiet);
            assert_eq!(placed(&host), []);
            at(&mut host, &module, 2, fires);
            assert_eq!(placed(&host), [golden()], "{direction} {fires}");
        }
    }

    #[test]
    fn a_second_trigger_is_idle() {
        let module = module(config());
        let mut host = fired(&module);
        // While it is under way, and after it is placed, whatever the price does.
        at(&mut host, &module, 3, 160_000);
        at(&mut host, &module, 4, 140_000);
        hears(&mut host, &module, 5, EffectResult::Accepted);
        assert_eq!(phase(&host), Phase::Over(End::Placed));
        let state = host.state.clone();
        host.reads.clear();
        for (number, cents) in (6..).zip([160_000, 140_000, 160_000, 130_000]) {
            at(&mut host, &module, number, cents);
        }
        assert_eq!(placed(&host), [golden()]);
        assert_eq!(host.state, state);
        // Nothing is asked of a feed that can change nothing.
        assert!(host.reads.is_empty());
        let line = format!("order {} is at the orderbook", golden());
        assert_eq!(host.lines_at(Level::Info)[1..], [line]);
    }

    #[test]
    fn only_another_arm_places_it_again() {
        let first = module(config());
        let mut host = fired(&first);
        hears(&mut host, &first, 3, EffectResult::AlreadyThere);
        // Another order under the same arm is not placed.
        let corrected = module(with("/order/buy_amount", "1"));
        at(&mut host, &corrected, 4, 140_000);
        assert_eq!(placed(&host), [golden()]);
        let armed = module(with("/arm", "2"));
        at(&mut host, &armed, 5, 160_000);
        assert_eq!(phase(&host), Phase::Armed);
        at(&mut host, &armed, 6, 140_000);
        assert_eq!(placed(&host), [golden(), golden()]);
    }

    #[test]
    fn an_order_that_is_refused_for_now_is_placed_again_when_it_may_work() {
        // At block 3 the time is 1 700 000 036.
        let cases = [
            ("InsufficientBalance", 52, 53), // 600 s
            ("InvalidAppData", 7, 8),        // 60 s
            ("QuoteNotFound", 3, 4),         // the next block
            ("Unheard", 302, 303),           // 3600 s
        ];
        for (error_type, quiet, again) in cases {
            let module = module(config());
            let mut host = fired(&module);
            hears(&mut host, &module, 3, refused(error_type));
            // The price does not matter any more.
            (4..=quiet).for_each(|number| at(&mut host, &module, number, 160_000));
            assert_eq!(placed(&host), [golden()], "{error_type}");
            at(&mut host, &module, again, 160_000);
            assert_eq!(placed(&host), [golden(), golden()], "{error_type}");
            assert_eq!(phase(&host), Phase::Sent);
            let lines = host.lines_at(Level::Warn);
            assert!(
                lines[1].contains(error_type) && lines[1].contains("placed again"),
                "{lines:?}"
            );
            hears(&mut host, &module, again + 1, EffectResult::Accepted);
            assert_eq!(phase(&host), Phase::Over(End::Placed));
        }
    }

    #[test]
    fn an_order_that_is_refused_for_good_is_given_up_and_told() {
        let module = module(config());
        let mut host = fired(&module);
        hears(&mut host, &module, 3, refused("UnsupportedToken"));
        (4..10).for_each(|number| at(&mut host, &module, number, 140_000));
        assert_eq!(placed(&host), [golden()]);
        assert_eq!(phase(&host), Phase::Over(End::Refused));
        let lines = host.lines_at(Level::Error);
        assert!(matches!(lines[..], [line] if line.contains("UnsupportedToken")), "{lines:?}");
    }

    #[test]
    fn a_stale_or_broken_feed_does_not_trigger_and_is_told_once() {
        let module = module(config());
        let mut host = MemoryHost::default();
        report(&mut host, &module, 100_000, header(1).timestamp - 3_601);
        (1..4).for_each(|number| module.handle(&mut host, &block(number, vec![])).unwrap());
        for request in requests(module.0.feed) {
            host.answer(request, Answer::Reverted(Default::default()));
        }
        (4..7).for_each(|number| module.handle(&mut host, &block(number, vec![])).unwrap());
        assert_eq!(placed(&host), []);
        assert_eq!(host.lines_at(Level::Warn).len(), 2);
        assert_eq!(phase(&host), Phase::Armed);
        // A price of nothing is no price, least of all one below the trigger.
        at(&mut host, &module, 7, 0);
        at(&mut host, &module, 8, -5);
        assert_eq!(placed(&host), []);
        at(&mut host, &module, 9, 149_000);
        assert_eq!(placed(&host), [golden()]);
    }

    #[test]
    fn an_order_whose_time_is_over_is_not_placed() {
        // Block 10 is at 1 700 000 120.
        let module = module(with("/order/valid_to", 1_700_000_119));
        let mut host = MemoryHost::default();
        at(&mut host, &module, 9, 160_000);
        for number in 10..13 {
            at(&mut host, &module, number, 140_000);
        }
        assert_eq!(placed(&host), []);
        assert_eq!(phase(&host), Phase::Over(End::Expired));
        assert_eq!(host.lines_at(Level::Warn).len(), 1);

        let mut host = MemoryHost::default();
        at(&mut host, &module, 8, 140_000);
        let [uid] = placed(&host)[..] else { panic!() };
        module.handle(&mut host, &outcome(header(8), uid, refused("InsufficientBalance"))).unwrap();
        (9..100).for_each(|number| at(&mut host, &module, number, 140_000));
        assert_eq!(placed(&host), [uid]);
        assert_eq!(phase(&host), Phase::Over(End::Expired));
    }

    #[test]
    fn a_trigger_that_is_taken_back_fires_again_and_its_outcome_changes_nothing() {
        let module = module(config());
        let mut host = MemoryHost::default();
        at(&mut host, &module, 1, 160_000);
        let before = host.state.clone();
        at(&mut host, &module, 2, 140_000);
        // Block 2 is taken back, after its order was accepted.
        host.state = before.clone();
        let notice = revert(header(1), vec![(golden(), EffectResult::Accepted)]);
        module.handle(&mut host, &notice).unwrap();
        assert_eq!(host.state, before);
        assert!(host.lines_at(Level::Warn).last().unwrap().contains("has been taken back"));
        at(&mut host, &module, 2, 160_000);
        assert_eq!(placed(&host), [golden()]);
        at(&mut host, &module, 3, 140_000);
        assert_eq!(placed(&host), [golden(), golden()]);
        hears(&mut host, &module, 4, EffectResult::AlreadyThere);
        assert_eq!(phase(&host), Phase::Over(End::Placed));
    }

    #[test]
    fn an_outcome_that_is_not_the_orders_or_comes_too_late_changes_nothing() {
        let module = module(config());
        let mut host = fired(&module);
        let sent = host.state.clone();
        let other = Uid { valid_to: 1, ..golden() };
        module.handle(&mut host, &outcome(header(3), other, EffectResult::Accepted)).unwrap();
        assert_eq!(host.state, sent);
        let abandoned = Outcome {
            key: EffectKey::Order(golden()),
            result: refused("ZeroAmount"),
            abandoned: true,
        };
        let input = shepherd_sdk::OutcomeInput { header: header(3), outcome: abandoned };
        module.handle(&mut host, &Input::Outcome(input)).unwrap();
        assert_eq!(host.state, sent);
        hears(&mut host, &module, 4, EffectResult::Accepted);
        let over = host.state.clone();
        hears(&mut host, &module, 5, EffectResult::Expired);
        assert_eq!(host.state, over);
    }

    #[test]
    fn when_it_is_armed_it_says_what_has_to_be_signed() {
        let module = module(config());
        let mut host = MemoryHost::default();
        at(&mut host, &module, 1, 160_000);
        at(&mut host, &module, 2, 160_000);
        let lines = host.lines_at(Level::Info);
        let [line] = lines[..] else { panic!("{lines:?}") };
        for part in ["armed (1)", &golden().to_string(), "below 1500", "setPreSignature"] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn a_block_reads_the_feed_in_one_batch_and_nothing_else() {
        let module = module(config());
        let mut host = MemoryHost::default();
        at(&mut host, &module, 1, 160_000);
        assert_eq!(host.reads, [requests(module.0.feed)]);
        assert!(host.orderbook_reads.is_empty() && host.webhooks.is_empty());
        assert_eq!(host.state.len(), 1);
    }
}
