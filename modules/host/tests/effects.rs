//! What a module wants done comes out as it will be sent, and what came of it goes in.

mod support;

use std::collections::BTreeSet;

use alloy_primitives::{B256, hex};
use shepherd_host::{
    Handled, Input, OutcomeInput, OutcomeRef, ReadAnswer, ReadRequest, RevertInput, TapeReads,
};
use shepherd_log::{
    BlockRef, Deliver, Effect, EffectId, EffectKey, EffectResult, Offset, Outcome, Refusal,
};
use support::{CHAIN_ID, State, at, bind_hostile, block, chain, engine, hostile};

/// The UID under which the orderbook of Sepolia knows the golden order.
const GOLDEN: [u8; 56] = hex!(
    "c2b9cb4ea1ee5a86d8049ac09d8f494bf04cca0a68407285f31e2e6379800be8"
    "7bf140727d27ea64b607e042f1225680b40eca6a"
    "ffffffff"
);

fn value(handled: &Handled, key: &str) -> Vec<u8> {
    handled.writes[key.as_bytes()].clone().expect("it is not deleted")
}

fn text(handled: &Handled, key: &str) -> String {
    String::from_utf8(value(handled, key)).unwrap()
}

#[test]
fn effects_come_out_in_order_with_their_keys_bytes_and_deadlines() {
    let module = hostile(&engine(), "effects");
    let handled = module.handle(&block(1), &mut State::new(), &mut chain).unwrap();
    let [order, first, second] = &handled.effects[..] else { panic!("{:?}", handled.effects) };

    assert_eq!(order.key, EffectKey::Order(GOLDEN));
    assert_eq!(value(&handled, "uid"), GOLDEN, "the module knows it");
    assert_eq!((order.deliver, order.expires), (Deliver::Finalized, 0xffff_ffff));
    let body: serde_json::Value = serde_json::from_slice(&order.body).unwrap();
    assert_eq!(body["sellAmount"], "5000000000000000");
    assert_eq!(body["from"], "0x7bf140727d27ea64b607e042f1225680b40eca6a");

    let body = br#"{"text":"on request"}"#.to_vec();
    // Computed by another implementation, over the lane, the block's hash and the position.
    let key = "88f342bc830e744ec97715da92d1d9bfa39ab1e7397ffdfd27f9af8af03ffa85".to_owned();
    let destination = "alerts".to_owned();
    let expected = Effect {
        key: EffectKey::Webhook { destination: destination.clone(), key: key.clone() },
        body: body.clone(),
        deliver: Deliver::Finalized,
        expires: 1_700_000_012 + 86_400,
    };
    assert_eq!(first, &expected);
    let expected = Effect {
        key: EffectKey::Webhook { destination, key: "the second".to_owned() },
        body,
        deliver: Deliver::Confirmations(2),
        expires: 1_800_000_000,
    };
    assert_eq!(second, &expected);
    assert_eq!(text(&handled, "keys"), format!("{key} the second"));
    assert_eq!(value(&handled, "chain-id"), CHAIN_ID.to_be_bytes());
}

#[test]
fn the_same_input_gives_the_same_effects() {
    let run = || {
        let module = hostile(&engine(), "effects");
        module.handle(&block(1), &mut State::new(), &mut chain).unwrap()
    };
    assert_eq!(run(), run());
}

/// The golden order, refused, as asked for by the record at this offset.
fn refused(offset: u64) -> Outcome {
    Outcome {
        module: "hostile".parse().unwrap(),
        effect: EffectId { offset: Offset::new(offset), index: 0 },
        block: BlockRef { number: 1, hash: B256::ZERO },
        key: EffectKey::Order(GOLDEN),
        result: EffectResult::Refused(Refusal {
            status: 400,
            error_type: Some("InsufficientBalance".to_owned()),
            description: "not enough".to_owned(),
            body: b"{}".to_vec(),
            retry_after: Some(7),
        }),
        attempts: 1,
        at_millis: 0,
        head: BlockRef { number: 1, hash: B256::ZERO },
    }
}

fn told(number: u64, outcome: &Outcome) -> Input<'_> {
    Input::Outcome(OutcomeInput { at: at(number), outcome: OutcomeRef::new(outcome, false) })
}

fn reverted<'a>(number: u64, outcomes: &[&'a Outcome]) -> Input<'a> {
    let outcomes = outcomes.iter().map(|outcome| OutcomeRef::new(outcome, true)).collect();
    Input::Revert(RevertInput { at: at(number), outcomes })
}

/// What the module writes down about its input.
fn handled(input: &Input<'_>) -> Handled {
    hostile(&engine(), "tell").handle(input, &mut State::new(), &mut chain).unwrap()
}

