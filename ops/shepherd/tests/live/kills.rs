//! kill -9 at any moment loses nothing and repeats nothing.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use rand::RngExt;
use shepherd_devnet::{Load, Signal};

use crate::{
    common::{Daemon, anvil, block_on},
    truth::{Left, PLAN, folder, rng, stop, undisturbed, until_caught_up, verify_again},
};

/// Blocks of a run. anvil keeps the states of some 3 600; the undisturbed daemon asks for balances
/// at every one of them.
const BLOCKS_MAX: usize = 3000;

/// Kills in a normal run. `SHEPHERD_KILLS` asks for more.
const KILLS: usize = 12;

/// The longest a daemon works before it is killed: dozens of blocks arrive meanwhile.
const WORKING: Duration = Duration::from_millis(1500);

#[test]
fn a_daemon_killed_at_random_moments_under_load_equals_one_that_never_was() {
    let kills = std::env::var("SHEPHERD_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let mut rng = rng();

    let anvil = anvil(31337);
    let load = block_on(Load::start(&anvil, PLAN)).unwrap();
    let folder = folder(&anvil);
    let started = Instant::now();
    stop(folder.start());
    let starting = started.elapsed();

    let mut commits = 0;
    let mut killed_at_work = 0;
    for kill in 0..kills {
        let mut daemon = Daemon::spawn(folder.command(&["run"]));
        // Every third dies while it starts, the others while they work.
        let longest = if kill % 3 == 0 {
            starting
        } else {
            daemon = daemon.started();
            WORKING
        };
        let until = Instant::now() + longest.mul_f64(rng.random());
        let mut mined = 0;
        while Instant::now() < until {
            if mined < BLOCKS_MAX / kills {
                block_on(load.blocks(&anvil, 1)).unwrap();
                mined += 1;
            }
            // The pace of the load, so that blocks arrive one by one.
            sleep(Duration::from_millis(rng.random_range(0..40)));
        }
        daemon.signal(Signal::Kill);
        daemon.end();
        let left = Left::by(&folder);
        let now = left.store.cursors().unwrap().iter().map(|(_, cursor)| cursor.commit).sum();
        killed_at_work += usize::from(now > commits);
        commits = now;
    }
    assert!(killed_at_work * 4 >= kills, "kills must interrupt work: {killed_at_work}");

    let daemon = folder.start();
    until_caught_up(&folder, &anvil);
    let verified = folder.json(&["journal", "verify", "--json"]);
    stop(daemon);
    println!("{kills} kills, {killed_at_work} after new commits; {verified}");
    let again = verify_again(&folder);
    assert_eq!(again.as_array().map(Vec::len), Some(2), "{again}");

    let (killed, calm) = (Left::by(&folder), undisturbed(&anvil));
    let blocks = block_on(anvil.block_number()).unwrap() + 1;
    assert_eq!(killed.journal.tail().offset.get(), blocks, "each block is journaled once");
    assert_eq!(killed.journal_digest(), calm.journal_digest());
    assert_eq!(killed.truth(), calm.truth());
    killed.agrees_with_chain(&anvil, &load);
}
