//! EthFlow orders, confirmed at the orderbook.
//!
//! ```text
//!  OrderPlacement ──▶ UID ──▶ watched, due at the next block
//!                               │
//!  due ──one batch──▶ GET order ┴▶ there: confirmed, looked at now and then until it is over
//!                                  not there: again later; too late: warn, webhook
//!
//!  OrderInvalidation, OrderRefund ──▶ forgotten
//!
//!  key                 value
//!  'o' uid (56)        stage ('u' unknown, 'm' missing, 'k' known)  checks (4)
//!                      placed at (8)  placed block (8)  user's valid to (4)  user (20)
//!  'd' …               when each is due: see shepherd_sdk::due
//! ```
//!
//! The orderbook finds these orders on the chain by itself and refuses them when they are posted.
//! So nothing is posted here: the watcher says whether the orderbook did what it should.

use std::time::Duration;

use serde::Deserialize;
use shepherd_sdk::{
    Address, Error, Header, Host, Input, Level, Log, Module, Moment, OrderbookAnswer,
    OrderbookRequest, Webhook,
    abi::{Event, event},
    cow::{
        abi::EthFlow::{OrderInvalidation, OrderPlacement, OrderRefund},
        ethflow::Placement,
        order::Domain,
        uid::Uid,
    },
    due::Due,
    serde_json::{Value, json},
};

use watch::{Found, News, Next, Stage, Watch};

mod watch;

/// When each order is to be looked at.
const DUE: Due = Due::under(b"d");

/// Most checks in a block. An answer of the orderbook may have 64 KiB, because anyone may place an
/// order with a large document, and a record may read 2 MiB: with more, anyone could halt the lane.
const CHECKS_MAX: usize = 30;

/// How patient to be, and whom to tell.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    confirm_within_seconds: u64,
    checks_per_block_max: usize,
    #[serde(default)]
    webhook: Option<String>,
}

/// The module.
#[derive(Debug)]
pub struct EthFlowWatcher {
    confirm_within: Duration,
    checks_per_block_max: usize,
    webhook: Option<String>,
}

impl Module for EthFlowWatcher {
    type Config = Config;

    fn configure(config: Config) -> Result<EthFlowWatcher, Error> {
        let Config { confirm_within_seconds, checks_per_block_max, webhook } = config;
        if confirm_within_seconds == 0 {
            return Err(Error::new(
                "`confirm_within_seconds` is 0, so every order would be late: write how long the \
                 orderbook may take, for example 300",
            ));
        }
        if !(1..=CHECKS_MAX).contains(&checks_per_block_max) {
            return Err(Error::new(format!(
                "`checks_per_block_max` is {checks_per_block_max}: write 1 to {CHECKS_MAX}"
            )));
        }
        if webhook.as_deref() == Some("") {
            return Err(Error::new(
                "`webhook` is empty: write a name from `webhooks` of the manifest, or leave it out",
            ));
        }
        let confirm_within = Duration::from_secs(confirm_within_seconds);
        Ok(EthFlowWatcher { confirm_within, checks_per_block_max, webhook })
    }

    fn handle(&self, host: &mut impl Host, input: &Input) -> Result<(), Error> {
        match input {
            Input::Block(block) => {
                observe(host, &block.header, &block.logs)?;
                self.check_due(host, &block.header)
            }
            Input::Outcome(input) => {
                input.outcome.tell(host);
                Ok(())
            }
            Input::Revert(input) => {
                input.outcomes.iter().for_each(|outcome| outcome.tell(host));
                Ok(())
            }
        }
    }
}

shepherd_sdk::export!(EthFlowWatcher);

