//! The orders, and what is known beside them.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use cowprotocol::{EMPTY_APP_DATA_JSON, OrderData, OrderKind, SigningScheme};
use serde::{Deserialize, Serialize};

use crate::{config::Limits, indexer::Facts, order::Uid, refusal::Refusal, validate::AppData};

/// Everything the orderbook knows.
#[derive(Debug)]
pub struct Book {
    /// What the chain says.
    pub facts: Facts,
    orders: BTreeMap<Uid, Entry>,
    owned: BTreeMap<Address, Vec<Uid>>,
    marks: BTreeMap<Uid, Marks>,
    documents: BTreeMap<B256, String>,
    funds: BTreeMap<(Address, Address), Funds>,
    /// A quote's number is its place, from 1.
    quotes: Vec<Quoted>,
}

/// An accepted order.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What was signed.
    pub data: OrderData,
    /// Whose order it is.
    pub owner: Address,
    /// How the owner agreed.
    pub scheme: SigningScheme,
    /// With which bytes.
    pub signature: Bytes,
    /// When it came, in Unix seconds.
    pub created: u64,
    /// How many came before it.
    pub place: u64,
}

/// An order that passed every check but those that depend on others.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub uid: Uid,
    /// What was signed.
    pub data: OrderData,
    /// Whose order it is.
    pub owner: Address,
    /// How the owner agreed.
    pub scheme: SigningScheme,
    /// With which bytes.
    pub signature: Bytes,
    /// The document its hash stands for.
    pub app_data: AppData,
    /// The quote it follows.
    pub quote_id: Option<i64>,
    /// What the chain says its owner has of the token sold.
    pub funds: Funds,
}

/// What a quote was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// The token sold.
    pub sell_token: Address,
    /// The token bought.
    pub buy_token: Address,
    /// Which amount is fixed.
    pub kind: OrderKind,
}

/// What an owner has of a token, and lets the vault relayer take. Absent is more than enough.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Funds {
    /// How much there is.
    pub balance: Option<U256>,
    /// How much may be taken.
    pub allowance: Option<U256>,
}

/// What was said of an order by hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks {
    filled: bool,
    cancelled: bool,
    presigned: bool,
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// Its owner has not pre-signed it yet.
    PresignaturePending,
    /// It can be matched.
    Open,
    /// It was.
    Fulfilled,
    /// It was taken back.
    Cancelled,
    /// Its time is over.
    Expired,
}

/// What is done to an order by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Sold and bought in full.
    Fill,
    /// Taken back.
    Cancel,
    /// Pre-signed, as if on the chain.
    PreSign,
}

impl Default for Book {
    /// No orders, and the one document that everyone knows.
    fn default() -> Book {
        let empty = EMPTY_APP_DATA_JSON.to_owned();
        Book {
            facts: Facts::default(),
            orders: BTreeMap::new(),
            owned: BTreeMap::new(),
            marks: BTreeMap::new(),
            documents: BTreeMap::from([(keccak256(&empty), empty)]),
            funds: BTreeMap::new(),
            quotes: Vec::new(),
        }
    }
}

impl Book {
    /// Stores an order, unless something beside it speaks against that.
    ///
    /// A duplicate is found last, as in the real one: a resend of an order that was accepted can
    /// be refused for its owner's funds or its validity instead.
    pub fn place(&mut self, order: Candidate, limits: Limits, now: u64) -> Result<Uid, Refusal> {
        self.check_quote(&order)?;
        self.check_funds(&order)?;
        if let Some(max) = limits.open_orders_max
            && max <= self.open_orders(order.owner, now)
        {
            return Err(Refusal::TooManyLimitOrders);
        }
        let Candidate { uid, data, owner, scheme, signature, app_data, .. } = order;
        if self.orders.contains_key(&uid) {
            return Err(Refusal::DuplicatedOrder);
        }
        let place = self.orders.len() as u64;
        let entry = Entry { data, owner, scheme, signature, created: now, place };
        self.documents.insert(app_data.hash, app_data.document);
        self.owned.entry(owner).or_default().push(uid);
        self.orders.insert(uid, entry);
        Ok(uid)
    }

    fn check_quote(&self, order: &Candidate) -> Result<(), Refusal> {
        let Some(id) = order.quote_id else { return Ok(()) };
        let place = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        let quoted = place.and_then(|place| self.quotes.get(place));
        let quoted = quoted.ok_or(Refusal::QuoteNotFound(id))?;
        let OrderData { sell_token, buy_token, kind, .. } = order.data;
        match *quoted == (Quoted { sell_token, buy_token, kind }) {
            true => Ok(()),
            false => Err(Refusal::InvalidQuote(id)),
        }
    }

