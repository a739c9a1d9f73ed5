//! A module that misbehaves is a typed fault, commits nothing, and disturbs nobody.

mod support;

use std::{
    thread,
    time::{Duration, Instant},
};

use shepherd_host::{
    BadRequest, BindError, Engine, EngineOptions, Failure, Fault, LogLevel, LogLine,
    OutputTooLarge, ReadAnswer, ReadRequest, World, limits,
};
use support::{CHAIN_ID, State, advance, bind_hostile, block, chain, engine, hostile, try_hostile};

/// What the module does at the block it misbehaves at.
fn fault(behaviour: &str) -> Fault {
    let module = try_hostile(&engine(), behaviour, 2).unwrap();
    let mut state = State::new();
    advance(&module, &block(1), &mut state, &mut chain).expect("it behaves at first");
    let before = state.clone();
    let failure = advance(&module, &block(2), &mut state, &mut chain).unwrap_err();
    assert_eq!(state, before, "a failed record leaves nothing behind");
    let Failure::Module { fault, .. } = failure else {
        panic!("{behaviour} is the module's: {failure}")
    };
    fault
}

#[test]
fn every_way_to_misbehave_is_its_own_fault() {
    let output = Fault::OutputTooLarge;
    let out_of_fuel = Fault::OutOfFuel { limit: 200_000_000 };
    let cases = [
        ("endless-loop", out_of_fuel.clone()),
        ("endless-host-calls", out_of_fuel),
        ("memory-bomb", Fault::OutOfMemory { limit_mib: 32 }),
        ("deep-recursion", Fault::StackOverflow),
        ("enormous-error", output(OutputTooLarge::HostCall)),
        ("huge-value", output(OutputTooLarge::Value { bytes: 2 << 20 })),
        ("enormous-value", output(OutputTooLarge::HostCall)),
        ("empty-key", output(OutputTooLarge::Key { bytes: 0 })),
        ("huge-key", output(OutputTooLarge::Key { bytes: 2048 })),
        ("too-many-requests", output(OutputTooLarge::Requests { requests: 5000, most: 4096 })),
        ("too-many-effects", output(OutputTooLarge::Effects)),
        ("huge-webhook", output(OutputTooLarge::WebhookBody { bytes: (64 << 10) + 2 })),
        ("huge-document", output(OutputTooLarge::AppData { bytes: 8193 })),
        ("huge-signature", output(OutputTooLarge::Signature { bytes: (16 << 10) + 1 })),
        ("too-many-orders", output(OutputTooLarge::Requests { requests: 1001, most: 1000 })),
        ("error", Fault::Returned("failed on request".to_owned())),
    ];
    for (behaviour, expected) in cases {
        assert_eq!(fault(behaviour), expected, "{behaviour}");
    }
}

#[test]
fn what_cannot_be_asked_for_is_a_fault_that_says_why() {
    let cases = [
        ("other-destination", "the webhook `elsewhere` is not among `webhooks` of the manifest"),
        ("wrong-key", r"`a\r\nb: c` is no webhook key: use 1 to 128 printable ASCII characters"),
        (
            "not-json",
            "the webhook body is not JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            "other-document",
            "the order is signed over the app data \
             0x0000000000000001000000000000000100000000000000010000000000000001, its document has \
             the hash 0xb48d38f93eaa084033fc5970bf96e559c33c4cdc07d889ab00b4d63f9590739d",
        ),
        ("short-uid", "an order UID of 28 bytes; they have 56"),
        ("get", "`` is not a URL: relative URL without a base"),
    ];
    for (behaviour, expected) in cases {
        let fault = fault(behaviour);
        assert_eq!((fault.to_string().as_str(), fault.kind()), (expected, "request"));
    }
    assert!(fault("long-key").to_string().contains("is no webhook key"));
}

#[test]
fn a_url_is_checked_before_anyone_is_asked() {
    let gets = |url: &str| {
        let config = format!("behaviour = \"get\"\nurl = \"{url}\"");
        let module = bind_hostile(&engine(), &config).unwrap();
        let mut asked = Vec::new();
        let mut server = |block, requests: &[ReadRequest]| {
            asked.extend_from_slice(requests);
            chain(block, requests)
        };
        let failure = module.handle(&block(1), &mut State::new(), &mut server).unwrap_err();
        assert_eq!(asked, [], "{url}");
        let Failure::Module { fault: Fault::BadRequest(bad), .. } = failure else {
            panic!("{url}: {failure}")
        };
        *bad
    };
    let host = "evil.example".to_owned();
    assert_eq!(gets("https://evil.example/"), BadRequest::Host { host });
    let url = "http://example.org/".to_owned();
    assert_eq!(gets(&url), BadRequest::Scheme { url });
    let host = "example.org".to_owned();
    assert_eq!(gets("https://a:b@example.org/"), BadRequest::Credentials { host });
}

