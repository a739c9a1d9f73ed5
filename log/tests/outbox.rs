//! Effects: durable with their step, settled once, and told again after a reorg.

mod common;

use std::collections::BTreeMap;

use common::{
    Outcome as Computed, append_all, block, block_ref, copy, cut_log, journal, lane,
    lower_the_mark, open, outcome, seed, snapshot, write_ahead_log, written_bytes,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_log::{
    Applied, ApplyError, BlockRef, Deliver, EFFECTS_MAX, Effect, EffectId, EffectKey, EffectResult,
    Journal, Lane, Offset, OutboxState, Outcome, Record, RecordView, Refusal, Revert, Settled,
    SizeError, Step, Store, WRITES_BYTES_MAX, Writes,
};

fn effect(key: impl ToString) -> Effect {
    let key = key.to_string();
    Effect {
        body: format!("{{\"key\":\"{key}\"}}").into_bytes(),
        key: EffectKey::Webhook { destination: "alerts".to_owned(), key },
        deliver: Deliver::Confirmations(2),
        expires: 1_800_000_000,
    }
}

fn asking(effects: Vec<Effect>) -> Applied {
    Applied { effects, ..Applied::default() }
}

fn settled(id: EffectId, result: EffectResult) -> Settled {
    Settled { id, result, attempts: 1, at_millis: 1_700_000_000_000 }
}

fn id(offset: u64, index: u32) -> EffectId {
    EffectId { offset: Offset::new(offset), index }
}

fn refused() -> EffectResult {
    EffectResult::Refused(Refusal {
        status: 400,
        error_type: Some("InsufficientBalance".to_owned()),
        description: "no money".to_owned(),
        body: b"{}".to_vec(),
        retry_after: Some(30),
    })
}

/// A store whose lane asked for these effects at block 0, one step.
fn asked(dir: &std::path::Path, effects: Vec<Effect>) -> (Store, Lane) {
    let store = open(dir);
    append_all(&journal(&store), &common::straight(0, 1));
    let mut lane = lane(&store);
    let mut step = lane.begin();
    step.apply(block_ref(0, 0), asking(effects)).unwrap();
    step.commit(common::MODULE).unwrap();
    (store, lane)
}

fn outcomes(journal: &Journal) -> Vec<Outcome> {
    let records = journal.read(Offset::START..journal.tail().offset);
    let outcome = |record: &Record| match record {
        Record::Outcome(outcome) => Some(outcome.clone()),
        _ => None,
    };
    records.filter_map(|stored| outcome(&stored.unwrap().record().to_record())).collect()
}

#[test]
fn effects_become_real_with_their_step_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut lane) = asked(dir.path(), vec![effect("a"), effect("b")]);
    append_all(&journal(&store), &[Record::Block(block(block_ref(1, 0), block_ref(0, 0).hash, 0))]);
    let mut dropped = lane.begin();
    dropped.apply(block_ref(1, 0), asking(vec![effect("c")])).unwrap();
    drop(dropped);
    assert_eq!(lane.outbox().unsettled().len(), 2, "a dropped step asks for nothing");
    let before = lane.outbox().unsettled();
    drop((lane, store));

    let store = open(dir.path());
    let lane = common::lane(&store);
    assert_eq!(lane.outbox().unsettled(), before);
    let [first, second] = before.try_into().expect("two entries");
    assert_eq!((first.id, second.id), (id(0, 0), id(0, 1)));
    assert_eq!(first.block, block_ref(0, 0));
    assert_eq!(first.state, OutboxState::Waiting);
    assert_eq!(lane.outbox().effect(second.id).unwrap(), Some(effect("b")), "byte for byte");
    assert_eq!(lane.outbox().effect(id(0, 2)).unwrap(), None);
    let stored: Vec<_> = snapshot(&store).effects().map(Result::unwrap).collect();
    assert_eq!(stored[0], (first.id, block_ref(0, 0), effect("a")));
}