    fn check_funds(&self, order: &Candidate) -> Result<(), Refusal> {
        // A Safe can wrap, approve and pre-sign in one transaction.
        if order.scheme == SigningScheme::PreSign {
            return Ok(());
        }
        let funds = self.funds.get(&(order.owner, order.data.sell_token));
        let said = funds.copied().unwrap_or_default();
        // What was said by hand goes before what the chain says.
        let balance = said.balance.or(order.funds.balance);
        let allowance = said.allowance.or(order.funds.allowance);
        let needed = match order.data.partially_fillable {
            true => U256::ONE,
            false => order.data.sell_amount,
        };
        if allowance.is_some_and(|allowance| allowance < needed) {
            return Err(Refusal::InsufficientAllowance);
        }
        if balance.is_some_and(|balance| balance < needed) {
            return Err(Refusal::InsufficientBalance);
        }
        Ok(())
    }

    fn open_orders(&self, owner: Address, now: u64) -> u64 {
        let owned = self.owned.get(&owner).into_iter().flatten();
        let open = owned.filter(|uid| {
            let status = self.status(**uid, now);
            matches!(status, Some(Status::Open | Status::PresignaturePending))
        });
        open.count() as u64
    }

    /// An accepted order.
    pub fn order(&self, uid: Uid) -> Option<&Entry> {
        self.orders.get(&uid)
    }

    /// Accepted orders as they came, then those placed on the chain.
    pub fn uids(&self) -> Vec<Uid> {
        let mut uids: Vec<(u64, Uid)> =
            self.orders.iter().map(|(uid, entry)| (entry.place, *uid)).collect();
        uids.sort_unstable();
        let posted = uids.into_iter().map(|(_, uid)| uid);
        posted.chain(self.facts.placements().map(|(uid, _)| *uid)).collect()
    }

    /// Where an order stands, wherever it came from.
    pub fn status(&self, uid: Uid, now: u64) -> Option<Status> {
        let posted = self.orders.get(&uid).map(|entry| (entry.scheme, entry.data.valid_to));
        let placed = self.facts.placement(uid, 0);
        let placed = placed.map(|placed| (placed.scheme, placed.user_valid_to));
        let (scheme, valid_to) = posted.or(placed)?;
        let mut marks = self.marks.get(&uid).copied().unwrap_or_default();
        marks.cancelled |= self.facts.invalidated(uid);
        marks.presigned |= self.facts.presigned(uid);
        Some(status(marks, scheme, valid_to.into(), now))
    }

    /// Says something of an order by hand.
    pub fn mark(&mut self, uid: Uid, mark: Mark) -> Result<(), Refusal> {
        if !self.orders.contains_key(&uid) && self.facts.placement(uid, 0).is_none() {
            return Err(Refusal::OrderNotFound);
        }
        let marks = self.marks.entry(uid).or_default();
        match mark {
            Mark::Fill => marks.filled = true,
            Mark::Cancel => marks.cancelled = true,
            Mark::PreSign => marks.presigned = true,
        }
        Ok(())
    }

    /// The document of a hash.
    pub fn document(&self, hash: B256) -> Option<&str> {
        self.documents.get(&hash).map(String::as_str)
    }

    /// Keeps a document; says whether it is new.
    pub fn keep(&mut self, app_data: AppData) -> bool {
        self.documents.insert(app_data.hash, app_data.document).is_none()
    }

    /// Gives an owner exactly so much of a token.
    pub fn set_funds(&mut self, owner: Address, token: Address, funds: Funds) {
        self.funds.insert((owner, token), funds);
    }

    /// Keeps a quote; answers with its number.
    pub fn quote(&mut self, quoted: Quoted) -> i64 {
        self.quotes.push(quoted);
        self.quotes.len() as i64
    }
}

fn status(marks: Marks, scheme: SigningScheme, valid_to: u64, now: u64) -> Status {
    if marks.filled {
        return Status::Fulfilled;
    }
    if marks.cancelled {
        return Status::Cancelled;
    }
    if valid_to < now {
        return Status::Expired;
    }
    if scheme == SigningScheme::PreSign && !marks.presigned {
        return Status::PresignaturePending;
    }
    Status::Open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        let check = |marks, scheme, now, expected| {
            assert_eq!(status(marks, scheme, 100, now), expected);
        };
        let none = Marks::default();
        let filled = Marks { filled: true, cancelled: true, presigned: false };
        let cancelled = Marks { cancelled: true, ..none };
        let presigned = Marks { presigned: true, ..none };
        check(none, SigningScheme::Eip1271, 100, Status::Open);
        check(none, SigningScheme::Eip1271, 101, Status::Expired);
        check(none, SigningScheme::PreSign, 100, Status::PresignaturePending);
        check(presigned, SigningScheme::PreSign, 100, Status::Open);
        check(none, SigningScheme::PreSign, 101, Status::Expired);
        check(cancelled, SigningScheme::Eip1271, 101, Status::Cancelled);
        check(filled, SigningScheme::Eip1271, 101, Status::Fulfilled);
    }
}