/// Follows what the chain says, in the order it says it.
fn observe(host: &mut impl Host, header: &Header, logs: &[Log]) -> Result<(), Error> {
    for log in logs {
        match event::<OrderPlacement>(log) {
            Event::Is(placement) => placed(host, header, log.address, &placement)?,
            Event::Malformed => malformed(host, log),
            Event::Other => (),
        }
        match event::<OrderInvalidation>(log) {
            Event::Is(event) => ended(host, log.address, &event.orderUid, "invalidated")?,
            Event::Malformed => malformed(host, log),
            Event::Other => (),
        }
        match event::<OrderRefund>(log) {
            Event::Is(event) => ended(host, log.address, &event.orderUid, "refunded")?,
            Event::Malformed => malformed(host, log),
            Event::Other => (),
        }
    }
    Ok(())
}

fn placed(
    host: &mut impl Host,
    header: &Header,
    contract: Address,
    event: &OrderPlacement,
) -> Result<(), Error> {
    let domain = Domain::of_chain(host.chain_id());
    let placement = match Placement::read(event, contract, domain) {
        Ok(placement) => placement,
        Err(error) => {
            let line = format!("{contract} placed what is no order, which is ignored: {error}");
            host.log(Level::Warn, &line);
            return Ok(());
        }
    };
    let uid = placement.uid;
    // The contract places an order once. Another contract under its address may not.
    if host.get(&key(uid)).is_some() {
        return Ok(());
    }
    let watch = Watch {
        stage: Stage::Unknown,
        checks: 0,
        placed_at: header.timestamp,
        placed_block: header.number,
        valid_to: placement.user_valid_to,
        user: placement.user,
    };
    host.set(&key(uid), &watch.encode());
    DUE.set(host, &uid.to_bytes(), Moment::from(header).next_block())?;
    host.log(Level::Debug, &format!("order {uid} was placed by {}", watch.user));
    Ok(())
}

/// The chain says that an order is over.
fn ended(host: &mut impl Host, contract: Address, uid: &[u8], how: &str) -> Result<(), Error> {
    // A contract has a say over its own orders only.
    let Some(uid) = Uid::try_from(uid).ok().filter(|uid| uid.owner == contract) else {
        host.log(Level::Warn, &format!("{contract} {how} an order that is none of its own"));
        return Ok(());
    };
    forget(host, uid)?;
    host.log(Level::Info, &format!("order {uid} was {how}"));
    Ok(())
}

fn malformed(host: &mut impl Host, log: &Log) {
    let line = format!(
        "log {} of {} cannot be read and is ignored: is that an EthFlow contract?",
        log.index, log.address
    );
    host.log(Level::Warn, &line);
}

fn forget(host: &mut impl Host, uid: Uid) -> Result<(), Error> {
    host.delete(&key(uid));
    DUE.remove(host, &uid.to_bytes())?;
    Ok(())
}

fn key(uid: Uid) -> Vec<u8> {
    [b"o".as_slice(), &uid.to_bytes()].concat()
}

impl EthFlowWatcher {
    /// Asks the orderbook about the orders that are due, those due longest first. What is beyond
    /// the limit is due at the next block.
    fn check_due(&self, host: &mut impl Host, header: &Header) -> Result<(), Error> {
        let now = Moment::from(header);
        let taken = DUE.take(host, now, self.checks_per_block_max)?;
        let mut watched = Vec::with_capacity(taken.ids.len());
        for id in taken.ids {
            let uid = Uid::try_from(id.as_slice())?;
            let stored = host.get(&key(uid));
            let stored = stored.ok_or_else(|| Error::new(format!("{uid} is due and unknown")))?;
            watched.push((uid, Watch::decode(&stored)?));
        }
        if watched.is_empty() {
            return Ok(());
        }
        let requests: Vec<_> =
            watched.iter().map(|(uid, _)| OrderbookRequest::Order(*uid)).collect();
        for ((uid, watch), answer) in watched.into_iter().zip(host.read_orderbook(&requests)) {
            let OrderbookAnswer::Order(order) = answer else {
                return Err(Error::new("the host answered an order with something else"));
            };
            let found = Found::read(order.as_deref());
            let (next, news) = watch.look(found, now, self.confirm_within);
            for news in news {
                self.tell(host, header, uid, watch, news);
            }
            match next {
                Next::Keep(watch, when) => {
                    host.set(&key(uid), &watch.encode());
                    DUE.set(host, &uid.to_bytes(), when)?;
                }
                Next::Forget => host.delete(&key(uid)),
            }
        }
        Ok(())
    }