#[test]
fn an_effect_is_settled_once_and_its_outcome_is_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let effects = ["a", "b", "c"].map(effect).to_vec();
    let (store, lane) = asked(dir.path(), effects);
    let outbox = lane.outbox();
    let mut changes = outbox.watch();
    assert_eq!(outbox.attempt(&[id(0, 0), id(0, 1), id(9, 9)]), [id(0, 0), id(0, 1)]);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let accepted = settled(id(0, 0), EffectResult::Accepted);
    let twice = settled(id(0, 0), EffectResult::Expired);
    outbox.settle(vec![accepted.clone(), twice, settled(id(0, 1), refused())]).unwrap();
    assert!(changes.has_changed().unwrap());
    outbox.settle(vec![accepted]).unwrap();
    drop((lane, outbox, store));

    let store = open(dir.path());
    let lane = common::lane(&store);
    let known = outcomes(&journal(&store));
    let results: Vec<_> = known.iter().map(|outcome| (outcome.effect, &outcome.result)).collect();
    assert_eq!(results, [(id(0, 0), &EffectResult::Accepted), (id(0, 1), &refused())]);
    assert_eq!(known[1].key, effect("b").key);
    assert_eq!((known[1].block, known[1].head), (block_ref(0, 0), block_ref(0, 0)));
    assert_eq!(lane.outbox().unsettled().len(), 1);
    let done = |key| lane.outbox().is_done(&effect(key).key).unwrap();
    assert!(done("a"));
    assert!(!done("b"), "a refusal is of one attempt, not of the key");
    assert!(!done("c"));
    let verified = journal(&store).verify(Offset::START..Offset::new(99), |_| Ok(())).unwrap();
    assert!(verified.is_clean(), "{:?}", verified.problems);
    assert_eq!(verified.outcomes, 2);
}

#[test]
fn a_reorg_cancels_what_was_not_sent_and_orphans_what_was() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut lane) = asked(dir.path(), vec![effect("stays")]);
    let journal = journal(&store);
    append_all(&journal, &[Record::Block(block(block_ref(1, 0), block_ref(0, 0).hash, 0))]);
    let mut step = lane.begin();
    step.apply(block_ref(1, 0), asking(vec![effect("sent"), effect("waits")])).unwrap();
    step.commit(common::MODULE).unwrap();
    assert_eq!(lane.outbox().attempt(&[id(1, 0)]), [id(1, 0)]);

    let revert = Revert { ancestor: block_ref(0, 0), abandoned: vec![block_ref(1, 0)] };
    append_all(&journal, &[Record::Revert(revert.clone())]);
    let states = |lane: &Lane| -> Vec<_> {
        lane.outbox().unsettled().into_iter().map(|entry| (entry.id, entry.state)).collect()
    };
    let mut step = lane.begin();
    step.revert(&revert).unwrap();
    drop(step);
    assert_eq!(states(&lane).len(), 3, "a dropped step cancels nothing");
    let mut step = lane.begin();
    step.revert(&revert).unwrap();
    step.commit(common::MODULE).unwrap();
    let expected = [(id(0, 0), OutboxState::Waiting), (id(1, 0), OutboxState::Orphaned)];
    assert_eq!(states(&lane), expected);
    assert_eq!(lane.outbox().attempt(&[id(1, 0), id(1, 1)]), [], "neither may be sent any more");
    assert_eq!(lane.outbox().effect(id(1, 1)).unwrap(), None);
    drop((lane, journal, store));
    let store = open(dir.path());
    assert_eq!(states(&common::lane(&store)), expected, "and it is durable");
}

#[test]
fn an_effect_and_its_revert_in_one_step_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut lane) = asked(dir.path(), vec![]);
    let [a, b] = [block_ref(1, 0), block_ref(1, 1)];
    let parent = block_ref(0, 0);
    let revert = Revert { ancestor: parent, abandoned: vec![a] };
    let records = [
        Record::Block(block(a, parent.hash, 0)),
        Record::Revert(revert.clone()),
        Record::Block(block(b, parent.hash, 0)),
    ];
    append_all(&journal(&store), &records);
    let mut step = lane.begin();
    step.apply(a, asking(vec![effect("gone")])).unwrap();
    step.revert(&revert).unwrap();
    step.apply(b, asking(vec![effect("kept")])).unwrap();
    step.commit(common::MODULE).unwrap();
    let ids: Vec<_> = lane.outbox().unsettled().iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [id(3, 0)]);
    assert_eq!(lane.outbox().effect(id(1, 0)).unwrap(), None);
}

