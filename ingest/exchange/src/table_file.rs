//! Writing one file of a table: whole or not at all.
//!
//! A file is written beside its place and renamed when it is complete and on the disk. What it
//! was made from stands in its metadata, so that a later export knows whether to keep it and an
//! import what it can rely on.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use alloy_primitives::{Address, B256};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader},
        properties::WriterProperties,
    },
};
use serde::{Deserialize, Serialize};
use shepherd_log::LogFilter;

/// Rows of one row group: what a reader can take or leave, and what we hold in memory, encoded.
const ROW_GROUP_ROWS_MAX: usize = 128 << 10;
const ROW_GROUP_BYTES_MAX: usize = 32 << 20;

/// Where in a file's metadata its [`Description`] is.
const DESCRIPTION_KEY: &str = "shepherd";

/// Raised when a file of the same description would be written otherwise.
const DESCRIPTION_VERSION: u32 = 1;

/// What a file was made from, as JSON in its metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    version: u32,
    pub chain_id: u64,
    pub first: u64,
    pub last: u64,
    pub last_hash: B256,
    /// How many abandoned blocks are among them, if they were wanted.
    pub abandoned: Option<u64>,
    /// What logs had to match.
    pub filter: Option<FilterDescription>,
}

/// A filter of logs; an empty list means any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilterDescription {
    pub addresses: Vec<Address>,
    pub topic0: Vec<B256>,
}

impl From<&LogFilter> for FilterDescription {
    fn from(filter: &LogFilter) -> FilterDescription {
        FilterDescription {
            addresses: filter.addresses.iter().copied().collect(),
            topic0: filter.topic0.iter().copied().collect(),
        }
    }
}

impl Description {
    pub fn new(chain_id: u64, (first, last): (u64, u64), last_hash: B256) -> Description {
        let version = DESCRIPTION_VERSION;
        Description { version, chain_id, first, last, last_hash, abandoned: None, filter: None }
    }

    /// Whether a file of this description has the same kind of content as one of the other.
    pub fn has_options_of(&self, other: &Description) -> bool {
        let options =
            |of: &Description| (of.version, of.chain_id, of.abandoned.is_some(), of.filter.clone());
        options(self) == options(other)
    }

    /// The description in a file's metadata; `None` when the file is not ours.
    pub fn of(metadata: &ParquetMetaData) -> Option<Description> {
        let entries = metadata.file_metadata().key_value_metadata()?;
        let entry = entries.iter().find(|entry| entry.key == DESCRIPTION_KEY)?;
        serde_json::from_str(entry.value.as_deref()?).ok()
    }

    /// The description of a file that may not be there; `Some(None)` when it is and is not ours.
    pub fn read(path: &Path) -> Result<Option<Option<Description>>, io::Error> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).ok();
        Ok(Some(metadata.and_then(|metadata| Description::of(&metadata))))
    }
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// What went wrong.
    pub source: ParquetError,
}

/// A file being written. Dropping it unfinished leaves nothing behind.
pub(crate) struct TableWriter {
    /// `None` once the file is in its place.
    writer: Option<ArrowWriter<File>>,
    path: PathBuf,
    beside: PathBuf,
}

impl TableWriter {
    pub fn create(
        path: PathBuf,
        schema: SchemaRef,
        description: &Description,
    ) -> Result<TableWriter, WriteError> {
        let name = path.file_name().expect("a table's file has a name").to_string_lossy();
        // Hidden from whoever reads all files of the folder while it is written.
        let beside = path.with_file_name(format!(".{name}.unfinished"));
        let description =
            serde_json::to_string(description).expect("a description is written as JSON");
        let entry = KeyValue::new(DESCRIPTION_KEY.to_owned(), description);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES_MAX))
            .set_created_by(concat!("shepherd ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(vec![entry]))
            .build();
        let failed = |source: ParquetError| WriteError { path: path.clone(), source };
        let file = File::create(&beside).map_err(|error| failed(error.into()))?;
        let writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(failed)?;
        Ok(TableWriter { writer: Some(writer), path, beside })
    }

    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), WriteError> {
        let writer = self.writer.as_mut().expect("there until it is finished");
        writer.write(rows).map_err(|source| WriteError { path: self.path.clone(), source })
    }

    /// Puts the file in its place; its size. When this returns, it survives a power cut.
    pub fn finish(mut self) -> Result<u64, WriteError> {
        self.close().map_err(|source| WriteError { path: self.path.clone(), source })
    }

    fn close(&mut self) -> Result<u64, ParquetError> {
        let writer = self.writer.as_mut().expect("there until it is finished");
        writer.finish()?;
        let file = writer.inner();
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        fs::rename(&self.beside, &self.path)?;
        self.writer = None;
        sync_folder_of(&self.path)?;
        Ok(bytes)
    }
}

impl Drop for TableWriter {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            // Only a leftover: the next export of the same blocks writes over it.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

/// Makes what was renamed in a file's folder durable.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
