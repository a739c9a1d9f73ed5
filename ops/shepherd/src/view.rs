//! One way to look at a data directory, whoever has it open.
//!
//! ```text
//!              ┌─ a daemon runs ──▶ its admin API ─┐
//!   View ──────┤                                   ├──▶ the same views
//!              └─ none does ──────▶ the store ─────┘
//! ```

use std::{collections::BTreeMap, path::Path};

use shepherd_admin::{
    find::{self, Bound, Stretch},
    query::{self, QueryError},
    view::{
        CursorsView, EffectView, FoundView, JournalView, LaneStateView, OffsetView, OutboxView,
        ReorgsView, StatView, StateView, VerifyView, bytes,
    },
};
use shepherd_ingest::{Trust, verify_stored};
use shepherd_log::{
    BlockView, ChainName, EffectId, Finding, Journal, LaneId, LogFilter, Offset, OpenError,
    Options, Store,
};

use shepherd_rpc::in_words;

use crate::{
    cli,
    config::Config,
    daemon::Daemon,
    exit::{self, Code, Problem},
};

/// Checks blocks again to the trust level of their chain. A chain that is no longer configured is
/// held to the default.
pub fn block_check(
    config: &Config,
) -> impl Fn(&ChainName, &BlockView<'_>) -> Result<(), String> + Send + Sync + use<> {
    let trust = config.chains.iter().map(|chain| (chain.name.clone(), chain.follow.trust));
    let trust: BTreeMap<ChainName, Trust> = trust.collect();
    move |chain, block| {
        let trust = trust.get(chain).copied().unwrap_or_default();
        verify_stored(block, trust).map_err(|mismatch| mismatch.to_string())
    }
}

/// A data directory, open for reading.
pub enum View {
    /// A running daemon answers.
    Daemon(Daemon),
    /// Nobody else has it open.
    Store(Store),
}

impl View {
    /// Finds the daemon or opens the store. Never creates one.
    pub fn open(config: &Config) -> Result<View, Problem> {
        if let Some(daemon) = Daemon::find(&config.data_dir) {
            return Ok(View::Daemon(daemon));
        }
        open_existing(config).map(View::Store)
    }

    /// Every lane's cursor.
    pub fn cursors(&self) -> Result<CursorsView, Problem> {
        match self {
            View::Daemon(daemon) => daemon.get("/v1/cursors"),
            View::Store(store) => {
                let otherwise = StateView::new("stopped", None, None);
                query::cursors(store, &BTreeMap::new(), &otherwise).map_err(unanswered)
            }
        }
    }

    /// A page of records from an offset; the last ones when it is left out.
    pub fn records(
        &self,
        chain: &ChainName,
        from: Option<OffsetView>,
        limit: u64,
    ) -> Result<JournalView, Problem> {
        match self {
            View::Daemon(daemon) => {
                let from = from.map_or(String::new(), |from| format!("&from={from}"));
                daemon.get(&format!("/v1/chains/{chain}/journal?limit={limit}{from}"))
            }
            View::Store(store) => {
                let journal = existing_journal(store, chain)?;
                let last = Offset::new(journal.tail().offset.get().saturating_sub(limit));
                query::records(&journal, from.map_or(last, Offset::from), limit).map_err(unanswered)
            }
        }
    }

    /// Waits some time for records from an offset on, and gives those there are.
    ///
    /// `None` when nobody runs who could append any.
    pub fn wait(
        &self,
        chain: &ChainName,
        from: OffsetView,
    ) -> Option<Result<JournalView, Problem>> {
        let View::Daemon(daemon) = self else { return None };
        let limit = query::RECORDS_MAX;
        let path = format!("/v1/chains/{chain}/journal?from={from}&limit={limit}&wait=20");
        Some(daemon.get(&path))
    }

    /// Verifies a page of a journal: at most `limit` records from an offset on.
    pub fn verify(
        &self,
        config: &Config,
        chain: &ChainName,
        from: OffsetView,
        limit: u64,
    ) -> Result<VerifyView, Problem> {
        match self {
            View::Daemon(daemon) => {
                let path = format!("/v1/chains/{chain}/journal/verify?from={from}&limit={limit}");
                daemon.get(&path)
            }
            View::Store(store) => {
                let journal = existing_journal(store, chain)?;
                let check = block_check(config);
                query::verify(&journal, from.into(), limit, &check).map_err(unanswered)
            }
        }
    }