    fn tell(&self, host: &mut impl Host, header: &Header, uid: Uid, watch: Watch, news: News) {
        let age = header.timestamp.saturating_sub(watch.placed_at);
        let (level, line) = match news {
            News::Confirmed => {
                (Level::Info, format!("is at the orderbook, {age} s after it was placed"))
            }
            News::Missing => {
                let line = format!(
                    "of {} is not at the orderbook {age} s after it was placed, in block {}",
                    watch.user, watch.placed_block
                );
                (Level::Warn, line)
            }
            News::Appeared => {
                (Level::Info, format!("is at the orderbook after all, {age} s after it was placed"))
            }
            News::Over(status) => (Level::Info, format!("is over: {}", status.name())),
            News::NeverAppeared => {
                (Level::Info, "is over, and was never seen at the orderbook".to_owned())
            }
            News::Unreadable => {
                (Level::Warn, "is told by the orderbook in a way that cannot be read".to_owned())
            }
        };
        host.log(level, &format!("order {uid} {line}"));
        let (News::Missing, Some(destination)) = (news, &self.webhook) else { return };
        let body = body(host.chain_id(), header, uid, watch);
        // It names the order: whatever a reorg brings back, the order is told once.
        let key = Some(format!("ethflow/{uid}"));
        host.webhook(&Webhook { key, ..Webhook::new(destination, &body) });
    }
}

/// What a receiver is told of an order that the orderbook does not have.
fn body(chain_id: u64, header: &Header, uid: Uid, watch: Watch) -> Value {
    json!({
        "module": "ethflow-watcher",
        "chain_id": chain_id,
        "event": "missing",
        "uid": uid.to_string(),
        "contract": uid.owner.to_string(),
        "user": watch.user.to_string(),
        "placed_block": watch.placed_block,
        "placed_at": watch.placed_at,
        "valid_to": watch.valid_to,
        "block": header.number,
        "time": header.timestamp,
    })
}

#[cfg(test)]
mod tests {
    use shepherd_sdk::{
        B256, U256,
        alloy_sol_types::SolEvent,
        cow::{
            abi::{OnchainSignature, OnchainSigningScheme, OrderData},
            addresses::ETHFLOW,
            order::{BuyTokenDestination, Kind, SellTokenSource},
        },
        serde_json,
        testing::{MemoryHost, SEPOLIA, block, header, refused_with, webhook_outcome},
    };

    use super::*;

    const USER: Address = Address::repeat_byte(0xaa);
    /// `header(0)` is at 1 700 000 000, and blocks are twelve seconds apart.
    const VALID_TO: u32 = 1_700_003_600;

    fn module(config: Value) -> Result<EthFlowWatcher, Error> {
        EthFlowWatcher::configure(serde_json::from_value(config).unwrap())
    }

    fn watcher(checks: usize, webhook: Option<&str>) -> EthFlowWatcher {
        let config = json!({
            "confirm_within_seconds": 60, "checks_per_block_max": checks, "webhook": webhook,
        });
        module(config).unwrap()
    }

    fn placement(amount: u64) -> OrderPlacement {
        OrderPlacement {
            sender: USER,
            order: OrderData {
                sellToken: Address::repeat_byte(1),
                buyToken: Address::repeat_byte(2),
                receiver: USER,
                sellAmount: U256::from(amount),
                buyAmount: U256::from(1),
                validTo: u32::MAX,
                kind: Kind::Sell.marker(),
                sellTokenBalance: SellTokenSource::Erc20.marker(),
                buyTokenBalance: BuyTokenDestination::Erc20.marker(),
                ..Default::default()
            },
            signature: OnchainSignature {
                scheme: OnchainSigningScheme::Eip1271,
                data: ETHFLOW.to_vec().into(),
            },
            data: [&0i64.to_be_bytes()[..], &VALID_TO.to_be_bytes()].concat().into(),
        }
    }

