//! TWAP orders from their creation to their end.

use crate::support::{OWNER, START, World, conditional, created, reverts, signature, twap};
use shepherd_sdk::{
    Address, B256, EffectResult, Input, Level, U256,
    cow::{
        abi::{ComposableCow::SingleOrderNotAuthed, Handler::OrderNotValid, TwapData},
        app_data::EMPTY_HASH,
        conditional,
        posting::Signing,
        uid::Uid,
    },
    testing::{StateCalls, outcome, refused, refused_with, revert},
};

const HOUR: u64 = 3_600;

/// The last second of each of the three parts of [`twap`].
const ENDS: [u64; 3] = [START + HOUR - 1, START + 2 * HOUR - 1, START + 3 * HOUR - 1];

/// A world in which the first part of one order has been placed, and nothing has come of it.
fn one_part_placed() -> (World, Uid) {
    let mut world = World::new();
    let log = world.create(&conditional(&twap(), 1));
    world.block(START, vec![log]);
    let (uid, _) = world.host.placed[0];
    (world, uid)
}

#[test]
fn every_part_is_placed_once_and_the_order_is_forgotten_after_the_last() {
    let mut world = World::new();
    let log = world.create(&conditional(&twap(), 1));
    let mut logs = vec![log];
    for time in (START..START + 4 * HOUR).step_by(12) {
        world.block_and(time, std::mem::take(&mut logs), EffectResult::Accepted);
    }
    assert_eq!(world.ends(), ENDS);
    assert!(world.host.state.is_empty(), "{:?}", world.host.state);
    // One read for each part, and none in between.
    assert_eq!(world.new_reads(), 3);
    assert!(world.host.lines_at(Level::Warn).is_empty());
    assert!(world.said(Level::Info, "that was its last part"));
}

#[test]
fn a_part_is_posted_for_its_owner_with_the_contracts_signature_and_the_empty_document() {
    let (world, uid) = one_part_placed();
    let (_, posting) = &world.host.placed[0];
    assert_eq!((uid.owner, posting.owner), (OWNER, OWNER));
    assert_eq!(posting.signing, Signing::Eip1271(signature(posting.order())));
    assert_eq!(posting.order().app_data, EMPTY_HASH);
    assert_eq!(posting.document(), Some("{}"));
    assert!(world.host.orderbook_reads.is_empty());
}

#[test]
fn an_order_that_starts_in_the_future_waits_for_its_start() {
    let mut world = World::new();
    let late = TwapData { t0: U256::from(START + 500), ..twap() };
    let log = world.create(&conditional(&late, 1));
    world.block(START, vec![log]);
    world.block(START + 499, vec![]);
    // Nobody is asked: the handler would say that it is not valid.
    assert_eq!((world.new_reads(), world.host.placed.len()), (0, 0));
    world.block(START + 500, vec![]);
    assert_eq!(world.ends(), [START + 500 + HOUR - 1]);
}

#[test]
fn an_order_that_starts_when_created_starts_when_the_cabinet_says() {
    let mut world = World::new();
    let params = conditional(&TwapData { t0: U256::ZERO, ..twap() }, 1);
    let log = world.create(&params);
    world.known(&params).cabinet = B256::from(U256::from(START - 100));
    world.block_and(START, vec![log], EffectResult::Accepted);
    assert_eq!(world.ends(), [START - 100 + HOUR - 1]);
    assert_eq!(world.host.reads.len(), 1);
    assert_eq!(world.host.reads[0].len(), 2);
    // Once read it is known.
    world.block_and(START - 100 + HOUR, vec![], EffectResult::Accepted);
    assert_eq!(world.host.reads.len(), 2);
    assert_eq!(world.host.reads[1].len(), 1);
    assert_eq!(world.host.placed.len(), 2);
}

