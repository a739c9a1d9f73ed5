//! A module on one chain: configured, and called once for every record that concerns it.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Instant};

use alloy_primitives::B256;
use cowprotocol::{GPV2_SETTLEMENT, settlement_domain};
use shepherd_log::{
    ChainName, Deliver, Effect, EffectKey, EffectResult, LaneId, Refusal, TapeEntry,
};
use wasmtime::{Store, Trap, UpdateDeadline, WasmBacktrace};

use crate::{
    bindings::{self, shepherd::module::types as wit},
    draws::Draws,
    fault::{Failure, Fault, OutputTooLarge, World},
    imports::{Guest, RecordContext, Terms, address_words, words},
    input::{At, Input, LogRef, OutcomeRef, Triggers},
    lent::Lent,
    limits::{FAULT_BYTES_MAX, HANDLES_MAX, HOSTCALL_BYTES_MAX},
    lines::{LogLine, escape},
    manifest::{OnChain, OverrideError, Overrides},
    module::Module,
    occasion::Occasion,
    overlay::StateView,
    reads::Reads,
    subscription::Subscription,
};

/// What a module made of one record. Nothing of it is real until it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    /// State writes; `None` deletes the key.
    pub writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What it wants done outside, in the order it asked.
    pub effects: Vec<Effect>,
    /// Every read the module made, in order.
    pub tape: Vec<TapeEntry>,
    /// What it said.
    pub log_lines: Vec<LogLine>,
    /// How many lines were dropped because it said too much.
    pub log_lines_dropped: u64,
    /// Fuel it used, instantiating and configuring included.
    pub fuel: u64,
}

/// A module that cannot run on a chain.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The overrides do not fit the manifest.
    #[error(transparent)]
    Overrides(#[from] OverrideError),
    /// The module refused the configuration, or failed over it.
    #[error("{module} cannot be configured for {chain}")]
    Configure {
        /// The lane's module.
        module: shepherd_log::ModuleName,
        /// The lane's chain.
        chain: ChainName,
        /// What went wrong.
        source: Failure,
    },
}

/// A module with its configuration and subscription on one chain. Cheap to clone.
#[derive(Clone)]
pub struct BoundModule(Arc<Bound>);

struct Bound {
    module: Module,
    terms: Arc<Terms>,
    subscription: Subscription,
    config: String,
}

impl Module {
    /// Resolves the manifest for a chain and lets the module check its configuration once.
    ///
    /// `chain_id` is the chain's own (EIP-155): orders are signed over it.
    pub fn bind(
        &self,
        chain: &ChainName,
        chain_id: u64,
        lane: &Overrides,
    ) -> Result<BoundModule, BindError> {
        let OnChain { subscription, config, deliver, http_hosts } =
            self.manifest().for_chain(chain, lane)?;
        let terms = Arc::new(Terms {
            lane: LaneId { module: self.manifest().name().clone(), chain: chain.clone() },
            chain_id,
            domain: settlement_domain(chain_id, GPV2_SETTLEMENT),
            deliver,
            webhooks: self.manifest().webhooks().clone(),
            http_hosts,
        });
        let module = self.clone();
        let bound = BoundModule(Arc::new(Bound { module, terms, subscription, config }));
        bound.configure().map_err(|source| BindError::Configure {
            module: self.manifest().name().clone(),
            chain: chain.clone(),
            source,
        })?;
        Ok(bound)
    }
}

impl BoundModule {
    /// The module.
    pub fn module(&self) -> &Module {
        &self.0.module
    }

    /// The lane it works for.
    pub fn lane(&self) -> &LaneId {
        &self.0.terms.lane
    }

    /// The chain's id (EIP-155).
    pub fn chain_id(&self) -> u64 {
        self.0.terms.chain_id
    }

    /// When its effects leave, unless they say so themselves.
    pub fn deliver(&self) -> Deliver {
        self.0.terms.deliver
    }

    /// Its configuration, as the JSON text it is given.
    pub fn config(&self) -> &str {
        &self.0.config
    }

    /// Which blocks and logs concern it.
    pub fn subscription(&self) -> &Subscription {
        &self.0.subscription
    }