#[test]
fn an_answer_that_is_too_large_is_a_fault() {
    let too_large = |config: &str, answers: Vec<ReadAnswer>| {
        let module = bind_hostile(&engine(), config).unwrap();
        let mut source = |_, _: &[_]| Ok(answers.clone());
        match module.handle(&block(1), &mut State::new(), &mut source) {
            Ok(_) => None,
            Err(Failure::Module { fault: Fault::OutputTooLarge(output), .. }) => Some(output),
            Err(other) => panic!("{other}"),
        }
    };
    let get = "behaviour = \"get\"\nurl = \"https://example.org/a\"";
    let response = |bytes| vec![ReadAnswer::Response { status: 200, body: vec![0; bytes].into() }];
    assert_eq!(too_large(get, response(limits::HTTP_BODY_BYTES_MAX)), None);
    let url = "https://example.org/a".to_owned();
    let body = OutputTooLarge::HttpBody { url };
    assert_eq!(too_large(get, response(limits::HTTP_BODY_BYTES_MAX + 1)), Some(body));

    let ask = "behaviour = \"ask-orderbook\"";
    let text = |bytes: usize| Some("x".repeat(bytes));
    let most = limits::ORDERBOOK_ANSWER_BYTES_MAX;
    let answers =
        |order, data| vec![ReadAnswer::Order(text(order)), ReadAnswer::AppData(text(data))];
    assert_eq!(too_large(ask, answers(most, most)), None);
    let beyond = OutputTooLarge::OrderbookAnswer { bytes: most + 1 };
    assert_eq!(too_large(ask, answers(most + 1, 0)), Some(beyond.clone()));
    assert_eq!(too_large(ask, answers(0, most + 1)), Some(beyond));
}

#[test]
fn effects_share_the_limit_of_the_writes() {
    let Fault::OutputTooLarge(OutputTooLarge::Writes { bytes }) = fault("huge-effects") else {
        panic!("not too much")
    };
    assert!((limits::WRITES_BYTES_MAX..limits::WRITES_BYTES_MAX + 61_000).contains(&bytes));
}

#[test]
fn an_effect_costs_fuel() {
    let fuel = |behaviour| {
        let module = hostile(&engine(), behaviour);
        module.handle(&block(1), &mut State::new(), &mut chain).unwrap().fuel
    };
    assert!(fuel("effects") > fuel("behave") + 3 * limits::EFFECT_FUEL);
}

#[test]
fn what_an_orderbook_or_a_server_does_not_answer_is_the_worlds() {
    let outage = |config: &str, world: fn() -> World| {
        let module = bind_hostile(&engine(), config).unwrap();
        let mut source = |_, _: &[_]| Err(world());
        module.handle(&block(1), &mut State::new(), &mut source).unwrap_err()
    };
    let orderbook = || World::orderbook("503");
    let failure = outage("behaviour = \"ask-orderbook\"", orderbook);
    assert!(matches!(failure, Failure::World(World::Orderbook(_))), "{failure}");
    let get = "behaviour = \"get\"\nurl = \"https://example.org/a\"";
    let failure = outage(get, || World::http("429"));
    assert!(matches!(failure, Failure::World(World::Http(_))), "{failure}");
}

#[test]
fn a_panic_is_told_with_its_place_and_on_one_line() {
    let Fault::Panicked(message) = fault("panic") else { panic!("not a panic") };
    assert!(message.contains("fixtures/hostile/src/lib.rs"), "{message}");
    assert!(message.ends_with(r"panicked on request\nsecond line"), "{message}");
    assert!(!message.contains(env!("CARGO_MANIFEST_DIR")), "no path of the machine: {message}");
}

#[test]
fn a_trap_is_told_with_its_kind() {
    let Fault::Trap(message) = fault("unreachable") else { panic!("not a trap") };
    assert!(message.contains("unreachable"), "{message}");
}