#[test]
fn writes_and_effects_of_a_record_share_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut lane) = asked(dir.path(), vec![]);
    append_all(&journal(&store), &[Record::Block(block(block_ref(1, 0), block_ref(0, 0).hash, 0))]);
    let mut try_to_apply = |applied: Applied| lane.begin().apply(block_ref(1, 0), applied);
    let many = (0..=EFFECTS_MAX).map(effect).collect();
    let refused = try_to_apply(asking(many)).unwrap_err();
    let expected = SizeError::Effects { effects: EFFECTS_MAX + 1 };
    assert!(matches!(refused, ApplyError::Size(error) if error == expected));
    let large = |bytes: usize| Effect { body: vec![b' '; bytes], ..effect("large") };
    let half = WRITES_BYTES_MAX / 2;
    let writes = |bytes: usize| {
        let piece = 1 << 20;
        let values = (0u64..).take(bytes / piece).map(|n| vec![0; piece - 8 - (n as usize & 7)]);
        (0u64..).zip(values).map(|(n, v)| (n.to_be_bytes().to_vec(), Some(v))).collect::<Writes>()
    };
    let both = Applied { writes: writes(2 << 20), ..asking(vec![large(half)]) };
    assert!(matches!(try_to_apply(both), Err(ApplyError::Size(SizeError::Batch { .. }))));
    let fits = Applied { writes: writes(1 << 20), ..asking(vec![large(half)]) };
    try_to_apply(fits).unwrap();
}

// ---------------------------------------------------------------------------------------------
// Random histories

/// Asks for an effect at every block that has logs and for one more after a refusal, and keeps
/// what it is told. Everything it does depends on its state, so that a wrong state shows.
fn on_block(step: &mut Step<'_>, this: BlockRef, logs: u32) -> Applied {
    let mut writes = Writes::new();
    writes.insert(b"head".to_vec(), Some(this.hash.to_vec()));
    let count = step.get(b"blocks").unwrap().map_or(0, |bytes| bytes[0]);
    writes.insert(b"blocks".to_vec(), Some(vec![count.wrapping_add(1)]));
    let mut effects = Vec::new();
    if logs % 2 == 1 {
        effects.push(effect(this.hash));
        writes.insert(asked_key(&effect(this.hash).key), Some(b"asked".to_vec()));
    }
    Applied { writes, effects, ..Applied::default() }
}

fn asked_key(key: &EffectKey) -> Vec<u8> {
    format!("effect/{key}").into_bytes()
}

fn on_outcome(step: &mut Step<'_>, outcome: &Outcome, abandoned: bool) -> Applied {
    let mut applied = Applied::default();
    if abandoned {
        let key = format!("gone/{}", outcome.key).into_bytes();
        applied.writes.insert(key, Some(outcome.result.kind().into()));
        return applied;
    }
    let key = asked_key(&outcome.key);
    // What the state says of the effect goes into the new value.
    let before = step.get(&key).unwrap().unwrap_or_else(|| b"unasked".to_vec());
    if matches!(outcome.result, EffectResult::Refused(_)) && !before.ends_with(b"again") {
        applied.effects.push(effect(format!("{} again", outcome.effect)));
        applied.writes.insert(key, Some([&before[..], b", again"].concat()));
    } else {
        let known = [&before[..], b", ", outcome.result.kind().as_bytes()].concat();
        applied.writes.insert(key, Some(known));
    }
    applied
}

fn on_notice(outcomes: &[Outcome]) -> Applied {
    let gone = |outcome: &Outcome| {
        let key = format!("gone/{}", outcome.key).into_bytes();
        (key, Some(outcome.result.kind().into()))
    };
    Applied { writes: outcomes.iter().map(gone).collect(), ..Applied::default() }
}

/// One step over at most `records_max` records, as a dispatcher takes it.
fn step(lane: &mut Lane, records_max: usize) {
    let module = lane.id().module.clone();
    let mut step = lane.begin();
    for stored in step.records().take(records_max) {
        let stored = stored.unwrap();
        match stored.record() {
            RecordView::Block(view) => {
                let applied = on_block(&mut step, view.this, view.log_count());
                step.apply(view.this, applied).unwrap();
            }
            RecordView::Outcome(outcome) => {
                let abandoned = step.is_taken_back(&outcome);
                let applied = if outcome.module == module {
                    on_outcome(&mut step, &outcome, abandoned)
                } else {
                    Applied::default()
                };
                step.pass_outcome(applied).unwrap();
            }
            RecordView::Revert(revert) => {
                let deliveries = step.deliveries(&revert).unwrap();
                step.revert(&revert).unwrap();
                if !deliveries.noticed.is_empty() {
                    step.told_by_revert(on_notice(&deliveries.noticed)).unwrap();
                }
                for (outcome, abandoned) in &deliveries.again {
                    let applied = on_outcome(&mut step, outcome, *abandoned);
                    step.told_by_revert(applied).unwrap();
                }
            }
        }
    }
    step.commit(common::MODULE).unwrap();
}

