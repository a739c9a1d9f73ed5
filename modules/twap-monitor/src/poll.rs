//! What is due: look, ask, and place.
//!
//! ```text
//! due ──▶ plan ─┬─▶ over: forget          from the order itself, nobody is asked
//!               ├─▶ wait
//!               └─▶ ask ──one read──▶ verdict ─┬─▶ wait, back off, forget
//!                                              ├─▶ in doubt ──one read──▶ forget, or back off
//!                                              └─▶ an order ──app data──▶ place, wait for outcome
//! ```
//!
//! A block with nothing due costs two listings. One with something due costs one read of the
//! chain, a second when a cancellation is to be confirmed, and one of the orderbook when an order
//! names a document that was not met before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use shepherd_sdk::{
    Answer, B256, Bytes, Error, Host, Level, Moment, Request, U256, When,
    abi::{bounded, call},
    alloy_sol_types::SolCall,
    cow::{
        abi::ComposableCow::{
            cabinetCall, getTradeableOrderWithSignatureCall, rootsCall, singleOrdersCall,
        },
        app_data::{self, AppData},
        merkle,
        order::{Domain, Order},
        poll::{BACK_OFF_FROM, Next, RETRY_AFTER, Verdict},
        posting::{Posting, Signing},
        twap,
    },
    when::back_off,
};

use crate::{
    book::{self, DUE, Last, Placed, Progress, Watch, WatchId},
    config::{Config, Policy},
    order::{Over, Stand, Window},
    room::Room,
};

/// When an order that the filter skips is looked at again: the configuration may have changed.
const SKIPPED_FOR: Duration = Duration::from_secs(60 * 60);

/// Longest time without a look at an order that waits for an outcome.
const PENDING_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Documents asked for in one block. The orderbook takes 8 KiB each, and all are on the tape.
const DOCUMENTS_MAX: usize = 64;

/// Longest signature that is posted.
const SIGNATURE_BYTES_MAX: usize = 16 << 10;

/// How often in a row an order may be answered that is over: with the back-off, for five days.
const OVER_MAX: u32 = 16;

/// Looks at what is due.
pub fn poll(
    config: &Config,
    host: &mut impl Host,
    here: Moment,
    room: &mut Room,
) -> Result<(), Error> {
    let taken = DUE.take(host, here, room.polls(config.polls_per_block))?;
    room.look_at(taken.ids.len());
    let mut polling = Polling { config, host, here, room };
    let asked = polling.sift(taken.ids)?;
    let (ready, doubts) = polling.ask(asked)?;
    polling.confirm(doubts)?;
    polling.place(ready)
}

/// What is to be done about a watch that is due, before anybody is asked.
enum Plan {
    Forget(Level, String),
    Wait(When),
    /// Ask for its order; without a window the cabinet is asked for its start too.
    Ask(Option<Window>),
}

/// A watch whose contract is asked.
struct Asked {
    watch: Watch,
    window: Option<Window>,
}

/// A watch that has an order.
struct Ready {
    watch: Watch,
    window: Window,
    order: Order,
    signature: Bytes,
}

/// A watch that seems to be cancelled.
struct Doubt {
    watch: Watch,
    window: Option<Window>,
    /// Why it seems so.
    because: String,
}

fn plan(config: &Config, watch: &Watch, here: Moment) -> Plan {
    match config.filter.policy(&watch.id, &watch.order) {
        Policy::Accept => (),
        Policy::Skip => return Plan::Wait(here.after(SKIPPED_FOR)),
        Policy::Drop => return Plan::Forget(Level::Info, "the filter drops it".to_owned()),
    }
    match watch.order.stand(&config.twap_handlers, watch.progress.start, here.time) {
        Stand::Over(over) => Plan::Forget(over.level(), over.to_string()),
        Stand::StartUnknown => Plan::Ask(None),
        Stand::Closed { until } => Plan::Wait(When::Time(until)),
        Stand::Open(window) => match handled(&watch.progress, window, here) {
            Some(when) => Plan::Wait(when),
            None => Plan::Ask(Some(window)),
        },
    }
}

/// Until when nothing needs to be asked, because of the last order that was placed.
fn handled(progress: &Progress, window: Window, here: Moment) -> Option<When> {
    let last = progress.last?;
    let valid_to = u64::from(last.uid.valid_to);
    match (window.part, last.state) {
        (_, Placed::Refused) => None,
        (Some(part), _) => (part == last.uid.valid_to).then_some(When::Time(window.ends)),
        (None, Placed::Pending) if here.time <= valid_to => Some(pending(window, valid_to, here)),
        (None, _) => None,
    }
}

/// When to look again at an order that is pending: an outcome comes before.
fn pending(window: Window, valid_to: u64, here: Moment) -> When {
    here.after(PENDING_FOR).min(When::Time(valid_to + 1)).min(When::Time(window.ends))
}