    /// Handles one record in a fresh instance.
    ///
    /// A record either is handled as a whole or leaves nothing behind. The result is a function
    /// of the component, the configuration, the input, the state and the answers to its reads.
    pub fn handle(
        &self,
        input: &Input<'_>,
        state: &mut dyn StateView,
        reads: &mut dyn Reads,
    ) -> Result<Handled, Failure> {
        let (at, occasion) = (input.at(), Occasion::of(input));
        let context = RecordContext {
            terms: Arc::clone(&self.0.terms),
            // SAFETY: it moves into `call.store`, which is dropped before this function returns,
            // also when it unwinds, and nothing takes it out of there.
            lent: unsafe { Lent::new(state, reads) },
            block: at.this,
            timestamp: at.timestamp,
            draws: Draws::new(&self.0.terms.lane, &occasion),
            occasion,
        };
        // Waits before the clock of the deadline starts.
        let _slot = self.0.module.engine().slot();
        let mut call = self.start()?;
        call.configure(&self.0.config)?;
        call.store.data_mut().record = Some(context);
        match call.handle(input) {
            Ok(()) => Ok(call.finish()),
            Err(Failure::Module { fault, .. }) => {
                let log_lines = call.store.into_data().lines.kept;
                Err(Failure::Module { fault, log_lines })
            }
            Err(failure) => Err(failure),
        }
    }

    fn configure(&self) -> Result<(), Failure> {
        let _slot = self.0.module.engine().slot();
        self.start()?.configure(&self.0.config)
    }

    /// A fresh instance under all limits.
    fn start(&self) -> Result<Call, Failure> {
        let module = &self.0.module;
        let engine = module.engine();
        let limits = module.manifest().limits();
        let mut store = Store::new(engine.wasmtime(), Guest::new(limits, engine.deadline()));
        store.limiter(|guest| &mut guest.guard);
        store.set_fuel(limits.fuel).expect("fuel is switched on");
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
        store.set_max_component_handles(HANDLES_MAX);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut caller| {
            let guest = caller.data_mut();
            // Reads move `started` forward, possibly past now.
            if Instant::now().saturating_duration_since(guest.started) < guest.deadline {
                return Ok(UpdateDeadline::Continue(1));
            }
            let deadline = guest.deadline;
            Err(guest.stop(World::Deadline { deadline }))
        });
        match module.pre().instantiate(&mut store) {
            Ok(instance) => Ok(Call { store, instance }),
            // Our own limits, or a trap in a start function, are the module's.
            Err(error) if error.is::<Trap>() || store.data().guard.failure.is_some() => {
                Err(failure(&mut store, error))
            }
            Err(error) => Err(World::Instance(format!("{error:#}")).into()),
        }
    }
}

impl fmt::Debug for BoundModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundModule")
            .field("lane", &self.0.terms.lane)
            .field("sha256", &self.0.module.sha256())
            .finish_non_exhaustive()
    }
}

/// One instance and its store. A trapped instance is never entered again: every failure ends
/// the call, and the store with it.
struct Call {
    store: Store<Guest>,
    instance: bindings::Module,
}

impl Call {
    fn configure(&mut self, config: &str) -> Result<(), Failure> {
        match self.instance.call_configure(&mut self.store, config) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => {
                Err(Fault::RefusedConfiguration(escape(&reason, FAULT_BYTES_MAX)).into())
            }
            Err(error) => Err(failure(&mut self.store, error)),
        }
    }

    fn handle(&mut self, input: &Input<'_>) -> Result<(), Failure> {
        let header = wit::BlockHeader::from(input.at());
        // What the input borrows its lists from.
        let logs: Vec<wit::Log<'_>>;
        let outcomes: Vec<wit::Outcome<'_>>;
        let input = match input {
            Input::Block(block) => {
                logs = block.logs.iter().map(wit::Log::from).collect();
                let triggers = block.triggers.into();
                wit::Input::Block(wit::BlockInput { header, triggers, logs: &logs })
            }
            Input::Outcome(told) => {
                let outcome = wit::Outcome::from(&told.outcome);
                wit::Input::Outcome(wit::OutcomeInput { header, outcome })
            }
            Input::Revert(told) => {
                outcomes = told.outcomes.iter().map(wit::Outcome::from).collect();
                wit::Input::Revert(wit::RevertInput { header, outcomes: &outcomes })
            }
        };
        match self.instance.call_handle(&mut self.store, input) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(Fault::Returned(escape(&reason, FAULT_BYTES_MAX)).into()),
            Err(error) => Err(failure(&mut self.store, error)),
        }
    }

    fn finish(self) -> Handled {
        let left = self.store.get_fuel().expect("fuel is switched on");
        let guest = self.store.into_data();
        assert!(guest.guard.failure.is_none(), "a call we stopped cannot have finished");
        Handled {
            writes: guest.overlay.into_writes(),
            effects: guest.effects,
            tape: guest.tape,
            log_lines: guest.lines.kept,
            log_lines_dropped: guest.lines.dropped,
            fuel: guest.guard.limits.fuel - left,
        }
    }
}

