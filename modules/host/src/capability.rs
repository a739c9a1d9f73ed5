//! What a manifest can grant: one name per imported interface, or per function of it.

use std::{fmt, str::FromStr};

/// What a module may import from `shepherd.wit` only when its manifest says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// The module's own keys and values.
    State,
    /// Reads of the chain at the block being handled.
    Chain,
    /// Lines for the operator.
    Logging,
    /// The block's time.
    Clock,
    /// Repeatable randomness.
    Random,
    /// Reads of orders and app data at the orderbook.
    Orderbook,
    /// Documents from the hosts the manifest lists.
    Http,
    /// Orders that are placed.
    PlaceOrder,
    /// Calls of the destinations the manifest names.
    Webhook,
}

impl Capability {
    /// Every capability there is.
    pub const ALL: [Capability; 9] = [
        Capability::State,
        Capability::Chain,
        Capability::Logging,
        Capability::Clock,
        Capability::Random,
        Capability::Orderbook,
        Capability::Http,
        Capability::PlaceOrder,
        Capability::Webhook,
    ];

    /// Its name in a manifest: that of the interface, with a dot and the function when it grants
    /// no more than that.
    pub const fn as_str(self) -> &'static str {
        match self {
            Capability::State => "state",
            Capability::Chain => "chain",
            Capability::Logging => "logging",
            Capability::Clock => "clock",
            Capability::Random => "random",
            Capability::Orderbook => "orderbook",
            Capability::Http => "http",
            Capability::PlaceOrder => "effects.place-order",
            Capability::Webhook => "effects.webhook",
        }
    }

    /// The interface as components import it.
    pub fn import(self) -> String {
        let name = self.as_str();
        interface(name.split_once('.').map_or(name, |(interface, _)| interface))
    }

    /// The only function it grants. `None` grants all of the interface.
    pub fn function(self) -> Option<&'static str> {
        self.as_str().split_once('.').map(|(_, function)| function)
    }
}

/// An interface of our package as components import it.
pub(crate) fn interface(name: &str) -> String {
    format!("shepherd:module/{name}@0.1.0")
}

/// What a component may import without being granted anything: types, and its last words.
pub(crate) const ALWAYS: [&str; 2] = ["types", "panic"];

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A name that grants nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no capability `{0}`: use state, chain, logging, clock, random, orderbook, http, \
     effects.place-order or effects.webhook"
)]
pub struct UnknownCapability(pub String);

impl FromStr for Capability {
    type Err = UnknownCapability;

    fn from_str(text: &str) -> Result<Capability, UnknownCapability> {
        let found = Capability::ALL.into_iter().find(|capability| capability.as_str() == text);
        found.ok_or_else(|| UnknownCapability(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_is_read_as_it_is_written_and_named_to_those_who_misspell_one() {
        let help = UnknownCapability("effects".to_owned()).to_string();
        for capability in Capability::ALL {
            assert_eq!(capability.to_string().parse(), Ok(capability));
            assert!(help.contains(capability.as_str()), "{help}");
        }
        assert_eq!("effects".parse::<Capability>(), Err(UnknownCapability("effects".to_owned())));
    }
}
