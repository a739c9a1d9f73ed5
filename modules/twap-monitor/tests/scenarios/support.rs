//! A chain of one contract and an orderbook, for scenarios.

use std::collections::BTreeMap;

use shepherd_sdk::{
    Address, Answer, B256, Bytes, EffectResult, Header, Input, Level, Log, Module, Request, U256,
    abi::call,
    address,
    alloy_primitives::keccak256,
    alloy_sol_types::{SolCall, SolError, SolEvent, SolValue},
    cow::{
        abi::{
            ComposableCow::{self, ConditionalOrderCreated, MerkleRootSet},
            ConditionalOrderParams, Handler, Proof, TwapData,
        },
        addresses::{COMPOSABLE_COW, TWAP},
        app_data::EMPTY_HASH,
        conditional, merkle,
        order::{BuyTokenDestination, Kind, Order, SellTokenSource},
        twap::{self, Phase},
        uid::Uid,
    },
    serde_json,
    testing::{MemoryHost, block_at, outcome},
};
use shepherd_twap_monitor::TwapMonitor;

use crate::component::Mirror;

/// When the scenarios begin.
pub const START: u64 = 1_700_000_000;

/// Who owns the orders, unless a test says otherwise.
pub const OWNER: Address = address!("0x7bF140727D27ea64b607E042f1225680B40ECa6A");

/// A handler that is not that of TWAPs.
pub const OTHER: Address = Address::repeat_byte(0x77);

/// A conditional order as the contract has it.
#[derive(Clone, Debug)]
pub struct Known {
    pub owner: Address,
    pub params: ConditionalOrderParams,
    pub proof: Vec<B256>,
    /// What the contract says of it, when that is not what a TWAP says by itself.
    pub says: Option<Answer>,
    /// What the cabinet holds.
    pub cabinet: B256,
    /// Whether the owner stands by it.
    pub authorised: bool,
}

/// The module, its host, and the contract it watches.
pub struct World {
    pub module: TwapMonitor,
    pub host: MemoryHost,
    pub number: u64,
    pub time: u64,
    pub contract: Vec<Known>,
    /// Roots by owner.
    pub roots: BTreeMap<Address, B256>,
    /// The component, when it runs beside the function.
    pub mirror: Option<Mirror>,
}

impl World {
    pub fn new() -> World {
        World::with("{}")
    }

    /// With this configuration.
    pub fn with(config: &str) -> World {
        let config = serde_json::from_str(config).unwrap();
        World {
            module: TwapMonitor::configure(config).unwrap(),
            host: MemoryHost::default(),
            number: 100,
            time: START,
            contract: vec![],
            roots: BTreeMap::new(),
            mirror: None,
        }
    }

    /// Another configuration, from now on.
    pub fn reconfigure(&mut self, config: &str) {
        self.module = World::with(config).module;
    }

    /// Creates an order of its own, and gives the log that tells of it.
    pub fn create(&mut self, params: &ConditionalOrderParams) -> Log {
        self.create_for(OWNER, params)
    }

    pub fn create_for(&mut self, owner: Address, params: &ConditionalOrderParams) -> Log {
        self.contract.push(Known {
            owner,
            params: params.clone(),
            proof: vec![],
            says: None,
            cabinet: B256::ZERO,
            authorised: true,
        });
        created(owner, params)
    }

    /// Puts these orders under the owner's root, in place of those before.
    pub fn set_root(&mut self, params: &[ConditionalOrderParams]) -> Log {
        self.contract.retain(|known| known.proof.is_empty());
        let (root, members) = tree(params);
        for (params, proof) in &members {
            self.contract.push(Known {
                owner: OWNER,
                params: params.clone(),
                proof: proof.clone(),
                says: None,
                cabinet: B256::ZERO,
                authorised: true,
            });
        }
        self.roots.insert(OWNER, root);
        let elements = members.into_iter().map(|(params, proof)| element(proof, &params));
        root_set(root, emitted(elements.collect()))
    }

    /// What the contract has of this order.
    pub fn known(&mut self, params: &ConditionalOrderParams) -> &mut Known {
        self.contract.iter_mut().rev().find(|known| known.params == *params).unwrap()
    }

    /// The next block, at this time.
    pub fn block(&mut self, time: u64, logs: Vec<Log>) {
        self.number += 1;
        self.time = time;
        self.answer();
        let input = block_at(self.header(), logs);
        self.handle(&input);
    }

