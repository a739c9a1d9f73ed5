//! What goes wrong, and for whom: rules that hit requests.
//!
//! Whether a rule of a rate below one hits is drawn from the seed, the rule's place, the request
//! and the number of its attempt. It does not depend on what else happens at the same time, so
//! the seed alone repeats a run of many clients.

use alloy_primitives::{Address, keccak256};
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// Longest delay of one rule, in milliseconds: the server's own patience is two minutes.
const LATENCY_MS_MAX: u64 = 60_000;

/// Rules at once. A test has a handful.
const RULES_MAX: usize = 100;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// `POST /api/v1/orders`.
    #[default]
    PostOrder,
    /// `GET /api/v1/orders/{uid}`.
    GetOrder,
    /// `GET /api/v1/app_data/{hash}`.
    GetAppData,
    /// `PUT /api/v1/app_data/{hash}`.
    PutAppData,
    /// `POST /api/v1/quote`.
    Quote,
    /// `GET /api/v1/version`.
    Version,
}

/// Something that goes wrong.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The work is done, and the answer comes late.
    Latency {
        /// How late.
        ms: u64,
    },
    /// The work is done (an order *is* stored), and the connection closes without an answer.
    AcceptThenDrop,
    /// The work is done, and the answer says that the server failed.
    AcceptThenServerError {
        /// 500 to 599.
        status: u16,
    },
    /// Nothing is done, and the connection closes without an answer.
    Drop,
    /// Nothing is done: 429.
    TooManyRequests {
        /// The `Retry-After` header; none when absent.
        retry_after_seconds: Option<u64>,
    },
    /// Nothing is done: the server failed.
    ServerError {
        /// 500 to 599.
        status: u16,
    },
    /// Nothing is done: the order is refused, with the status the real one uses for it.
    Refuse {
        /// Any `errorType`, known or not.
        error_type: String,
    },
}

/// A fault and the requests it hits.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What goes wrong.
    pub fault: Fault,
    /// For which requests; for posted orders when absent.
    #[serde(default)]
    pub route: Route,
    /// For which share of them.
    #[serde(default = "always")]
    pub rate: f64,
    /// For whose orders; for everyone's when absent.
    #[serde(default)]
    pub owner: Option<Address>,
    /// For so many first attempts of each order (or path), not for later ones.
    #[serde(default)]
    pub first_attempts: Option<u64>,
    /// So often in all.
    #[serde(default)]
    pub times: Option<u64>,
}

/// Rules as they are, with what they did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultsView {
    /// What rates are drawn from.
    pub seed: u64,
    /// The rules in their order: the first that hits decides, and delays add up.
    pub rules: Vec<RuleView>,
}

/// A rule and how often it hit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleView {
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// How often it hit.
    pub hits: u64,
}

/// Rules that make no sense.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// No share of requests.
    #[error("a rate is between 0 and 1, not {0}")]
    Rate(f64),
    /// No status of a server that failed.
    #[error("a server error has a status between 500 and 599, not {0}")]
    Status(u16),
    /// Longer than the server itself waits.
    #[error("a delay is at most {LATENCY_MS_MAX} ms, not {0}")]
    Latency(u64),
    /// More rules than a test has.
    #[error("at most {RULES_MAX} rules are kept, not {0}")]
    TooMany(usize),
}

/// The request that rules are asked about.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'v> {
    /// What is asked for.
    pub route: Route,
    /// What is asked about: an order's UID, a hash, or a digest of the body.
    pub key: &'v [u8],
    /// Whose order it is, if that can be said.
    pub owner: Option<Address>,
    /// How often this was asked before.
    pub attempt: u64,
}

/// What a request meets.
#[derive(Debug, Default)]
pub struct Plan {
    /// Milliseconds between the work and the answer.
    pub latency_ms: u64,
    /// What happens besides or instead of the work.
    pub fault: Option<Fault>,
}

/// The rules in force.
#[derive(Debug)]
pub struct Faults {
    seed: u64,
    rules: Vec<RuleView>,
}

fn always() -> f64 {
    1.0
}

impl Rule {
    /// A rule that hits every posted order.
    pub fn always(fault: Fault) -> Rule {
        let route = Route::default();
        Rule { fault, route, rate: always(), owner: None, first_attempts: None, times: None }
    }

    fn check(&self) -> Result<(), RuleError> {
        if !(0.0..=1.0).contains(&self.rate) {
            return Err(RuleError::Rate(self.rate));
        }
        match self.fault {
            Fault::ServerError { status } | Fault::AcceptThenServerError { status }
                if !(500..600).contains(&status) =>
            {
                Err(RuleError::Status(status))
            }
            Fault::Latency { ms } if LATENCY_MS_MAX < ms => Err(RuleError::Latency(ms)),
            _ => Ok(()),
        }
    }

    fn concerns(&self, visit: &Visit) -> bool {
        self.route == visit.route
            && self.owner.is_none_or(|owner| visit.owner == Some(owner))
            && self.first_attempts.is_none_or(|attempts| visit.attempt < attempts)
    }
}

