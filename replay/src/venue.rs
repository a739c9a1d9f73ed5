//! The simulated venue: what comes of a backtest's effects.
//!
//! ```text
//!  asked ──▶ has the journal what came of it? ──yes──▶ that, at the block it really came
//!                │ no
//!                ├─ the same key was accepted before ──▶ already there
//!                ├─ its time is over ──▶ expired
//!                └─ rules, after their delay ──▶ accepted or refused
//! ```
//!
//! What really happened counts for the same effect (the same key, asked for by the same record),
//! whatever it was. For the same key asked for at another time, what the receiver said counts: the
//! next thing it said after that time, else the last thing it said before. That an effect expired
//! or was cancelled, or that the chain was in dry run, says nothing about another attempt.
//!
//! Everything follows from the history, the rules and the lane's own rows, so a venue that is made
//! again from those rows says the same.
//!
//! A backtest of what ran live comes to the same state, digest and effects, with one exception.
//! What a module asks for *while it is told* an outcome counts to the block before, for the outcome
//! has no record of its own here. It is told what came of that one block later than live when it
//! came at once, and keys and random numbers that the host derives from it are others.

mod happened;
mod orders;
mod rules;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use alloy_primitives::{Address, B256};
use serde_json::Value;
use shepherd_host::At;
use shepherd_log::{
    BlockRef, Deliver, Deliveries, Effect, EffectId, EffectKey, EffectResult, Journal,
    LaneSnapshot, ModuleName, ORDER_UID_BYTES, Offset, Outcome, ReadError, RecordView,
    StorageError,
};

pub(crate) use happened::{Fact, Happened};
pub use rules::{Rules, RulesError};
use {
    orders::Status,
    rules::{Asked, Unknown},
};

/// What comes of one lane's effects.
pub(crate) struct SimulatedVenue {
    module: ModuleName,
    rules: Rules,
    journal: Journal,
    happened: Happened,
    /// Asked for, and nothing has come of it yet.
    pending: BTreeMap<EffectId, Pending>,
    told: Vec<Told>,
    keys: HashMap<EffectKey, KeyState>,
    /// What has happened since the last commit, to be taken back when the step is dropped.
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
struct Pending {
    key: EffectKey,
    /// The newest block when it was asked for.
    block: BlockRef,
    deliver: Deliver,
    expires: u64,
    body: Arc<[u8]>,
}

/// An outcome that the lane was told.
#[derive(Clone, Debug)]
struct Told {
    /// The record it was told after.
    after: Offset,
    /// The record in the journal that says so, if one does.
    fact: Option<Offset>,
    outcome: Outcome,
}

impl Told {
    /// Outcomes are told in this order.
    fn place(&self) -> (Offset, bool, Option<Offset>, EffectId) {
        (self.after, self.fact.is_none(), self.fact, self.outcome.effect)
    }
}

/// What the receiver knows of a key.
#[derive(Clone, Debug, Default)]
struct KeyState {
    /// Which of the facts about it were told.
    facts_told: Vec<usize>,
    accepted: Option<Acceptance>,
    refused: u32,
}

#[derive(Clone, Debug)]
struct Acceptance {
    /// The newest block then.
    block: BlockRef,
    body: Arc<[u8]>,
}

enum Change {
    Asked(EffectId),
    Forgotten(EffectId, Pending),
    Told { id: EffectId, pending: Pending, state: Option<KeyState> },
}

/// What is to come of an effect.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// What really did, which is the fact of this number about its key.
    Happened(usize),
    /// Something that is still to come.
    Wait,
    /// What the rules say.
    Simulated(EffectResult),
}

impl SimulatedVenue {
    /// A venue for a lane that begins.
    pub(crate) fn new(
        journal: Journal,
        recorded_as: &ModuleName,
        module: ModuleName,
        rules: Rules,
    ) -> Result<SimulatedVenue, ReadError> {
        Ok(SimulatedVenue {
            happened: Happened::read(&journal, recorded_as)?,
            module,
            rules,
            journal,
            pending: BTreeMap::new(),
            told: Vec::new(),
            keys: HashMap::new(),
            changes: Vec::new(),
        })
    }