impl Over {
    fn level(&self) -> Level {
        match self {
            Over::Finished => Level::Info,
            Over::Invalid(_) => Level::Warn,
        }
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Over::Finished => f.write_str("it is finished"),
            Over::Invalid(invalid) => write!(f, "it can never become an order: {invalid}"),
        }
    }
}

struct Polling<'a, H> {
    config: &'a Config,
    host: &'a mut H,
    here: Moment,
    room: &'a mut Room,
}

impl<H: Host> Polling<'_, H> {
    /// Deals with what needs no answer, and says who is to be asked.
    fn sift(&mut self, due: Vec<Vec<u8>>) -> Result<Vec<Asked>, Error> {
        let mut asked = Vec::new();
        for id in due {
            let watch = book::load(self.host, WatchId::read(&id)?)?;
            match plan(self.config, &watch, self.here) {
                Plan::Forget(level, why) => self.forget(&watch, level, &why)?,
                Plan::Wait(when) => self.wait(&watch, when)?,
                Plan::Ask(window) if self.room.ask(&watch.order) => {
                    asked.push(Asked { watch, window });
                }
                Plan::Ask(_) => self.wait(&watch, self.here.next_block())?,
            }
        }
        Ok(asked)
    }

    /// Asks the contracts, all at once.
    fn ask(&mut self, asked: Vec<Asked>) -> Result<(Vec<Ready>, Vec<Doubt>), Error> {
        let mut requests = Vec::new();
        for Asked { watch, window } in &asked {
            requests.push(order_request(watch));
            if window.is_none() {
                requests.push(cabinet_request(watch));
            }
        }
        let mut answers = self.read(&requests)?.into_iter();
        let mut answer = || answers.next().expect("there is one for each request");
        let (mut ready, mut doubts) = (Vec::new(), Vec::new());
        for Asked { watch, window } in asked {
            let said = answer();
            match window {
                Some(window) => self.weigh(watch, window, &said, &mut ready, &mut doubts)?,
                None => {
                    let cabinet = answer();
                    self.start(watch, &cabinet, &said, &mut ready, &mut doubts)?;
                }
            }
        }
        Ok((ready, doubts))
    }

    /// An order whose start has been asked for.
    fn start(
        &mut self,
        mut watch: Watch,
        cabinet: &Answer,
        said: &Answer,
        ready: &mut Vec<Ready>,
        doubts: &mut Vec<Doubt>,
    ) -> Result<(), Error> {
        let before = watch.progress;
        watch.progress.start = start(cabinet);
        book::advance(self.host, watch.id, &before, &watch.progress);
        match watch.order.stand(&self.config.twap_handlers, watch.progress.start, self.here.time) {
            Stand::Over(over) => self.forget(&watch, over.level(), &over.to_string()),
            Stand::Closed { until } => self.wait(&watch, When::Time(until)),
            Stand::StartUnknown => {
                let because = "its start is not in the cabinet".to_owned();
                doubts.push(Doubt { watch, window: None, because });
                Ok(())
            }
            Stand::Open(window) => match handled(&watch.progress, window, self.here) {
                Some(when) => self.wait(&watch, when),
                None => self.weigh(watch, window, said, ready, doubts),
            },
        }
    }

    /// What the contract said to an order that is open.
    fn weigh(
        &mut self,
        mut watch: Watch,
        window: Window,
        said: &Answer,
        ready: &mut Vec<Ready>,
        doubts: &mut Vec<Doubt>,
    ) -> Result<(), Error> {
        match read_order(said) {
            Said::Order(order, _) if u64::from(order.valid_to) < self.here.time => {
                if OVER_MAX <= watch.progress.failures {
                    return self.forget(&watch, Level::Warn, "it answers an order that is over");
                }
                self.back_off(
                    &mut watch,
                    Some(window),
                    Level::Debug,
                    "answers an order that is over",
                )
            }
            Said::Order(order, signature) => match order.worth_posting() {
                Ok(()) => {
                    ready.push(Ready { watch, window, order, signature });
                    Ok(())
                }
                Err(pointless) => {
                    self.back_off(&mut watch, Some(window), Level::Debug, &pointless.to_string())
                }
            },
            Said::Verdict(verdict) => {
                let next = match window.part {
                    Some(_) => twap::next(&verdict, self.here),
                    None => verdict.next(self.here),
                };
                match next {
                    Next::Stop => self.forget(&watch, Level::Warn, &verdict.to_string()),
                    Next::Confirm => {
                        let because = verdict.to_string();
                        doubts.push(Doubt { watch, window: Some(window), because });
                        Ok(())
                    }
                    Next::Later => self.wait(&watch, window.clamp(self.here.after(RETRY_AFTER))),
                    Next::At(when) => {
                        let before = watch.progress;
                        watch.progress.failures = 0;
                        book::advance(self.host, watch.id, &before, &watch.progress);
                        self.wait(&watch, window.clamp(when))
                    }
                    Next::BackOff => {
                        let verdict = verdict.to_string();
                        self.back_off(&mut watch, Some(window), Level::Warn, &verdict)
                    }
                }
            }
            Said::Odd(what) => self.back_off(&mut watch, Some(window), Level::Warn, &what),
        }
    }

    /// Asks, at this very block, whether what seems to be cancelled is authorised.
    fn confirm(&mut self, doubts: Vec<Doubt>) -> Result<(), Error> {
        let requests: Vec<Request> =
            doubts.iter().map(|doubt| authority_request(&doubt.watch)).collect();
        let answers = self.read(&requests)?;
        for (Doubt { mut watch, window, because }, answer) in doubts.into_iter().zip(answers) {
            match is_authorised(&watch, &answer) {
                Some(false) => {
                    let why = format!("{because}: the owner has taken it back");
                    self.forget(&watch, Level::Info, &why)?;
                }
                Some(true) => {
                    let why = format!("{because}, and yet the owner stands by it");
                    self.back_off(&mut watch, window, Level::Warn, &why)?;
                }
                None => {
                    let why = format!("{because}, and whether the owner stands by it is not said");
                    self.back_off(&mut watch, window, Level::Warn, &why)?;
                }
            }
        }
        Ok(())
    }

    /// Places the orders that are new, each with its app data.
    fn place(&mut self, ready: Vec<Ready>) -> Result<(), Error> {
        if ready.is_empty() {
            return Ok(());
        }
        let mut fresh = Vec::new();
        for ready in ready {
            match self.placed_before(&ready) {
                Some(Last { state: Placed::Settled, uid, .. }) => {
                    let again = recheck(self.config, u64::from(uid.valid_to), self.here);
                    self.wait(&ready.watch, ready.window.clamp(again))?;
                }
                Some(Last { state: Placed::Pending, uid, .. }) => {
                    let valid_to = u64::from(uid.valid_to);
                    self.wait(&ready.watch, pending(ready.window, valid_to, self.here))?;
                }
                Some(Last { state: Placed::Refused, .. }) | None => fresh.push(ready),
            }
        }
        let documents = self.documents(&fresh);
        let mut placed = 0;
        let mut put_off = 0;
        for Ready { mut watch, window, order, signature } in fresh {
            let document = documents.get(&order.app_data).filter(|app_data| {
                let document = app_data.document().map_or(0, str::len);
                self.room.post(signature.len(), document)
            });
            let Some(app_data) = document else {
                put_off += 1;
                self.wait(&watch, self.here.next_block())?;
                continue;
            };
            let signing = Signing::Eip1271(signature);
            let posting = Posting::new(order, watch.id.owner(), app_data.clone(), signing)?;
            let uid = self.host.place_order(&posting);
            placed += 1;

            let before = watch.progress;
            book::use_document(self.host, &mut watch, app_data);
            let again = before.last.filter(|last| last.uid == uid);
            watch.progress.last = Some(Last {
                uid,
                state: Placed::Pending,
                signature_refused: again.is_some_and(|last| last.signature_refused),
            });
            if again.is_none() {
                watch.progress.failures = 0;
            }
            book::advance(self.host, watch.id, &before, &watch.progress);
            let when = match window.part {
                Some(_) => When::Time(window.ends),
                None => pending(window, u64::from(uid.valid_to), self.here),
            };
            self.wait(&watch, when)?;
        }
        if 0 < placed + put_off {
            let line = format!("{placed} orders placed, {put_off} put off to the next block");
            self.host.log(Level::Info, &line);
        }
        Ok(())
    }

    /// What came of this very order, if it is the one that was placed last.
    fn placed_before(&mut self, ready: &Ready) -> Option<Last> {
        // Most orders are told apart by their end, which costs no hashing.
        let same_end = |last: &Last| last.uid.valid_to == ready.order.valid_to;
        let last = ready.watch.progress.last.filter(same_end)?;
        let domain = Domain::of_chain(self.host.chain_id());
        (ready.order.uid(domain, ready.watch.id.owner()) == last.uid).then_some(last)
    }

    /// The app data of these orders, as far as a block may ask for it.
    fn documents(&mut self, ready: &[Ready]) -> BTreeMap<B256, AppData> {
        let mut documents = BTreeMap::new();
        let mut unknown = BTreeSet::new();
        for hash in ready.iter().map(|ready| ready.order.app_data) {
            if documents.contains_key(&hash) || unknown.contains(&hash) {
                continue;
            }
            match book::document(self.host, hash) {
                Some(app_data) => drop(documents.insert(hash, app_data)),
                None => drop(unknown.insert(hash)),
            }
        }
        let asked = unknown.into_iter().take(DOCUMENTS_MAX);
        documents.extend(app_data::resolve(self.host, asked));
        documents
    }

    fn read(&mut self, requests: &[Request]) -> Result<Vec<Answer>, Error> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.host.read(requests);
        if answers.len() != requests.len() {
            return Err(Error::new("the host answered another number of questions"));
        }
        Ok(answers)
    }

    fn wait(&mut self, watch: &Watch, when: When) -> Result<(), Error> {
        Ok(DUE.set(self.host, watch.id.bytes(), when)?)
    }

    fn forget(&mut self, watch: &Watch, level: Level, why: &str) -> Result<(), Error> {
        self.host.log(level, &format!("{} is not watched any more: {why}", watch.id));
        book::forget(self.host, watch)
    }

    fn back_off(
        &mut self,
        watch: &mut Watch,
        window: Option<Window>,
        level: Level,
        what: &str,
    ) -> Result<(), Error> {
        let before = watch.progress;
        watch.progress.failures = before.failures.saturating_add(1);
        book::advance(self.host, watch.id, &before, &watch.progress);
        let wait = back_off(BACK_OFF_FROM, watch.progress.failures);
        let seconds = wait.as_secs();
        self.host.log(level, &format!("{}: {what}; asked again in {seconds} s", watch.id));
        let when = self.here.after(wait);
        self.wait(watch, window.map_or(when, |window| window.clamp(when)))
    }
}

