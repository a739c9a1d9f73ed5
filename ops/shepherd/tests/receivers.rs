//! Where effects go, as `shepherd check` and `shepherd run` see it, and how the outbox is shown.

mod common;

use common::{Daemon, Folder, anvil, block_on, config, module_entry};
use serde_json::{Value, json};
use shepherd_devnet::Anvil;
use shepherd_orderbook::{Config, Orderbook};

/// A folder on this node, whose chain has no orderbook of its own.
fn folder(anvil: &Anvil, more: &str) -> Folder {
    let folder = Folder::new(anvil.http_url().as_str());
    folder.configure(more);
    folder
}

fn warnings(folder: &Folder) -> Vec<Value> {
    let view = folder.json(&["check", "--json"]);
    view["warnings"].as_array().expect("a list").clone()
}

#[test]
fn a_module_that_places_orders_needs_an_orderbook_on_its_chain() {
    let anvil = anvil(31337);
    let without = folder(&anvil, &module_entry("twap-monitor"));
    let parts = [
        "lane twap-monitor@devnet",
        "is granted `effects.place-order`, and the chain has no orderbook",
        "set `orderbook` under [chains.devnet]",
    ];
    without.fails(&["check"], 3, &parts);
    without.fails(&["run"], 3, &parts);

    let nowhere = "chains.devnet.orderbook = \"http://127.0.0.1:1/s3cr3t\"\n";
    let unreachable = folder(&anvil, &(nowhere.to_owned() + &module_entry("twap-monitor")));
    let ended =
        unreachable.fails(&["check"], 4, &["the orderbook at http://127.0.0.1:1", "unreachable"]);
    assert!(!ended.stderr.contains("s3cr3t"), "{}", ended.stderr);

    let orderbook = block_on(Orderbook::start(Config::default())).unwrap();
    let url = format!("chains.devnet.orderbook = \"{}\"\n", orderbook.url());
    let right = folder(&anvil, &(url + &module_entry("twap-monitor")));
    assert_eq!(warnings(&right), [] as [Value; 0]);
}

#[test]
fn a_webhook_without_a_url_is_warned_of_and_one_that_is_configured_so_is_refused() {
    let anvil = anvil(31337);
    let account = format!("\"{}\"", anvil.accounts()[0]);
    let module = module_entry("balance-tracker") + &format!("config.addresses = [{account}]\n");
    let unnamed = folder(&anvil, &module);
    let warned = unnamed.run(&["check"]);
    assert_eq!(warned.code, Some(0), "{warned:?}");
    let expected = "warning: the webhook `alerts` has no URL: what balance-tracker@devnet \
                    sends there, if anything, waits until it expires; add [webhooks.alerts] with a `url`";
    assert!(warned.stderr.contains(expected), "{}", warned.stderr);
    assert_eq!(warnings(&unnamed).len(), 1);

    let used = module + "config.webhook = \"alerts\"\n";
    let unnamed = folder(&anvil, &used);
    let parts = [
        "lane balance-tracker@devnet: its configuration names the webhook `alerts`",
        "say where it is: [webhooks.alerts] with a `url`",
    ];
    unnamed.fails(&["check"], 3, &parts);
    unnamed.fails(&["run"], 3, &parts);
    let named = folder(&anvil, "webhooks.alerts.url = \"http://127.0.0.1:1/s3cr3t\"\n");
    named.configure(&used);
    assert_eq!(warnings(&named), [] as [Value; 0]);
}

/// Dry run from end to end: the order is asked for, shown, and not sent.
#[test]
fn dry_run_shows_what_would_have_been_sent() {
    use alloy_primitives::{B256, U256};
    use shepherd_devnet::cow::{self, Cow, Twap};

    let anvil = block_on(Anvil::start(Cow::options())).unwrap();
    let devnet = block_on(Cow::deploy(&anvil)).unwrap();
    let owner = block_on(devnet.forwarders(&anvil, 0..1)).unwrap()[0];
    let orderbook = block_on(Orderbook::start(Config::default())).unwrap();
    let chain = config(anvil.http_url().as_str()).replace("31337", "11155111");
    let folder = Folder::with_config(&("dry_run = true\n".to_owned() + &chain));
    folder.configure(&format!("chains.devnet.orderbook = \"{}\"\n", orderbook.url()));
    folder.configure(&module_entry("twap-monitor"));
    let now = block_on(anvil.time()).unwrap();
    let twap = Twap {
        sell_token: cow::WETH,
        buy_token: cow::COW_TOKEN,
        receiver: owner.address,
        part_sell_amount: U256::from(1_000),
        min_part_limit: U256::from(7),
        t0: now,
        n: 2,
        t: 24 * 3600,
        span: 0,
        app_data: cow::EMPTY_APP_DATA,
    };
    block_on(devnet.create(&anvil, &[(owner, twap.order(B256::ZERO))])).unwrap();
    let uid = twap.part(now, 0).uid(cow::DOMAIN, owner.address).to_string();

    let mut daemon = Daemon::spawn(folder.command(&["run"]));
    daemon.wait_for("dry run: what its lanes would send is not sent");
    let settled = daemon.wait_for("effect settled");
    assert_eq!((&settled["key"], &settled["result"]), (&json!(uid), &json!("dry-run")));
    let effect = settled["effect"].as_str().expect("its name").to_owned();
    let lane = "twap-monitor@devnet";
    let shown = folder.json(&["outbox", "show", lane, &effect, "--json"]);
    daemon.stop();

    assert_eq!(
        (&shown["state"], &shown["outcome"]["result"]),
        (&json!("settled"), &json!("dry-run"))
    );
    let body: Value = serde_json::from_str(shown["body"].as_str().unwrap()).unwrap();
    assert_eq!((&body["sellAmount"], &body["kind"]), (&json!("1000"), &json!("sell")));
    assert_eq!(orderbook.stats().orders.len(), 0, "nothing was sent");
    // Without a daemon the store says the same.
    assert_eq!(folder.json(&["outbox", "show", lane, &effect, "--json"]), shown);
    let text = folder.run(&["outbox", "show", lane, &effect]).stdout;
    assert!(text.contains("result    dry-run\n") && text.contains(&uid), "{text}");
    let tail = folder.run(&["journal", "tail"]).stdout;
    let line = format!("outcome of effect {effect} of twap-monitor: dry-run  {uid}");
    assert!(tail.contains(&line), "{tail}");
    assert!(folder.run(&["outbox", "list"]).stdout.contains("Nothing waits"));
    folder.fails(&["outbox", "show", lane, "999.0"], 1, &["has no effect 999.0"]);
    folder.fails(&["outbox", "show", lane, "x"], 2, &["write RECORD.POSITION"]);
}