#[test]
fn writes_of_a_record_are_bounded_together() {
    let Fault::OutputTooLarge(OutputTooLarge::Writes { bytes }) = fault("too-many-writes") else {
        panic!("not too many writes")
    };
    assert!(bytes > limits::WRITES_BYTES_MAX);
}

#[test]
fn answers_of_a_record_are_bounded_together() {
    let module = hostile(&engine(), "endless-reads");
    let code = alloy_primitives::Bytes::from(vec![0; 1 << 20]);
    let mut chain = |_, _: &[_]| Ok(vec![ReadAnswer::Code(code.clone())]);
    let failure = module.handle(&block(1), &mut State::new(), &mut chain).unwrap_err();
    let Failure::Module { fault: Fault::OutputTooLarge(OutputTooLarge::Answers { bytes }), .. } =
        failure
    else {
        panic!("not too many answers: {failure}")
    };
    assert!(bytes > limits::TAPE_BYTES_MAX);
}

#[test]
fn a_stranger_who_reverts_with_megabytes_does_not_fill_the_tape() {
    let data: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    let reverted = alloy_primitives::Bytes::from(data);
    let start = reverted.slice(..limits::REVERT_BYTES_MAX);
    let balance = ReadAnswer::Balance(alloy_primitives::U256::ZERO);
    let mut chain = |_, _: &[_]| Ok(vec![balance.clone(), ReadAnswer::Reverted(reverted.clone())]);
    let module = hostile(&engine(), "read");
    let handled = module.handle(&block(1), &mut State::new(), &mut chain).unwrap();
    let taped = shepherd_host::answers(&handled.tape[0]).unwrap();
    assert_eq!(taped, [balance, ReadAnswer::Reverted(start.clone())]);
    let seen = handled.writes[b"answers".as_slice()].as_ref().unwrap();
    let seen = String::from_utf8_lossy(seen);
    assert!(seen.contains(&format!("Reverted({start})")), "the module sees the same");
}

#[test]
fn a_long_error_is_cut() {
    let Fault::Returned(message) = fault("huge-error") else { panic!("not an error") };
    assert!(message.len() <= limits::FAULT_BYTES_MAX);
    assert!(message.ends_with("(cut)"));
}

#[test]
fn a_flood_of_lines_is_cut_counted_and_cannot_touch_a_terminal() {
    let module = hostile(&engine(), "log-flood");
    let handled = advance(&module, &block(1), &mut State::new(), &mut chain).unwrap();
    assert_eq!(handled.log_lines.len() as u64 + handled.log_lines_dropped, 10_001);
    assert_eq!(handled.log_lines.len(), limits::LINES_MAX);
    let bytes: usize = handled.log_lines.iter().map(|line| line.message.len()).sum();
    assert!(bytes <= limits::LINES_BYTES_MAX);
    assert!(handled.log_lines.iter().all(|line| line.message.len() <= limits::LINE_BYTES_MAX));
    let visible = |line: &str| line.chars().all(|c| !c.is_control() && c != '\u{202e}');
    assert!(handled.log_lines.iter().all(|line| visible(&line.message)));
    assert_eq!(handled.log_lines[0].level, LogLevel::Info);
    assert!(handled.log_lines[0].message.starts_with(r"\u{1b}[2J\u{202e}x"));
    assert_eq!(handled.log_lines[1].message, r"line 0\nforged line");
}

#[test]
fn what_a_module_said_before_it_failed_is_told() {
    let module = hostile(&engine(), "last-words");
    let failure = module.handle(&block(1), &mut State::new(), &mut chain).unwrap_err();
    let Failure::Module { fault, log_lines } = failure else { panic!("{failure}") };
    assert!(matches!(fault, Fault::Panicked(_)), "{fault}");
    let message = "about to fail at the block of time 1700000012".to_owned();
    assert_eq!(log_lines, [LogLine { level: LogLevel::Warn, message }]);
}

#[test]
fn a_refused_configuration_is_told_when_the_module_is_bound() {
    let refused = |behaviour: &str| match try_hostile(&engine(), behaviour, 0) {
        Err(BindError::Configure { source: Failure::Module { fault, .. }, .. }) => fault,
        other => panic!("{behaviour}: {other:?}"),
    };
    let reason = "refused on request".to_owned();
    assert_eq!(refused("refuse-config"), Fault::RefusedConfiguration(reason));
    assert!(matches!(refused("panic-in-config"), Fault::Panicked(_)));
    let call = Fault::CallWhileConfigured { function: "clock.now" };
    assert_eq!(refused("call-in-config"), call);
    let Fault::RefusedConfiguration(reason) = refused("no-such-behaviour") else { panic!() };
    assert!(reason.contains("no-such-behaviour"), "{reason}");
}