    /// The newest reorgs of a chain.
    pub fn reorgs(&self, chain: &ChainName, last: usize) -> Result<ReorgsView, Problem> {
        match self {
            View::Daemon(daemon) => daemon.get(&format!("/v1/chains/{chain}/reorgs?last={last}")),
            View::Store(store) => {
                let journal = existing_journal(store, chain)?;
                query::reorgs(&journal, last).map_err(unanswered)
            }
        }
    }

    /// A page of the logs of a stretch that match, from the offset where the page before ended.
    pub fn find(
        &self,
        chain: &ChainName,
        filter: &LogFilter,
        stretch: Stretch,
        after: Option<OffsetView>,
    ) -> Result<FoundView, Problem> {
        match self {
            View::Daemon(daemon) => {
                daemon.get(&format!("/v1/chains/{chain}/logs?{}", asked(filter, stretch, after)))
            }
            View::Store(store) => {
                let journal = existing_journal(store, chain)?;
                let after = after.map(Offset::from);
                find::find(&journal, filter, stretch, after).map_err(unanswered)
            }
        }
    }

    /// What a journal holds.
    pub fn stat(&self, chain: &ChainName) -> Result<StatView, Problem> {
        match self {
            View::Daemon(daemon) => daemon.get(&format!("/v1/chains/{chain}/journal/stat")),
            View::Store(store) => {
                let journal = existing_journal(store, chain)?;
                query::stat(&journal).map_err(unanswered)
            }
        }
    }

    /// A page of a lane's state.
    pub fn state(
        &self,
        lane: &LaneId,
        prefix: &[u8],
        after: Option<&cli::Bytes>,
        limit: usize,
    ) -> Result<LaneStateView, Problem> {
        match self {
            View::Daemon(daemon) => {
                let after = after.map_or(String::new(), |after| format!("&after={}", bytes(after)));
                let prefix = bytes(prefix);
                daemon.get(&format!("/v1/lanes/{lane}/state?prefix={prefix}&limit={limit}{after}"))
            }
            View::Store(store) => {
                query::state(store, lane, prefix, after.map(|after| &**after), limit)
                    .map_err(unanswered)
            }
        }
    }
}

impl View {
    /// A page of a lane's outbox.
    pub fn outbox(&self, lane: &LaneId, after: Option<&str>) -> Result<OutboxView, Problem> {
        let limit = query::EFFECTS_MAX;
        match self {
            View::Daemon(daemon) => {
                let after = after.map_or(String::new(), |after| format!("&after={after}"));
                daemon.get(&format!("/v1/lanes/{lane}/outbox?limit={limit}{after}"))
            }
            View::Store(store) => {
                let after = after.map(|after| query::effect_id(after).expect("ours"));
                query::outbox(store, lane, after, limit).map_err(unanswered)
            }
        }
    }

    /// One effect of a lane.
    pub fn effect(&self, lane: &LaneId, effect: EffectId) -> Result<EffectView, Problem> {
        match self {
            View::Daemon(daemon) => daemon.get(&format!("/v1/lanes/{lane}/effects/{effect}")),
            View::Store(store) => query::effect(store, lane, effect).map_err(unanswered),
        }
    }
}

