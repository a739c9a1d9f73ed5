//! The sender: carries a lane's effects out, and journals what came of them.
//!
//! ```text
//!   outbox ──next──▶ attempt ──▶ destination ──▶ answer ──▶ settle ──▶ outcome in the journal
//!     ▲               durable      rate, breaker    │
//!     └──────────── again, later ◀─────── weather ──┘
//! ```
//!
//! An effect is sent at least once, always with the same bytes under the same key. What follows
//! from that: a process that dies between the receiver's yes and our record of it sends again, and
//! the receiver's own memory makes that harmless.
//!
//! [`next`](next::next) decides, [`Sender`] does it. What an answer means is in `answer`, how often
//! and whether a destination is asked is in `gate`.

mod answer;
mod destination;
mod finality;
mod gate;
mod next;
mod sender;

pub use destination::{Destination, Kind};
pub use gate::Limits;
pub use sender::{Sender, SenderConfig, SenderError};

use std::collections::BTreeMap;

use shepherd_log::EffectKey;
use shepherd_rpc::Web;

/// Where a lane's effects go, and who answers what it asks outside its chain.
#[derive(Clone, Default)]
pub struct Destinations {
    /// The chain's orderbook.
    pub orderbook: Option<Destination>,
    /// Webhooks, by the names that modules use.
    pub webhooks: BTreeMap<String, Destination>,
    /// Nothing is sent; every effect that would have been is settled as that.
    pub dry_run: bool,
    /// What documents are got with, on connections that the whole process shares.
    pub web: Web,
}

impl Destinations {
    /// Where an effect with this key goes, if the operator has said so.
    pub(crate) fn of(&self, key: &EffectKey) -> Option<&Destination> {
        match key {
            EffectKey::Order(_) => self.orderbook.as_ref(),
            EffectKey::Webhook { destination, .. } => self.webhooks.get(destination),
        }
    }
}
