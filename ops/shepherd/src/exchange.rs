//! `shepherd journal export` and `journal import`: out to files, and in again, verified.

use std::{
    io::{BufWriter, ErrorKind, IsTerminal, stdout},
    path::{Path, PathBuf},
};

use prometheus_client::registry::Registry;
use serde::Serialize;
use shepherd_admin::{
    find::{Stretch, heights},
    view::BlockRefView,
};
use shepherd_exchange::{
    BLOCKS_PER_FILE, Branches, ExportError, Exported, ImportError, Imported, JournalImport,
    JsonExport, ParquetExport, ParquetImport, Progress, export_json_lines, export_json_lines_to,
    export_parquet, import_journal, import_parquet,
};
use shepherd_ingest::Checks;
use shepherd_log::{Journal, LogFilter, Options, Store};
use shepherd_rpc::in_words;
use tokio::{sync::watch, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{
    check::pool,
    cli::{self, Format},
    config::{Chain, Config},
    exit::{self, Code, Failure, Problem},
    find::bound,
    history::{configured, journal, runtime},
    progress,
    show::{count, print, print_json_line, size},
    signals,
    view::{existing_journal, open_existing, open_in, open_store, the_chain, unanswered},
};

/// What an export came to, as the last JSON line.
#[derive(Serialize)]
struct ExportView {
    chain: String,
    /// The first and the last block.
    blocks_from: u64,
    blocks_to: u64,
    /// What this run looked at; all of it was written unless logs were chosen.
    blocks: u64,
    logs: u64,
    bytes: u64,
    files_written: u64,
    files_kept: u64,
    complete: bool,
}

/// Writes a stretch of a chain's journal into files.
pub fn export(config: &Config, args: &cli::Export) -> Result<(), Failure> {
    let chain = the_chain(config, args.chain.as_ref())?;
    let store = open_existing(config)?;
    let journal = existing_journal(&store, &chain)?;
    let stretch = Stretch { from: args.from.map(bound), to: args.to.map(bound), abandoned: false };
    let heights = heights(&journal, stretch).map_err(unanswered)?;
    let branches = branches(args.abandoned);
    let filter = Some(args.logs.filter()).filter(|filter| *filter != LogFilter::default());
    let to_stdout = args.format == Format::Jsonl && args.out == Path::new("-");
    let work = {
        let (journal, out, format) = (journal.clone(), args.out.clone(), args.format);
        move |progress: &watch::Sender<Progress>, stop: &CancellationToken| match format {
            Format::Parquet => {
                let blocks_per_file = BLOCKS_PER_FILE;
                let export =
                    ParquetExport { heights, folder: out, blocks_per_file, branches, filter };
                export_parquet(&journal, &export, progress, stop)
            }
            Format::Jsonl => {
                let export = JsonExport { heights, branches, filter };
                if !to_stdout {
                    return export_json_lines_to(&journal, &export, &out, progress, stop);
                }
                let mut out = BufWriter::new(stdout().lock());
                export_json_lines(&journal, &export, &mut out, progress, stop)
            }
        }
    };
    let exported = if to_stdout {
        runtime()?.block_on(async {
            let stop = CancellationToken::new();
            signals::cancel_on_signal(&stop)?;
            let sender = watch::Sender::new(Progress::default());
            Ok::<_, Problem>(finished(spawn_blocking(move || work(&sender, &stop)).await))
        })?
    } else {
        run(chain.as_str(), work)?
    };
    if let (true, Err(ExportError::Lines(error))) = (to_stdout, &exported)
        && error.kind() == ErrorKind::BrokenPipe
    {
        // The reader has seen enough (`… | head`): nobody is left to tell.
        return Ok(());
    }
    let exported = exported.map_err(|error| export_problem(&error))?;
    if !to_stdout {
        print_exported(chain.as_str(), args, &exported);
    }
    match exported.stopped {
        true => Err(signals::stopped(&again("export", args.format == Format::Jsonl)).into()),
        false => Ok(()),
    }
}

fn again(what: &str, from_the_start: bool) -> String {
    let how = if from_the_start { "begins anew" } else { "goes on" };
    format!("the same {what} {how}")
}

fn print_exported(chain: &str, args: &cli::Export, exported: &Exported) {
    let Exported { heights, blocks, logs, bytes, files_written, files_kept, stopped } = exported;
    let view = ExportView {
        chain: chain.to_owned(),
        blocks_from: heights.start,
        blocks_to: heights.end.saturating_sub(1),
        blocks: *blocks,
        logs: *logs,
        bytes: *bytes,
        files_written: *files_written,
        files_kept: *files_kept,
        complete: !stopped,
    };
    if !stdout().is_terminal() {
        return print_json_line(&view);
    }
    let kept = match files_kept {
        0 => String::new(),
        kept => format!(", {} were there already", count(*kept, "file")),
    };
    // With a filter not all of them are written.
    let filtered = args.logs.filter() != LogFilter::default();
    let looked_at = if filtered { " looked at" } else { "" };
    print(&format!(
        "{chain}: blocks {} to {} in {}: {}, {}{looked_at}, {} in {}{kept}\n",
        view.blocks_from,
        view.blocks_to,
        args.out.display(),
        count(*blocks, "block"),
        count(*logs, "log"),
        size(*bytes),
        count(*files_written, "file"),
    ));
}

/// What an import came to, as the last JSON line.
#[derive(Serialize)]
struct ImportView {
    chain: String,
    /// What this run journaled.
    blocks: u64,
    logs: u64,
    reverts: u64,
    /// Where the journal ends now.
    head: Option<BlockRefView>,
    complete: bool,
}

/// Appends the blocks of files, or of another data directory, to a chain's journal.
pub fn import(config: &Config, args: &cli::Import) -> Result<(), Failure> {
    let name = the_chain(config, args.chain.as_ref())?;
    let chain = configured(config, &name)?;
    let trust = args.trust.unwrap_or(chain.follow.trust);
    let checks = Checks { trust, ..chain.follow.checks() };
    let store = open_store(config, shepherd_log::Metrics::unregistered())?;
    let to = journal(&store, chain)?;
    let imported = match &args.paths[..] {
        [data_dir] if data_dir.join("store").exists() => {
            let import = JournalImport { checks, branches: branches(args.abandoned) };
            let (_store, from) = other_journal(data_dir, chain)?;
            run(name.as_str(), move |progress, stop| {
                import_journal(&from, &to, &import, progress, stop)
            })?
        }
        _ if args.abandoned => {
            let message = "--abandoned is for another data directory: files have no reorgs";
            return Err(Problem::new(Code::Failed, message).into());
        }
        paths => {
            let paths = paths.to_vec();
            from_files(chain, &to, paths, checks, args.offline)?
        }
    };
    let Imported { blocks, logs, reverts, head, stopped } =
        imported.map_err(|error| import_problem(&error))?;
    let view = ImportView {
        chain: name.to_string(),
        blocks,
        logs,
        reverts,
        head: head.map(BlockRefView::from),
        complete: !stopped,
    };
    if stdout().is_terminal() {
        let ends = view.head.as_ref().map_or("is empty".to_owned(), |head| {
            format!("ends with block {}, {}", head.number, head.hash)
        });
        let (blocks, logs) = (count(blocks, "block"), count(logs, "log"));
        print(&format!("{name}: {blocks}, {logs} imported; the journal {ends}\n"));
    } else {
        print_json_line(&view);
    }
    match stopped {
        true => Err(signals::stopped(&again("import", false)).into()),
        false => Ok(()),
    }
}

fn from_files(
    chain: &Chain,
    to: &Journal,
    paths: Vec<PathBuf>,
    checks: Checks,
    offline: bool,
) -> Result<Result<Imported, ImportError>, Problem> {
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        signals::cancel_on_signal(&stop)?;
        // Asked only for headers that the files do not have.
        let metrics = shepherd_rpc::Metrics::new(&mut Registry::default());
        let headers = (!offline).then(|| pool(chain, &metrics));
        let import = ParquetImport { paths, checks, headers };
        let sender = watch::Sender::new(Progress::default());
        let progress = sender.subscribe();
        let importing = import_parquet(to, &import, &sender, &stop);
        Ok(progress::show(chain.name.as_str(), progress, importing).await)
    })
}

