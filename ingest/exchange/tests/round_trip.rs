//! What is exported comes back as it was.

mod chains;

use std::{fs, path::Path};

use alloy_primitives::{Address, B256, Bytes};
use chains::*;
use serde_json::Value;
use shepherd_exchange::{
    Branches, ExportError, Imported, JournalImport, JsonExport, ParquetImport, export_json_lines,
    export_json_lines_to, export_parquet, import_journal, import_parquet,
};
use shepherd_log::{Block, BlockRef, Header, Journal, Log, LogFilter, Record, Revert};
use tempfile::tempdir;
use tokio_util::sync::CancellationToken;

/// Seeds of each run. Every one makes another chain.
const SEEDS: u64 = 4;

async fn import(folder: &Path, journal: &Journal) -> Imported {
    let import = ParquetImport { paths: vec![folder.to_owned()], checks: checks(), headers: None };
    import_parquet(journal, &import, &progress(), &CancellationToken::new()).await.unwrap()
}

#[tokio::test]
async fn a_chain_comes_back_from_parquet_as_it_was_whatever_reorgs_it_had() {
    let first = seed(1);
    for seed in first..first + SEEDS {
        let folder = tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let chain = forked(seed, seed * 7, 120);
        let from = journal_of(&path("from"), &chain.records);
        export(&from, &path("files"));
        let to = open(&path("to"));
        let imported = import(&path("files"), &to).await;
        assert_eq!(records(&to), as_records(&chain.canonical), "seed {seed}");
        assert_eq!(imported.blocks, chain.canonical.len() as u64);
        assert_eq!(imported.head, from.tail().head);
        // Again, there is nothing to do.
        let again = import(&path("files"), &to).await;
        assert_eq!((again.blocks, again.head), (0, from.tail().head));
    }
}

#[tokio::test]
async fn abandoned_blocks_are_exported_on_demand_and_passed_over_by_an_import() {
    let seed = seed(20);
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let chain = forked(seed, 3, 150);
    let from = journal_of(&path("from"), &chain.records);
    let export = parquet_export(&path("files"));
    let export = shepherd_exchange::ParquetExport { branches: Branches::All, ..export };
    let exported = export_parquet(&from, &export, &progress(), &CancellationToken::new()).unwrap();
    let head = from.tail().head.unwrap().number;
    let mut expected: Vec<BlockRef> = chain.records.iter().filter_map(this).collect();
    expected.retain(|block| block.number <= head);
    expected.sort();
    expected.dedup();
    assert_eq!(exported.blocks, expected.len() as u64, "each block once");
    assert!(exported.blocks > chain.canonical.len() as u64, "the seed has reorgs");
    let to = open(&path("to"));
    import(&path("files"), &to).await;
    assert_eq!(records(&to), as_records(&chain.canonical));
}

fn this(record: &Record) -> Option<BlockRef> {
    match record {
        Record::Block(block) => Some(block.header.this),
        _ => None,
    }
}

#[tokio::test]
async fn a_later_export_keeps_what_is_right_and_replaces_what_is_not() {
    let seed = seed(30);
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let blocks = straight(seed, 37);
    let from = journal_of(&path("from"), &as_records(&blocks[..25]));
    let run = || {
        let export = parquet_export(&path("files"));
        let done = export_parquet(&from, &export, &progress(), &CancellationToken::new()).unwrap();
        (done.files_kept, done.files_written)
    };
    assert_eq!(run(), (0, 6));
    assert_eq!(run(), (6, 0));
    append(&from, &as_records(&blocks[25..35]));
    assert_eq!(run(), (4, 4));
    let spans = |table: &str| -> Vec<String> {
        let prefix = format!("{CHAIN}__{table}__");
        let names = names(&path("files"));
        let spans = names.iter().filter_map(|name| name.strip_prefix(&*prefix));
        spans.map(|name| name.strip_suffix(".parquet").unwrap().to_owned()).collect()
    };
    let expected = [
        "00000000_to_00000009",
        "00000010_to_00000019",
        "00000020_to_00000029",
        "00000030_to_00000034",
    ];
    assert_eq!(
        (spans("blocks"), spans("logs")),
        (expected.map(str::to_owned).to_vec(), expected.map(str::to_owned).to_vec())
    );
    assert_eq!(names(&path("files")).len(), 8, "nothing else is left");

    // A reorg below the end of a file that was complete.
    let abandoned = blocks[28..35].iter().map(|block| block.header.this).collect();
    let ancestor = blocks[27].header.this;
    let mut branch = vec![blocks[27].clone()];
    for _ in 0..9 {
        branch.push(block_after(branch.last(), 0, Vec::new(), 1));
    }
    append(&from, &[Record::Revert(Revert { ancestor, abandoned })]);
    append(&from, &as_records(&branch[1..]));
    assert_eq!(run(), (4, 4));
    let to = open(&path("to"));
    import(&path("files"), &to).await;
    assert_eq!(records(&to), canonical(&from));
}