#[test]
fn an_empty_cabinet_forgets_the_order_only_when_the_owner_does_not_stand_by_it() {
    for authorised in [false, true] {
        let mut world = World::new();
        let params = conditional(&TwapData { t0: U256::ZERO, ..twap() }, 1);
        let log = world.create(&params);
        world.known(&params).authorised = authorised;
        world.block(START, vec![log]);
        assert_eq!(world.new_reads(), 2);
        assert_eq!(world.host.state.is_empty(), !authorised);
        assert!(world.host.placed.is_empty());
        // A start that turns up later counts.
        world.known(&params).cabinet = B256::from(U256::from(START));
        world.block(START + 60, vec![]);
        assert_eq!(world.host.placed.len(), usize::from(authorised));
    }
}

#[test]
fn between_two_windows_it_waits_for_the_next_part() {
    let mut world = World::new();
    let windows = TwapData { span: U256::from(600), ..twap() };
    let log = world.create(&conditional(&windows, 1));
    // It is seen when the first window is over.
    world.block_and(START + 600, vec![log], EffectResult::Accepted);
    assert_eq!(world.new_reads(), 0);
    for time in (START + 612..START + 4 * HOUR).step_by(12) {
        world.block_and(time, vec![], EffectResult::Accepted);
    }
    assert_eq!(world.ends(), [START + HOUR + 599, START + 2 * HOUR + 599]);
    assert!(world.host.state.is_empty());
}

#[test]
fn a_part_counts_as_placed_however_it_came_to_the_orderbook() {
    for result in [EffectResult::Accepted, EffectResult::AlreadyThere, EffectResult::DryRun] {
        let (mut world, uid) = one_part_placed();
        world.outcome(uid, result.clone());
        world.new_reads();
        for time in (START + 12..START + HOUR).step_by(12) {
            world.block(time, vec![]);
        }
        assert_eq!((world.new_reads(), world.host.placed.len()), (0, 1), "{result:?}");
        world.block(START + HOUR, vec![]);
        assert_eq!(world.ends(), ENDS[..2]);
    }
}

#[test]
fn a_part_that_is_pending_is_not_placed_again_and_the_next_does_not_wait_for_it() {
    let (mut world, first) = one_part_placed();
    // Told once more, it would be due at once.
    let again = created(OWNER, &conditional(&twap(), 1));
    world.block(START + 12, vec![again]);
    for time in (START + 24..START + HOUR).step_by(12) {
        world.block(time, vec![]);
    }
    assert_eq!(world.ends(), ENDS[..1]);
    world.block(START + HOUR, vec![]);
    assert_eq!(world.ends(), ENDS[..2]);
    // What comes of the first now is too late to matter.
    let before = world.host.state.clone();
    world.outcome(first, EffectResult::Expired);
    assert_eq!(world.host.state, before);
}

#[test]
fn an_order_told_again_after_its_part_was_placed_places_no_part_twice() {
    let (mut world, uid) = one_part_placed();
    world.outcome(uid, EffectResult::Accepted);
    let again = created(OWNER, &conditional(&twap(), 1));
    world.block(START + 12, vec![again.clone(), again]);
    assert_eq!(world.ends(), ENDS[..1]);
    world.block(START + HOUR, vec![]);
    assert_eq!(world.ends(), ENDS[..2]);
}

#[test]
fn two_orders_that_differ_in_their_salt_alone_are_told_of_the_one_order_they_place() {
    let mut world = World::new();
    let logs = vec![world.create(&conditional(&twap(), 1)), world.create(&conditional(&twap(), 2))];
    world.block(START, logs);
    let (uid, _) = world.host.placed[0];
    assert_eq!(world.host.placed[1].0, uid);
    world.outcome(uid, EffectResult::Accepted);
    world.outcome(uid, EffectResult::AlreadyThere);
    for time in (START + 12..START + 4 * HOUR).step_by(12) {
        world.block_and(time, vec![], EffectResult::Accepted);
    }
    assert_eq!(world.host.placed.len(), 6);
    assert!(world.host.state.is_empty());
}