fn catch_up(lane: &mut Lane, mut cut: impl FnMut() -> usize) {
    while lane.cursor().next < lane.journal().tail().offset {
        step(lane, cut());
    }
}

/// Lives through blocks, reorgs, sendings and answers in a random order.
fn live(store: &Store, rng: &mut StdRng, length: u64) {
    let journal = journal(store);
    let mut lane = lane(store);
    let mut canonical: Vec<BlockRef> = Vec::new();
    let mut highest = 0;
    let mut branch = 0;
    while journal.tail().offset.get() < length {
        match rng.random_range(0..10) {
            0..=3 => {
                let parent = canonical.last().map_or(Default::default(), |block| block.hash);
                let next = block_ref(canonical.len() as u64, branch);
                let record = Record::Block(block(next, parent, rng.random_range(0..6)));
                append_all(&journal, &[record]);
                highest = highest.max(next.number);
                canonical.push(next);
            }
            4 => {
                let head = canonical.len() as u64;
                let floor = highest.saturating_sub(common::REORG_DEPTH_MAX);
                let depth = rng.random_range(1..=4);
                if head > depth && head - depth > floor {
                    let abandoned = canonical.split_off((head - depth) as usize);
                    let ancestor = canonical[canonical.len() - 1];
                    append_all(&journal, &[Record::Revert(Revert { ancestor, abandoned })]);
                    branch += 1;
                }
            }
            5 => step(&mut lane, rng.random_range(1..6)),
            6 | 7 => catch_up(&mut lane, || 3),
            8 => {
                let waiting = lane.outbox().unsettled();
                let some = waiting.iter().filter(|_| rng.random_bool(0.6)).map(|entry| entry.id);
                lane.outbox().attempt(&some.collect::<Vec<_>>());
            }
            _ => {
                let unsettled = lane.outbox().unsettled().into_iter();
                let answered = unsettled.filter(|entry| entry.state != OutboxState::Waiting);
                let answers = answered.filter_map(|entry| {
                    let result = match rng.random_range(0..5) {
                        0 => return None,
                        1 => refused(),
                        2 => EffectResult::AlreadyThere,
                        _ => EffectResult::Accepted,
                    };
                    Some(settled(entry.id, result))
                });
                let answers = answers.collect();
                lane.outbox().settle(answers).unwrap();
            }
        }
    }
    catch_up(&mut lane, || 2);
}

/// Everything a lane computed from a journal, on these records in a store of their own.
fn fresh(
    records: &[Record],
    mut cut: impl FnMut() -> usize,
) -> (Computed, Vec<(EffectId, Effect)>) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&journal(&store), records);
    catch_up(&mut lane(&store), &mut cut);
    let snapshot = snapshot(&store);
    let effects = snapshot.effects().map(Result::unwrap).map(|(id, _, effect)| (id, effect));
    (outcome(&store), effects.collect())
}

#[test]
fn what_a_lane_makes_of_outcomes_and_reorgs_does_not_depend_on_when_it_passes_them() {
    let seed = seed();
    for round in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(round));
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        live(&store, &mut rng, 240);
        let journal = journal(&store);
        let records: Vec<Record> = journal
            .read(Offset::START..journal.tail().offset)
            .map(|stored| stored.unwrap().record().to_record())
            .collect();
        let lived = outcome(&store);
        let (at_once, effects) = fresh(&records, || usize::MAX);
        assert_eq!(lived, at_once, "round {round}");
        let (one_by_one, more_effects) = fresh(&records, || 1);
        assert_eq!(lived, one_by_one, "round {round}");
        let (random, _) = fresh(&records, || rng.random_range(1..20));
        assert_eq!(lived, random, "round {round}");

        // Whatever was sent can be asked for again by a replay; what was cancelled is not there.
        let sent: BTreeMap<EffectId, Outcome> =
            outcomes(&journal).into_iter().map(|outcome| (outcome.effect, outcome)).collect();
        let replayed: BTreeMap<EffectId, Effect> = more_effects.into_iter().collect();
        let kept: BTreeMap<EffectId, Effect> = effects.into_iter().collect();
        for (id, outcome) in &sent {
            if !journal.is_taken_back(outcome, journal.tail().offset) {
                assert_eq!(kept[id].key, outcome.key, "round {round}");
                assert_eq!(replayed[id], kept[id], "round {round}");
            }
        }
        check_told(&store, &journal, &sent);
    }
}