    /// The next block, at this time, and what the orderbook does with all orders it places.
    pub fn block_and(&mut self, time: u64, logs: Vec<Log>, result: EffectResult) -> Vec<Uid> {
        let before = self.host.placed.len();
        self.block(time, logs);
        let placed: Vec<Uid> = self.host.placed[before..].iter().map(|(uid, _)| *uid).collect();
        for uid in &placed {
            self.outcome(*uid, result.clone());
        }
        placed
    }

    pub fn outcome(&mut self, uid: Uid, result: EffectResult) {
        let input = outcome(self.header(), uid, result);
        self.handle(&input);
    }

    pub fn handle(&mut self, input: &Input) {
        self.module.handle(&mut self.host, input).unwrap();
        if let Some(mirror) = &mut self.mirror {
            mirror.handle(&self.host, input);
        }
    }

    pub fn header(&self) -> Header {
        let hash = keccak256(self.number.to_be_bytes());
        Header { number: self.number, hash, parent_hash: B256::ZERO, timestamp: self.time }
    }

    /// When the orders placed so far end.
    pub fn ends(&self) -> Vec<u64> {
        self.host.placed.iter().map(|(uid, _)| u64::from(uid.valid_to)).collect()
    }

    /// Reads of the chain since the last time this was asked.
    pub fn new_reads(&mut self) -> usize {
        std::mem::take(&mut self.host.reads).len()
    }

    /// Whether a line at this level has this in it.
    pub fn said(&self, level: Level, part: &str) -> bool {
        self.host.lines_at(level).iter().any(|line| line.contains(part))
    }

    /// Scripts what the contract answers at this block.
    fn answer(&mut self) {
        for known in &self.contract {
            let asked = order_request(known.owner, &known.params, &known.proof);
            let said = match (&known.says, known.authorised) {
                (_, false) if known.proof.is_empty() => {
                    reverts(ComposableCow::SingleOrderNotAuthed {})
                }
                (_, false) => reverts(ComposableCow::ProofNotAuthed {}),
                (Some(says), _) => says.clone(),
                (None, _) => twap_says(known, self.time),
            };
            self.host.answers.insert(asked, said);
            let id = conditional::id(&known.params);
            let owner = known.owner;
            let context = if known.proof.is_empty() { id } else { B256::ZERO };
            let cabinet = call(COMPOSABLE_COW, &ComposableCow::cabinetCall { owner, context });
            self.host.answers.insert(cabinet, returns(known.cabinet.abi_encode()));
            let single = ComposableCow::singleOrdersCall { owner, hash: id };
            let authorised = known.authorised && known.proof.is_empty();
            let single = call(COMPOSABLE_COW, &single);
            self.host.answers.insert(single, returns(authorised.abi_encode()));
        }
        for (owner, root) in &self.roots {
            let asked = call(COMPOSABLE_COW, &ComposableCow::rootsCall { owner: *owner });
            self.host.answers.insert(asked, returns(root.abi_encode()));
        }
    }
}

/// What the TWAP handler says at this time.
fn twap_says(known: &Known, time: u64) -> Answer {
    let not_valid = |reason: &str| reverts(Handler::OrderNotValid { reason: reason.to_owned() });
    let twap = twap::decode(&known.params.staticInput).unwrap();
    match twap::phase(&twap, known.cabinet, time) {
        Phase::Part { valid_to, .. } => answers(&twap::part(&twap, valid_to)),
        Phase::NotStarted { .. } => not_valid("before twap start"),
        Phase::Between { .. } => not_valid("not within span"),
        Phase::Finished | Phase::NotSet => not_valid("after twap finish"),
        Phase::Invalid(invalid) => not_valid(&invalid.to_string()),
    }
}

pub fn order_request(owner: Address, params: &ConditionalOrderParams, proof: &[B256]) -> Request {
    let asked = ComposableCow::getTradeableOrderWithSignatureCall {
        owner,
        params: params.clone(),
        offchainInput: Bytes::new(),
        proof: proof.to_vec(),
    };
    call(COMPOSABLE_COW, &asked)
}

/// The contract answers this order, with a signature that says which.
pub fn answers(order: &Order) -> Answer {
    let answer = ComposableCow::getTradeableOrderWithSignatureReturn {
        order: (*order).into(),
        signature: signature(order),
    };
    let call = ComposableCow::getTradeableOrderWithSignatureCall::abi_encode_returns(&answer);
    returns(call)
}

/// As long as that of a Safe.
pub fn signature(order: &Order) -> Bytes {
    let mut bytes = vec![0x5f, 0xd7, 0xe9, 0x7d];
    bytes.extend(order.valid_to.to_be_bytes());
    bytes.resize(1_252, 7);
    bytes.into()
}