#[test]
fn a_cancelled_order_is_forgotten_once_the_contract_confirms_it() {
    let mut world = World::new();
    let params = conditional(&twap(), 1);
    let log = world.create(&params);
    world.block_and(START, vec![log], EffectResult::Accepted);
    world.known(&params).authorised = false;
    world.new_reads();
    world.block(START + HOUR, vec![]);
    assert_eq!((world.new_reads(), world.host.placed.len()), (2, 1));
    assert!(world.said(Level::Info, "SingleOrderNotAuthed()"));
    assert!(world.host.state.is_empty());
}

#[test]
fn an_order_that_only_seems_cancelled_is_kept() {
    let mut world = World::new();
    let params = conditional(&twap(), 1);
    let log = world.create(&params);
    let not_authed = SingleOrderNotAuthed {};
    world.known(&params).says = Some(reverts(not_authed));
    world.block(START, vec![log]);
    assert!(world.said(Level::Warn, "the owner stands by it"));
    world.known(&params).says = None;
    world.block(START + 59, vec![]);
    assert!(world.host.placed.is_empty());
    world.block(START + 60, vec![]);
    assert_eq!(world.ends(), ENDS[..1]);
}

#[test]
fn a_handler_that_contradicts_the_schedule_does_not_end_it() {
    let mut world = World::new();
    let params = conditional(&twap(), 1);
    let log = world.create(&params);
    let reason = "after twap finish".to_owned();
    let not_valid = OrderNotValid { reason };
    world.known(&params).says = Some(reverts(not_valid));
    world.block(START, vec![log]);
    assert!(world.said(Level::Warn, "after twap finish"));
    for time in (START + 12..START + HOUR).step_by(12) {
        world.block(time, vec![]);
    }
    // 60, 120, 240 … seconds apart, and never beyond the next part.
    assert_eq!(world.new_reads(), 6);
    world.known(&params).says = None;
    world.block(START + HOUR, vec![]);
    assert_eq!(world.ends(), [ENDS[1]]);
}

/// Refuses the first part, and says when it is placed again: after so many seconds.
#[track_caller]
fn again_after(result: EffectResult) -> Option<u64> {
    let (mut world, uid) = one_part_placed();
    world.outcome(uid, result);
    for time in (START + 12..START + HOUR).step_by(12) {
        world.block(time, vec![]);
        if let Some((again, _)) = world.host.placed.get(1) {
            assert_eq!(*again, uid);
            world.outcome(uid, EffectResult::Accepted);
            world.block(START + HOUR, vec![]);
            assert_eq!(world.ends()[1..], ENDS[..2]);
            return Some(time - START);
        }
    }
    // Whatever was refused, the next part comes.
    world.block(START + HOUR, vec![]);
    assert_eq!(world.ends(), ENDS[..2]);
    None
}

#[test]
fn a_refused_part_is_placed_again_when_its_refusal_says_and_the_next_part_comes_all_the_same() {
    let check = |result: EffectResult, after: Option<u64>| {
        assert_eq!(again_after(result.clone()), after, "{result:?}");
    };
    for error_type in ["InsufficientBalance", "InsufficientAllowance", "TransferSimulationFailed"] {
        check(refused(error_type), Some(600));
    }
    check(refused("InvalidAppData"), Some(60));
    for error_type in
        ["QuoteNotFound", "InvalidQuote", "InsufficientValidTo", "InvalidEip1271Signature"]
    {
        check(refused(error_type), Some(12));
    }
    check(refused_with(429, Some(24)), Some(24));
    check(refused_with(429, None), Some(600));
    check(refused_with(404, None), Some(600));
    // An hour is as long as the part: the next comes instead.
    check(refused("TooManyLimitOrders"), None);
    check(refused("NobodyKnowsThis"), None);
    check(refused_with(422, None), None);
    for error_type in ["ZeroAmount", "UnsupportedToken", "ExcessiveValidTo", "InvalidSignature"] {
        check(refused(error_type), None);
    }
    check(refused_with(403, None), None);
    check(EffectResult::Expired, None);
    check(EffectResult::Cancelled("by hand".to_owned()), None);
    check(refused("DuplicatedOrder"), None);
}

