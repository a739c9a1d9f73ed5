//! A daemon with two modules on a loaded chain, and what its work must come to.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, U256};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;
use shepherd_devnet::{Anvil, Load, Plan, Token};
use shepherd_log::{BlockRef, Digest, Journal, LaneId, LaneSnapshot, Offset, Options, Store};

use crate::common::{Daemon, Folder, block_on, config, module_entry};

/// Far longer than anything here takes. A test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What every test makes of its chain: fifty logs in each block.
pub const PLAN: Plan = Plan { logs_per_block: 50, tokens: 2, holders: 100, seed: 7 };

/// Chance that can be repeated: from a seed that is given, or drawn and printed.
pub fn rng() -> StdRng {
    let given = std::env::var("SHEPHERD_SEED").ok();
    let seed = given.map_or_else(rand::random, |text| text.parse().unwrap());
    println!("repeat with SHEPHERD_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A folder whose daemon runs both modules on this node.
pub fn folder(anvil: &Anvil) -> Folder {
    let folder = Folder::new(anvil.http_url().as_str());
    folder.configure(&module_entry("token-ledger"));
    folder.configure(&module_entry("balance-tracker"));
    folder.configure(&format!("config.addresses = {:?}\n", quoted(anvil.accounts())));
    folder
}

/// The same folder, told that a WebSocket announces blocks as well.
pub fn folder_with_websocket(anvil: &Anvil) -> Folder {
    let folder = folder(anvil);
    let http = config(anvil.http_url().as_str());
    let endpoints = format!("[\"{}\", \"{}\"]", anvil.http_url(), anvil.ws_url());
    let both = http.lines().map(|line| match line.starts_with("chains.devnet.endpoints") {
        true => format!("chains.devnet.endpoints = {endpoints}\n"),
        false => format!("{line}\n"),
    });
    let modules = std::fs::read_to_string(folder.path("shepherd.toml")).unwrap();
    let modules = modules.strip_prefix(&http).expect("modules follow the chain").to_owned();
    folder.write("shepherd.toml", both.collect::<String>() + &modules);
    folder
}

/// Waits until every lane has passed the node's newest block.
pub fn until_caught_up(folder: &Folder, anvil: &Anvil) {
    let head = block_on(anvil.head()).unwrap();
    let hash = format!("{}", head.hash);
    until(folder, &["cursor", "list", "--json"], |view| {
        let cursors = view["cursors"].as_array().expect("a list of cursors");
        cursors.len() == 2 && cursors.iter().all(|cursor| cursor["block"]["hash"] == *hash)
    });
}

/// Runs a command that prints JSON until it shows what is expected.
pub fn until(folder: &Folder, args: &[&str], reached: impl Fn(&Value) -> bool) -> Value {
    poll(|| folder.json(args), reached)
}

fn poll(look: impl Fn() -> Value, reached: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let view = look();
        if reached(&view) {
            return view;
        }
        assert!(started.elapsed() < PATIENCE, "it stays at {view:#}");
        // Another process: there is no event of ours to wait for.
        sleep(Duration::from_millis(20));
    }
}

/// What the running daemon answers to a path.
pub fn admin(folder: &Folder, path: &str) -> String {
    let announced = std::fs::read(folder.path("data/daemon.json")).unwrap();
    let announced: Value = serde_json::from_slice(&announced).unwrap();
    // An error only says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("http://{}{path}", announced["admin"].as_str().expect("an address"));
    block_on(async { reqwest::get(url).await.unwrap().text().await.unwrap() })
}

/// Asks the running daemon until it shows what is expected.
pub fn until_admin(folder: &Folder, path: &str, reached: impl Fn(&Value) -> bool) -> Value {
    poll(|| serde_json::from_str(&admin(folder, path)).unwrap(), reached)
}

/// Everything a run leaves behind that must not depend on what happened to it.
#[derive(Debug, PartialEq, Eq)]
pub struct Truth {
    pub head: Option<BlockRef>,
    pub ledger: LaneTruth,
    /// Not its digest: asked for a balance at its newest block while it makes another, anvil
    /// 1.7.1 now and then answers with the state after that other one (7 of 401 blocks in a
    /// probe that did nothing else). Such an answer is on the tape for good, and a run that asks
    /// later gets the right one. The balances at the head agree all the same.
    pub tracker_state: Digest,
}

/// Where a lane stands and all it has computed on the way there.
#[derive(Debug, PartialEq, Eq)]
pub struct LaneTruth {
    pub block: Option<BlockRef>,
    /// Chained over the writes of every block that counts.
    pub digest: Digest,
    pub state: Digest,
}

/// A closed daemon's store.
pub struct Left {
    pub store: Store,
    pub journal: Journal,
}

impl Left {
    pub fn by(folder: &Folder) -> Left {
        let store = Store::open(&folder.path("data"), Options::default()).unwrap();
        let journal = store.existing_journal(&"devnet".parse().unwrap()).unwrap();
        Left { store, journal }
    }

    pub fn lane(&self, module: &str) -> LaneSnapshot {
        let lane: LaneId = format!("{module}@devnet").parse().unwrap();
        self.store.lane_snapshot(&lane).unwrap().expect("the lane exists")
    }

    pub fn truth(&self) -> Truth {
        Truth {
            head: self.journal.tail().head,
            ledger: self.lane_truth("token-ledger"),
            tracker_state: self.lane_truth("balance-tracker").state,
        }
    }

    pub fn lane_truth(&self, module: &str) -> LaneTruth {
        let snapshot = self.lane(module);
        LaneTruth {
            block: snapshot.cursor().block,
            digest: snapshot.cursor().digest,
            state: snapshot.state_digest().unwrap(),
        }
    }

    /// Digest over every record of the journal.
    pub fn journal_digest(&self) -> Digest {
        let range = Offset::START..self.journal.tail().offset;
        let report = self.journal.verify(range, |_| Ok(())).unwrap();
        assert!(report.is_clean(), "{:?}", report.problems);
        report.digest
    }

    /// Compares the ledger with the tokens on the chain: totals, and every holder.
    pub fn agrees_with_chain(&self, anvil: &Anvil, load: &Load) {
        let ledger = self.lane("token-ledger");
        let read = |key: Vec<u8>| -> U256 {
            let value = ledger.get(&key).unwrap();
            value.map_or(U256::ZERO, |bytes| U256::from_be_slice(&bytes))
        };
        let mut moved = 0;
        for token in load.tokens() {
            let address = token.address();
            let total = block_on(token.total_supply(anvil)).unwrap();
            assert_eq!(read([b"t", address.as_slice()].concat()), total);
            for index in 0..PLAN.holders {
                let holder: Address = Token::holder(index);
                let balance = block_on(token.balance_of(anvil, holder)).unwrap();
                let key = [b"b", address.as_slice(), holder.as_slice()].concat();
                assert_eq!(read(key), balance, "{holder} of {address}");
                moved += u64::from(!balance.is_zero());
            }
        }
        assert!(moved > PLAN.holders / 2, "only {moved} balances are not zero");
    }
}

/// What a daemon that is never disturbed makes of the chain as it is now.
pub fn undisturbed(anvil: &Anvil) -> Left {
    let folder = folder(anvil);
    let daemon = folder.start();
    until_caught_up(&folder, anvil);
    stop(daemon);
    verify_again(&folder);
    let left = Left::by(&folder);
    // The folder's files stay until the store that holds them is closed; on Linux an open file
    // outlives its name.
    drop(folder);
    left
}

fn quoted(addresses: &[Address]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// Has every lane computed again from the journal and its tape, which must come to the same, and
/// gives what each came to.
pub fn verify_again(folder: &Folder) -> Value {
    let lanes = folder.json(&["replay", "verify", "--all", "--quiet", "--json"]);
    for lane in lanes.as_array().expect("a list of lanes") {
        assert_eq!(lane["same"], true, "{lane:#}");
        assert_ne!(lane["commits"], 0, "{lane:#}");
    }
    lanes
}

/// Stops a daemon gracefully.
pub fn stop(daemon: Daemon) {
    daemon.stop();
}
