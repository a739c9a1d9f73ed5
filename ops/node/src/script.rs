//! What an endpoint says instead of the truth.

use std::{collections::VecDeque, fmt, sync::Mutex};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{Lie, Limits, Notice, lie::Place};

/// What an endpoint says instead of the truth, and for how long. It follows from the seed and
/// from the order in which the endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Everything that looks random follows from it.
    pub seed: u64,
    /// The lies that it tells; none are the truth.
    pub lies: Vec<Lie>,
    /// After so many lies it tells the truth for ever.
    pub lies_max: u32,
    /// Of a thousand occasions to lie, so many are taken.
    pub per_mille: u32,
    /// What it refuses to answer, truthful or not.
    pub limits: Limits,
    /// Methods that it does not know, truthful or not.
    pub methods_missing: Vec<&'static str>,
    /// Size of a [`Lie::HugeBody`].
    pub huge_bytes: u64,
}

/// A lie that was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which.
    pub lie: Lie,
    /// The call or the message that it was told about.
    pub about: String,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} about {}", self.lie, self.about)
    }
}

/// Lies that cost whoever waits for the end of a test, not the machine: how many per script.
const SLOW_LIES_MAX: u32 = 2;

impl Script {
    /// The truth.
    pub fn honest() -> Script {
        Script {
            seed: 0,
            lies: Vec::new(),
            lies_max: 0,
            per_mille: 0,
            limits: Limits::default(),
            methods_missing: Vec::new(),
            huge_bytes: 65 << 20,
        }
    }

    /// Every lie that is noticed at a level of trust, in a random mixture.
    pub fn liar(seed: u64, noticed_by: Notice) -> Script {
        let mut random = StdRng::seed_from_u64(seed);
        let noticed = Lie::ALL.iter().copied().filter(|lie| lie.notice() <= noticed_by);
        // Few kinds at a time, or each would be drowned by the others.
        let share = random.random_range(0.15..1.0);
        let lies = noticed.filter(|_| random.random_bool(share)).collect();
        Script {
            seed,
            lies,
            lies_max: random.random_range(5..40),
            per_mille: random.random_range(30..300),
            ..Script::honest()
        }
    }
}

/// An endpoint's memory of what it has said.
#[derive(Debug)]
pub(crate) struct Liar {
    pub(crate) script: Script,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: StdRng,
    left: u32,
    slow_left: u32,
    lag: Option<Lag>,
    told: Vec<Told>,
    /// Replaces chance, for tests that want one lie at one place.
    ordered: VecDeque<Lie>,
}

/// A time during which everything is as it was at a height.
#[derive(Clone, Copy, Debug)]
struct Lag {
    head: u64,
    calls: u32,
}

/// An occasion to lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Occasion<'o> {
    /// A message with so many calls.
    Message { calls: usize },
    /// A call.
    Call { method: &'o str },
    /// A new head is to be announced.
    Notification,
}

impl Liar {
    pub(crate) fn new(script: Script) -> Liar {
        let state = State {
            random: StdRng::seed_from_u64(script.seed),
            left: script.lies_max,
            slow_left: SLOW_LIES_MAX,
            lag: None,
            told: Vec::new(),
            ordered: VecDeque::new(),
        };
        Liar { script, state: Mutex::new(state) }
    }

    /// Whether everything it will say is true.
    pub(crate) fn is_honest(&self) -> bool {
        let state = self.state();
        state.ordered.is_empty()
            && state.lag.is_none()
            && (state.left == 0 || self.script.lies.is_empty() || self.script.per_mille == 0)
    }

    /// Tells the truth from now on.
    pub(crate) fn repent(&self) {
        let mut state = self.state();
        state.left = 0;
        state.lag = None;
        state.ordered.clear();
    }

    /// Tells a lie at the next occasion for it.
    pub(crate) fn order(&self, lie: Lie) {
        self.state().ordered.push_back(lie);
    }

    /// The lie to tell at this occasion, if any, and what it may draw its details from.
    pub(crate) fn lie(&self, occasion: Occasion<'_>) -> Option<(Lie, StdRng)> {
        let mut state = self.state();
        let State { random, left, slow_left, ordered, .. } = &mut *state;
        // It stays ordered until it is told: there may be nothing to lie about yet.
        if let Some(lie) = ordered.iter().find(|lie| occasion.fits(**lie)) {
            return Some((*lie, StdRng::seed_from_u64(random.random())));
        }
        if *left == 0 || random.random_range(0..1000) >= self.script.per_mille {
            return None;
        }
        let fitting: Vec<Lie> =
            self.script.lies.iter().copied().filter(|lie| occasion.fits(*lie)).collect();
        let lie = *fitting.choose(random)?;
        if matches!(lie, Lie::Stall | Lie::TooManyUntil | Lie::HalfClosed) {
            *slow_left = slow_left.checked_sub(1)?;
        }
        Some((lie, StdRng::seed_from_u64(random.random())))
    }

    /// Remembers that a lie was told.
    pub(crate) fn told(&self, lie: Lie, about: &str) {
        let mut state = self.state();
        match state.ordered.iter().position(|ordered| *ordered == lie) {
            Some(at) => drop(state.ordered.remove(at)),
            None => state.left = state.left.saturating_sub(1),
        }
        state.told.push(Told { lie, about: about.to_owned() });
    }

    /// What was lied about, in order.
    pub(crate) fn confession(&self) -> Vec<Told> {
        self.state().told.clone()
    }

    /// Falls behind, for so many calls.
    pub(crate) fn lag(&self, head: u64, calls: u32) {
        self.state().lag = Some(Lag { head, calls });
    }

    /// The newest height that it admits to know of, when that is not the newest there is. Each
    /// question brings the end of that nearer.
    pub(crate) fn lagging_head(&self) -> Option<u64> {
        let mut state = self.state();
        let lag = state.lag.as_mut()?;
        let head = lag.head;
        match lag.calls.checked_sub(1) {
            Some(calls) => lag.calls = calls,
            None => state.lag = None,
        }
        Some(head)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the state")
    }
}

impl Occasion<'_> {
    fn fits(self, lie: Lie) -> bool {
        match (self, lie.place()) {
            (Occasion::Message { .. }, Place::Message) => true,
            (Occasion::Message { calls }, Place::Batch) => calls > 1,
            (Occasion::Call { method }, Place::Call(methods)) => methods.contains(&method),
            (Occasion::Notification, Place::Notification) => true,
            _ => false,
        }
    }
}