#[test]
fn an_owner_who_is_out_of_funds_is_asked_again_until_the_funds_come() {
    let mut world = World::new();
    let log = world.create(&conditional(&twap(), 1));
    let mut logs = vec![log];
    for time in (START..START + HOUR + 1_200).step_by(12) {
        world.block_and(time, std::mem::take(&mut logs), refused("InsufficientBalance"));
    }
    // Six attempts at the first part, two at the second.
    assert_eq!(world.ends(), [&[ENDS[0]; 6][..], &[ENDS[1]; 2]].concat());
    for time in (START + HOUR + 1_200..START + 4 * HOUR).step_by(12) {
        world.block_and(time, vec![], EffectResult::Accepted);
    }
    assert_eq!(world.ends()[8..], [ENDS[1], ENDS[2]]);
    assert!(world.host.state.is_empty());
}

#[test]
fn a_signature_refused_twice_drops_this_part_only() {
    let (mut world, uid) = one_part_placed();
    world.outcome(uid, refused("InvalidEip1271Signature"));
    let placed = world.block_and(START + 12, vec![], refused("InvalidEip1271Signature"));
    assert_eq!(placed, [uid]);
    assert!(world.said(Level::Warn, "InvalidEip1271Signature"));
    for time in (START + 24..START + HOUR).step_by(12) {
        world.block(time, vec![]);
    }
    assert_eq!(world.host.placed.len(), 2);
    // The next part's first refusal is a first one again.
    world.block_and(START + HOUR, vec![], refused("InvalidEip1271Signature"));
    world.block_and(START + HOUR + 12, vec![], EffectResult::Accepted);
    assert_eq!(world.ends(), [ENDS[0], ENDS[0], ENDS[1], ENDS[1]]);
}

#[test]
fn a_refusal_nobody_knows_parks_the_part_longer_each_time_and_warns() {
    let mut world = World::new();
    let days = TwapData { t: U256::from(7 * 24 * HOUR), ..twap() };
    let log = world.create(&conditional(&days, 1));
    let mut logs = vec![log];
    let mut attempts = vec![];
    for time in (START..START + 24 * HOUR).step_by(600) {
        if !world.block_and(time, std::mem::take(&mut logs), refused("Unheard")).is_empty() {
            attempts.push((time - START) / HOUR);
        }
    }
    assert_eq!(attempts, [0, 1, 3, 7, 15]);
    assert_eq!(world.host.lines_at(Level::Warn).len(), 5);
    assert!(!world.host.state.is_empty());
}

#[test]
fn an_order_that_can_never_be_is_forgotten_with_a_warning() {
    let mut world = World::new();
    let logs = vec![
        created(OWNER, &conditional(&TwapData { n: U256::from(1), ..twap() }, 1)),
        created(OWNER, &conditional(&TwapData { minPartLimit: U256::ZERO, ..twap() }, 2)),
    ];
    world.block(START, logs);
    assert!(world.host.state.is_empty() && world.host.placed.is_empty());
    assert_eq!(world.host.lines_at(Level::Warn).len(), 2);
}

#[test]
fn an_order_that_is_over_when_it_is_seen_is_forgotten_without_asking() {
    let mut world = World::new();
    let log = world.create(&conditional(&twap(), 1));
    world.block(START + 3 * HOUR, vec![log]);
    assert!(world.host.state.is_empty() && world.host.placed.is_empty());
    assert_eq!(world.new_reads(), 0);
}

#[test]
fn an_outcome_of_a_block_that_was_taken_back_changes_nothing_and_is_told() {
    let (mut world, uid) = one_part_placed();
    world.host.state.clear();
    let before = world.host.state.clone();
    let header = world.header();
    world.handle(&revert(header, vec![(uid, EffectResult::Accepted)]));
    let Input::Outcome(mut late) = outcome(header, uid, EffectResult::Accepted) else {
        unreachable!()
    };
    late.outcome.abandoned = true;
    world.handle(&Input::Outcome(late));
    assert_eq!(world.host.state, before);
    let lines = world.host.lines_at(Level::Warn);
    let told = lines.iter().filter(|line| line.contains(&uid.to_string()));
    assert_eq!(told.count(), 2, "{lines:?}");
}

