//! Reading the rows of a table, file after file, in memory that does not grow with them.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use alloy_primitives::{Address, B256, Bytes};
use arrow_array::{Array, BooleanArray, RecordBatch};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
        },
    },
    errors::ParquetError,
};
use shepherd_log::{Digest, Log};

use crate::{
    column::{Binary, Numbers, ValueProblem, flags},
    files::TableFile,
    table_file::Description,
};

/// Rows decoded at once.
const BATCH_ROWS: usize = 2048;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The file cannot be opened.
    #[error("cannot read {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is damaged, or no Parquet file.
    #[error("{path} cannot be read as Parquet")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// How.
        source: ParquetError,
    },
    /// It is damaged in a way that the Parquet reader did not expect.
    #[error("{path} cannot be read as Parquet: the reader gave up, the file is damaged")]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// A column is missing, or not of a type that it can have.
    #[error("{path} has no column `{column}` of a type we know: export it again with that column")]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
    },
    /// It holds only some of the logs.
    #[error("{path} was exported with a filter: a journal has all logs of a block, or none of it")]
    Filtered {
        /// The file.
        path: PathBuf,
    },
    /// A value that its column cannot have.
    #[error("row {row} of {path}: `{column}` {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: u64,
        /// The column.
        column: &'static str,
        /// What is wrong.
        problem: ValueProblem,
    },
    /// A row of another chain.
    #[error("row {row} of {path} is of chain {found}, the journal is of chain {expected}")]
    Chain {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: u64,
        /// The row's chain id.
        found: u64,
        /// The journal's.
        expected: u64,
    },
    /// A row about a block that the file is not about by its name.
    #[error("row {row} of {path} is about block {number}, which the file's name does not include")]
    Outside {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: u64,
        /// The block.
        number: u64,
    },
    /// Rows that are not sorted.
    #[error(
        "row {row} of {path} is about block {number}, the one before it about {previous}: sort the file by block_number and log_index"
    )]
    Order {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: u64,
        /// The block.
        number: u64,
        /// The block of the row before.
        previous: u64,
    },
    /// Two rows about one block.
    #[error("row {row} of {path} is about block {number} like the one before it")]
    Twice {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: u64,
        /// The block.
        number: u64,
    },
    /// No row about a block.
    #[error("{path} has no row about block {number}")]
    MissingBlock {
        /// The file.
        path: PathBuf,
        /// The block.
        number: u64,
    },
    /// A topic after one that is missing.
    #[error("row {row} of {path} has a topic after one that is missing")]
    Topics {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: u64,
    },
}

/// What a row of the blocks table says. What its file has no column for is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockRow {
    pub number: u64,
    pub hash: Option<B256>,
    pub parent: Option<B256>,
    pub timestamp: Option<u64>,
    pub rlp: Option<Bytes>,
    pub logs_digest: Option<Digest>,
}

/// What a row of the logs table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogRow {
    pub number: u64,
    /// `None` when the file has no column for it.
    pub block_hash: Option<B256>,
    pub log: Log,
}

/// A kind of row, and the columns it is read from.
pub(crate) trait Row: Sized {
    /// The columns of some rows.
    type Columns;

    /// Whether there is one row a block.
    const ONE_A_BLOCK: bool;

    /// All columns that are read when they are there.
    const NAMES: &'static [&'static str];

    /// Finds the columns; the name of one that is missing.
    fn columns(batch: &RecordBatch) -> Result<Self::Columns, &'static str>;

    fn read(columns: &Self::Columns, row: usize) -> Result<Self, RowProblem>;
}

/// What is wrong with a row.
pub(crate) enum RowProblem {
    Value(&'static str, ValueProblem),
    Topics,
}

/// Columns that both tables have.
struct Common {
    number: Numbers,
    chain_id: Option<Numbers>,
    abandoned: Option<BooleanArray>,
}

impl Common {
    fn of(batch: &RecordBatch) -> Result<Common, &'static str> {
        Ok(Common {
            number: required(batch, "block_number", Numbers::of)?,
            chain_id: optional(batch, "chain_id", Numbers::of)?,
            abandoned: optional(batch, "abandoned", flags)?,
        })
    }
}

