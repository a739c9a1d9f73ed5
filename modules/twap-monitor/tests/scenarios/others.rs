//! Orders of other handlers, orders under a root, app data, and the filter.

use crate::support::{
    self, OTHER, OWNER, START, TRANSACTION, World, answers, conditional, created, order, other,
    returns, reverts, root_set, twap,
};
use shepherd_sdk::{
    Address, Answer, B256, Bytes, EffectResult, Level, Log, U256,
    alloy_sol_types::{Revert, SolValue},
    cow::{
        abi::{
            ComposableCow, ConditionalOrderParams,
            Handler::{OrderNotValid, PollNever, PollTryAtBlock, PollTryAtEpoch, PollTryNextBlock},
            Proof, StopLossData, TwapData,
        },
        addresses::STOP_LOSS,
        app_data, conditional,
        order::Order,
    },
    testing::refused,
};

const HOUR: u64 = 3_600;

/// A world with one order of another handler, which says this.
fn saying(says: Answer) -> (World, ConditionalOrderParams) {
    let mut world = World::new();
    let params = other(1);
    let log = world.create(&params);
    world.known(&params).says = Some(says);
    world.block(START, vec![log]);
    (world, params)
}

/// Seconds until it is asked again, with a block every twelve seconds; `None`: not within a day,
/// because it is forgotten.
#[track_caller]
fn asked_after(says: Answer) -> Option<u64> {
    let (mut world, params) = saying(says);
    assert_eq!(world.new_reads(), 1);
    world.known(&params).says = Some(answers(&order(START + 30 * 24 * HOUR)));
    for time in (START + 12..START + 24 * HOUR).step_by(12) {
        world.block(time, vec![]);
        if !world.host.placed.is_empty() {
            return Some(time - START);
        }
    }
    assert!(world.host.state.is_empty());
    None
}

fn reason() -> String {
    "because".to_owned()
}

#[test]
fn hints_are_followed_and_never_is_never() {
    let at_block = |block: u64| PollTryAtBlock { blockNumber: U256::from(block), reason: reason() };
    let at_time = |time: u64| PollTryAtEpoch { timestamp: U256::from(time), reason: reason() };
    assert_eq!(asked_after(reverts(PollTryNextBlock { reason: reason() })), Some(12));
    assert_eq!(asked_after(reverts(at_block(101 + 10))), Some(120));
    assert_eq!(asked_after(reverts(at_block(3))), Some(12));
    assert_eq!(asked_after(reverts(at_time(START + 100))), Some(108));
    assert_eq!(asked_after(reverts(at_time(START + 7_200))), Some(7_200));
    assert_eq!(asked_after(reverts(ComposableCow::SwapGuardRestricted {})), Some(600));
    assert_eq!(asked_after(reverts(Revert::from("paused"))), Some(60));
    assert_eq!(asked_after(returns(vec![1, 2, 3])), Some(60));
    assert_eq!(asked_after(reverts(PollNever { reason: reason() })), None);
    assert_eq!(asked_after(reverts(OrderNotValid { reason: reason() })), None);
    assert_eq!(asked_after(reverts(ComposableCow::InvalidHandler {})), None);
    assert_eq!(asked_after(reverts(ComposableCow::InterfaceNotSupported {})), None);
    assert_eq!(asked_after(reverts(ComposableCow::InvalidFallbackHandler {})), None);
}

