//! `shepherd record cut`: a stretch of a journal in one small file.

use std::path::Path;

use serde::Serialize;
use shepherd_log::LaneSnapshot;
use shepherd_replay::{
    recording::{Cut, CutError, CutOptions, Logs, Proof, cut_to},
    what_if::WhatIf,
};
use shepherd_rpc::in_words;

use crate::{
    cli,
    config::Config,
    exit::{Code, Failure, NO_ROOM_HELP, Problem},
    modules,
    replay::{
        past::Past,
        setting::{self, OnChain},
    },
    show::{count, print, print_json, size},
};

/// What was cut, as JSON.
#[derive(Serialize)]
struct CutView<'a> {
    file: &'a Path,
    records: u64,
    blocks: u64,
    logs: u64,
    answers: u64,
    outcomes_left_out: u64,
    bytes: u64,
}

/// Writes the recording.
pub fn cut(config: &Config, args: &cli::Cut) -> Result<(), Failure> {
    let history = cli::History {
        chain: args.chain.clone(),
        last: None,
        from: Some(args.from),
        to: args.to,
        warm_up: None,
        recording: None,
        tape_of: None,
    };
    let past = Past::open(Some(config), &history)?;
    let window = past.window(&history)?;
    let logs = logs(config, &past, args)?;
    let proof = if logs == Logs::All { Proof::Blooms } else { Proof::Hashes };
    let mut tapes: Vec<(_, LaneSnapshot)> = Vec::new();
    for lane in &args.lane {
        tapes.push((lane.module.clone(), past.lane(lane)?));
    }
    let options = CutOptions { logs, proof, tapes, what_if: WhatIf::default() };
    let cut = cut_to(&past.journal, window.from..window.end, &options, &args.output);
    let cut = cut.map_err(|error| problem(&error))?;
    match args.json {
        true => print_json(&view(args, &cut)),
        false => print(&text(args, &cut)),
    }
    Ok(())
}

/// Those that the module subscribes to, or all of them.
fn logs(config: &Config, past: &Past, args: &cli::Cut) -> Result<Logs, Problem> {
    let Some(module) = &args.module else { return Ok(Logs::All) };
    let chain = OnChain { name: past.chain(), id: past.journal.chain_id() };
    let setting = cli::Setting { set: Vec::new(), overrides: None };
    let module = setting::load(module, &setting, &chain, Some(config), &modules::engine()?)?;
    Ok(Logs::Matching(module.bound.subscription().logs.clone()))
}

fn view<'a>(args: &'a cli::Cut, cut: &Cut) -> CutView<'a> {
    let Cut { records, blocks, logs, answers, outcomes_left_out, bytes } = *cut;
    CutView { file: &args.output, records, blocks, logs, answers, outcomes_left_out, bytes }
}

fn text(args: &cli::Cut, cut: &Cut) -> String {
    let Cut { records, blocks, logs, answers, outcomes_left_out, bytes } = *cut;
    let mut text = format!(
        "{}: {} ({}, {}), {}, {}\n",
        args.output.display(),
        count(records, "record"),
        count(blocks, "block"),
        count(logs, "log"),
        count(answers, "answer"),
        size(bytes),
    );
    if outcomes_left_out > 0 {
        let left_out = count(outcomes_left_out, "outcome");
        text += &format!("  {left_out} of effects from before its first block are left out\n");
    }
    text
}

fn problem(error: &CutError) -> Problem {
    let problem = |code| Problem::new(code, in_words(error));
    match error {
        CutError::Write(_) | CutError::File { .. } => problem(Code::WriteFailed).help(NO_ROOM_HELP),
        _ => problem(Code::Failed),
    }
}