pub fn returns(bytes: Vec<u8>) -> Answer {
    Answer::Returned(bytes.into())
}

pub fn reverts(error: impl SolError) -> Answer {
    Answer::Reverted(error.abi_encode().into())
}

/// Three parts of an hour each, the first at [`START`], told apart by the salt.
pub fn twap() -> TwapData {
    TwapData {
        sellToken: Address::repeat_byte(1),
        buyToken: Address::repeat_byte(2),
        receiver: Address::ZERO,
        partSellAmount: U256::from(1_000_000),
        minPartLimit: U256::from(500_000),
        t0: U256::from(START),
        n: U256::from(3),
        t: U256::from(3_600),
        span: U256::ZERO,
        appData: EMPTY_HASH,
    }
}

pub fn conditional(twap: &TwapData, salt: u32) -> ConditionalOrderParams {
    ConditionalOrderParams {
        handler: TWAP,
        salt: U256::from(salt).into(),
        staticInput: twap.abi_encode().into(),
    }
}

/// An order of another handler.
pub fn other(salt: u32) -> ConditionalOrderParams {
    let salt = U256::from(salt).into();
    ConditionalOrderParams { handler: OTHER, salt, staticInput: vec![1, 2, 3].into() }
}

/// An order that another handler answers.
pub fn order(valid_to: u64) -> Order {
    Order {
        sell_token: Address::repeat_byte(1),
        buy_token: Address::repeat_byte(2),
        receiver: Address::ZERO,
        sell_amount: U256::from(1_000),
        buy_amount: U256::from(900),
        valid_to: valid_to as u32,
        app_data: EMPTY_HASH,
        fee_amount: U256::ZERO,
        kind: Kind::Sell,
        partially_fillable: true,
        sell_token_source: SellTokenSource::Erc20,
        buy_token_destination: BuyTokenDestination::Erc20,
    }
}

pub fn created(owner: Address, params: &ConditionalOrderParams) -> Log {
    log(&ConditionalOrderCreated { owner, params: params.clone() })
}

pub fn root_set(root: B256, proof: Proof) -> Log {
    log(&MerkleRootSet { owner: OWNER, root, proof })
}

/// The transaction that all logs are of.
pub const TRANSACTION: B256 = B256::repeat_byte(0x7a);

fn log(event: &impl SolEvent) -> Log {
    Log {
        address: COMPOSABLE_COW,
        topics: event.encode_log_data().topics().try_into().unwrap(),
        data: event.encode_data(),
        transaction_hash: TRANSACTION,
        ..Log::default()
    }
}

/// The log of a root with these orders, in a tree as flat as can be. The contract knows nothing
/// of it.
pub fn wide_root(all: &[ConditionalOrderParams]) -> Log {
    let mut level: Vec<(B256, Vec<usize>)> =
        all.iter().enumerate().map(|(at, params)| (merkle::leaf(params), vec![at])).collect();
    let mut proofs = vec![vec![]; all.len()];
    while 1 < level.len() {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [(left, below_left), (right, below_right)] => {
                    below_left.iter().for_each(|at| proofs[*at].push(*right));
                    below_right.iter().for_each(|at| proofs[*at].push(*left));
                    (merkle::root(*left, &[*right]), [&below_left[..], below_right].concat())
                }
                alone => alone[0].clone(),
            })
            .collect();
    }
    let elements: Vec<Bytes> =
        proofs.into_iter().zip(all).map(|member| element(member.0, member.1)).collect();
    root_set(level[0].0, emitted(elements))
}

/// An order as a root's event publishes it.
pub fn element(proof: Vec<B256>, params: &ConditionalOrderParams) -> Bytes {
    (proof, params.clone()).abi_encode_params().into()
}

/// The proof that publishes these elements in the event.
pub fn emitted(elements: Vec<Bytes>) -> Proof {
    Proof { location: U256::from(1), data: elements.abi_encode().into() }
}

/// A chain of nodes: every leaf's proof leads past those behind it.
fn tree(all: &[ConditionalOrderParams]) -> (B256, Vec<(ConditionalOrderParams, Vec<B256>)>) {
    let Some((first, rest)) = all.split_first() else { return (B256::ZERO, vec![]) };
    let leaf = merkle::leaf(first);
    if rest.is_empty() {
        return (leaf, vec![(first.clone(), vec![])]);
    }
    let (below, members) = tree(rest);
    let mut all = vec![(first.clone(), vec![below])];
    all.extend(members.into_iter().map(|(params, mut proof)| {
        proof.push(leaf);
        (params, proof)
    }));
    (merkle::root(leaf, &[below]), all)
}