fn required<T>(
    batch: &RecordBatch,
    name: &'static str,
    of: impl Fn(&dyn Array) -> Option<T>,
) -> Result<T, &'static str> {
    optional(batch, name, of)?.ok_or(name)
}

fn optional<T>(
    batch: &RecordBatch,
    name: &'static str,
    of: impl Fn(&dyn Array) -> Option<T>,
) -> Result<Option<T>, &'static str> {
    let Some(array) = batch.column_by_name(name) else { return Ok(None) };
    of(array).map(Some).ok_or(name)
}

pub(crate) struct BlockColumns {
    number: Numbers,
    hash: Option<Binary>,
    parent: Option<Binary>,
    timestamp: Option<Numbers>,
    rlp: Option<Binary>,
    logs_digest: Option<Binary>,
}

impl Row for BlockRow {
    type Columns = BlockColumns;

    const ONE_A_BLOCK: bool = true;

    const NAMES: &'static [&'static str] = &[
        "block_number",
        "block_hash",
        "parent_hash",
        "timestamp",
        "header_rlp",
        "logs_digest",
        "chain_id",
        "abandoned",
    ];

    fn columns(batch: &RecordBatch) -> Result<BlockColumns, &'static str> {
        Ok(BlockColumns {
            number: required(batch, "block_number", Numbers::of)?,
            hash: optional(batch, "block_hash", Binary::of)?,
            parent: optional(batch, "parent_hash", Binary::of)?,
            timestamp: optional(batch, "timestamp", Numbers::of)?,
            rlp: optional(batch, "header_rlp", Binary::of)?,
            logs_digest: optional(batch, "logs_digest", Binary::of)?,
        })
    }

    fn read(columns: &BlockColumns, row: usize) -> Result<BlockRow, RowProblem> {
        let hash = |column: &Option<Binary>, name| {
            let value = column.as_ref().map(|column| column.get_fixed(row)).transpose();
            value
                .map(|hash| hash.map(B256::new))
                .map_err(|problem| RowProblem::Value(name, problem))
        };
        let timestamp = columns.timestamp.as_ref().map(|column| column.get(row)).transpose();
        let rlp = columns.rlp.as_ref().map(|column| column.get(row)).transpose();
        Ok(BlockRow {
            number: columns.number.get(row).map_err(in_column("block_number"))?,
            hash: hash(&columns.hash, "block_hash")?,
            parent: hash(&columns.parent, "parent_hash")?,
            timestamp: timestamp.map_err(in_column("timestamp"))?,
            rlp: rlp.map_err(in_column("header_rlp"))?.map(|rlp| rlp.into_owned().into()),
            logs_digest: hash(&columns.logs_digest, "logs_digest")?.map(|hash| Digest(hash.0)),
        })
    }
}

pub(crate) struct LogColumns {
    number: Numbers,
    block_hash: Option<Binary>,
    transaction_index: Numbers,
    index: Numbers,
    transaction_hash: Binary,
    address: Binary,
    topics: [Binary; 4],
    data: Binary,
}

impl Row for LogRow {
    type Columns = LogColumns;

    const ONE_A_BLOCK: bool = false;