#[test]
fn a_failed_read_is_the_worlds_and_the_module_never_sees_it() {
    let module = hostile(&engine(), "read");
    let mut state = State::new();
    let mut outage = |_, _: &[_]| Err(World::chain("the node is down"));
    let failure = advance(&module, &block(1), &mut state, &mut outage).unwrap_err();
    assert!(matches!(failure, Failure::World(World::Chain(_))), "{failure:?}");
    assert!(state.is_empty());
    advance(&module, &block(1), &mut state, &mut chain).expect("the same block, later");
    assert!(state.contains_key(b"answers".as_slice()));
}

#[test]
fn an_answer_to_another_question_is_the_worlds() {
    let module = hostile(&engine(), "read");
    let mut short = |block, requests: &[_]| chain(block, &requests[1..]);
    let failure = module.handle(&block(1), &mut State::new(), &mut short).unwrap_err();
    assert!(matches!(failure, Failure::World(World::Answers { requests: 2, answers: 1 })));
    let mut swapped = |block, requests: &[_]| {
        chain(block, requests).map(|answers| answers.into_iter().rev().collect())
    };
    let failure = module.handle(&block(1), &mut State::new(), &mut swapped).unwrap_err();
    assert!(matches!(failure, Failure::World(World::Answers { .. })));
}

#[test]
fn state_that_cannot_be_read_is_the_worlds() {
    struct Broken;
    impl shepherd_host::StateView for Broken {
        fn get(&mut self, _: &[u8]) -> Result<Option<Vec<u8>>, World> {
            Err(World::state("the disk is gone"))
        }
        fn list(
            &mut self,
            _: &[u8],
            _: Option<&[u8]>,
            _: usize,
        ) -> Result<Vec<shepherd_host::Entry>, World> {
            Err(World::state("the disk is gone"))
        }
    }
    let module = hostile(&engine(), "behave");
    let failure = module.handle(&block(1), &mut Broken, &mut chain).unwrap_err();
    assert!(matches!(failure, Failure::World(World::State(_))));
}

#[test]
fn the_deadline_is_the_worlds_and_does_not_count_reads() {
    let deadline = Duration::from_millis(300);
    let engine = Engine::new(EngineOptions { concurrent_max: 1, deadline }).unwrap();
    let module = hostile(&engine, "read");
    let mut slow = |block, requests: &[_]| {
        thread::sleep(2 * deadline);
        chain(block, requests)
    };
    module.handle(&block(1), &mut State::new(), &mut slow).expect("a slow read is only slow");

    let manifest = support::hostile_manifest(support::EVERYTHING, limits::FUEL_MAX);
    let module = engine.load(&manifest, &support::component("hostile")).unwrap();
    let overrides = shepherd_host::Overrides {
        config: toml::from_str("behaviour = \"endless-loop\"").unwrap(),
        ..shepherd_host::Overrides::default()
    };
    let module = module.bind(&"devnet".parse().unwrap(), CHAIN_ID, &overrides).unwrap();
    let started = Instant::now();
    let failure = module.handle(&block(1), &mut State::new(), &mut chain).unwrap_err();
    assert!(matches!(failure, Failure::World(World::Deadline { .. })), "{failure}");
    assert!(started.elapsed() >= deadline);
}

#[test]
fn more_callers_than_places_wait_for_their_turn() {
    let engine = Engine::new(EngineOptions { concurrent_max: 2, ..EngineOptions::default() });
    let module = hostile(&engine.unwrap(), "behave");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for number in 0..50 {
                    module.handle(&block(number), &mut State::new(), &mut chain).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_failing_module_does_not_disturb_its_neighbours() {
    let engine = engine();
    let good = hostile(&engine, "behave");
    let bad = ["endless-loop", "memory-bomb", "panic"].map(|what| hostile(&engine, what));
    thread::scope(|scope| {
        for module in &bad {
            scope.spawn(|| {
                for number in 0..3 {
                    module.handle(&block(number), &mut State::new(), &mut chain).unwrap_err();
                }
            });
        }
        let mut state = State::new();
        for number in 0..200 {
            advance(&good, &block(number), &mut state, &mut chain).unwrap();
        }
        assert_eq!(state[b"handled".as_slice()], [200]);
    });
}