#[test]
fn a_late_outcome_of_a_block_that_was_taken_back_leaves_the_part_placed_since_pending() {
    let (mut world, uid) = one_part_placed();
    let before = world.host.state.clone();
    let header = world.header();
    world.handle(&revert(header, vec![(uid, refused("ZeroAmount"))]));
    assert_eq!(world.host.state, before);
    world.outcome(uid, EffectResult::Accepted);
    world.block(START + HOUR, vec![]);
    assert_eq!(world.ends(), ENDS[..2]);
}

#[test]
fn after_a_reorg_the_order_goes_on_from_what_the_new_branch_tells() {
    let mut world = World::new();
    let params = conditional(&twap(), 1);
    let log = world.create(&params);
    let before = world.host.state.clone();
    let [uid] = world.block_and(START, vec![log.clone()], EffectResult::Accepted)[..] else {
        panic!("one part is due")
    };
    // The block that created it is taken back, and so is what the state knew of it.
    world.host.state = before;
    world.handle(&revert(world.header(), vec![(uid, EffectResult::Accepted)]));
    world.block(START + 12, vec![]);
    assert!(world.host.state.is_empty());
    // It is created again: the same part is asked for, and is there already.
    let again = world.block_and(START + 24, vec![log], EffectResult::AlreadyThere);
    assert_eq!(again, [uid]);
    for time in (START + 36..START + 4 * HOUR).step_by(12) {
        world.block_and(time, vec![], EffectResult::Accepted);
    }
    assert_eq!(world.ends()[1..], ENDS);
    assert!(world.host.state.is_empty());
}