    const NAMES: &'static [&'static str] = &[
        "block_number",
        "block_hash",
        "transaction_index",
        "log_index",
        "transaction_hash",
        "address",
        "topic0",
        "topic1",
        "topic2",
        "topic3",
        "data",
        "chain_id",
        "abandoned",
    ];

    fn columns(batch: &RecordBatch) -> Result<LogColumns, &'static str> {
        Ok(LogColumns {
            number: required(batch, "block_number", Numbers::of)?,
            block_hash: optional(batch, "block_hash", Binary::of)?,
            transaction_index: required(batch, "transaction_index", Numbers::of)?,
            index: required(batch, "log_index", Numbers::of)?,
            transaction_hash: required(batch, "transaction_hash", Binary::of)?,
            address: required(batch, "address", Binary::of)?,
            topics: [
                required(batch, "topic0", Binary::of)?,
                required(batch, "topic1", Binary::of)?,
                required(batch, "topic2", Binary::of)?,
                required(batch, "topic3", Binary::of)?,
            ],
            data: required(batch, "data", Binary::of)?,
        })
    }

    fn read(columns: &LogColumns, row: usize) -> Result<LogRow, RowProblem> {
        let mut topics = Vec::with_capacity(4);
        for (nth, column) in columns.topics.iter().enumerate() {
            let name = ["topic0", "topic1", "topic2", "topic3"][nth];
            let Some(topic) = column.find_fixed(row).map_err(in_column(name))? else { continue };
            if topics.len() < nth {
                return Err(RowProblem::Topics);
            }
            topics.push(B256::new(topic));
        }
        let block_hash =
            columns.block_hash.as_ref().map(|column| column.get_fixed(row)).transpose();
        let transaction_hash = columns.transaction_hash.get_fixed(row);
        let data = columns.data.get(row).map_err(in_column("data"))?;
        let transaction_index = columns.transaction_index.get_u32(row);
        Ok(LogRow {
            number: columns.number.get(row).map_err(in_column("block_number"))?,
            block_hash: block_hash.map_err(in_column("block_hash"))?.map(B256::new),
            log: Log {
                address: columns
                    .address
                    .get_fixed(row)
                    .map(Address::new)
                    .map_err(in_column("address"))?,
                topics,
                data: data.into_owned().into(),
                index: columns.index.get_u32(row).map_err(in_column("log_index"))?,
                transaction_index: transaction_index.map_err(in_column("transaction_index"))?,
                transaction_hash: B256::new(
                    transaction_hash.map_err(in_column("transaction_hash"))?,
                ),
            },
        })
    }
}

fn in_column(name: &'static str) -> impl FnOnce(ValueProblem) -> RowProblem {
    move |problem| RowProblem::Value(name, problem)
}

/// The rows of a table that count, in the order of its files. After an error there is nothing more.
pub(crate) struct Rows<R: Row> {
    chain_id: u64,
    files: VecDeque<TableFile>,
    open: Option<OpenFile<R>>,
}

struct OpenFile<R: Row> {
    file: TableFile,
    batches: ParquetRecordBatchReader,
    batch: Option<Batch<R>>,
    /// Rows read so far.
    read: u64,
    /// The block that the row before was about.
    previous: Option<u64>,
    /// The block that the row before which counts was about.
    previous_counted: Option<u64>,
}

struct Batch<R: Row> {
    common: Common,
    columns: R::Columns,
    next: usize,
    rows: usize,
}

impl<R: Row> Rows<R> {
    /// Rows of these files, from the file on that is about a height.
    pub fn of(files: &[TableFile], from: u64, chain_id: u64) -> Rows<R> {
        let files = files.iter().filter(|file| from < file.heights.end).cloned().collect();
        Rows { chain_id, files, open: None }
    }

    /// The next row that counts, if it is in a file that begins with this block or before.
    ///
    /// So what is wrong with a file is not found before its first block is asked for.
    pub fn next(&mut self, number: u64) -> Result<Option<R>, RowsError> {
        loop {
            let open = match &mut self.open {
                Some(open) => open,
                None => {
                    let due = self.files.pop_front_if(|file| file.heights.start <= number);
                    let Some(file) = due else { return Ok(None) };
                    self.open.insert(OpenFile::open(file)?)
                }
            };
            match open.next(self.chain_id)? {
                Some(row) => return Ok(Some(row)),
                None => self.open = None,
            }
        }
    }
}

/// Runs the Parquet reader, which panics over some damaged files. It is not used again then.
fn guarded<T>(file: &TableFile, read: impl FnOnce() -> T) -> Result<T, RowsError> {
    catch_unwind(AssertUnwindSafe(read))
        .map_err(|_| RowsError::Unreadable { path: file.path.clone() })
}

