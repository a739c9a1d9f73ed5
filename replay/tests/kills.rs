//! Kill -9, of a real process: nothing live is harmed, and what was under way goes on.

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    BALANCE_TRACKER, Computed, Life, TELLER, TOKEN_LEDGER, asked, computed, load, scratch, seed,
    seeds, store,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_host::BoundModule;
use shepherd_log::Store;
use shepherd_replay::{Progress, rebuild, verify};

const TASK: &str = "SHEPHERD_CHILD_TASK";
const DIR: &str = "SHEPHERD_CHILD_DIR";
const ROUND: &str = "SHEPHERD_CHILD_ROUND";

/// Said by a child when it has come a step further.
const STEP: &str = "a step";
/// Said by a child before it switches generations.
const SWITCHING: &str = "switching";
/// Said by a child after it has.
const SWITCHED: &str = "switched";

/// Records of the history that lanes live through, outcomes not counted.
const LENGTH: usize = 60;

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).expect("the parent listens");
}

#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn child() {
    let [task, dir, round] = [TASK, DIR, ROUND].map(|name| std::env::var(name).unwrap());
    let dir = Path::new(&dir);
    let seed: u64 = round.parse().unwrap();
    match task.as_str() {
        "live" => {
            let mut life = Life::new(seed >> 8, LENGTH).otherwise(seed);
            life.heard = || say(STEP);
            life.live(&dir.join("live"), &lanes());
        }
        "rebuild" => {
            let store = store(&dir.join("live"));
            let mut hand_over = || {
                say(SWITCHING);
                store.lane(TELLER.lane())
            };
            let mut progress = |_: &Progress| say(STEP);
            let lane = TELLER.lane();
            let rebuilt =
                rebuild(&store, lane, &mut load, &mut hand_over, Some(3), &mut progress, &|| false);
            assert!(rebuilt.unwrap().is_same());
            say(SWITCHED);
        }
        "verify" => {
            let store = store(&dir.join("live"));
            let mut progress = |_: &Progress| say(STEP);
            let run = dir.join("run");
            let verified =
                verify(&store, TELLER.lane(), &mut load, &run, Some(3), &mut progress, &|| false);
            assert_eq!(verified.unwrap().difference, None);
        }
        other => panic!("no child does {other}"),
    }
}

fn lanes() -> [&'static BoundModule; 3] {
    [&TOKEN_LEDGER, &BALANCE_TRACKER, &TELLER]
}