/// What `find` asks for, as the query of a URL.
fn asked(filter: &LogFilter, stretch: Stretch, after: Option<OffsetView>) -> String {
    let joined = |words: Vec<String>| (!words.is_empty()).then(|| words.join(","));
    let bound = |name: &str, bound: Bound| match bound {
        Bound::Block(number) => format!("{name}_block={number}"),
        Bound::Time(seconds) => format!("{name}_time={seconds}"),
    };
    let addresses = joined(filter.addresses.iter().map(ToString::to_string).collect());
    let topics = joined(filter.topic0.iter().map(ToString::to_string).collect());
    let parts = [
        addresses.map(|list| format!("address={list}")),
        topics.map(|list| format!("topic0={list}")),
        stretch.from.map(|from| bound("from", from)),
        stretch.to.map(|to| bound("to", to)),
        stretch.abandoned.then(|| "abandoned=true".to_owned()),
        after.map(|after| format!("after={after}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("&")
}

/// Opens the store of a configuration for work that no daemon does. Never creates one.
pub fn open_existing(config: &Config) -> Result<Store, Problem> {
    must_exist(config)?;
    open_store(config, shepherd_log::Metrics::unregistered())
}

fn must_exist(config: &Config) -> Result<(), Problem> {
    if !config.data_dir.join("store").exists() {
        let message = format!("{} holds no journal yet", config.data_dir.display());
        let help = "`shepherd run` and `shepherd ingest` create it; `data_dir` in the configuration says where";
        return Err(Problem::new(Code::Configuration, message).help(help));
    }
    Ok(())
}

/// Opens the store of a configuration to rebuild a lane, whatever has become of its state.
pub fn open_existing_to_rebuild(config: &Config, lane: &LaneId) -> Result<Store, Problem> {
    must_exist(config)?;
    let metrics = shepherd_log::Metrics::unregistered();
    let options = Options { to_rebuild: Some(lane.clone()), ..options(config, metrics) };
    open_in(&config.data_dir, options)
}

/// The journal of a chain that the store knows.
pub fn existing_journal(store: &Store, chain: &ChainName) -> Result<Journal, Problem> {
    query::journal(store, chain).map_err(unanswered)
}

/// Opens the store of a configuration.
pub fn open_store(config: &Config, metrics: shepherd_log::Metrics) -> Result<Store, Problem> {
    open_in(&config.data_dir, options(config, metrics))
}

fn options(config: &Config, metrics: shepherd_log::Metrics) -> Options {
    let reorg_depth_max = config.chains.iter().map(|chain| chain.follow.reorg_depth_max).max();
    Options {
        reorg_depth_max: reorg_depth_max.expect("a configuration has a chain"),
        on_write_failure: exit::on_write_failure,
        metrics,
        to_rebuild: None,
    }
}

/// Opens the store in a data directory.
pub fn open_in(data_dir: &Path, options: Options) -> Result<Store, Problem> {
    let open = || Store::open(data_dir, options);
    exit::untrusted_on_panic(data_dir, open).map_err(|error| not_opened(data_dir, &error))
}

/// Why a data directory cannot be opened, and what to do.
fn not_opened(data_dir: &Path, error: &OpenError) -> Problem {
    let data_dir = data_dir.display();
    let named = |code, what: &str| {
        Problem::new(code, format!("cannot open the data directory {data_dir}: {what}"))
    };
    if let Some(why) = exit::no_room(error) {
        return named(Code::WriteFailed, &why.to_string()).help(exit::NO_ROOM_HELP);
    }
    let whole = in_words(error);
    match error {
        OpenError::Directory { .. } => named(Code::Configuration, &whole)
            .help("check `data_dir` in the configuration, and who owns the directory"),
        OpenError::Locked { .. } => named(Code::Locked, "another process has it open").help(
            "stop that process, or give this one a `data_dir` of its own; one directory serves one process",
        ),
        OpenError::NewerFormat { .. } => named(Code::NewerFormat, &whole)
            .help("use the version of Shepherd that wrote it, or a newer one; nothing was changed"),
        OpenError::Untrusted { findings, .. } => {
            let problem = named(Code::Untrusted, &whole);
            match &findings[..] {
                [Finding::StateChanged { lane, .. }] => problem.help(format!(
                    "nothing was changed; the journal and the tape are whole, so the lane can be \
                     computed again: `shepherd replay rebuild {lane}`"
                )),
                _ => problem.help(exit::UNTRUSTED_HELP),
            }
        }
        OpenError::Storage(_) => named(Code::Untrusted, &whole).help(exit::UNTRUSTED_HELP),
    }
}

/// Why a question about a store has no answer.
pub fn unanswered(error: QueryError) -> Problem {
    let code = match error {
        QueryError::NoChain(_) | QueryError::NoLane(_) | QueryError::NoEffect { .. } => {
            Code::Failed
        }
        QueryError::Read(_) | QueryError::Storage(_) => Code::Untrusted,
    };
    Problem::from_error(code, &error)
}

/// The chains that are meant: the one named, or all that are configured.
pub fn the_chains(config: &Config, named: Option<&ChainName>) -> Vec<ChainName> {
    match named {
        Some(name) => vec![name.clone()],
        None => config.chains.iter().map(|chain| chain.name.clone()).collect(),
    }
}

/// The chain that is meant: the one named, or the only one there is.
pub fn the_chain(config: &Config, named: Option<&ChainName>) -> Result<ChainName, Problem> {
    if let Some(name) = named {
        return Ok(name.clone());
    }
    match &config.chains[..] {
        [only] => Ok(only.name.clone()),
        several => {
            let names = several.iter().map(|chain| chain.name.as_str()).collect::<Vec<_>>();
            let message = format!("several chains are configured: {}", names.join(", "));
            Err(Problem::new(Code::Failed, message).help("say which one with --chain NAME"))
        }
    }
}