impl Faults {
    /// Rules that are drawn from `seed`.
    pub fn new(seed: u64, rules: Vec<Rule>) -> Result<Faults, RuleError> {
        if RULES_MAX < rules.len() {
            return Err(RuleError::TooMany(rules.len()));
        }
        rules.iter().try_for_each(Rule::check)?;
        let rules = rules.into_iter().map(|rule| RuleView { rule, hits: 0 }).collect();
        Ok(Faults { seed, rules })
    }

    /// What rates are drawn from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The rules and what they did.
    pub fn view(&self) -> FaultsView {
        FaultsView { seed: self.seed, rules: self.rules.clone() }
    }

    /// Decides what a request meets, and counts the rules that hit it.
    pub fn plan(&mut self, visit: &Visit) -> Plan {
        let mut plan = Plan::default();
        for (place, RuleView { rule, hits }) in self.rules.iter_mut().enumerate() {
            let spent = rule.times.is_some_and(|times| times <= *hits);
            if spent || !rule.concerns(visit) || rule.rate <= draw(self.seed, place, visit) {
                continue;
            }
            *hits += 1;
            match &rule.fault {
                Fault::Latency { ms } => plan.latency_ms += ms,
                fault => {
                    plan.fault = Some(fault.clone());
                    break;
                }
            }
        }
        plan
    }
}

/// A number from 0 (included) to 1 (not included).
fn draw(seed: u64, place: usize, visit: &Visit) -> f64 {
    let numbers = [seed, place as u64, visit.route as u64, visit.attempt];
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    bytes.extend_from_slice(visit.key);
    let [a, b, c, d, e, f, g, h, ..] = keccak256(bytes).0;
    // As many bits as a double holds exactly.
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 11) as f64 / (1u64 << 53) as f64
}

/// The refusal of a fault that names one.
pub fn chosen(error_type: String) -> Refusal {
    Refusal::Chosen { error_type, description: "a fault of this orderbook, asked for".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(seed: u64, rate: f64, attempts: u64) -> Vec<u64> {
        let rule = Rule { rate, ..Rule::always(Fault::Drop) };
        let mut faults = Faults::new(seed, vec![rule]).unwrap();
        let visit =
            |attempt| Visit { route: Route::PostOrder, key: b"order", owner: None, attempt };
        (0..attempts).filter(|attempt| faults.plan(&visit(*attempt)).fault.is_some()).collect()
    }

    #[test]
    fn a_rate_hits_its_share_and_the_seed_says_whom() {
        assert_eq!(hits(1, 0.0, 1000).len(), 0);
        assert_eq!(hits(1, 1.0, 1000).len(), 1000);
        let third = hits(1, 0.3, 10_000);
        assert!((2800..3200).contains(&third.len()), "{}", third.len());
        assert_eq!(hits(1, 0.3, 10_000), third);
        assert_ne!(hits(2, 0.3, 10_000), third);
    }

    #[test]
    fn a_rule_hits_the_requests_it_is_for() {
        let owner = Address::repeat_byte(7);
        let check = |rule: Rule, visits: &[(Route, Option<Address>, u64)], expected: &[bool]| {
            let mut faults = Faults::new(0, vec![rule]).unwrap();
            let hit: Vec<bool> = visits
                .iter()
                .map(|&(route, owner, attempt)| {
                    let visit = Visit { route, key: &[], owner, attempt };
                    faults.plan(&visit).fault.is_some()
                })
                .collect();
            assert_eq!(hit, expected);
        };
        let [post, get] = [Route::PostOrder, Route::GetOrder];
        let drop = || Rule::always(Fault::Drop);
        check(drop(), &[(post, None, 0), (get, None, 0)], &[true, false]);
        let rule = Rule { owner: Some(owner), ..drop() };
        check(rule, &[(post, None, 0), (post, Some(owner), 0)], &[false, true]);
        let rule = Rule { first_attempts: Some(2), ..drop() };
        check(rule, &[(post, None, 0), (post, None, 1), (post, None, 2)], &[true, true, false]);
        let rule = Rule { times: Some(1), ..drop() };
        check(rule, &[(post, None, 0), (post, None, 0)], &[true, false]);
    }

    #[test]
    fn delays_add_up_and_the_first_other_fault_decides() {
        let delay = |ms| Rule::always(Fault::Latency { ms });
        let rules = vec![delay(3), delay(4), Rule::always(Fault::Drop), delay(5)];
        let mut faults = Faults::new(0, rules).unwrap();
        let visit = Visit { route: Route::PostOrder, key: &[], owner: None, attempt: 0 };
        let plan = faults.plan(&visit);
        assert_eq!((plan.latency_ms, plan.fault), (7, Some(Fault::Drop)));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        let check = |rule: Rule| assert!(Faults::new(0, vec![rule]).is_err());
        check(Rule { rate: 1.1, ..Rule::always(Fault::Drop) });
        check(Rule { rate: f64::NAN, ..Rule::always(Fault::Drop) });
        check(Rule::always(Fault::ServerError { status: 404 }));
        check(Rule::always(Fault::Latency { ms: LATENCY_MS_MAX + 1 }));
    }
}
