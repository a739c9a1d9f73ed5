//! Journals out to Parquet and JSON lines, and in again, verified.