impl From<At> for wit::BlockHeader {
    fn from(at: At) -> wit::BlockHeader {
        wit::BlockHeader {
            number: at.this.number,
            hash: words(&at.this.hash),
            parent_hash: words(&at.parent),
            timestamp: at.timestamp,
        }
    }
}

impl<'a> From<&OutcomeRef<'a>> for wit::Outcome<'a> {
    fn from(outcome: &OutcomeRef<'a>) -> wit::Outcome<'a> {
        wit::Outcome {
            key: match outcome.key {
                EffectKey::Order(uid) => wit::EffectKey::Order(uid),
                EffectKey::Webhook { key, .. } => wit::EffectKey::Webhook(key),
            },
            result: match outcome.result {
                EffectResult::Accepted => wit::EffectResult::Accepted,
                EffectResult::AlreadyThere => wit::EffectResult::AlreadyThere,
                EffectResult::Refused(refusal) => wit::EffectResult::Refused(refusal.into()),
                EffectResult::Expired => wit::EffectResult::Expired,
                EffectResult::Cancelled(reason) => wit::EffectResult::Cancelled(reason),
                EffectResult::DryRun => wit::EffectResult::DryRun,
            },
            abandoned: outcome.abandoned,
        }
    }
}

impl<'a> From<&'a Refusal> for wit::Refusal<'a> {
    fn from(refusal: &'a Refusal) -> wit::Refusal<'a> {
        wit::Refusal {
            status: refusal.status,
            error_type: refusal.error_type.as_deref(),
            description: &refusal.description,
            body: &refusal.body,
            retry_after: refusal.retry_after,
        }
    }
}

impl From<Triggers> for wit::Triggers {
    fn from(triggers: Triggers) -> wit::Triggers {
        let Triggers { logs, block, tick } = triggers;
        wit::Triggers { logs, block, tick }
    }
}

impl<'a> From<&LogRef<'a>> for wit::Log<'a> {
    fn from(log: &LogRef<'a>) -> wit::Log<'a> {
        let topic = |position: usize| words(log.topics.get(position).unwrap_or(&B256::ZERO));
        wit::Log {
            address: address_words(&log.address),
            topics: wit::Topics {
                count: u8::try_from(log.topics.len()).expect("a log has at most four topics"),
                first: topic(0),
                second: topic(1),
                third: topic(2),
                fourth: topic(3),
            },
            data: log.data,
            index: log.index,
            transaction_index: log.transaction_index,
            transaction_hash: words(&log.transaction_hash),
        }
    }
}

/// Whose failure it was that ended the call, and which.
fn failure(store: &mut Store<Guest>, error: wasmtime::Error) -> Failure {
    let guest = store.data_mut();
    // When we stopped the guest ourselves, we know why, whatever the engine made of it.
    if let Some(failure) = guest.guard.failure.take() {
        return failure;
    }
    let limits = guest.guard.limits;
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Fault::OutOfFuel { limit: limits.fuel }.into(),
        Some(Trap::StackOverflow) => Fault::StackOverflow.into(),
        Some(trap) => {
            let at = error
                .downcast_ref::<WasmBacktrace>()
                .and_then(|trace| trace.frames().first()?.func_name().map(ToOwned::to_owned));
            let text = match at {
                Some(function) => format!("{trap} in {function}"),
                None => trap.to_string(),
            };
            Fault::Trap(escape(&text, FAULT_BYTES_MAX)).into()
        }
        // The engine has no type for this one. If its words change, the fault is still the
        // module's, with a less precise name.
        None if format!("{error:#}").contains("too much data is being copied") => {
            Fault::from(OutputTooLarge::HostCall).into()
        }
        None => Fault::BrokenContract(escape(&format!("{error:#}"), FAULT_BYTES_MAX)).into(),
    }
}
