//! What a manifest can grant: one name per imported interface.

use std::{fmt, str::FromStr};

/// An interface of `shepherd.wit` that a module may import only when its manifest says so.
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
}

impl Capability {
    /// Every capability there is.
    pub const ALL: [Capability; 5] = [
        Capability::State,
        Capability::Chain,
        Capability::Logging,
        Capability::Clock,
        Capability::Random,
    ];

    /// Its name in a manifest, which is the interface's name too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Capability::State => "state",
            Capability::Chain => "chain",
            Capability::Logging => "logging",
            Capability::Clock => "clock",
            Capability::Random => "random",
        }
    }

    /// The interface as components import it.
    pub fn import(self) -> String {
        interface(self.as_str())
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
#[error("there is no capability `{0}`: use state, chain, logging, clock or random")]
pub struct UnknownCapability(pub String);

impl FromStr for Capability {
    type Err = UnknownCapability;

    fn from_str(text: &str) -> Result<Capability, UnknownCapability> {
        let found = Capability::ALL.into_iter().find(|capability| capability.as_str() == text);
        found.ok_or_else(|| UnknownCapability(text.to_owned()))
    }
}