impl<R: Row> OpenFile<R> {
    fn open(file: TableFile) -> Result<OpenFile<R>, RowsError> {
        let path = || file.path.clone();
        let opened =
            File::open(&file.path).map_err(|source| RowsError::Open { path: path(), source })?;
        let damaged = |source| RowsError::Parquet { path: path(), source };
        // Types are those of the Parquet schema alone: the arrow schema that writers add beside it
        // may say that bytes are text, and the reader takes its word.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = guarded(&file, || {
            ParquetRecordBatchReaderBuilder::try_new_with_options(opened, options)
        })?;
        let builder = builder.map_err(damaged)?;
        let description = Description::of(builder.metadata());
        if description.is_some_and(|description| description.filter.is_some()) {
            return Err(RowsError::Filtered { path: path() });
        }
        // Only what we read is decoded; a notebook's own columns cost nothing.
        let names = R::NAMES.iter().copied();
        let wanted = ProjectionMask::columns(builder.parquet_schema(), names);
        let builder = builder.with_projection(wanted).with_batch_size(BATCH_ROWS);
        // A file without rows has its columns all the same.
        let empty = RecordBatch::new_empty(Arc::clone(builder.schema()));
        R::columns(&empty).map_err(|column| RowsError::Column { path: path(), column })?;
        let batches = guarded(&file, || builder.build())?.map_err(damaged)?;
        Ok(OpenFile { file, batches, batch: None, read: 0, previous: None, previous_counted: None })
    }

    fn next(&mut self, chain_id: u64) -> Result<Option<R>, RowsError> {
        let path = || self.file.path.clone();
        loop {
            let batch = match &mut self.batch {
                Some(batch) if batch.next < batch.rows => batch,
                _ => {
                    let next = guarded(&self.file, || self.batches.next())?;
                    let Some(next) = next else { return Ok(None) };
                    let next = next.map_err(|error| RowsError::Parquet {
                        path: path(),
                        source: ParquetError::ArrowError(error.to_string()),
                    })?;
                    self.batch.insert(
                        Batch::of(&next)
                            .map_err(|column| RowsError::Column { path: path(), column })?,
                    )
                }
            };
            if batch.rows == 0 {
                continue;
            }
            let nth = batch.next;
            batch.next += 1;
            self.read += 1;
            let row = self.read;
            let at = |problem| match problem {
                RowProblem::Value(column, problem) => {
                    RowsError::Value { path: path(), row, column, problem }
                }
                RowProblem::Topics => RowsError::Topics { path: path(), row },
            };
            let common = &batch.common;
            if let Some(ids) = &common.chain_id {
                let found =
                    ids.get(nth).map_err(|problem| at(RowProblem::Value("chain_id", problem)))?;
                if found != chain_id {
                    return Err(RowsError::Chain { path: path(), row, found, expected: chain_id });
                }
            }
            let number = common
                .number
                .get(nth)
                .map_err(|problem| at(RowProblem::Value("block_number", problem)))?;
            if !self.file.heights.contains(&number) {
                return Err(RowsError::Outside { path: path(), row, number });
            }
            if let Some(previous) = self.previous
                && number < previous
            {
                return Err(RowsError::Order { path: path(), row, number, previous });
            }
            self.previous = Some(number);
            let abandoned = common.abandoned.as_ref();
            if abandoned.is_some_and(|flags| flags.is_valid(nth) && flags.value(nth)) {
                continue;
            }
            if R::ONE_A_BLOCK && self.previous_counted == Some(number) {
                return Err(RowsError::Twice { path: path(), row, number });
            }
            self.previous_counted = Some(number);
            return R::read(&batch.columns, nth).map(Some).map_err(at);
        }
    }
}

impl<R: Row> Batch<R> {
    fn of(batch: &RecordBatch) -> Result<Batch<R>, &'static str> {
        Ok(Batch {
            common: Common::of(batch)?,
            columns: R::columns(batch)?,
            next: 0,
            rows: batch.num_rows(),
        })
    }
}
