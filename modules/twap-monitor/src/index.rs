//! From logs to watches.

use std::collections::BTreeMap;

use shepherd_sdk::{
    B256, Block, Error, Host, Level, Log, When,
    abi::{Event, event},
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
    let mut indexing = Indexing { config, block, room, refused: 0 };
    for log in &block.logs {
        match (event::<ConditionalOrderCreated>(log), event::<MerkleRootSet>(log)) {
            (Event::Is(created), _) => indexing.created(host, log, created)?,
            (_, Event::Is(set)) => indexing.root(host, log, &set)?,
            (Event::Malformed, _) | (_, Event::Malformed) => {
                let at = log.transaction_hash;
                host.log(Level::Warn, &format!("an event of transaction {at} does not decode"));
            }
            (Event::Other, Event::Other) => (),
        }
    }
    let refused = indexing.refused;
    if 0 < refused {
        let line = format!("{refused} orders are not watched: there are too many in this block");
        host.log(Level::Error, &line);
    }
    Ok(())
}

struct Indexing<'a> {
    config: &'a Config,
    block: &'a Block,
    room: &'a mut Room,
    /// Orders there was no room for.
    refused: usize,
}

impl Indexing<'_> {
    fn created(
        &mut self,
        host: &mut impl Host,
        log: &Log,
        created: ConditionalOrderCreated,
    ) -> Result<(), Error> {
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
    fn root(&mut self, host: &mut impl Host, log: &Log, set: &MerkleRootSet) -> Result<(), Error> {
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
        for id in book::under_root(host, owner)? {
            // One that is left behind is found out by its first poll: its proof leads nowhere.
            if !members.contains_key(&id.order()) && self.room.forget() {
                let watch = book::load(host, id)?;
                book::forget(host, &watch)?;
            }
        }
        for (order_id, order) in members {
            self.watch(host, WatchId::new(owner, Place::Merkle, order_id), &order)?;
        }
        Ok(())
    }

    fn watch(
        &mut self,
        host: &mut impl Host,
        id: WatchId,
        order: &Conditional,
    ) -> Result<(), Error> {
        let dropped = self.config.filter.policy(&id, order) == Policy::Drop;
        let input = order.params.staticInput.len();
        if STATIC_INPUT_BYTES_MAX < input || PROOF_MAX < order.proof.len() {
            let proof = order.proof.len();
            let line =
                format!("{id} is not watched: {input} bytes and {proof} hashes are too much");
            host.log(Level::Warn, &line);
            return Ok(());
        }
        if dropped || !self.room.index(order) {
            self.refused += usize::from(!dropped);
            // What it was known by before is not what it is now.
            if let Some(order) = book::find(host, id)? {
                let progress = book::progress(host, id)?;
                book::forget(host, &Watch { id, order, progress })?;
            }
            return Ok(());
        }
        // An order that is told again goes on from where it is: a part that was placed stays
        // placed. It may start at another time, though.
        let before = book::progress(host, id)?;
        book::advance(host, id, &before, &book::Progress { start: 0, ..before });
        book::keep(host, id, order);
        Ok(DUE.set(host, id.bytes(), When::Block(self.block.header.number))?)
    }
}