impl Window {
    /// This time, or the end of the window if that is sooner: then something else counts.
    pub fn clamp(&self, when: When) -> When {
        match when {
            When::Time(time) => When::Time(time.min(self.ends)),
            When::Block(_) => when,
        }
    }
}

/// When a handler is asked again while an order of it is still valid.
pub fn recheck(config: &Config, valid_to: u64, here: Moment) -> When {
    here.after(Duration::from_secs(config.recheck_seconds)).min(When::Time(valid_to + 1))
}

fn order_request(watch: &Watch) -> Request {
    let asked = getTradeableOrderWithSignatureCall {
        owner: watch.id.owner(),
        params: watch.order.params.clone(),
        offchainInput: Bytes::new(),
        proof: watch.order.proof.clone(),
    };
    call(watch.order.contract, &asked)
}

/// Orders under a root share one place in the cabinet.
fn cabinet_request(watch: &Watch) -> Request {
    let context = if watch.order.proof.is_empty() { watch.id.order() } else { B256::ZERO };
    call(watch.order.contract, &cabinetCall { owner: watch.id.owner(), context })
}

/// An empty proof selects authorisation of the order by itself, wherever it was published.
fn authority_request(watch: &Watch) -> Request {
    let owner = watch.id.owner();
    if watch.order.proof.is_empty() {
        return call(watch.order.contract, &singleOrdersCall { owner, hash: watch.id.order() });
    }
    call(watch.order.contract, &rootsCall { owner })
}