    /// Brings it to where a lane stands.
    pub(crate) fn resume(&mut self, lane: &LaneSnapshot) -> Result<(), ResumeError> {
        for effect in lane.effects() {
            let (id, block, effect) = effect?;
            self.pending.insert(id, Pending::new(block, &effect));
        }
        let tellings = Tellings::of(lane)?;
        let mut told = Vec::new();
        for outcome in lane.outcomes() {
            let outcome = outcome?;
            told.push(Told { after: tellings.of_outcome(&outcome), fact: None, outcome });
        }
        // In this order facts about one key are told in theirs.
        told.sort_by_key(Told::place);
        for Told { after, outcome, .. } in told {
            let fact = self.fact_of(&outcome, after);
            self.settle(after, outcome, fact);
        }
        self.told.sort_by_key(Told::place);
        let next = lane.cursor().next;
        let taken_back = |(id, pending): (&EffectId, &Pending)| {
            let revert = self.happened.undone_by(id.offset, pending.block.number);
            revert.filter(|revert| *revert < next).map(|revert| (*id, revert))
        };
        let taken_back: Vec<_> = self.pending.iter().filter_map(taken_back).collect();
        for (id, revert) in taken_back {
            self.forget(id, revert);
        }
        self.changes.clear();
        Ok(())
    }

    /// What really happened, in the places where it is told.
    pub(crate) fn happened(&self) -> &Happened {
        &self.happened
    }

    pub(crate) fn asked(&mut self, at: At, effects: &[(EffectId, Effect)]) {
        for (id, effect) in effects {
            self.pending.insert(*id, Pending::new(at.this, effect));
            self.changes.push(Change::Asked(*id));
        }
    }

    /// What the lane is told after the block at `offset`: what really happened in the order in
    /// which it did, then what the rules say, in the order in which it was asked for.
    pub(crate) fn due(&mut self, offset: Offset, at: At) -> Vec<Outcome> {
        let first_new = self.told.len();
        let ids: Vec<EffectId> = self.pending.keys().copied().collect();
        for id in ids {
            let (result, attempts, at_millis, fact) = match self.fate(id, offset, at) {
                Fate::Wait => continue,
                Fate::Happened(number) => {
                    let Outcome { result, attempts, at_millis, .. } =
                        &self.happened.of(&self.pending[&id].key)[number].outcome;
                    (result.clone(), *attempts, *at_millis, Some(number))
                }
                Fate::Simulated(result) => {
                    let attempts = match result {
                        EffectResult::Expired => 0,
                        _ => 1,
                    };
                    (result, attempts, at.timestamp.saturating_mul(1000), None)
                }
            };
            let Pending { key, block, .. } = &self.pending[&id];
            let outcome = Outcome {
                module: self.module.clone(),
                effect: id,
                key: key.clone(),
                block: *block,
                result,
                attempts,
                at_millis,
                head: at.this,
            };
            self.settle(offset, outcome, fact);
        }
        let new = &mut self.told[first_new..];
        new.sort_by_key(Told::place);
        new.iter().map(|told| told.outcome.clone()).collect()
    }

    /// Takes back what was asked for above the ancestor of the revert at `revert`.
    pub(crate) fn reverted(&mut self, revert: Offset, ancestor: BlockRef) -> Deliveries {
        let above = |(id, pending): (&EffectId, &Pending)| {
            (ancestor.number < pending.block.number).then_some(*id)
        };
        let above: Vec<EffectId> = self.pending.iter().filter_map(above).collect();
        for id in above {
            self.forget(id, revert);
        }
        // The rules of `Journal::deliveries`, over what this lane was told instead.
        let mut deliveries = Deliveries::default();
        for told in &self.told {
            let Told { after, outcome, .. } = told;
            let taken_back = self
                .happened
                .undone_by(outcome.effect.offset, outcome.block.number)
                .filter(|by| *by <= revert);
            match taken_back {
                Some(by) if *after < by => {
                    let is_news = by == revert || self.is_above(ancestor, u64::MAX, by, revert);
                    if is_news && outcome.result.is_done() {
                        deliveries.noticed.push(outcome.clone());
                    }
                }
                taken_back => {
                    if self.is_above(ancestor, outcome.head.number, after.plus(1), revert) {
                        deliveries.again.push((outcome.clone(), taken_back.is_some()));
                    }
                }
            }
        }
        deliveries
    }

