//! `shepherd check`: everything that can be found out before running, all of it at once.

use std::path::Path;

use prometheus_client::registry::Registry;
use serde::Serialize;
use shepherd_admin::view::CapabilitiesView;
use shepherd_ingest::{ChainCheck, Finality, Trust, check_chain};
use shepherd_rpc::{Capabilities, Pool, in_words};
use tokio::{runtime, task::JoinSet};

use crate::{
    cli::Json,
    config::{self, Chain, Config},
    destinations,
    endpoints::capabilities,
    exit::{Code, Failure, Problem},
    modules,
    show::{count, print, print_json, print_table, table},
};

/// What was checked, as JSON.
#[derive(Serialize)]
struct CheckView<'a> {
    ok: bool,
    chains: usize,
    modules: usize,
    /// The endpoints that answered.
    endpoints: &'a [CheckedEndpoint],
    problems: &'a [Problem],
    /// What may be as it is meant, and may not.
    warnings: &'a [String],
}

/// An endpoint that serves its chain, and what it is able to do.
#[derive(Serialize)]
struct CheckedEndpoint {
    chain: String,
    url: String,
    capabilities: Option<CapabilitiesView>,
}

/// Checks the configuration; when it can be read, also its modules and endpoints.
pub fn check(file: &Path, args: &Json) -> Result<(), Failure> {
    let (config, found) = match config::load(file) {
        Ok(config) => {
            let found = find(&config)?;
            (Some(config), found)
        }
        Err(failure) => (None, Found { problems: failure.problems, ..Found::default() }),
    };
    let Found { problems, warnings, endpoints } = found;
    let chains = config.as_ref().map_or(0, |config| config.chains.len());
    let modules = config.as_ref().map_or(0, |config| config.modules.len());
    if args.json {
        let ok = problems.is_empty();
        let (endpoints, problems, warnings) = (&endpoints[..], &problems[..], &warnings[..]);
        print_json(&CheckView { ok, chains, modules, endpoints, problems, warnings });
    } else {
        warnings.iter().for_each(|warning| eprintln!("warning: {warning}\n"));
    }
    if !args.json && !endpoints.is_empty() {
        print_endpoints(&endpoints);
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
#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    warnings: Vec<String>,
    endpoints: Vec<CheckedEndpoint>,
}

fn find(config: &Config) -> Result<Found, Failure> {
    let engine = modules::engine()?;
    let loaded = modules::load_all(config, &engine);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::from_error(Code::Failed, &error))?;
    let mut found = Found::default();
    match loaded {
        Err(problems) => found.problems = problems,
        Ok(modules) => {
            let modules = modules::bound(&modules);
            found.problems = destinations::problems(config, &modules);
            let unreachable = destinations::unreachable(config, &modules);
            found.problems.extend(runtime.block_on(unreachable));
            found.warnings = destinations::warnings(config, &modules);
        }
    }
    for (chain, check) in runtime.block_on(check_chains(config)) {
        found.problems.extend(problems(chain, &check));
        found.warnings.extend(lacking(chain, &check));
        found.endpoints.extend(endpoints(chain, &check));
    }
    Ok(found)
}

/// Asks the endpoints of all chains at once.
async fn check_chains(config: &Config) -> Vec<(&Chain, ChainCheck)> {
    let mut checks = JoinSet::new();
    let metrics = shepherd_rpc::Metrics::new(&mut Registry::default());
    for (index, chain) in config.chains.iter().enumerate() {
        let pool = pool(chain, &metrics);
        let config = chain.follow.clone();
        checks.spawn(async move { (index, check_chain(&pool, &config).await) });
    }
    let mut checked = checks.join_all().await;
    checked.sort_by_key(|(index, _)| *index);
    checked.into_iter().map(|(index, check)| (&config.chains[index], check)).collect()
}

/// The pool of a chain's endpoints.
pub fn pool(chain: &Chain, metrics: &shepherd_rpc::Metrics) -> Pool {
    let options = shepherd_rpc::Options { probe: true, ..shepherd_rpc::Options::default() };
    Pool::connect(chain.name.as_str(), chain.chain_id, chain.endpoints.clone(), options, metrics)
}