    fn uid(amount: u64) -> Uid {
        let domain = Domain::of_chain(SEPOLIA);
        Placement::read(&placement(amount), ETHFLOW, domain).unwrap().uid
    }

    fn emitted(contract: Address, event: &impl SolEvent) -> Log {
        Log {
            address: contract,
            topics: event.encode_log_data().topics().try_into().unwrap(),
            data: event.encode_data(),
            ..Log::default()
        }
    }

    fn invalidated(contract: Address, amount: u64) -> Log {
        let order_uid = uid(amount).to_bytes().to_vec().into();
        emitted(contract, &OrderInvalidation { orderUid: order_uid })
    }

    fn refunded(amount: u64) -> Log {
        let order_uid = uid(amount).to_bytes().to_vec().into();
        emitted(ETHFLOW, &OrderRefund { orderUid: order_uid, refunder: USER })
    }

    fn is(host: &mut MemoryHost, amount: u64, status: Option<&str>) {
        let order = status.map(|status| json!({ "status": status }).to_string());
        host.order(uid(amount), order.as_deref());
    }

    /// A host where these orders were placed at block 1, and the orderbook knows none.
    fn with_placed(watcher: &EthFlowWatcher, amounts: &[u64]) -> MemoryHost {
        let mut host = MemoryHost::default();
        let logs = amounts.iter().map(|amount| emitted(ETHFLOW, &placement(*amount)));
        amounts.iter().for_each(|amount| is(&mut host, *amount, None));
        watcher.handle(&mut host, &block(1, logs.collect())).unwrap();
        host
    }

    /// Runs the blocks, and says at which of them how many orders were asked for.
    fn asked(
        watcher: &EthFlowWatcher,
        host: &mut MemoryHost,
        blocks: impl IntoIterator<Item = u64>,
    ) -> Vec<(u64, usize)> {
        let mut asked = Vec::new();
        for number in blocks {
            host.orderbook_reads.clear();
            watcher.handle(host, &block(number, vec![])).unwrap();
            match &host.orderbook_reads[..] {
                [] => (),
                [batch] => asked.push((number, batch.len())),
                batches => panic!("{} batches at block {number}", batches.len()),
            }
        }
        asked
    }

    #[test]
    fn the_uid_belongs_to_the_contract_and_never_ends() {
        let host = with_placed(&watcher(30, None), &[5]);
        let uid = uid(5);
        assert_eq!((uid.owner, uid.valid_to), (ETHFLOW, u32::MAX));
        let watch = Watch::decode(&host.state[&key(uid)]).unwrap();
        assert_eq!((watch.valid_to, watch.user, watch.placed_block), (VALID_TO, USER, 1));
        assert_eq!(watch.placed_at, header(1).timestamp);
    }

    #[test]
    fn a_placed_order_is_asked_for_at_the_next_block_and_then_confirmed() {
        let watcher = watcher(30, Some("alerts"));
        let mut host = with_placed(&watcher, &[5]);
        assert!(host.orderbook_reads.is_empty());
        is(&mut host, 5, Some("open"));
        assert_eq!(asked(&watcher, &mut host, 2..7), [(2, 1)]);
        let line = format!("order {} is at the orderbook, 12 s after it was placed", uid(5));
        assert_eq!(host.lines_at(Level::Info), [line]);
        assert!(host.webhooks.is_empty() && host.placed.is_empty());
    }