#[tokio::test]
async fn an_export_leaves_alone_what_is_not_its_own() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let from = journal_of(&path("from"), &as_records(&straight(seed(40), 20)));
    export(&from, &path("files"));
    let mut export = parquet_export(&path("files"));
    let run = |export: &_| export_parquet(&from, export, &progress(), &CancellationToken::new());
    export.branches = Branches::All;
    assert!(matches!(run(&export), Err(ExportError::OtherOptions { .. })));
    export.branches = Branches::Canonical;
    export.blocks_per_file = 7.try_into().unwrap();
    assert!(matches!(run(&export), Err(ExportError::OtherwiseCut { .. })));
    export.blocks_per_file = 10.try_into().unwrap();
    export.heights = 20..30;
    assert!(matches!(run(&export), Err(ExportError::Nothing { .. })));
    export.heights = 0..20;
    let foreign = path("files").join("testnet__logs__00000000_to_00000009.parquet");
    fs::write(&foreign, "someone's notes").unwrap();
    assert!(matches!(run(&export), Err(ExportError::Foreign { .. })));
    assert_eq!(fs::read_to_string(&foreign).unwrap(), "someone's notes");
}

#[tokio::test]
async fn what_is_stopped_leaves_nothing_half_done_and_goes_on_later() {
    let seed = seed(50);
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let chain = forked(seed, 0, 200);
    let from = journal_of(&path("from"), &chain.records);
    let stop = CancellationToken::new();
    stop.cancel();
    let files = parquet_export(&path("files"));
    let stopped = export_parquet(&from, &files, &progress(), &stop).unwrap();
    assert!(stopped.stopped);
    assert_eq!(names(&path("files")), Vec::<String>::new());

    export(&from, &path("files"));
    let to = open(&path("to"));
    let import = ParquetImport { paths: vec![path("files")], checks: checks(), headers: None };
    let (watched, stop) = (progress(), CancellationToken::new());
    let halfway = async {
        // As soon as anything is journaled, wherever that is.
        watched.subscribe().wait_for(|progress| progress.blocks > 0).await.unwrap();
        stop.cancel();
    };
    let (stopped, ()) = tokio::join!(import_parquet(&to, &import, &watched, &stop), halfway);
    let stopped = stopped.unwrap();
    assert!(stopped.stopped && stopped.blocks > 0);
    let first = records(&to);
    assert_eq!(first[..], as_records(&chain.canonical)[..first.len()]);
    let rest = import_parquet(&to, &import, &progress(), &CancellationToken::new()).await.unwrap();
    assert_eq!(stopped.blocks + rest.blocks, chain.canonical.len() as u64);
    assert_eq!(records(&to), as_records(&chain.canonical));
}

#[test]
fn another_journal_is_taken_as_its_chain_or_as_it_is() {
    let first = seed(60);
    for seed in first..first + SEEDS {
        let folder = tempdir().unwrap();
        let store = store(folder.path());
        let journal_with = |records: &[Record]| {
            let journal = another(&store);
            append(&journal, records);
            journal
        };
        let chain = forked(seed, seed, 120);
        let from = journal_with(&chain.records);
        let take = |to: &Journal, branches| {
            let import = JournalImport { checks: checks(), branches };
            import_journal(&from, to, &import, &progress(), &CancellationToken::new())
        };
        let to = journal_with(&[]);
        take(&to, Branches::Canonical).unwrap();
        assert_eq!(records(&to), as_records(&chain.canonical), "seed {seed}");
        let to = journal_with(&[]);
        let imported = take(&to, Branches::All).unwrap();
        assert_eq!(records(&to), chain.records, "seed {seed}");
        assert_eq!(imported.reverts, from.reverts().unwrap().len() as u64);

        // Both go on where an earlier import ended.
        let cut = chain.records.len() / 2;
        let to = journal_with(&chain.records[..cut]);
        take(&to, Branches::All).unwrap();
        assert_eq!(records(&to), chain.records, "seed {seed}");
        let to = journal_with(&as_records(&chain.canonical[..5]));
        let imported = take(&to, Branches::Canonical).unwrap();
        assert_eq!(imported.blocks, chain.canonical.len() as u64 - 5);
        assert_eq!(records(&to), as_records(&chain.canonical), "seed {seed}");
    }
}