/// Whether the owner stands by the order; `None` when that is not what was answered.
fn is_authorised(watch: &Watch, answer: &Answer) -> Option<bool> {
    let Answer::Returned(data) = answer else { return None };
    if watch.order.proof.is_empty() {
        return singleOrdersCall::abi_decode_returns(data).ok();
    }
    let root = rootsCall::abi_decode_returns(data).ok()?;
    Some(merkle::root(merkle::leaf(&watch.order.params), &watch.order.proof) == root)
}

/// What the cabinet says: a time, or 0. One that no order can have is as good as the last.
fn start(answer: &Answer) -> u32 {
    let Answer::Returned(data) = answer else { return 0 };
    let value = cabinetCall::abi_decode_returns(data).unwrap_or_default();
    U256::from_be_bytes(value.0).saturating_to()
}

/// What a contract said.
enum Said {
    Order(Order, Bytes),
    Verdict(Verdict),
    Odd(String),
}

fn read_order(answer: &Answer) -> Said {
    let data = match answer {
        Answer::Returned(data) => data,
        Answer::Reverted(data) => return Said::Verdict(Verdict::of(data)),
        _ => return Said::Odd("the host answered a call with something else".to_owned()),
    };
    let decoded =
        getTradeableOrderWithSignatureCall::abi_decode_returns_with_config(data, bounded(data));
    let Ok(decoded) = decoded else {
        return Said::Odd(format!("{} bytes that are no order", data.len()));
    };
    if SIGNATURE_BYTES_MAX < decoded.signature.len() {
        return Said::Odd(format!("a signature of {} bytes", decoded.signature.len()));
    }
    match Order::try_from(&decoded.order) {
        Ok(order) => Said::Order(order, decoded.signature),
        Err(unknown) => Said::Odd(unknown.to_string()),
    }
}
