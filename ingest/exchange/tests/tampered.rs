//! Files that someone changed are refused by name, and nothing wrong is journaled.

mod chains;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{
    Array, ArrayRef, BinaryArray, RecordBatch, UInt32Array, UInt64Array, cast::AsArray,
};
use arrow_schema::{Field, Schema};
use chains::*;
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shepherd_exchange::{
    Branches, ImportError, JournalImport, ParquetImport, import_journal, import_parquet,
};
use shepherd_ingest::{Checks, Trust};
use shepherd_log::{Block, Journal, Record, Store};
use tempfile::{TempDir, tempdir};
use tokio_util::sync::CancellationToken;

const LOGS: &str = "testnet__logs__00000010_to_00000019.parquet";
const BLOCKS: &str = "testnet__blocks__00000010_to_00000019.parquet";

/// Files with one byte changed that are imported.
const DAMAGES: usize = 60;

/// An export of thirty blocks in three pairs of files, of which the tests change the second.
struct Tampered {
    blocks: Vec<Block>,
    /// Where the imports go, each into a journal of its own.
    store: Store,
    /// Last, so that it outlives the store.
    folder: TempDir,
}

impl Tampered {
    fn export() -> Tampered {
        let folder = tempdir().unwrap();
        let blocks = straight(7, 30);
        let store = store(&folder.path().join("store"));
        let journal = store.journal(&CHAIN.parse().unwrap(), CHAIN_ID).unwrap();
        append(&journal, &as_records(&blocks));
        export(&journal, &folder.path().join("files"));
        Tampered { blocks, store, folder }
    }

    /// The same files once more, to be changed in another way.
    fn copy(&self) -> Tampered {
        let store = self.store.clone();
        let copy = Tampered { blocks: self.blocks.clone(), store, folder: tempdir().unwrap() };
        fs::create_dir(copy.files()).unwrap();
        for name in names(&self.files()) {
            fs::copy(self.files().join(&name), copy.files().join(&name)).unwrap();
        }
        copy
    }

    fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// Writes one file again with other rows.
    fn change(&self, name: &str, change: impl FnOnce(Vec<RecordBatch>) -> Vec<RecordBatch>) {
        let path = self.files().join(name);
        let file = File::open(&path).unwrap();
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let metadata = builder.metadata().file_metadata().key_value_metadata().cloned();
        let before = builder.build().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        let after = change(before);
        let mut writer =
            ArrowWriter::try_new(File::create(&path).unwrap(), after[0].schema(), None).unwrap();
        for entry in metadata.into_iter().flatten() {
            if entry.key != "ARROW:schema" {
                writer.append_key_value_metadata(entry);
            }
        }
        for batch in after {
            writer.write(&batch).unwrap();
        }
        writer.close().unwrap();
    }