/// The journal of the same chain in another data directory.
fn other_journal(data_dir: &Path, chain: &Chain) -> Result<(Store, Journal), Problem> {
    let options = Options {
        reorg_depth_max: chain.follow.reorg_depth_max,
        on_write_failure: exit::on_write_failure,
        ..Options::default()
    };
    let store = open_in(data_dir, options)?;
    let journal = existing_journal(&store, &chain.name)?;
    Ok((store, journal))
}

fn branches(abandoned: bool) -> Branches {
    if abandoned { Branches::All } else { Branches::Canonical }
}

/// Runs work that blocks, with its progress shown and signals heard.
fn run<T: Send + 'static, E: Send + 'static>(
    chain: &str,
    work: impl FnOnce(&watch::Sender<Progress>, &CancellationToken) -> Result<T, E> + Send + 'static,
) -> Result<Result<T, E>, Problem> {
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        signals::cancel_on_signal(&stop)?;
        let sender = watch::Sender::new(Progress::default());
        let progress = sender.subscribe();
        let working = spawn_blocking(move || work(&sender, &stop));
        Ok(finished(progress::show(chain, progress, working).await))
    })
}

fn finished<T>(joined: Result<T, tokio::task::JoinError>) -> T {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn export_problem(error: &ExportError) -> Problem {
    let code = match error {
        ExportError::Stretch(_) => Code::Untrusted,
        _ => Code::Failed,
    };
    Problem::new(code, in_words(error))
}

fn import_problem(error: &ImportError) -> Problem {
    let code = match error {
        ImportError::Fetch(_) | ImportError::NoHeader { .. } => Code::Endpoint,
        _ => Code::Failed,
    };
    Problem::new(code, in_words(error))
}