fn json_lines(journal: &Journal, branches: Branches, filter: Option<LogFilter>) -> Vec<Value> {
    let export = JsonExport { heights: 0..u64::MAX, branches, filter };
    let mut text = Vec::new();
    let exported =
        export_json_lines(journal, &export, &mut text, &progress(), &CancellationToken::new())
            .unwrap();
    assert_eq!(exported.bytes, text.len() as u64);
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn parsed<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn parse_block_ref(value: &Value) -> BlockRef {
    BlockRef { number: parsed(&value["number"]), hash: parsed(&value["hash"]) }
}

fn parse_line(line: &Value) -> Record {
    match line["record"].as_str().unwrap() {
        "revert" => Record::Revert(Revert {
            ancestor: parse_block_ref(&line["ancestor"]),
            abandoned: line["abandoned"].as_array().unwrap().iter().map(parse_block_ref).collect(),
        }),
        "block" => Record::Block(Block {
            header: Header {
                this: parse_block_ref(line),
                parent: parsed(&line["parent"]),
                timestamp: parsed(&line["timestamp"]),
                rlp: parsed(&line["header_rlp"]),
            },
            logs: line["logs"].as_array().unwrap().iter().map(parse_log).collect(),
        }),
        other => panic!("a line with a {other}"),
    }
}

fn parse_log(log: &Value) -> Log {
    Log {
        address: parsed(&log["address"]),
        topics: parsed(&log["topics"]),
        data: parsed::<Bytes>(&log["data"]),
        index: parsed(&log["index"]),
        transaction_index: parsed(&log["transaction_index"]),
        transaction_hash: parsed(&log["transaction_hash"]),
    }
}

#[test]
fn json_lines_parse_back() {
    let first = seed(80);
    for seed in first..first + SEEDS {
        let folder = tempdir().unwrap();
        let chain = forked(seed, 5, 100);
        let journal = journal_of(folder.path(), &chain.records);
        let lines = json_lines(&journal, Branches::Canonical, None);
        let blocks: Vec<Record> = lines.iter().map(parse_line).collect();
        assert_eq!(blocks, as_records(&chain.canonical), "seed {seed}");
        let lines = json_lines(&journal, Branches::All, None);
        let all: Vec<Record> = lines.iter().map(parse_line).collect();
        assert_eq!(all, chain.records, "seed {seed}");
        for (offset, line) in lines.iter().enumerate() {
            assert_eq!(line["offset"], offset);
            let by = journal.abandoned_by(shepherd_log::Offset::new(offset as u64));
            assert_eq!(line["abandoned"] == true, by.is_some());
        }
    }
}

#[test]
fn a_file_of_json_lines_is_whole_or_not_there() {
    let folder = tempdir().unwrap();
    let journal = journal_of(&folder.path().join("store"), &as_records(&straight(seed(100), 20)));
    let export = JsonExport { heights: 5..15, branches: Branches::Canonical, filter: None };
    let lines = folder.path().join("lines");
    fs::create_dir(&lines).unwrap();
    let path = lines.join("testnet.jsonl");
    let stop = CancellationToken::new();
    stop.cancel();
    export_json_lines_to(&journal, &export, &path, &progress(), &stop).unwrap();
    assert_eq!(names(&lines), Vec::<String>::new());
    export_json_lines_to(&journal, &export, &path, &progress(), &CancellationToken::new()).unwrap();
    assert_eq!(names(&lines), ["testnet.jsonl"]);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 10);
}

#[tokio::test]
async fn a_filter_leaves_only_what_matches_and_what_it_leaves_is_not_imported() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let blocks = straight(seed(110), 40);
    let journal = journal_of(&path("store"), &as_records(&blocks));
    let filter = LogFilter {
        addresses: [Address::repeat_byte(2)].into(),
        topic0: [B256::with_last_byte(1), B256::with_last_byte(2)].into(),
    };
    let matches = |log: &&Log| {
        let topic0 = log.topics.first();
        log.address == Address::repeat_byte(2)
            && topic0.is_some_and(|topic| filter.topic0.contains(topic))
    };
    let expected: Vec<Log> =
        blocks.iter().flat_map(|block| block.logs.iter().filter(matches)).cloned().collect();
    assert!(!expected.is_empty(), "the seed has such logs");
    let lines = json_lines(&journal, Branches::Canonical, Some(filter.clone()));
    let logs: Vec<Log> =
        lines.iter().flat_map(|line| line["logs"].as_array().unwrap()).map(parse_log).collect();
    assert_eq!(logs, expected);

    let mut export = parquet_export(&path("files"));
    export.filter = Some(filter.clone());
    export_parquet(&journal, &export, &progress(), &CancellationToken::new()).unwrap();
    let import = ParquetImport { paths: vec![path("files")], checks: checks(), headers: None };
    let to = open(&path("to"));
    let refused = import_parquet(&to, &import, &progress(), &CancellationToken::new()).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("exported with a filter"), "{refused}");
    assert_eq!(records(&to), []);
}