#[test]
fn a_revert_that_says_nothing_is_asked_less_and_less_often_with_a_warning_each_time() {
    let (mut world, _) = saying(reverts(Revert::from("paused")));
    let mut asked = vec![];
    for time in (START + 12..START + 2 * HOUR).step_by(12) {
        world.new_reads();
        world.block(time, vec![]);
        if world.new_reads() == 1 {
            asked.push(time - START);
        }
    }
    assert_eq!(asked, [60, 180, 420, 900, 1_860, 3_780]);
    assert_eq!(world.host.lines_at(Level::Warn).len(), 7);
    assert!(world.said(Level::Warn, r#"Error("paused")"#));
}

#[test]
fn an_order_about_nothing_is_not_posted() {
    let good = order(START + HOUR);
    for pointless in [
        Order { sell_amount: U256::ZERO, ..good },
        Order { buy_amount: U256::ZERO, ..good },
        Order { buy_token: Address::ZERO, ..good },
        Order { sell_token: Address::ZERO, ..good },
        Order { buy_token: good.sell_token, ..good },
    ] {
        assert_eq!(asked_after(answers(&pointless)), Some(60));
    }
}

#[test]
fn an_order_that_another_handler_answers_again_is_placed_once_and_a_new_one_anew() {
    let (mut world, params) = saying(answers(&order(START + HOUR)));
    let (uid, _) = world.host.placed[0];
    // While it is pending nobody is asked.
    for time in (START + 12..START + 900).step_by(12) {
        world.block(time, vec![]);
    }
    assert_eq!((world.new_reads(), world.host.placed.len()), (1, 1));
    world.outcome(uid, EffectResult::Accepted);
    for time in (START + 900..START + 1_800).step_by(12) {
        world.block(time, vec![]);
    }
    // Every five minutes, and the same order each time.
    assert_eq!((world.new_reads(), world.host.placed.len()), (3, 1));
    world.known(&params).says = Some(answers(&order(START + 2 * HOUR)));
    for time in (START + 1_800..START + 2_200).step_by(12) {
        world.block_and(time, vec![], EffectResult::Accepted);
    }
    assert_eq!(world.ends(), [START + HOUR, START + 2 * HOUR]);
}

#[test]
fn an_order_of_another_handler_is_placed_again_after_a_refusal() {
    let (mut world, _) = saying(answers(&order(START + HOUR)));
    let (uid, _) = world.host.placed[0];
    world.outcome(uid, refused("InsufficientAllowance"));
    for time in (START + 12..START + 1_000).step_by(12) {
        world.block_and(time, vec![], EffectResult::AlreadyThere);
    }
    assert_eq!(world.host.placed.len(), 2);
    assert_eq!(world.host.placed[1].0, uid);
}

#[test]
fn orders_that_are_over_are_not_placed_and_their_handler_is_given_up_after_days() {
    let (mut world, _) = saying(answers(&order(START - 1)));
    assert!(world.host.placed.is_empty());
    let mut time = START;
    while !world.host.state.is_empty() {
        time += HOUR;
        world.block(time, vec![]);
    }
    let days = (time - START) / (24 * HOUR);
    assert!((4..8).contains(&days), "{days}");
    assert!(world.host.placed.is_empty());
}

#[test]
fn a_stop_loss_order_is_forgotten_after_its_end() {
    let mut world = World::new();
    let input = StopLossData { validTo: (START + 100) as u32, ..StopLossData::default() };
    let params = ConditionalOrderParams {
        handler: STOP_LOSS,
        salt: B256::ZERO,
        staticInput: input.abi_encode().into(),
    };
    let log = world.create(&params);
    world.known(&params).says = Some(answers(&order(START + 100)));
    world.block_and(START, vec![log], EffectResult::Accepted);
    assert_eq!(world.host.placed.len(), 1);
    world.block(START + 100, vec![]);
    assert!(!world.host.state.is_empty());
    world.block(START + 101, vec![]);
    assert!(world.host.state.is_empty());
}

fn parts(salt: u32) -> ConditionalOrderParams {
    conditional(&TwapData { partSellAmount: U256::from(1_000 + salt), ..twap() }, salt)
}

#[test]
fn orders_under_a_root_are_placed_with_their_proofs_and_a_new_root_replaces_them() {
    let mut world = World::new();
    let log = world.set_root(&[parts(1), parts(2), parts(3)]);
    let placed = world.block_and(START, vec![log], EffectResult::Accepted);
    assert_eq!(placed.len(), 3);

    // Two stays and is not placed again, one and three go, four comes.
    let log = world.set_root(&[parts(2), parts(4)]);
    let placed = world.block_and(START + 12, vec![log], EffectResult::Accepted);
    assert_eq!(placed.len(), 1);
    let placed = world.block_and(START + HOUR, vec![], EffectResult::Accepted);
    assert_eq!(placed.len(), 2);

    // A root whose orders are elsewhere replaces them too.
    let elsewhere = root_set(B256::repeat_byte(1), Proof::default());
    world.block(START + HOUR + 12, vec![elsewhere]);
    assert!(world.host.state.is_empty(), "{:?}", world.host.state);
}

#[test]
fn of_the_roots_in_one_block_the_last_counts() {
    let mut world = World::new();
    let first = world.set_root(&[parts(1), parts(2)]);
    let second = world.set_root(&[parts(3), parts(4), parts(5)]);
    world.block(START, vec![first, second]);
    assert_eq!(world.host.placed.len(), 3);
}

#[test]
fn a_root_with_more_orders_than_a_page_is_replaced_as_a_whole() {
    let mut world = World::new();
    let waiting = |salt: u32| {
        let t0 = U256::from(START + HOUR + u64::from(salt));
        conditional(&TwapData { t0, ..twap() }, salt)
    };
    let many: Vec<_> = (0..450).map(waiting).collect();
    let log = support::wide_root(&many);
    world.block(START, vec![log]);
    let watched = |world: &World| world.host.state.keys().filter(|key| key[0] == b'w').count();
    assert_eq!(watched(&world), 450);
    let log = support::wide_root(&many[400..]);
    world.block(START + 12, vec![log]);
    assert_eq!(watched(&world), 50);
}

#[test]
fn orders_of_their_own_are_no_orders_of_the_root() {
    let mut world = World::new();
    let single = world.create(&parts(1));
    let root = world.set_root(&[parts(2), parts(3)]);
    world.block_and(START, vec![single, root], EffectResult::Accepted);
    assert_eq!(world.host.placed.len(), 3);
    let empty = world.set_root(&[]);
    world.block(START + 12, vec![empty]);
    let placed = world.block_and(START + HOUR, vec![], EffectResult::Accepted);
    assert_eq!(placed.len(), 1);
}

#[test]
fn a_root_that_was_replaced_without_a_word_is_noticed_by_the_next_poll() {
    let mut world = World::new();
    let log = world.set_root(&[parts(1), parts(2)]);
    world.block_and(START, vec![log], EffectResult::Accepted);
    for known in &mut world.contract {
        known.authorised = false;
    }
    world.roots.insert(OWNER, B256::repeat_byte(9));
    world.block(START + HOUR, vec![]);
    assert!(world.said(Level::Info, "ProofNotAuthed()"));
    assert!(world.host.state.is_empty());
}

#[test]
fn an_order_under_a_root_starts_when_the_roots_own_place_in_the_cabinet_says() {
    let mut world = World::new();
    let at_creation = |salt| conditional(&TwapData { t0: U256::ZERO, ..twap() }, salt);
    let log = world.set_root(&[at_creation(1), at_creation(2)]);
    for known in &mut world.contract {
        known.cabinet = B256::from(U256::from(START - 60));
    }
    world.block(START, vec![log]);
    assert_eq!(world.ends(), [START - 60 + HOUR - 1; 2]);
}

#[test]
fn what_does_not_decode_or_is_not_under_the_root_costs_nothing_but_a_warning() {
    let mut world = World::new();
    let mut log = world.create(&parts(1));
    log.data.truncate(40);
    let elements: Vec<Bytes> = vec![Bytes::from_static(b"garbage")];
    let proof = Proof { location: U256::from(1), data: elements.abi_encode().into() };
    let no_list = Proof { location: U256::from(1), data: Bytes::from_static(b"no list") };
    world.block(START, vec![log, root_set(B256::repeat_byte(1), proof)]);
    world.block(START, vec![root_set(B256::repeat_byte(1), no_list)]);
    assert_eq!(world.host.lines_at(Level::Warn).len(), 3);
    assert!(world.host.state.is_empty());
    // Other events of the contract say nothing to us.
    world.block(START + 12, vec![Log::default()]);
    assert_eq!(world.host.lines_at(Level::Warn).len(), 3);
}

#[test]
fn an_order_with_more_input_than_any_handler_takes_is_not_watched() {
    let mut world = World::new();
    let huge = ConditionalOrderParams { staticInput: vec![1; 4_097].into(), ..other(1) };
    world.block(START, vec![created(OWNER, &huge)]);
    assert!(world.host.state.is_empty());
    assert!(world.said(Level::Warn, "4097 bytes"));
}

const DOCUMENT: &str = r#"{"appCode":"shepherd","metadata":{}}"#;

#[test]
fn a_document_is_asked_for_once_and_remembered_until_the_last_order_is_over() {
    let mut world = World::new();
    let rich = world.host.document(DOCUMENT);
    let with = |salt: u32, n: u64| {
        let amount = U256::from(1_000 + salt);
        let twap = TwapData { partSellAmount: amount, n: U256::from(n), appData: rich, ..twap() };
        conditional(&twap, salt)
    };
    let logs = vec![world.create(&with(1, 2)), world.create(&with(2, 3))];
    world.block_and(START, logs, EffectResult::Accepted);
    assert_eq!(world.host.orderbook_reads.len(), 1);
    assert_eq!(world.host.orderbook_reads[0].len(), 1);
    world.host.orderbook.clear();
    for hour in 1..3 {
        world.block_and(START + hour * HOUR, vec![], EffectResult::Accepted);
    }
    assert_eq!(world.host.placed.len(), 5);
    for (_, posting) in &world.host.placed {
        assert_eq!(posting.document(), Some(DOCUMENT));
    }
    assert!(world.host.state.is_empty(), "{:?}", world.host.state);
}

#[test]
fn a_document_nobody_knows_is_posted_as_its_hash_and_asked_for_again() {
    let mut world = World::new();
    let hash = app_data::hash(DOCUMENT);
    world.host.no_document(hash);
    let log = world.create(&conditional(&TwapData { appData: hash, ..twap() }, 1));
    world.block_and(START, vec![log], EffectResult::Accepted);
    let (_, posting) = &world.host.placed[0];
    assert_eq!((posting.order().app_data, posting.document()), (hash, None));
    world.host.document(DOCUMENT);
    world.block_and(START + HOUR, vec![], EffectResult::Accepted);
    assert_eq!(world.host.placed[1].1.document(), Some(DOCUMENT));
}

#[test]
fn the_filter_decides_by_order_transaction_owner_and_handler() {
    let params = parts(1);
    let id = conditional::id(&params);
    let handler = params.handler;
    let placed = |filter: &str| {
        let mut world = World::with(&format!(r#"{{"filter": {{{filter}}}}}"#));
        let log = world.create(&params);
        world.block_and(START, vec![log], EffectResult::Accepted);
        (world.host.placed.len(), !world.host.state.is_empty())
    };
    assert_eq!(placed(""), (1, true));
    for (list, name) in [
        ("orders", id.to_string()),
        ("transactions", TRANSACTION.to_string()),
        ("owners", OWNER.to_string()),
        ("handlers", handler.to_string()),
    ] {
        assert_eq!(placed(&format!(r#""{list}": {{"{name}": "drop"}}"#)), (0, false));
        assert_eq!(placed(&format!(r#""{list}": {{"{name}": "skip"}}"#)), (0, true));
        let only = format!(r#""default": "drop", "{list}": {{"{name}": "accept"}}"#);
        assert_eq!(placed(&only), (1, true));
    }
    assert_eq!(placed(r#""default": "drop""#), (0, false));
    assert_eq!(placed(&format!(r#""handlers": {{"{OTHER}": "drop"}}"#)), (1, true));
}

#[test]
fn what_was_skipped_is_placed_and_what_was_accepted_dropped_when_the_configuration_says_so() {
    let mut world = World::with(r#"{"filter": {"default": "skip"}}"#);
    let log = world.create(&parts(1));
    world.block(START, vec![log]);
    world.reconfigure("{}");
    for time in (START + 12..START + HOUR + 12).step_by(12) {
        world.block_and(time, vec![], EffectResult::Accepted);
    }
    assert_eq!(world.ends(), [START + 2 * HOUR - 1]);
    world.reconfigure(r#"{"filter": {"default": "drop"}}"#);
    world.block(START + 2 * HOUR, vec![]);
    assert_eq!(world.host.placed.len(), 1);
    assert!(world.host.state.is_empty());
}