fn start(task: &str, dir: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(TASK, task)
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Kills a child some moments after it has said a line for the `count`th time. Says whether it was
/// killed; otherwise it has ended well by itself.
fn kill(mut child: Child, line: &str, count: usize, after: Duration) -> bool {
    let out = BufReader::new(child.stdout.take().expect("it is piped"));
    // The pipe stays open: the child is to end by the kill and not because nobody listens.
    let mut said = out.lines().map_while(Result::ok).filter(|said| said == line);
    let heard = said.by_ref().take(count).count();
    if heard < count {
        assert!(child.wait().unwrap().success());
        return false;
    }
    // Not slept: a kill is to hit what takes microseconds.
    let heard_at = Instant::now();
    while heard_at.elapsed() < after {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    // It may have ended in between, but not badly.
    assert!(status.success() || status.signal() == Some(9), "{status}");
    !status.success()
}

/// What must not change while a lane is verified or rebuilt.
fn live(store: &Store) -> (Computed, (Vec<String>, Vec<String>)) {
    let lane = TELLER.lane();
    (computed(store, lane), asked(store, lane))
}

fn generation(store: &Store) -> u32 {
    store.lane_snapshot(TELLER.lane()).unwrap().unwrap().cursor().generation
}

#[test]
fn lanes_that_were_killed_again_and_again_are_the_same_again() {
    let first = seed() >> 8;
    for seed in first..first + seeds(1) {
        println!("seed {}", seed << 8);
        let mut rng = StdRng::seed_from_u64(seed);
        let dir = scratch();
        let mut kills = 0;
        for round in 0..6 {
            let (count, after) = (rng.random_range(1..60), rng.random_range(0..3_000));
            let child = start("live", dir.path(), (seed << 8) + round);
            if !kill(child, STEP, count, Duration::from_micros(after)) {
                break;
            }
            kills += 1;
        }
        assert!(kills > 0);
        let live_dir = dir.path().join("live");
        Life::new(seed, LENGTH).live(&live_dir, &lanes());
        let store = store(&live_dir);
        for (position, module) in lanes().iter().enumerate() {
            let run = dir.path().join(position.to_string());
            let (lane, cut) = (module.lane(), Some(rng.random_range(1..20)));
            let verified = verify(&store, lane, &mut load, &run, cut, &mut |_| (), &|| false);
            let difference = verified.unwrap().difference;
            assert_eq!(difference.map(|difference| difference.to_string()), None, "{lane}");
        }
    }
}

#[test]
fn a_rebuild_that_is_killed_goes_on_and_the_lane_is_what_it_was() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = scratch();
    let live_dir = dir.path().join("live");
    Life::new(seed, LENGTH).live(&live_dir, &lanes());
    let before = live(&store(&live_dir));
    let mut came_to = Vec::new();
    loop {
        let (count, after) = (rng.random_range(3..9), rng.random_range(0..2_000));
        let child = start("rebuild", dir.path(), seed);
        let was_killed = kill(child, STEP, count, Duration::from_micros(after));
        let store = store(&live_dir);
        assert_eq!(live(&store), before);
        let Some((_, cursor)) = store.rebuilds().unwrap().pop() else { break };
        assert!(was_killed, "only a kill leaves a rebuild under way");
        came_to.push(cursor.next);
    }
    println!("killed at {came_to:?}");
    assert!(!came_to.is_empty() && came_to.is_sorted(), "{came_to:?}");
    assert_eq!(generation(&store(&live_dir)), 1);
}

#[test]
fn a_switch_that_is_killed_has_happened_or_has_not() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = scratch();
    let live_dir = dir.path().join("live");
    Life::new(seed, 30).live(&live_dir, &lanes());
    let before = live(&store(&live_dir));
    let mut switched = 0;
    for round in 0..6 {
        let old = generation(&store(&live_dir));
        let line = if round == 5 { SWITCHED } else { SWITCHING };
        let after = Duration::from_micros(rng.random_range(0..1_500));
        kill(start("rebuild", dir.path(), seed), line, 1, after);
        let store = store(&live_dir);
        assert_eq!(live(&store), before);
        let under_way = store.rebuilds().unwrap();
        let has_happened = generation(&store) == old + 1;
        assert!(has_happened || generation(&store) == old);
        assert_eq!(under_way.is_empty(), has_happened, "a rebuild is under way or has switched");
        switched += u32::from(has_happened);
    }
    println!("{switched} of 6 switches had happened");
    assert!(switched > 0, "the last one was killed after it had said so");
    let store = store(&live_dir);
    let hand_over = &mut || store.lane(TELLER.lane());
    let lane = TELLER.lane();
    let rebuilt = rebuild(&store, lane, &mut load, hand_over, None, &mut |_| (), &|| false);
    assert!(rebuilt.unwrap().is_same());
    assert_eq!(live(&store), before);
    store.sweep(&|| false).unwrap();
    assert_eq!(live(&store), before);
}

#[test]
fn a_verification_that_is_killed_goes_on_and_the_lane_is_what_it_was() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = scratch();
    let (live_dir, run) = (dir.path().join("live"), dir.path().join("run"));
    Life::new(seed, LENGTH).live(&live_dir, &lanes());
    let before = live(&store(&live_dir));
    for _ in 0..3 {
        let (count, after) = (rng.random_range(2..6), rng.random_range(0..2_000));
        kill(start("verify", dir.path(), seed), STEP, count, Duration::from_micros(after));
        assert_eq!(live(&store(&live_dir)), before);
    }
    let mut from = None;
    let mut progress = |progress: &Progress| {
        from.get_or_insert(progress.from);
    };
    let store = store(&live_dir);
    let lane = TELLER.lane();
    let verified = verify(&store, lane, &mut load, &run, None, &mut progress, &|| false).unwrap();
    assert_eq!(verified.difference.map(|difference| difference.to_string()), None);
    assert_eq!((verified.next.get(), verified.digest), (before.0.next, before.0.digest));
    assert!(from.is_some_and(|from| from.get() > 0), "it goes on where it was killed: {from:?}");
}