    /// Whether there is anything nothing has come of yet.
    pub(crate) fn waits(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What has happened so far is durable.
    pub(crate) fn committed(&mut self) {
        self.changes.clear();
    }

    /// What has happened since the last commit has not.
    pub(crate) fn dropped(&mut self) {
        while let Some(change) = self.changes.pop() {
            match change {
                Change::Asked(id) => {
                    self.pending.remove(&id);
                }
                Change::Forgotten(id, pending) => {
                    self.pending.insert(id, pending);
                }
                Change::Told { id, pending, state } => {
                    // One of those that were told since, which all go.
                    self.told.pop().expect("what was told is remembered");
                    match state {
                        Some(state) => self.keys.insert(pending.key.clone(), state),
                        None => self.keys.remove(&pending.key),
                    };
                    self.pending.insert(id, pending);
                }
            }
        }
    }

    /// What the orderbook says of an order while a record is handled at a block; `Err` when nobody
    /// knows and the rules say to stop.
    pub(crate) fn order(
        &self,
        uid: &[u8; ORDER_UID_BYTES],
        record: Offset,
        block: BlockRef,
    ) -> Result<Result<Option<String>, NobodyKnows>, ReadError> {
        let key = EffectKey::Order(*uid);
        let placed = self.keys.get(&key).and_then(|state| state.accepted.clone()).or_else(|| {
            // The live lane placed it, and this one has not.
            let mut facts = self.happened.of(&key).iter();
            let fact = facts.find(|fact| fact.due < record && fact.outcome.result.is_done())?;
            Some(Acceptance { block: fact.outcome.head, body: Arc::default() })
        });
        let is_asked_for =
            || self.keys.contains_key(&key) || self.pending.values().any(|other| other.key == key);
        let now = self.timestamp(block)?;
        let Some(Acceptance { block: accepted, body }) = placed else {
            return Ok(match self.rules.orders.unknown {
                Unknown::Absent => Ok(None),
                _ if is_asked_for() => Ok(None),
                Unknown::Stop => Err(NobodyKnows),
                Unknown::Open => {
                    let status = match orders::valid_to(uid) < now {
                        true => Status::Expired,
                        false => Status::Open,
                    };
                    Ok(Some(orders::view(uid, None, status, now)))
                }
            });
        };
        let filled_at = self.rules.orders.fill_after_blocks.map(|after| accepted.number + after);
        let filled_at = filled_at.filter(|number| *number <= block.number);
        let is_filled = match filled_at {
            None => false,
            // Not when its time was over before.
            Some(number) => match self.journal.canonical(number)? {
                Some((_, filled_at)) => self.timestamp(filled_at)? <= orders::valid_to(uid),
                None => now <= orders::valid_to(uid),
            },
        };
        let status = match is_filled {
            true => Status::Fulfilled,
            false if orders::valid_to(uid) < now => Status::Expired,
            false => Status::Open,
        };
        let created = self.timestamp(accepted)?;
        let body = (!body.is_empty()).then_some(&*body);
        Ok(Ok(Some(orders::view(uid, body, status, created))))
    }

    /// An app-data document that was posted with an order, or that the rules have.
    pub(crate) fn document(&self, hash: B256) -> Option<String> {
        if let Some(document) = self.rules.app_data.get(&hash) {
            return Some(document.clone());
        }
        let accepted = self.keys.values().filter_map(|state| state.accepted.as_ref());
        let mut documents = accepted.filter_map(|accepted| orders::document(&accepted.body, hash));
        documents.next()
    }

    fn fate(&self, id: EffectId, offset: Offset, at: At) -> Fate {
        let pending = &self.pending[&id];
        let state = self.keys.get(&pending.key);
        let facts = self.happened.of(&pending.key);
        let is_told = |number: usize| state.is_some_and(|state| state.facts_told.contains(&number));
        let tell = |(number, fact): (usize, &Fact)| match fact.due <= offset {
            true => Fate::Happened(number),
            false => Fate::Wait,
        };
        let mut own = facts.iter().enumerate().filter(|(_, fact)| Happened::is_same(fact, id));
        if let Some(own) = own.find(|(number, _)| !is_told(*number)) {
            return tell(own);
        }
        let is_accepted = state.is_some_and(|state| state.accepted.is_some());
        if is_accepted {
            return Fate::Simulated(EffectResult::AlreadyThere);
        }
        let told_to = state.and_then(|state| state.facts_told.iter().max());
        let news = told_to.map_or(0, |last| last + 1);
        let is_of_another = |fact: &Fact| {
            let of = |index| EffectId { offset: fact.asked, index };
            let mut same_record = self.pending.range(of(0)..=of(u32::MAX));
            same_record.any(|(other, pending)| *other != id && pending.key == fact.outcome.key)
        };
        let mut said = facts
            .iter()
            .enumerate()
            .skip(news)
            .filter(|(_, fact)| fact.is_word_of_the_receiver() && !is_of_another(fact));
        let next = said.clone().find(|(_, fact)| id.offset <= fact.due);
        if let Some(next) = next {
            return tell(next);
        }
        if let Some(last) = said.next_back() {
            return tell(last);
        }
        self.simulated(pending, state, at)
    }

    fn simulated(&self, pending: &Pending, state: Option<&KeyState>, at: At) -> Fate {
        if pending.expires <= at.timestamp {
            return Fate::Simulated(EffectResult::Expired);
        }
        let wait = self.rules.blocks_until_answer(&pending.key, pending.deliver);
        if at.this.number < pending.block.number.saturating_add(wait) {
            return Fate::Wait;
        }
        let asked = Asked {
            key: &pending.key,
            sell_token: sell_token(&pending.body),
            refused_before: state.map_or(0, |state| state.refused),
        };
        Fate::Simulated(match self.rules.refuses(asked) {
            Some(refusal) => EffectResult::Refused(refusal),
            None => EffectResult::Accepted,
        })
    }

    fn settle(&mut self, after: Offset, outcome: Outcome, fact: Option<usize>) {
        let id = outcome.effect;
        let pending = self.pending.remove(&id).expect("only what is pending is told");
        let before = self.keys.get(&outcome.key).cloned();
        let state = self.keys.entry(outcome.key.clone()).or_default();
        state.facts_told.extend(fact);
        match &outcome.result {
            EffectResult::Accepted | EffectResult::AlreadyThere if state.accepted.is_none() => {
                let body = Arc::clone(&pending.body);
                state.accepted = Some(Acceptance { block: outcome.head, body });
            }
            EffectResult::Refused(_) => state.refused += 1,
            _ => (),
        }
        let fact = fact.map(|number| self.happened.of(&outcome.key)[number].record);
        self.told.push(Told { after, fact, outcome });
        self.changes.push(Change::Told { id, pending, state: before });
    }

    /// Cancels an effect whose block was taken back, unless the live lane had sent it by then and
    /// was told later what came of it.
    fn forget(&mut self, id: EffectId, revert: Offset) {
        let pending = &self.pending[&id];
        let mut facts = self.happened.of(&pending.key).iter();
        if facts.any(|fact| Happened::is_same(fact, id) && revert < fact.record) {
            return;
        }
        let pending = self.pending.remove(&id).expect("it was there just now");
        self.changes.push(Change::Forgotten(id, pending));
    }

    /// Whether what a lane did at a height still stands above the ancestor, after the reverts from
    /// `first` up to the one at `revert`.
    fn is_above(&self, ancestor: BlockRef, height: u64, first: Offset, revert: Offset) -> bool {
        let lowest = self.happened.lowest_ancestor(first..revert).unwrap_or(u64::MAX);
        ancestor.number < height.min(lowest)
    }

    /// Which fact about its key an outcome that was told after a record is: whatever is not the
    /// asking's own was copied from it.
    fn fact_of(&self, outcome: &Outcome, after: Offset) -> Option<usize> {
        let told = self.keys.get(&outcome.key).map_or(&[][..], |state| &state.facts_told);
        let is_it = |(number, fact): &(usize, &Fact)| {
            let Outcome { result, attempts, at_millis, .. } = &fact.outcome;
            let copied = (&outcome.result, outcome.attempts, outcome.at_millis);
            copied == (result, *attempts, *at_millis) && fact.due <= after && !told.contains(number)
        };
        let facts = self.happened.of(&outcome.key).iter().enumerate().filter(is_it);
        let own = facts.clone().find(|(_, fact)| Happened::is_same(fact, outcome.effect));
        own.or_else(|| facts.clone().next()).map(|(number, _)| number)
    }

    fn timestamp(&self, block: BlockRef) -> Result<u64, ReadError> {
        let Some(offset) = self.journal.offset_of(block)? else { return Ok(0) };
        let stored = self.journal.read(offset..offset.plus(1)).next();
        match stored.expect("indexed records are in the journal")?.record() {
            RecordView::Block(block) => Ok(block.timestamp),
            _ => unreachable!("the block index points at blocks"),
        }
    }
}

/// Nobody knows an order, and the rules do not say what to make of that.
#[derive(Debug)]
pub(crate) struct NobodyKnows;

/// Why a venue cannot be brought to where a lane stands.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResumeError {
    #[error(transparent)]
    Lane(#[from] StorageError),
    #[error(transparent)]
    Journal(#[from] ReadError),
}

impl Pending {
    fn new(block: BlockRef, effect: &Effect) -> Pending {
        let Effect { key, body, deliver, expires } = effect;
        Pending {
            key: key.clone(),
            block,
            deliver: *deliver,
            expires: *expires,
            body: body.as_slice().into(),
        }
    }
}

/// After which records a lane was told something, and what the newest block was then.
struct Tellings(HashMap<BlockRef, Vec<Offset>>);

impl Tellings {
    fn of(lane: &LaneSnapshot) -> Result<Tellings, StorageError> {
        let mut tellings: HashMap<BlockRef, Vec<Offset>> = HashMap::new();
        for trace in lane.traces(Offset::START..lane.cursor().next) {
            let trace = trace?;
            if trace.outcomes > 0 {
                tellings.entry(trace.block).or_default().push(trace.offset);
            }
        }
        Ok(Tellings(tellings))
    }

    /// The first such record after the effect was asked for: a block that left the chain and came
    /// back is two records.
    fn of_outcome(&self, outcome: &Outcome) -> Offset {
        let asked = outcome.effect.offset;
        let records = self.0.get(&outcome.head).into_iter().flatten();
        records.copied().find(|record| asked <= *record).unwrap_or(asked)
    }
}

fn sell_token(body: &[u8]) -> Option<Address> {
    let posted: Value = serde_json::from_slice(body).ok()?;
    posted.get("sellToken")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use alloy_primitives::keccak256;
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use shepherd_log::{Block, Header, Options, Record, Revert, Store};

    use super::*;

    fn block(number: u64, branch: u64) -> At {
        let hash = |number: u64| keccak256([number.to_be_bytes(), branch.to_be_bytes()].concat());
        let this = BlockRef { number, hash: hash(number) };
        At { this, parent: B256::ZERO, timestamp: 1_000 + number * 12 }
    }

    fn record(at: At, parent: B256) -> Record {
        let At { this, timestamp, .. } = at;
        let header = Header { this, parent, timestamp, rlp: Vec::new().into() };
        Record::Block(Block { header, logs: Vec::new() })
    }

    /// Twenty blocks, of which five are taken back and come again, and what they are.
    fn history(dir: &Path) -> (Store, Journal, Vec<(Offset, At)>) {
        let store = Store::open(dir, Options::default()).unwrap();
        let journal = store.journal(&"devnet".parse().unwrap(), 1).unwrap();
        let (mut blocks, mut parent) = (Vec::new(), B256::ZERO);
        for (from, to, branch) in [(0, 20, 0), (15, 30, 1)] {
            if branch > 0 {
                let kept: At = blocks[from as usize - 1];
                let abandoned = blocks[from as usize..].iter().map(|at: &At| at.this).collect();
                let revert = Record::Revert(Revert { ancestor: kept.this, abandoned });
                journal.append(journal.tail().offset, &[revert]).unwrap();
                parent = kept.this.hash;
            }
            for number in from..to {
                let at = block(number, branch);
                journal.append(journal.tail().offset, &[record(at, parent)]).unwrap();
                parent = at.this.hash;
                blocks.push(at);
            }
        }
        let records = (0..20).chain(21..36).map(Offset::new);
        (store, journal, records.zip(blocks).collect())
    }

    fn venue(journal: &Journal, rules: &str) -> SimulatedVenue {
        let rules = Rules::parse(rules, Path::new("rules.toml")).unwrap();
        let name: ModuleName = "keeper".parse().unwrap();
        SimulatedVenue::new(journal.clone(), &name, name.clone(), rules).unwrap()
    }

    fn order(number: u8, valid_to: u32) -> Effect {
        let mut uid = [number; ORDER_UID_BYTES];
        uid[52..].copy_from_slice(&valid_to.to_be_bytes());
        let body = serde_json::json!({
            "sellAmount": "7", "appData": "{}", "appDataHash": keccak256("{}"),
        });
        Effect {
            key: EffectKey::Order(uid),
            body: body.to_string().into_bytes(),
            deliver: Deliver::Instant,
            expires: valid_to.into(),
        }
    }

    #[test]
    fn an_order_is_absent_open_filled_or_expired_by_the_rules() {
        let dir = tempfile::tempdir().unwrap();
        let (_store, journal, blocks) = history(dir.path());
        let mut venue = venue(&journal, "[orders]\nfill_after_blocks = 5\ndelay_blocks = 1");
        // The second one is over at block 6, before it would be filled.
        let orders = [order(1, 1_000 + 12 * 9), order(2, 1_000 + 12 * 6)];
        let mut seen = Vec::new();
        for (offset, at) in &blocks[..12] {
            let status = |effect: &Effect| {
                let EffectKey::Order(uid) = &effect.key else { unreachable!("they are orders") };
                let shown = venue.order(uid, *offset, at.this).unwrap().unwrap();
                shown.map_or(Value::Null, |order| {
                    serde_json::from_str::<Value>(&order).unwrap()["status"].take()
                })
            };
            seen.push(orders.each_ref().map(status));
            if at.this.number == 1 {
                let effects = [0, 1].map(|index| {
                    (EffectId { offset: *offset, index }, orders[index as usize].clone())
                });
                venue.asked(*at, &effects);
            }
            venue.due(*offset, *at);
        }
        let named = |name: &str| match name {
            "-" => Value::Null,
            name => name.into(),
        };
        let first = "- - - open open open open fulfilled fulfilled fulfilled fulfilled fulfilled";
        let second = "- - - open open open open expired expired expired expired expired";
        let expected: Vec<[Value; 2]> = first
            .split(' ')
            .zip(second.split(' '))
            .map(|(first, second)| [named(first), named(second)])
            .collect();
        assert_eq!(seen, expected);
        assert_eq!(venue.document(keccak256("{}")).as_deref(), Some("{}"));
        assert_eq!(venue.document(B256::ZERO), None);
    }

    #[test]
    fn an_order_that_nobody_knows_is_what_the_rules_say() {
        let dir = tempfile::tempdir().unwrap();
        let (_store, journal, blocks) = history(dir.path());
        let uid = [1; ORDER_UID_BYTES];
        let ask = |rules: &str| {
            let (offset, at) = blocks[3];
            venue(&journal, rules).order(&uid, offset, at.this).unwrap().map(|order| {
                order.map(|order| serde_json::from_str::<Value>(&order).unwrap()["status"].take())
            })
        };
        assert_eq!(ask("").unwrap(), None);
        assert_eq!(ask("[orders]\nunknown = \"open\"").unwrap(), Some("open".into()));
        assert!(ask("[orders]\nunknown = \"stop\"").is_err());
    }

    /// Goes over the history; a step of random length is dropped now and then and taken again.
    fn told(seed: u64, dropped: f64) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let (_store, journal, blocks) = history(dir.path());
        let rules = "[orders]\ndelay_blocks = 1\n[[orders.refuse]]\nerror_type = \"A\"\nrate = 0.5\n\
                     times = 2\n[webhooks]\ndelay_blocks = 3";
        let mut venue = venue(&journal, rules);
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut next, mut committed, mut told) = (0, 0, Vec::new());
        let mut new = Vec::new();
        while next < blocks.len() {
            let (offset, at) = blocks[next];
            if offset.get() == 21 {
                let ancestor = blocks[14].1.this;
                let deliveries = venue.reverted(Offset::new(20), ancestor);
                new.push(format!("{deliveries:?}"));
            }
            let number = at.this.number;
            let webhook = Effect {
                key: EffectKey::Webhook { destination: "a".to_owned(), key: at.this.to_string() },
                ..order(0, u32::MAX)
            };
            let orders = [order((number % 5) as u8, 1_000 + 12 * (number / 5 * 5 + 4) as u32)];
            let effects = orders.into_iter().chain([webhook]).zip(0..);
            let effects: Vec<_> =
                effects.map(|(effect, index)| (EffectId { offset, index }, effect)).collect();
            venue.asked(at, &effects);
            new.extend(venue.due(offset, at).iter().map(|outcome| format!("{outcome:?}")));
            next += 1;
            if rng.random_bool(0.4) || next == blocks.len() {
                // The last step is taken in the end.
                if rng.random_bool(dropped) {
                    venue.dropped();
                    new.clear();
                    next = committed;
                } else {
                    venue.committed();
                    told.append(&mut new);
                    committed = next;
                }
            }
        }
        told
    }

    #[test]
    fn a_step_that_is_dropped_and_taken_again_is_told_the_same() {
        let seed = std::env::var("SHEPHERD_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(rand::random);
        println!("repeat with SHEPHERD_SEED={seed}");
        let expected = told(seed, 0.0);
        for kind in ["Accepted", "AlreadyThere", "Refused", "Expired", "noticed"] {
            assert!(expected.iter().any(|told| told.contains(kind)), "{kind} in {expected:#?}");
        }
        assert_eq!(told(seed, 0.5), expected);
    }
}