#[test]
fn an_outcome_reaches_the_module_at_the_block_it_is_told_at() {
    let refused = refused(5);
    let mut asked_at = Vec::new();
    let mut recording = |block, requests: &[ReadRequest]| {
        asked_at.push(block);
        chain(block, requests)
    };
    let module = hostile(&engine(), "tell");
    let handled = module.handle(&told(9, &refused), &mut State::new(), &mut recording).unwrap();
    assert_eq!(asked_at, [at(9).this]);
    let input = text(&handled, "input");
    let parts = [
        "Outcome(OutcomeInput { header: Header { number: 9, hash: 0x",
        "timestamp: 1700000108 }",
        "key: Order(",
        "result: Refused(Refusal { status: 400, error_type: Some(\"InsufficientBalance\"), \
         description: \"not enough\", body: [123, 125], retry_after: Some(7) }), \
         abandoned: false",
    ];
    for part in parts {
        assert!(input.contains(part), "{part} is not in {input}");
    }
    assert_eq!(value(&handled, "now"), 1_700_000_108u64.to_be_bytes());
    assert_eq!(handled.effects[0].expires, 1_700_000_108 + 86_400);
}

#[test]
fn every_result_reaches_the_module() {
    let key = EffectKey::Webhook { destination: "alerts".to_owned(), key: "price 7".to_owned() };
    let results = [
        (EffectResult::Accepted, "result: Accepted, abandoned: true"),
        (EffectResult::AlreadyThere, "result: AlreadyThere, abandoned: true"),
        (EffectResult::Expired, "result: Expired, abandoned: true"),
        (EffectResult::Cancelled("by hand".to_owned()), "result: Cancelled(\"by hand\")"),
        (EffectResult::DryRun, "result: DryRun, abandoned: true"),
    ];
    for (result, expected) in &results {
        let effect = EffectId { offset: Offset::new(3), index: 1 };
        let outcome = OutcomeRef { effect, key: &key, result, abandoned: true };
        let handled = handled(&Input::Outcome(OutcomeInput { at: at(1), outcome }));
        let input = text(&handled, "input");
        assert!(input.contains("key: Webhook(\"price 7\")"), "{input}");
        assert!(input.contains(expected), "{input}");
    }
}

#[test]
fn a_revert_tells_of_everything_that_is_real() {
    let handled = handled(&reverted(4, &[&refused(5), &refused(6)]));
    let input = text(&handled, "input");
    assert!(input.starts_with("Revert(RevertInput { header: Header { number: 4,"), "{input}");
    assert_eq!(input.matches("abandoned: true").count(), 2, "{input}");
}

#[test]
fn no_two_occasions_draw_the_same_number_or_derive_the_same_key() {
    let (first, again) = (refused(5), refused(6));
    let accepted = Outcome { result: EffectResult::Accepted, ..refused(5) };
    let occasions = [
        block(9),
        block(10),
        told(9, &first),
        told(10, &first),
        // The same order refused in the same words at the same block, asked for by another record.
        told(9, &again),
        told(9, &accepted),
        reverted(9, &[]),
        reverted(9, &[&first]),
        reverted(9, &[&first, &again]),
    ];
    let seen: Vec<Handled> = occasions.iter().map(handled).collect();
    let distinct = |key: &str| -> BTreeSet<Vec<u8>> {
        seen.iter().map(|handled| value(handled, key)).collect()
    };
    assert_eq!(distinct("key").len(), occasions.len());
    assert_eq!(distinct("drawn").len(), occasions.len());
    let repeated: Vec<Handled> = occasions.iter().map(handled).collect();
    assert_eq!(repeated, seen);
}

#[test]
fn what_the_orderbook_and_a_server_say_reaches_the_module_and_the_tape() {
    let run = |config: &str, answers: Vec<ReadAnswer>, key: &str, expected: &str| {
        let module = bind_hostile(&engine(), config).unwrap();
        let mut asked = Vec::new();
        let mut source = |_, requests: &[ReadRequest]| {
            asked.extend_from_slice(requests);
            Ok(answers.clone())
        };
        let live = module.handle(&block(1), &mut State::new(), &mut source).unwrap();
        assert_eq!(text(&live, key), expected);
        let mut tape = TapeReads::new(live.tape.clone());
        let replayed = module.handle(&block(1), &mut State::new(), &mut tape).unwrap();
        assert_eq!(replayed, live);
        asked
    };
    let known = vec![ReadAnswer::Order(Some("{}".to_owned())), ReadAnswer::AppData(None)];
    let asked = run(
        "behaviour = \"ask-orderbook\"",
        known,
        "answers",
        "[Order(Some(\"{}\")), AppData(None)]",
    );
    let mut uid = [1; 56];
    uid[32..52].copy_from_slice(&GOLDEN[32..52]);
    uid[52..].copy_from_slice(&[0, 0, 0, 7]);
    let hash = B256::repeat_byte(2);
    assert_eq!(asked, [ReadRequest::Order(uid), ReadRequest::AppData(hash)]);

    let gone = vec![ReadAnswer::Response { status: 404, body: b"gone".as_slice().into() }];
    let get = "behaviour = \"get\"\nurl = \"https://EXAMPLE.org/a#b\"";
    let asked = run(get, gone, "response", "404 gone");
    let [ReadRequest::Get(url)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(url.as_str(), "https://example.org/a");
}
