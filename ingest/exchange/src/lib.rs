//! Journals out to Parquet and JSON lines, and in again, verified.
//!
//! ```text
//!            ┌──▶ export_parquet ──▶ files in cryo's layout ──▶ import_parquet ──┐
//!  journal ──┼──▶ export_json_lines ──▶ one record a line                        ├──▶ journal
//!            └──▶ import_journal ────────────────────────────────────────────────┘
//! ```
//!
//! What comes in is held to the same checks as what an endpoint says, by the same functions, and
//! appended the same way. This crate alone knows Parquet.

mod claims;
mod column;
mod copy;
mod export;
mod files;
mod import;
mod intake;
mod json;
mod logs_digest;
mod progress;
mod rows;
mod stretch;
mod table;
mod table_file;

pub use column::ValueProblem;
pub use copy::{JournalImport, import_journal};
pub use export::{BLOCKS_PER_FILE, ExportError, Exported, ParquetExport, export_parquet};
pub use files::{FilesError, Table};
pub use import::{ImportError, Imported, ParquetImport, import_parquet};
pub use intake::{IntakeError, NotLinked, Origin};
pub use json::{JsonExport, export_json_lines, export_json_lines_to};
pub use progress::Progress;
pub use rows::RowsError;
pub use stretch::{Branches, StretchError};
pub use table::TooLarge;
pub use table_file::WriteError;
