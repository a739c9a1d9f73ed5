//! From logs to watches.

use std::collections::BTreeMap;

use shepherd_sdk::{
    Address, B256, Block, Error, Host, Level, Log, When,
    abi::{Event, event},
    alloy_sol_types::SolEvent,
    cow::{
        abi::ComposableCow::{ConditionalOrderCreated, MerkleRootSet},
        conditional,
        merkle::{Publication, published},
    },
};

use crate::{
    book::{self, DUE, Place, Watch, WatchId},
    config::{Config, Policy},
    order::Conditional,
    room::Room,
};

/// Longest static input that is watched. The handlers there are take thirteen words; what is
/// this long is answered as long, by every poll.
const STATIC_INPUT_BYTES_MAX: usize = 4 << 10;

/// Longest proof that is watched: a tree of 2^64 orders.
const PROOF_MAX: usize = 64;

/// Watches what this block's logs tell of. New orders are due at once.
pub fn index(
    config: &Config,
    host: &mut impl Host,
    block: &Block,
    room: &mut Room,
) -> Result<(), Error> {
    let mut indexing = Indexing { config, block, room, watched: 0, refused: 0 };
    // Of the roots of one owner the last counts: it replaces those before.
    let mut roots = BTreeMap::new();
    let mut unread = 0;
    for log in &block.logs {
        let is_root = log.topics.first() == Some(&MerkleRootSet::SIGNATURE_HASH);
        if is_root {
            if let Some(owner) = log.topics.get(1) {
                roots.insert(*owner, log);
            }
        } else if indexing.room.read_order(log) {
            indexing.created(host, log)?;
        } else {
            unread += 1;
        }
    }
    for log in roots.into_values() {
        if indexing.room.read_root(log) {
            indexing.root(host, log)?;
        } else {
            unread += 1;
        }
    }
    let (watched, refused) = (indexing.watched, indexing.refused);
    if 0 < watched {
        host.log(Level::Info, &format!("{watched} orders were told of and are watched"));
    }
    if 0 < refused + unread {
        let line = format!(
            "there is too much in this block: {refused} orders are not watched, and {unread} \
             events not read"
        );
        host.log(Level::Error, &line);
    }
    Ok(())
}

/// Anyone can emit what does not decode from a contract of their own, if all are subscribed.
fn malformed(host: &mut impl Host, log: &Log) {
    let at = log.transaction_hash;
    host.log(Level::Warn, &format!("an event of transaction {at} does not decode"));
}

struct Indexing<'a> {
    config: &'a Config,
    block: &'a Block,
    room: &'a mut Room,
    /// Orders that are due now.
    watched: usize,
    /// Orders there was no room for.
    refused: usize,
}

impl Indexing<'_> {
    fn created(&mut self, host: &mut impl Host, log: &Log) -> Result<(), Error> {
        let created = match event::<ConditionalOrderCreated>(log) {
            Event::Is(created) => created,
            Event::Malformed => {
                malformed(host, log);
                return Ok(());
            }
            Event::Other => return Ok(()),
        };
        let order_id = conditional::id(&created.params);
        let id = WatchId::new(created.owner, Place::Single, order_id);
        let order = Conditional {
            contract: log.address,
            transaction: log.transaction_hash,
            params: created.params,
            proof: vec![],
        };
        self.watch(host, id, &order)
    }

    /// A new root replaces all orders of the old one.
    fn root(&mut self, host: &mut impl Host, log: &Log) -> Result<(), Error> {
        let set = match event::<MerkleRootSet>(log) {
            Event::Is(set) => set,
            Event::Malformed => {
                malformed(host, log);
                return Ok(());
            }
            Event::Other => return Ok(()),
        };
        let owner = set.owner;
        let members = match published(set.root, &set.proof) {
            Publication::Here { members, refused } => {
                if 0 < refused {
                    let line =
                        format!("{refused} orders that {owner} published are not under its root");
                    host.log(Level::Warn, &line);
                }
                members
            }
            Publication::Elsewhere => {
                let line = format!("the root of {owner} has its orders elsewhere, if it has any");
                host.log(Level::Info, &line);
                vec![]
            }
            Publication::Malformed => {
                let line = format!("the orders that {owner} published with its root do not decode");
                host.log(Level::Warn, &line);
                vec![]
            }
        };
        let members: BTreeMap<B256, Conditional> = members
            .into_iter()
            .map(|member| {
                let order_id = conditional::id(&member.params);
                let order = Conditional {
                    contract: log.address,
                    transaction: log.transaction_hash,
                    params: member.params,
                    proof: member.proof,
                };
                (order_id, order)
            })
            .collect();
        self.replace(host, owner, &members)?;
        for (order_id, order) in members {
            self.watch(host, WatchId::new(owner, Place::Merkle, order_id), &order)?;
        }
        Ok(())
    }

    /// Forgets the orders of the owner's old root that are not under the new one. What there is no
    /// room for is found out by its next poll: its proof leads nowhere.
    fn replace(
        &mut self,
        host: &mut impl Host,
        owner: Address,
        members: &BTreeMap<B256, Conditional>,
    ) -> Result<(), Error> {
        let mut after = None;
        while self.room.list(book::UNDER_ROOT as usize) {
            let (ids, more) = book::under_root(host, owner, after)?;
            after = ids.last().copied();
            for id in ids {
                if members.contains_key(&id.order()) {
                    continue;
                }
                if !self.room.forget() {
                    return Ok(());
                }
                let watch = book::load(host, id)?;
                book::forget(host, &watch)?;
            }
            if !more {
                return Ok(());
            }
        }
        Ok(())
    }

    fn watch(
        &mut self,
        host: &mut impl Host,
        id: WatchId,
        order: &Conditional,
    ) -> Result<(), Error> {
        let kept = book::find(host, id)?;
        if self.config.filter.policy(&id, order) == Policy::Drop {
            if let Some(order) = kept {
                let progress = book::progress(host, id)?;
                book::forget(host, &Watch { id, order, progress })?;
            }
            return Ok(());
        }
        let input = order.params.staticInput.len();
        if STATIC_INPUT_BYTES_MAX < input || PROOF_MAX < order.proof.len() {
            let proof = order.proof.len();
            let line =
                format!("{id} is not watched: {input} bytes and {proof} hashes are too much");
            host.log(Level::Warn, &line);
            return Ok(());
        }
        let now = When::Block(self.block.header.number);
        if kept.as_ref() == Some(order) && DUE.when(host, id.bytes())? == Some(now) {
            return Ok(());
        }
        if !self.room.index(order) {
            self.refused += 1;
            return Ok(());
        }
        // An order that is told again goes on from where it is: a part that was placed stays
        // placed. It may start at another time, though.
        let before = book::progress(host, id)?;
        book::advance(host, id, &before, &book::Progress { start: 0, ..before });
        book::keep(host, id, order);
        self.watched += 1;
        Ok(DUE.set(host, id.bytes(), now)?)
    }
}