/// Every outcome is in the state exactly as its effect's block says: known when it counts, gone
/// when it does not, and nothing else.
fn check_told(store: &Store, journal: &Journal, sent: &BTreeMap<EffectId, Outcome>) {
    let state: BTreeMap<Vec<u8>, Vec<u8>> =
        snapshot(store).entries(&[], None).map(Result::unwrap).collect();
    let mut expected_gone = BTreeMap::new();
    for outcome in sent.values() {
        let told = String::from_utf8_lossy(
            state.get(&asked_key(&outcome.key)).map_or(b"nothing".as_slice(), Vec::as_slice),
        )
        .into_owned();
        let kind = outcome.result.kind();
        if !journal.is_taken_back(outcome, journal.tail().offset) {
            let is_asked_by_block = told.starts_with("asked");
            let is_known = told.ends_with(kind) || told.ends_with("again");
            assert!(is_known, "{}: {kind} is not what the state says: {told}", outcome.key);
            let answers = told.matches(", ").count();
            assert!(answers == 1 || !is_asked_by_block, "told once: {told}");
        } else if outcome.result.is_done() {
            expected_gone.insert(format!("gone/{}", outcome.key).into_bytes(), kind);
        }
    }
    let gone: Vec<_> = state.keys().filter(|key| key.starts_with(b"gone/")).collect();
    for key in expected_gone.keys() {
        assert!(gone.contains(&key), "{} was not told", String::from_utf8_lossy(key));
    }
}

#[test]
fn an_outcome_told_above_the_ancestor_is_told_again_and_one_of_an_abandoned_block_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let journal = journal(&store);
    let chain = [block_ref(0, 0), block_ref(1, 0), block_ref(2, 0)];
    let mut parent = Default::default();
    let mut lane = None;
    for this in chain {
        append_all(&journal, &[Record::Block(block(this, parent, 1))]);
        parent = this.hash;
        let lane = lane.get_or_insert_with(|| common::lane(&store));
        step(lane, 1);
    }
    let mut lane = lane.expect("three blocks");
    let ids: Vec<_> = lane.outbox().unsettled().iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [id(0, 0), id(1, 0), id(2, 0)]);
    lane.outbox().attempt(&ids);
    let answers = [EffectResult::Accepted, EffectResult::Accepted, refused()];
    let answers = ids.iter().zip(answers).map(|(id, result)| settled(*id, result)).collect();
    lane.outbox().settle(answers).unwrap();
    catch_up(&mut lane, || 9);

    let revert = Revert { ancestor: chain[0], abandoned: chain[1..].to_vec() };
    append_all(&journal, &[Record::Revert(revert.clone())]);
    let deliveries = lane.begin().deliveries(&revert).unwrap();
    let effects = |outcomes: &[Outcome]| -> Vec<EffectId> {
        outcomes.iter().map(|outcome| outcome.effect).collect()
    };
    assert_eq!(effects(&deliveries.noticed), [id(1, 0)], "the refused one is nowhere");
    assert_eq!(deliveries.again.len(), 1);
    assert_eq!((deliveries.again[0].0.effect, deliveries.again[0].1), (id(0, 0), false));
}

#[test]
fn a_log_cut_anywhere_shows_each_effect_in_one_place() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let worked = tempfile::tempdir().unwrap();
    live(&open(worked.path()), &mut rng, 160);
    let mut moments = std::collections::BTreeSet::new();
    for round in 0..40 {
        let copied = tempfile::tempdir().unwrap();
        copy(worked.path(), copied.path());
        lower_the_mark(copied.path());
        let cut = rng.random_range(0..written_bytes(&write_ahead_log(copied.path())));
        cut_log(copied.path(), cut, round % 2 == 0);
        let Ok(store) = Store::open(copied.path(), common::options()) else { continue };
        if store.cursors().unwrap().is_empty() {
            continue;
        }
        let journal = journal(&store);
        let settled = outcomes(&journal);
        let mut accounted: Vec<EffectId> = settled.iter().map(|outcome| outcome.effect).collect();
        let lane = lane(&store);
        accounted.extend(lane.outbox().unsettled().iter().map(|entry| entry.id));
        accounted.sort_unstable();
        let asked: Vec<_> = snapshot(&store).effects().map(|effect| effect.unwrap().0).collect();
        assert_eq!(accounted, asked, "log cut at byte {cut}");
        for outcome in &settled {
            let is_done = lane.outbox().is_done(&outcome.key).unwrap();
            assert!(is_done || !outcome.result.is_done(), "log cut at byte {cut}");
        }
        moments.insert((settled.len(), accounted.len()));
    }
    assert!(moments.len() > 5, "cuts showed only {moments:?}");
}