    async fn import(&self, to: &Journal, checks: Checks) -> Result<(), String> {
        let import = ParquetImport { paths: vec![self.files()], checks, headers: None };
        match import_parquet(to, &import, &progress(), &CancellationToken::new()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The import fails for this reason; what is journaled is a true beginning of the chain, up to
    /// `journaled` blocks.
    async fn is_refused(&self, reason: &[&str], journaled: usize) {
        let to = another(&self.store);
        let refused = self.import(&to, checks()).await.unwrap_err();
        for part in reason {
            assert!(refused.contains(part), "{refused:?} does not name {part:?}");
        }
        let found = records(&to);
        assert_eq!(found.len(), journaled, "{refused}");
        assert!(found == as_records(&self.blocks[..journaled]), "{refused}");
    }
}

/// Rows of a table in one batch, which all are here.
fn one(batches: Vec<RecordBatch>) -> RecordBatch {
    let [batch] = &batches[..] else { panic!("a small file is read in one batch") };
    batch.clone()
}

/// The rows before one, and those from it on.
fn split(batch: &RecordBatch, row: usize) -> [RecordBatch; 2] {
    [batch.slice(0, row), batch.slice(row, batch.num_rows() - row)]
}

fn without(batch: &RecordBatch, row: usize) -> Vec<RecordBatch> {
    vec![batch.slice(0, row), batch.slice(row + 1, batch.num_rows() - row - 1)]
}

fn twice(batch: &RecordBatch, row: usize) -> Vec<RecordBatch> {
    let [before, from] = split(batch, row);
    vec![before, batch.slice(row, 1), from]
}

fn with_column(batch: &RecordBatch, name: &str, column: ArrayRef) -> Vec<RecordBatch> {
    let (schema, mut columns, _) = batch.clone().into_parts();
    columns[schema.index_of(name).unwrap()] = column.clone();
    let fields = schema.fields().iter().map(|field| match field.name() == name {
        true => Field::new(name, column.data_type().clone(), true),
        false => field.as_ref().clone(),
    });
    let schema = Schema::new(fields.collect::<Vec<_>>());
    vec![RecordBatch::try_new(Arc::new(schema), columns).unwrap()]
}

/// One value of a binary column replaced.
fn with_bytes(
    batch: &RecordBatch,
    name: &str,
    row: usize,
    value: Option<&[u8]>,
) -> Vec<RecordBatch> {
    let column = batch.column_by_name(name).unwrap().as_binary::<i32>().clone();
    let values = (0..column.len()).map(|at| match at == row {
        true => value,
        false => column.is_valid(at).then(|| column.value(at)),
    });
    with_column(batch, name, Arc::new(values.collect::<BinaryArray>()))
}

/// The first row of the logs table about a block.
fn first_row(batch: &RecordBatch, number: u32) -> usize {
    let numbers = batch.column_by_name("block_number").unwrap();
    let numbers = numbers.as_primitive::<arrow_array::types::UInt32Type>();
    numbers.values().iter().position(|found| *found == number).unwrap()
}

/// A name for a change, and what it does to a batch.
type Change = fn(&RecordBatch) -> Vec<RecordBatch>;

#[tokio::test]
async fn logs_that_were_changed_are_refused_with_their_block_and_file() {
    let cases: [(&str, Change, &[&str]); 12] = [
        ("removed", |all| without(all, first_row(all, 15)), &["log index 1 comes where 0 belongs"]),
        ("last one removed", |all| without(all, first_row(all, 16) - 1), &["bloom"]),
        ("duplicated", |all| twice(all, first_row(all, 15)), &["log index 0 comes after 0"]),
        (
            "swapped",
            |all| {
                let row = first_row(all, 15);
                vec![
                    all.slice(0, row),
                    all.slice(row + 1, 1),
                    all.slice(row, 1),
                    all.slice(row + 2, all.num_rows() - row - 2),
                ]
            },
            &["log index 1 comes where 0 belongs"],
        ),
        (
            "of another contract",
            |all| with_bytes(all, "address", first_row(all, 15), Some(&[9; 20])),
            &["bloom"],
        ),
        (
            "with another topic",
            |all| with_bytes(all, "topic0", first_row(all, 15), Some(&[9; 32])),
            &["bloom"],
        ),
        (
            "with other data",
            |all| with_bytes(all, "data", first_row(all, 15), Some(b"other")),
            &["the logs of block 15", "are not those that were exported"],
        ),
        (
            "of another block",
            |all| with_bytes(all, "block_hash", first_row(all, 15), Some(&[9; 32])),
            &["a log belongs to block 15 (0x0909"],
        ),
        (
            "an address that is too short",
            |all| with_bytes(all, "address", first_row(all, 15), Some(&[9; 19])),
            &["row ", "`address` has 19 bytes"],
        ),
        (
            "without data",
            |all| with_bytes(all, "data", first_row(all, 15), None),
            &["row ", "`data` has no value"],
        ),
        (
            "of another chain",
            |all| {
                let ids = vec![5; all.num_rows()];
                with_column(all, "chain_id", Arc::new(UInt64Array::from(ids)))
            },
            &["row 1 of ", "is of chain 5, the journal is of chain 31337"],
        ),
        (
            "of a block the file is not about",
            |all| {
                let numbers = vec![99; all.num_rows()];
                with_column(all, "block_number", Arc::new(UInt32Array::from(numbers)))
            },
            &["row 1 of ", "is about block 99"],
        ),
    ];
    let exported = Tampered::export();
    for (name, change, reason) in cases {
        println!("a log {name}");
        let tampered = exported.copy();
        tampered.change(LOGS, |all| change(&one(all)));
        // A row that cannot be read could be one more of the block before.
        let journaled = match reason[0] {
            "row 1 of " => 10,
            "row " => 14,
            _ => 15,
        };
        tampered.is_refused(&[&[LOGS], reason].concat(), journaled).await;
    }
}

#[tokio::test]
async fn blocks_that_were_changed_are_refused_with_their_file() {
    let cases: [(&str, Change, &[&str], usize); 9] = [
        ("missing", |all| without(all, 5), &["has no row about block 15"], 15),
        ("missing at the end", |all| without(all, 9), &["has no row about block 19"], 19),
        ("there twice", |all| twice(all, 5), &["row 7 of ", "block 15 like the one before"], 16),
        ("there twice at the end", |all| twice(all, 9), &["row 11 of ", "block 19 like"], 20),
        (
            "out of order",
            |all| vec![all.slice(0, 5), all.slice(6, 1), all.slice(5, 1), all.slice(7, 3)],
            &["has no row about block 15"],
            15,
        ),
        (
            "with another hash",
            |all| with_bytes(all, "block_hash", 5, Some(&[9; 32])),
            &["block 15 (0x0909", "a log belongs to block 15"],
            15,
        ),
        (
            "with another parent",
            |all| with_bytes(all, "parent_hash", 5, Some(&[9; 32])),
            &["the journal's head is 14", "two branches"],
            15,
        ),
        (
            "with another time",
            |all| {
                let times = vec![1_800_000_000; all.num_rows()];
                with_column(all, "timestamp", Arc::new(UInt32Array::from(times)))
            },
            &["another number, parent or time than its header has"],
            10,
        ),
        (
            "with another header",
            |all| {
                let headers = all.column_by_name("header_rlp").unwrap().as_binary::<i32>();
                let other = headers.value(6).to_vec();
                with_bytes(all, "header_rlp", 5, Some(&other))
            },
            &["the header claims hash"],
            15,
        ),
    ];
    let exported = Tampered::export();
    for (name, change, reason, journaled) in cases {
        println!("a block {name}");
        let tampered = exported.copy();
        tampered.change(BLOCKS, |all| change(&one(all)));
        let file = match reason[0].contains("row") {
            true => BLOCKS,
            false => LOGS,
        };
        tampered.is_refused(&[&[file], reason].concat(), journaled).await;
    }
}

#[tokio::test]
async fn files_that_are_missing_doubled_or_damaged_are_named() {
    let exported = Tampered::export();
    let check = async |change: &dyn Fn(&Path), reason: &[&str], journaled| {
        let tampered = exported.copy();
        change(&tampered.files());
        tampered.is_refused(reason, journaled).await;
    };
    let remove =
        |name: &'static str| move |files: &Path| fs::remove_file(files.join(name)).unwrap();
    check(&remove(LOGS), &["no file has the logs of blocks 10 to 19"], 0).await;
    check(&remove(BLOCKS), &["no file has the blocks of blocks 10 to 19"], 0).await;
    let copy = |to: &'static str| {
        move |files: &Path| {
            fs::create_dir(files.join("copies")).unwrap();
            fs::copy(files.join(LOGS), files.join("copies").join(to)).unwrap();
        }
    };
    check(&copy(LOGS), &[LOGS, "copies", "both about block 10"], 0).await;
    let label = "testnet__logs__mine__00000015_to_00000019.parquet";
    check(&copy(label), &[LOGS, label, "both about block 15"], 0).await;
    let other = "mainnet__logs__00000015_to_00000019.parquet";
    check(&copy(other), &["several networks, mainnet, testnet"], 0).await;
    let cut = |files: &Path| {
        let length = fs::metadata(files.join(LOGS)).unwrap().len();
        let file = File::options().write(true).open(files.join(LOGS)).unwrap();
        file.set_len(length / 2).unwrap();
    };
    check(&cut, &[LOGS, "cannot be read as Parquet"], 10).await;
    let swap = |files: &Path| {
        let first = "testnet__logs__00000000_to_00000009.parquet";
        fs::copy(files.join(first), files.join(LOGS)).unwrap();
    };
    check(&swap, &["row 1 of ", LOGS, "is about block 0"], 10).await;
}

#[tokio::test]
async fn whatever_byte_is_damaged_nothing_wrong_is_journaled() {
    let mut rng = StdRng::seed_from_u64(seed(1));
    let exported = Tampered::export();
    let files = names(&exported.files());
    let mut noticed = 0;
    for _ in 0..DAMAGES {
        let tampered = exported.copy();
        let path = tampered.files().join(&files[rng.random_range(0..files.len())]);
        let mut bytes = fs::read(&path).unwrap();
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= rng.random_range(1..=u8::MAX);
        fs::write(&path, bytes).unwrap();
        let to = another(&tampered.store);
        let outcome = tampered.import(&to, checks()).await;
        let found = records(&to);
        let what = format!("byte {at} of {}: {outcome:?}", path.display());
        assert!(found == as_records(&exported.blocks[..found.len()]), "{what}");
        assert!(outcome.is_err() || found.len() == exported.blocks.len(), "{what}");
        noticed += usize::from(outcome.is_err());
    }
    // Some bytes say nothing: statistics, padding, who wrote the file.
    assert!(noticed > DAMAGES / 2, "{noticed} of {DAMAGES} were noticed");
}

#[tokio::test]
async fn a_missing_column_is_named() {
    let tampered = Tampered::export();
    tampered.change(LOGS, |all| {
        let all = one(all);
        let keep: Vec<usize> =
            (0..all.num_columns()).filter(|at| all.schema().field(*at).name() != "data").collect();
        vec![all.project(&keep).unwrap()]
    });
    tampered.is_refused(&[LOGS, "no column `data`"], 10).await;
}

#[tokio::test]
async fn trust_receipts_is_refused_with_what_to_do() {
    let tampered = Tampered::export();
    let to = another(&tampered.store);
    let strict = Checks { trust: Trust::Receipts, ..Checks::default() };
    let refused = tampered.import(&to, strict).await.unwrap_err();
    assert!(refused.contains("import with `bloom`"), "{refused}");
    assert_eq!(records(&to), []);
}

#[tokio::test]
async fn an_import_goes_on_only_where_the_journal_ends() {
    let tampered = Tampered::export();
    let files = tampered.files();
    fs::remove_file(files.join("testnet__logs__00000000_to_00000009.parquet")).unwrap();
    fs::remove_file(files.join("testnet__blocks__00000000_to_00000009.parquet")).unwrap();
    let journal_with = |blocks: &[Block]| {
        let journal = another(&tampered.store);
        append(&journal, &as_records(blocks));
        journal
    };
    // After a gap, after the right block, after another branch's.
    let gap = journal_with(&tampered.blocks[..8]);
    let refused = tampered.import(&gap, checks()).await.unwrap_err();
    assert!(refused.contains("blocks 8 to 9 are missing"), "{refused}");
    let right = journal_with(&tampered.blocks[..14]);
    tampered.import(&right, checks()).await.unwrap();
    assert_eq!(records(&right), as_records(&tampered.blocks));
    let mut branch = tampered.blocks[..9].to_vec();
    branch.push(block_after(branch.last(), 0, Vec::new(), 5));
    let other = journal_with(&branch);
    let refused = tampered.import(&other, checks()).await.unwrap_err();
    assert!(refused.contains("two branches or two chains"), "{refused}");
    assert_eq!(records(&other), as_records(&branch));
}

#[test]
fn another_journal_with_a_block_that_does_not_hold_up_is_refused() {
    let folder = tempdir().unwrap();
    let blocks = straight(3, 20);
    // A journal takes what it is given, as long as it links.
    let mut spoilt = blocks.clone();
    spoilt[12].logs.pop();
    let store = store(folder.path());
    let from = another(&store);
    append(&from, &as_records(&spoilt));
    for branches in [Branches::Canonical, Branches::All] {
        let to = another(&store);
        let import = JournalImport { checks: checks(), branches };
        let refused = import_journal(&from, &to, &import, &progress(), &CancellationToken::new());
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("record 12 of the other journal"), "{refused}");
        assert_eq!(records(&to), as_records(&blocks[..12]));
    }
}

#[test]
fn another_journal_of_another_branch_is_refused() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let blocks = straight(3, 20);
    let from = journal_of(&path("from"), &as_records(&blocks));
    let mut branch = blocks[..9].to_vec();
    branch.push(block_after(branch.last(), 0, Vec::new(), 5));
    let to = journal_of(&path("to"), &as_records(&branch));
    let take = |branches| {
        let import = JournalImport { checks: checks(), branches };
        import_journal(&from, &to, &import, &progress(), &CancellationToken::new())
    };
    let head = branch[9].header.this;
    let refused = take(Branches::Canonical);
    assert!(matches!(refused, Err(ImportError::Diverges { head: named }) if named == head));
    let refused = take(Branches::All);
    assert!(matches!(refused, Err(ImportError::NotItsBeginning { offset }) if offset.get() == 9));
    assert_eq!(records(&to), branch.into_iter().map(Record::Block).collect::<Vec<_>>());
}
