//! The due index against a naive one, and what it costs.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_sdk::{
    Moment, When,
    due::Due,
    testing::{MemoryHost, StateCalls},
};

const DUE: Due = Due::under(b"due/");

/// The seed of a randomised test: given, or a new one; printed so that it can be given.
fn seed() -> u64 {
    let given = std::env::var("SHEPHERD_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("repeat with SHEPHERD_SEED={seed}");
    seed
}

/// When every id is due, and nothing else.
type Model = BTreeMap<Vec<u8>, When>;

/// What a page of `limit` should be: each queue sorted, taken from in turn.
fn expected(model: &Model, now: Moment, limit: usize) -> (Vec<Vec<u8>>, bool) {
    let mut queues = [Vec::new(), Vec::new()];
    for (id, when) in model.iter().filter(|(_, when)| when.is_due(now)) {
        queues[usize::from(matches!(when, When::Time(_)))].push((*when, id.clone()));
    }
    for queue in &mut queues {
        queue.sort();
    }
    let [blocks, times] = &queues;
    let mut ids = Vec::new();
    for position in 0..blocks.len().max(times.len()) {
        ids.extend([blocks, times].into_iter().filter_map(|queue| queue.get(position)));
    }
    let more = limit < ids.len();
    (ids.into_iter().take(limit).map(|(_, id)| id.clone()).collect(), more)
}

#[test]
fn any_history_leaves_what_a_naive_index_would_hold() {
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..60 {
        let mut host = MemoryHost::default();
        host.state.insert(b"due".to_vec(), b"not of the index".to_vec());
        host.state.insert(b"due0".to_vec(), b"not of the index".to_vec());
        let mut model = Model::new();
        let mut now = Moment { block: 200, time: 60_000 };
        for _ in 0..200 {
            // Few ids, some the beginning of others, so that they meet.
            let id: Vec<u8> = vec![random.random_range(0..4); random.random_range(0..5)];
            match random.random_range(0..10) {
                0..6 => {
                    let when = if random.random() {
                        When::Block(now.block.saturating_add_signed(random.random_range(-20..80)))
                    } else {
                        When::Time(now.time.saturating_add_signed(random.random_range(-300..900)))
                    };
                    DUE.set(&mut host, &id, when).unwrap();
                    model.insert(id, when);
                }
                6 => {
                    DUE.remove(&mut host, &id).unwrap();
                    model.remove(&id);
                }
                _ => {
                    now.block += random.random_range(0..20);
                    now.time += random.random_range(0..300);
                    let limit = random.random_range(0..8);
                    let (ids, more) = expected(&model, now, limit);
                    let taken = DUE.take(&mut host, now, limit).unwrap();
                    assert_eq!((&taken.ids, taken.more), (&ids, more));
                    model.retain(|id, _| !ids.contains(id));
                }
            }
            assert_eq!(host.state.len(), 2 + 2 * model.len());
        }
        for (id, when) in &model {
            assert_eq!(DUE.when(&mut host, id).unwrap(), Some(*when));
        }
    }
}

/// Watches so many orders, of which the first `due` are due, and takes what is due.
fn cost(watched: u32, due: u32) -> MemoryHost {
    let mut host = MemoryHost::default();
    for number in 0..watched {
        let late = if number < due { 0 } else { 1_000 + u64::from(number) };
        let when = if number % 2 == 0 { When::Block(late) } else { When::Time(late) };
        DUE.set(&mut host, &number.to_be_bytes(), when).unwrap();
    }
    host.state_calls = StateCalls::default();
    let taken = DUE.take(&mut host, Moment { block: 500, time: 500 }, 2_000).unwrap();
    assert_eq!(taken.ids.len(), due as usize);
    host
}

#[test]
fn the_work_of_a_block_follows_what_is_due_and_not_what_is_watched() {
    for due in [0, 1, 10, 300, 1_500] {
        let few = cost(6_000, due).state_calls;
        let many = cost(10_000, due).state_calls;
        assert_eq!(few, many, "{due} due");

        let due = due as usize;
        assert_eq!((many.gets, many.writes), (0, 2 * due));
        assert!(many.listed <= 3 * due + 2, "{} entries were listed for {due}", many.listed);
        assert!(many.lists <= 16, "{} pages were listed for {due}", many.lists);
    }
    let idle = cost(10_000, 0).state_calls;
    assert_eq!((idle.lists, idle.listed), (2, 2));
}

#[test]
fn moving_one_of_ten_thousand_is_one_read_and_three_writes() {
    let mut host = cost(10_000, 0);
    host.state_calls = StateCalls::default();
    DUE.set(&mut host, &7u32.to_be_bytes(), When::Block(9)).unwrap();
    let once = StateCalls { gets: 1, writes: 3, lists: 0, listed: 0 };
    assert_eq!(host.state_calls, once);
    DUE.set(&mut host, &7u32.to_be_bytes(), When::Block(9)).unwrap();
    assert_eq!(host.state_calls, StateCalls { gets: 2, ..once });
}