    #[test]
    fn an_unknown_order_is_asked_for_less_and_less_often_and_warned_about_once() {
        let watcher = watcher(30, Some("alerts"));
        let mut host = with_placed(&watcher, &[5]);
        // Placed at 12 s. Asked at 24 s, then waits of 15 and 30 s; the deadline is 72 s.
        assert_eq!(asked(&watcher, &mut host, 2..7), [(2, 1), (4, 1), (6, 1)]);
        assert_eq!(host.lines_at(Level::Warn).len(), 1);
        let [(key, webhook)] = &host.webhooks[..] else { panic!("{:?}", host.webhooks) };
        assert_eq!(*key, format!("ethflow/{}", uid(5)));
        assert_eq!(webhook.destination, "alerts");
        let body: Value = serde_json::from_str(&webhook.body).unwrap();
        let expected = json!({
            "module": "ethflow-watcher", "chain_id": SEPOLIA, "event": "missing",
            "uid": uid(5).to_string(), "contract": ETHFLOW.to_string(), "user": USER.to_string(),
            "placed_block": 1, "placed_at": 1_700_000_012, "valid_to": VALID_TO,
            "block": 6, "time": 1_700_000_072,
        });
        assert_eq!(body, expected);

        // To the end of its hour, one question in ten minutes or less often, and no more webhooks.
        let later = asked(&watcher, &mut host, 7..400);
        assert!(later.len() < 15, "{later:?}");
        assert_eq!(host.webhooks.len(), 1);
        assert_eq!(host.lines_at(Level::Warn).len(), 1);
        assert!(host.state.is_empty(), "{:?}", host.state);
        let line = format!("order {} is over, and was never seen at the orderbook", uid(5));
        assert_eq!(host.lines_at(Level::Info), [line]);
    }

    #[test]
    fn an_order_that_appears_late_is_told_too() {
        let watcher = watcher(30, Some("alerts"));
        let mut host = with_placed(&watcher, &[5]);
        asked(&watcher, &mut host, 2..10);
        is(&mut host, 5, Some("open"));
        asked(&watcher, &mut host, 10..20);
        let lines = host.lines_at(Level::Info);
        assert!(matches!(lines[..], [line] if line.contains("after all")), "{lines:?}");
        assert_eq!(host.webhooks.len(), 1);
    }

    #[test]
    fn without_a_webhook_a_missing_order_is_a_line() {
        let watcher = watcher(30, None);
        let mut host = with_placed(&watcher, &[5]);
        asked(&watcher, &mut host, 2..10);
        assert_eq!(host.lines_at(Level::Warn).len(), 1);
        assert!(host.webhooks.is_empty());
    }

    #[test]
    fn what_is_due_is_asked_in_one_batch_of_at_most_so_many_and_the_rest_next() {
        let watcher = watcher(3, None);
        let amounts: Vec<u64> = (1..9).collect();
        let mut host = with_placed(&watcher, &amounts);
        amounts.iter().for_each(|amount| is(&mut host, *amount, Some("open")));
        assert_eq!(asked(&watcher, &mut host, 2..6), [(2, 3), (3, 3), (4, 2)]);
        assert_eq!(host.lines_at(Level::Info).len(), 8);
    }

    #[test]
    fn an_order_that_is_over_leaves_nothing_behind() {
        let over = [
            Some(invalidated(ETHFLOW, 5)),
            Some(refunded(5)),
            None, // The orderbook says so.
        ];
        for log in over {
            let watcher = watcher(30, None);
            let mut host = with_placed(&watcher, &[5]);
            is(&mut host, 5, Some("open"));
            asked(&watcher, &mut host, 2..3);
            assert!(!host.state.is_empty());
            match log {
                Some(log) => watcher.handle(&mut host, &block(3, vec![log])).unwrap(),
                None => {
                    is(&mut host, 5, Some("fulfilled"));
                    asked(&watcher, &mut host, 3..9);
                }
            }
            assert!(host.state.is_empty(), "{:?}", host.state);
            assert_eq!(asked(&watcher, &mut host, 9..30), []);
        }
    }

