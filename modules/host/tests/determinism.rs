//! The same module, configuration, input, state and answers give the same bytes, anywhere.

mod support;

use alloy_primitives::{Address, B256, U256};
use shepherd_host::{
    Failure, Fault, Handled, LogRef, Overrides, ReadRequest, Reads, TapeError, TapeReads, World,
};
use support::{CHAIN_ID, State, advance, block, block_with, chain, engine, hostile};

#[test]
fn what_could_differ_does_not_across_engines() {
    let run = || {
        let module = hostile(&engine(), "nondeterminism");
        advance(&module, &block(1), &mut State::new(), &mut chain).unwrap()
    };
    let first = run();
    assert_eq!(first, run(), "writes, tape, lines and fuel");
    let written = |key: &str| first.writes[key.as_bytes()].clone().unwrap();
    // The one NaN that canonicalisation leaves.
    assert_eq!(written("nan"), 0x7ff8_0000_0000_0000u64.to_be_bytes());
    assert_eq!(written("now"), 1_700_000_012u64.to_be_bytes());
    assert_eq!(written("drawn").len(), 16);
    assert_ne!(written("drawn")[..8], written("drawn")[8..]);
}

#[test]
fn fuel_runs_out_at_the_same_place() {
    let reads_before_the_end = || {
        let module = hostile(&engine(), "endless-reads");
        let mut reads = 0;
        let mut counting = |block, requests: &[ReadRequest]| {
            reads += 1;
            chain(block, requests)
        };
        let failure = module.handle(&block(1), &mut State::new(), &mut counting).unwrap_err();
        assert!(
            matches!(failure, Failure::Module { fault: Fault::OutOfFuel { .. }, .. }),
            "{failure}"
        );
        reads
    };
    let first = reads_before_the_end();
    assert!(first > 1000, "{first}");
    assert_eq!(reads_before_the_end(), first);
}

#[test]
fn nothing_of_an_instance_survives_it() {
    let module = hostile(&engine(), "nondeterminism");
    let run = || module.handle(&block(1), &mut State::new(), &mut chain).unwrap();
    let first = run();
    for _ in 0..100 {
        assert_eq!(run(), first);
    }
}

/// Handles one block whose module reads, from this source.
fn read_from(reads: &mut dyn Reads) -> Result<Handled, Failure> {
    hostile(&engine(), "read").handle(&block(1), &mut State::new(), reads)
}

#[test]
fn a_tape_answers_as_the_chain_did() {
    let live = read_from(&mut chain).unwrap();
    assert_eq!(live.tape.len(), 1);
    assert_eq!(live.tape[0].call, 0);
    let replayed = read_from(&mut TapeReads::new(live.tape.clone())).unwrap();
    assert_eq!(replayed, live);
}

#[test]
fn a_tape_that_does_not_fit_says_where() {
    let tape = read_from(&mut chain).unwrap().tape;
    let mismatch = |tape| match read_from(&mut TapeReads::new(tape)) {
        Err(Failure::World(World::Tape(error))) => *error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(mismatch(vec![]), TapeError::Ended { call: 0, recorded: 0, .. }));

    let mut other = tape.clone();
    other[0].request.0[0] ^= 1;
    assert!(matches!(mismatch(other), TapeError::OtherRequest { call: 0, .. }));

    let mut cut = tape.clone();
    cut[0].answer.pop();
    assert_eq!(mismatch(cut), TapeError::Corrupt { call: 0 });

    // The block is part of the question.
    let module = hostile(&engine(), "read");
    let elsewhere =
        module.handle(&block(2), &mut State::new(), &mut TapeReads::new(tape)).unwrap_err();
    let Failure::World(World::Tape(error)) = elsewhere else { panic!("{elsewhere}") };
    assert!(matches!(*error, TapeError::OtherRequest { call: 0, .. }), "{error}");
}

#[test]
fn every_source_gives_the_module_the_same_answers() {
    let requests = std::cell::RefCell::new(Vec::<ReadRequest>::new());
    let mut recording = |block, asked: &[ReadRequest]| {
        requests.borrow_mut().extend_from_slice(asked);
        chain(block, asked)
    };
    let live = read_from(&mut recording).unwrap();
    let answers = live.writes[b"answers".as_slice()].clone().unwrap();
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(answers, "[Balance(1), Returned(0x010203)]");
    let asked = [
        ReadRequest::Balance(Address::repeat_byte(1)),
        ReadRequest::Call { to: Address::repeat_byte(2), data: vec![1, 2, 3].into() },
    ];
    assert_eq!(*requests.borrow(), asked);
}

#[test]
fn logs_reach_a_module_as_they_are() {
    let engine = engine();
    let manifest = support::manifest("token-ledger");
    let module = engine.load(&manifest, &support::component("token-ledger")).unwrap();
    let module = module.bind(&"devnet".parse().unwrap(), CHAIN_ID, &Overrides::default()).unwrap();

    let token = Address::from([0x70; 20]);
    let alice = Address::from(std::array::from_fn(|byte| byte as u8 + 1));
    let transfer = alloy_primitives::keccak256("Transfer(address,address,uint256)");
    let topics = [transfer, B256::ZERO, alice.into_word()];
    let amount = U256::from_be_bytes::<32>(std::array::from_fn(|byte| 0xff - byte as u8));
    let data = amount.to_be_bytes::<32>();
    let log = LogRef {
        address: token,
        topics: &topics,
        data: &data,
        index: 3,
        transaction_index: 1,
        transaction_hash: B256::ZERO,
    };
    assert!(module.subscription().wants_log(&token, &topics));
    assert!(!module.subscription().wants_log(&token, &topics[1..]));

    let mut state = State::new();
    advance(&module, &block_with(1, vec![log]), &mut state, &mut chain).unwrap();
    let balance = [b"b".as_slice(), token.as_slice(), alice.as_slice()].concat();
    let total = [b"t".as_slice(), token.as_slice()].concat();
    assert_eq!(state, State::from([(balance, data.to_vec()), (total, data.to_vec())]));
}

#[test]
fn balances_are_read_tracked_and_warned_about() {
    let engine = engine();
    let manifest = support::manifest("balance-tracker");
    let module = engine.load(&manifest, &support::component("balance-tracker")).unwrap();
    let module = module.bind(&"devnet".parse().unwrap(), CHAIN_ID, &Overrides::default()).unwrap();
    let mut state = State::new();
    let mut lines = Vec::new();
    for (number, ether) in [(1, 10u64), (2, 10), (3, 12), (4, 12)] {
        let wei = U256::from(ether) * U256::from(10).pow(U256::from(18));
        let mut reads = |_, _: &[ReadRequest]| Ok(vec![shepherd_host::ReadAnswer::Balance(wei)]);
        let handled = advance(&module, &block(number), &mut state, &mut reads).unwrap();
        lines.extend(handled.log_lines.into_iter().map(|line| (number, line.message)));
    }
    assert_eq!(
        lines,
        [(
            3,
            "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266: 10000000000000000000 wei became \
         12000000000000000000 wei by block 3"
                .to_owned()
        )]
    );
}