#[test]
fn what_is_due_beyond_the_limit_is_placed_in_the_next_blocks() {
    let mut world = World::with(r#"{"polls_per_block": 3}"#);
    let logs = (0..8)
        .map(|salt| {
            let amount = U256::from(1_000 + salt);
            world.create(&conditional(&TwapData { partSellAmount: amount, ..twap() }, salt))
        })
        .collect();
    world.block_and(START, logs, EffectResult::Accepted);
    for (block, placed) in [(1, 3), (2, 6), (3, 8), (4, 8)] {
        assert_eq!(world.host.placed.len(), placed);
        world.block_and(START + 12 * block, vec![], EffectResult::Accepted);
    }
    let mut uids: Vec<Uid> = world.host.placed.iter().map(|(uid, _)| *uid).collect();
    uids.sort_unstable();
    uids.dedup();
    assert_eq!(uids.len(), 8);
}

/// Ten thousand orders that start a second apart, from a day on.
fn ten_thousand() -> World {
    let mut world = World::new();
    for block in 0..10u32 {
        let logs = (0..1_000)
            .map(|number| {
                let salt = 1_000 * block + number;
                let t0 = U256::from(START + 24 * HOUR + u64::from(salt));
                created(OWNER, &conditional(&TwapData { t0, ..twap() }, salt))
            })
            .collect();
        world.block(START + 12 * u64::from(block), logs);
    }
    for block in 10..40 {
        world.block(START + 12 * block, vec![]);
    }
    world
}

#[test]
fn at_ten_thousand_orders_a_block_with_nothing_due_is_two_listings() {
    let mut world = ten_thousand();
    assert_eq!(world.host.state.keys().filter(|key| key[0] == b'w').count(), 10_000);
    assert_eq!(world.new_reads(), 0);
    world.host.state_calls = StateCalls::default();
    world.block(START + 12 * 50, vec![]);
    let idle = StateCalls { gets: 0, writes: 0, lists: 2, listed: 1 };
    assert_eq!(world.host.state_calls, idle);
}

/// What a record weighs, as the host counts it: 64 bytes for each row and each effect.
fn weight(before: &World, after: &World) -> usize {
    let (old, new) = (&before.host.state, &after.host.state);
    let written = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
    let deleted = old.keys().filter(|key| !new.contains_key(*key));
    let rows: usize = written.map(|(key, value)| 64 + key.len() + value.len()).sum();
    let rows = rows + deleted.map(|key| 64 + key.len()).sum::<usize>();
    let placed = &after.host.placed[before.host.placed.len()..];
    let bodies = placed.iter().map(|(_, posting)| {
        let Signing::Eip1271(signature) = &posting.signing else { unreachable!() };
        let document = posting.document().map_or(0, |document| format!("{document:?}").len());
        // The fields with the longest numbers, 56 bytes of UID and 64 for the row.
        1_250 + 2 * signature.len() + document + 56 + 64
    });
    rows + bodies.sum::<usize>()
}

#[test]
fn the_fullest_block_stays_within_what_a_record_may_write() {
    // Four hundred that are due, each with a document of its own that has to be asked for, and a
    // thousand new ones.
    let mut world = World::new();
    let logs = (0..400u32)
        .map(|salt| {
            let document = format!(r#"{{"appCode":"{}","n":{salt}}}"#, "x".repeat(7_900));
            let app_data = world.host.document(&document);
            let t0 = U256::from(START + 100);
            let late = TwapData { t0, appData: app_data, ..twap() };
            world.create(&conditional(&late, salt))
        })
        .collect();
    world.block(START, logs);
    let new = (400..1_400u32)
        .map(|salt| {
            let amount = U256::from(1_000 + salt);
            world.create(&conditional(&TwapData { partSellAmount: amount, ..twap() }, salt))
        })
        .collect();
    let mut before = World { host: world.host.clone(), ..World::new() };
    world.block(START + 100, new);
    assert!(weight(&before, &world) < 3 << 20, "{}", weight(&before, &world));
    let documents: Vec<usize> = world.host.orderbook_reads.iter().map(Vec::len).collect();
    assert_eq!(documents, [64]);

    // And so do those that follow, until all are placed.
    for block in 1..40 {
        before.host = world.host.clone();
        world.block(START + 100 + block, vec![]);
        assert!(weight(&before, &world) < 3 << 20, "{}", weight(&before, &world));
    }
    assert_eq!(world.host.placed.len(), 1_400);
}

#[test]
fn orders_there_is_no_room_for_are_not_watched_and_said() {
    let mut world = World::new();
    let before = World::new();
    let future = TwapData { t0: U256::from(START + 100), ..twap() };
    let logs = (0..4_000).map(|salt| created(OWNER, &conditional(&future, salt))).collect();
    world.block(START, logs);
    let watched = world.host.state.keys().filter(|key| key[0] == b'w').count();
    assert!((2_500..4_000).contains(&watched), "{watched}");
    let line = format!("{} orders are not watched", 4_000 - watched);
    assert!(world.said(Level::Error, &line), "{:?}", world.host.lines_at(Level::Error));
    assert!(weight(&before, &world) < 3 << 20, "{}", weight(&before, &world));
}

#[test]
fn an_order_id_names_an_order_of_one_owner() {
    let mut world = World::new();
    let params = conditional(&twap(), 1);
    let other = Address::repeat_byte(9);
    let logs = vec![world.create(&params), world.create_for(other, &params)];
    world.block(START, logs);
    let owners: Vec<_> = world.host.placed.iter().map(|(uid, _)| uid.owner).collect();
    assert_eq!(owners.len(), 2);
    assert_ne!(owners[0], owners[1]);
    let id = conditional::id(&params);
    let line = format!("order {id} of {other}");
    world.outcome(world.host.placed[0].0, EffectResult::Accepted);
    world.outcome(world.host.placed[1].0, EffectResult::Accepted);
    assert!(world.said(Level::Info, &line), "{:?}", world.host.lines);
}