    #[test]
    fn an_order_placed_and_invalidated_in_one_block_is_not_watched() {
        let mut host = MemoryHost::default();
        let logs = vec![emitted(ETHFLOW, &placement(5)), invalidated(ETHFLOW, 5)];
        watcher(30, None).handle(&mut host, &block(1, logs)).unwrap();
        assert!(host.state.is_empty());
    }

    #[test]
    fn a_contract_has_no_say_over_the_orders_of_another() {
        let watcher = watcher(30, None);
        let mut host = with_placed(&watcher, &[5]);
        let before = host.state.clone();
        let other = Address::repeat_byte(0xbb);
        let input = Input::Block(shepherd_sdk::Block {
            header: header(1),
            logs: vec![invalidated(other, 5)],
            ..Default::default()
        });
        watcher.handle(&mut host, &input).unwrap();
        assert_eq!(host.state, before);
        assert_eq!(host.lines_at(Level::Warn).len(), 1);
    }

    #[test]
    fn the_staging_contract_has_orders_of_its_own() {
        let staging = Address::repeat_byte(0x5a);
        let mut host = MemoryHost::default();
        let logs = vec![emitted(ETHFLOW, &placement(5)), emitted(staging, &placement(5))];
        watcher(30, None).handle(&mut host, &block(1, logs)).unwrap();
        let orders = host.state.keys().filter(|key| key.starts_with(b"o")).count();
        assert_eq!(orders, 2);
    }

    #[test]
    fn what_is_no_placement_is_told_and_ignored() {
        let mut host = MemoryHost::default();
        let no_order = OrderPlacement {
            order: OrderData { kind: B256::ZERO, ..placement(5).order },
            ..placement(5)
        };
        let mut cut = emitted(ETHFLOW, &placement(5));
        cut.data.truncate(40);
        let logs = vec![emitted(ETHFLOW, &no_order), cut, Log::default()];
        watcher(30, None).handle(&mut host, &block(1, logs)).unwrap();
        assert!(host.state.is_empty());
        assert_eq!(host.lines_at(Level::Warn).len(), 2);
    }

    #[test]
    fn an_order_that_is_placed_twice_is_watched_once() {
        let watcher = watcher(30, None);
        let mut host = with_placed(&watcher, &[5]);
        let before = host.state.clone();
        let again = Input::Block(shepherd_sdk::Block {
            header: header(1),
            logs: vec![emitted(ETHFLOW, &placement(5))],
            ..Default::default()
        });
        watcher.handle(&mut host, &again).unwrap();
        assert_eq!(host.state, before);
    }

    #[test]
    fn a_block_without_anything_due_asks_nothing_and_writes_nothing() {
        let watcher = watcher(30, None);
        let mut host = with_placed(&watcher, &[5]);
        asked(&watcher, &mut host, 2..3);
        let before = host.state.clone();
        assert_eq!(asked(&watcher, &mut host, 3..4), []);
        assert_eq!(host.state, before);
    }

    #[test]
    fn what_came_of_a_webhook_is_told_and_changes_nothing() {
        let watcher = watcher(30, Some("alerts"));
        let mut host = with_placed(&watcher, &[5]);
        let before = host.state.clone();
        let refused = webhook_outcome(header(2), "k", refused_with(400, None));
        watcher.handle(&mut host, &refused).unwrap();
        assert_eq!(host.lines_at(Level::Error), ["webhook k was refused: status 400"]);
        assert_eq!(host.state, before);
    }

    #[test]
    fn a_configuration_that_could_not_work_is_refused_with_what_to_write() {
        let check = |within: u64, checks: usize, webhook: Option<&str>, words: &str| {
            let config = json!({
                "confirm_within_seconds": within, "checks_per_block_max": checks,
                "webhook": webhook,
            });
            let error = module(config).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check(0, 30, None, "for example 300");
        check(60, 0, None, "write 1 to 30");
        check(60, 31, None, "write 1 to 30");
        check(60, 30, Some(""), "leave it out");
    }
}