fn problems(chain: &Chain, check: &ChainCheck) -> Vec<Problem> {
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

/// What no endpoint of a chain is able to do although the configuration counts on it.
fn lacking(chain: &Chain, check: &ChainCheck) -> Vec<String> {
    let known: Vec<Capabilities> =
        check.endpoints.iter().filter_map(|endpoint| endpoint.capabilities).collect();
    let none = |able: fn(&Capabilities) -> bool| !known.is_empty() && !known.iter().any(able);
    let name = &chain.name;
    let mut warnings = Vec::new();
    if chain.follow.finality == Finality::Tag && none(|endpoint| endpoint.finalized_tag) {
        warnings.push(format!(
            "chain {name}: no endpoint knows the tag `finalized`, so no block is ever final: \
             set `finality` to a number of blocks"
        ));
    }
    if chain.follow.trust == Trust::Receipts && none(|endpoint| endpoint.block_receipts) {
        warnings.push(format!(
            "chain {name}: no endpoint has eth_getBlockReceipts, so trust = \"receipts\" takes \
             one call for each transaction"
        ));
    }
    warnings
}

fn endpoints(chain: &Chain, check: &ChainCheck) -> Vec<CheckedEndpoint> {
    let answered = check.endpoints.iter().filter(|endpoint| endpoint.result.is_ok());
    let checked = answered.map(|endpoint| CheckedEndpoint {
        chain: chain.name.to_string(),
        url: endpoint.endpoint.clone(),
        capabilities: endpoint.capabilities.map(capabilities),
    });
    checked.collect()
}

fn print_endpoints(endpoints: &[CheckedEndpoint]) {
    let yes_or_no = |able: bool| if able { "yes" } else { "no" };
    let mut rows =
        table(&["CHAIN", "ENDPOINT", "LOGS BY HASH", "FINALIZED", "RECEIPTS", "BATCH", "STATE"]);
    for CheckedEndpoint { chain, url, capabilities } in endpoints {
        match capabilities {
            None => rows.add_row([chain, url, "?", "?", "?", "?", "?"]),
            Some(able) => rows.add_row([
                chain,
                url,
                yes_or_no(able.logs_by_hash),
                yes_or_no(able.finalized_tag),
                yes_or_no(able.block_receipts),
                &able.batch_calls.to_string(),
                &able.archive,
            ]),
        };
    }
    print_table(&mut rows);
    print("\n");
}

#[cfg(test)]
mod tests {
    use shepherd_log::BlockRef;
    use shepherd_rpc::{ArchiveDepth, EndpointCheck, Sighting};

    use super::*;

    /// Warnings about a chain whose endpoints have these of `finalized` and receipts.
    fn warnings(lines: &str, endpoints: &[(bool, bool)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shepherd.toml");
        let text = format!(
            "data_dir = 'data'\n[chains.devnet]\nchain_id = 31337\nstart_block = 0\n\
             endpoints = ['http://a']\n{lines}\n"
        );
        std::fs::write(&file, text).unwrap();
        let config = config::load(&file).expect("it is right");
        let endpoint = |&(finalized_tag, block_receipts): &(bool, bool)| EndpointCheck {
            endpoint: "http://a".to_owned(),
            result: Ok(Sighting { chain_id: 31337, genesis: None }),
            capabilities: Some(Capabilities {
                logs_by_hash: true,
                finalized_tag,
                block_receipts,
                batch_calls: 100,
                archive_depth: ArchiveDepth::Full,
            }),
        };
        let sample = Ok(BlockRef { number: 1, hash: Default::default() });
        let endpoints = endpoints.iter().map(endpoint).collect();
        lacking(&config.chains[0], &ChainCheck { endpoints, sample })
    }

    #[test]
    fn what_no_endpoint_can_do_is_a_warning_only_where_it_is_counted_on() {
        for (lines, endpoints, expected) in [
            ("", &[(true, false)][..], None),
            ("", &[(false, false), (true, false)], None),
            ("", &[(false, false)], Some("`finalized`")),
            ("finality = 64", &[(false, false)], None),
            ("trust = 'receipts'", &[(true, false)], Some("eth_getBlockReceipts")),
            ("trust = 'receipts'", &[(true, true)], None),
            ("", &[], None),
        ] {
            let found = warnings(lines, endpoints);
            assert_eq!(found.len(), usize::from(expected.is_some()), "{lines} {endpoints:?}");
            assert!(expected.is_none_or(|part| found[0].contains(part)), "{found:?}");
        }
    }
}
