//! `shepherd check`: everything that can be found out before running, all of it at once.

use std::path::Path;

use prometheus_client::registry::Registry;
use serde::Serialize;
use shepherd_ingest::{ChainCheck, check_chain};
use shepherd_rpc::{Pool, in_words};
use tokio::{runtime, task::JoinSet};

use crate::{
    cli::Json,
    config::{self, Chain, Config},
    destinations,
    exit::{Code, Failure, Problem},
    modules,
    show::{count, print, print_json},
};

/// What was checked, as JSON.
#[derive(Serialize)]
struct CheckView<'a> {
    ok: bool,
    chains: usize,
    modules: usize,
    problems: &'a [Problem],
    /// What may be as it is meant, and may not.
    warnings: &'a [String],
}

/// Checks the configuration; when it can be read, also its modules and endpoints.
pub fn check(file: &Path, args: &Json) -> Result<(), Failure> {
    let (config, found) = match config::load(file) {
        Ok(config) => {
            let found = find(&config)?;
            (Some(config), found)
        }
        Err(failure) => (None, Found { problems: failure.problems, warnings: Vec::new() }),
    };
    let Found { problems, warnings } = found;
    let chains = config.as_ref().map_or(0, |config| config.chains.len());
    let modules = config.as_ref().map_or(0, |config| config.modules.len());
    if args.json {
        let ok = problems.is_empty();
        print_json(&CheckView { ok, chains, modules, problems: &problems, warnings: &warnings });
    } else {
        warnings.iter().for_each(|warning| eprintln!("warning: {warning}\n"));
    }
    if !problems.is_empty() {
        return Err(Failure { problems });
    }
    if !args.json {
        let chains = count(chains as u64, "chain");
        let modules = count(modules as u64, "module");
        print(&format!("{}: {chains}, {modules}, no problems\n", file.display()));
    }
    Ok(())
}

/// What was found.
struct Found {
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

fn find(config: &Config) -> Result<Found, Failure> {
    let engine = modules::engine()?;
    let loaded = modules::load_all(config, &engine);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::from_error(Code::Failed, &error))?;
    let of_chains = chain_problems(config);
    let (mut problems, warnings) = match loaded {
        Err(problems) => (problems, Vec::new()),
        Ok(modules) => {
            let mut problems = destinations::problems(config, &modules);
            problems.extend(runtime.block_on(destinations::unreachable(config, &modules)));
            (problems, destinations::warnings(config, &modules))
        }
    };
    problems.extend(runtime.block_on(of_chains));
    Ok(Found { problems, warnings })
}

async fn chain_problems(config: &Config) -> Vec<Problem> {
    let mut checks = JoinSet::new();
    let metrics = shepherd_rpc::Metrics::new(&mut Registry::default());
    for (index, chain) in config.chains.iter().enumerate() {
        let pool = pool(chain, &metrics);
        let config = chain.follow.clone();
        checks.spawn(async move { (index, check_chain(&pool, &config).await) });
    }
    let mut checked = checks.join_all().await;
    checked.sort_by_key(|(index, _)| *index);
    let chains = checked.iter().map(|(index, check)| (&config.chains[*index], check));
    chains.flat_map(|(chain, check)| of_chain(chain, check)).collect()
}

/// The pool of a chain's endpoints.
pub fn pool(chain: &Chain, metrics: &shepherd_rpc::Metrics) -> Pool {
    let options = shepherd_rpc::Options { probe: true, ..shepherd_rpc::Options::default() };
    Pool::connect(chain.name.as_str(), chain.chain_id, chain.endpoints.clone(), options, metrics)
}

fn of_chain(chain: &Chain, check: &ChainCheck) -> Vec<Problem> {
    let failed = check.endpoints.iter().filter_map(|endpoint| {
        let failure = endpoint.result.as_ref().err()?;
        let message = format!("chain {}: {}: {}", chain.name, endpoint.endpoint, in_words(failure));
        Some(Problem::new(Code::Endpoint, message).at(chain.place.clone()))
    });
    let mut problems: Vec<Problem> = failed.collect();
    // With no endpoint that works, the sample only says so again.
    if check.endpoints.iter().any(|endpoint| endpoint.result.is_ok())
        && let Err(error) = &check.sample
    {
        let message = format!(
            "chain {}: the newest block cannot be taken over: {}",
            chain.name,
            in_words(error)
        );
        let help =
            "if this chain's header hashes or blooms are not Ethereum's, set trust = \"link\"";
        problems.push(Problem::new(Code::Endpoint, message).help(help).at(chain.place.clone()));
    }
    problems
}
