//! The tables as columns: `effects.parquet`, `steps.parquet`, `state.parquet`.
//!
//! Hashes, keys and amounts are text as people write them, so that a notebook can show, search and
//! join them; times are timestamps in UTC. What each column means stands in the README that is
//! written beside them (`templates/README.md`), and a test holds the two together.

use std::{io, path::Path, sync::Arc};

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{
        BinaryBuilder, BooleanBuilder, StringBuilder, TimestampMillisecondBuilder, UInt16Builder,
        UInt32Builder, UInt64Builder,
    },
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};
use shepherd_log::{Deliver, EffectKey, EffectResult, Entry};

use super::{
    data::{Asked, Handled},
    file::Unfinished,
    order::Order,
    summary::FileFacts,
};

/// Rows of one row group: what a reader can take or leave, and what we hold in memory, encoded.
const ROW_GROUP_ROWS_MAX: usize = 128 << 10;
const ROW_GROUP_BYTES_MAX: usize = 32 << 20;

/// Rows that are held as columns before they are encoded, and the bytes these may have.
const BATCH_ROWS_MAX: usize = 8 << 10;
const BATCH_BYTES_MAX: usize = 4 << 20;

/// How many builders a row's type has, what they are called, and how a row goes into them.
pub(crate) trait Row {
    /// Name, type, and whether there may be no value; in this order.
    const COLUMNS: &'static [(&'static str, Type, bool)];

    /// Appends one value to each column, in order.
    fn append(&self, to: &mut Columns);
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Bool,
    U16,
    U32,
    U64,
    Text,
    Bytes,
    Time,
}

impl Type {
    fn arrow(self) -> DataType {
        match self {
            Type::Bool => DataType::Boolean,
            Type::U16 => DataType::UInt16,
            Type::U32 => DataType::UInt32,
            Type::U64 => DataType::UInt64,
            Type::Text => DataType::Utf8,
            Type::Bytes => DataType::Binary,
            Type::Time => DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())),
        }
    }
}

const UTC: &str = "UTC";

enum Builder {
    Bool(BooleanBuilder),
    U16(UInt16Builder),
    U32(UInt32Builder),
    U64(UInt64Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Time(TimestampMillisecondBuilder),
}

impl Builder {
    fn new(of: Type) -> Builder {
        match of {
            Type::Bool => Builder::Bool(BooleanBuilder::new()),
            Type::U16 => Builder::U16(UInt16Builder::new()),
            Type::U32 => Builder::U32(UInt32Builder::new()),
            Type::U64 => Builder::U64(UInt64Builder::new()),
            Type::Text => Builder::Text(StringBuilder::new()),
            Type::Bytes => Builder::Bytes(BinaryBuilder::new()),
            Type::Time => Builder::Time(TimestampMillisecondBuilder::new().with_timezone(UTC)),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Bool(builder) => Arc::new(builder.finish()),
            Builder::U16(builder) => Arc::new(builder.finish()),
            Builder::U32(builder) => Arc::new(builder.finish()),
            Builder::U64(builder) => Arc::new(builder.finish()),
            Builder::Text(builder) => Arc::new(builder.finish()),
            Builder::Bytes(builder) => Arc::new(builder.finish()),
            Builder::Time(builder) => Arc::new(builder.finish()),
        }
    }
}

/// The columns of a table while rows go in, from left to right.
pub(crate) struct Columns {
    builders: Vec<Builder>,
    at: usize,
    bytes: usize,
}

macro_rules! append {
    ($($name:ident: $kind:ident, $value:ty;)*) => {
        $(
            fn $name(&mut self, value: impl Into<Option<$value>>) -> &mut Columns {
                match self.next() {
                    Builder::$kind(builder) => builder.append_option(value.into()),
                    _ => unreachable!("a row appends what its columns are declared to hold"),
                }
                self
            }
        )*
    };
}

impl Columns {
    fn new<R: Row>() -> Columns {
        let builders = R::COLUMNS.iter().map(|(_, of, _)| Builder::new(*of)).collect();
        Columns { builders, at: 0, bytes: 0 }
    }

    fn next(&mut self) -> &mut Builder {
        let builder = &mut self.builders[self.at];
        self.at += 1;
        builder
    }

    append! {
        bool: Bool, bool;
        u16: U16, u16;
        u32: U32, u32;
        u64: U64, u64;
    }

    fn text<T: AsRef<str>>(&mut self, value: Option<T>) -> &mut Columns {
        self.bytes += value.as_ref().map_or(0, |text| text.as_ref().len());
        match self.next() {
            Builder::Text(builder) => builder.append_option(value),
            _ => unreachable!("a row appends what its columns are declared to hold"),
        }
        self
    }

    fn display(&mut self, value: impl std::fmt::Display) -> &mut Columns {
        self.text(Some(value.to_string()))
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Columns {
        self.bytes += value.len();
        match self.next() {
            Builder::Bytes(builder) => builder.append_value(value),
            _ => unreachable!("a row appends what its columns are declared to hold"),
        }
        self
    }

    /// A time in seconds since 1970; none where a calendar has no such time.
    fn time(&mut self, seconds: Option<u64>) -> &mut Columns {
        let millis = seconds
            .and_then(|seconds| i64::try_from(seconds).ok())
            .filter(|seconds| *seconds <= YEAR_9999)
            .map(|seconds| seconds * 1_000);
        match self.next() {
            Builder::Time(builder) => builder.append_option(millis),
            _ => unreachable!("a row appends what its columns are declared to hold"),
        }
        self
    }
}

/// The last second that every tool can show.
const YEAR_9999: i64 = 253_402_300_799;

/// A table on its way into its file. Dropping it unfinished leaves nothing behind.
pub(crate) struct Table<R: Row> {
    writer: ArrowWriter<Unfinished>,
    columns: Columns,
    waiting: usize,
    rows: u64,
    of: std::marker::PhantomData<fn(&R)>,
}

fn schema<R: Row>() -> SchemaRef {
    let field =
        |(name, of, optional): &(&str, Type, bool)| Field::new(*name, of.arrow(), *optional);
    Arc::new(Schema::new(R::COLUMNS.iter().map(field).collect::<Vec<_>>()))
}

impl<R: Row> Table<R> {
    pub fn create(folder: &Path, name: &str) -> Result<Table<R>, ParquetError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES_MAX))
            .set_created_by(concat!("shepherd ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let file = Unfinished::create(folder, name)?;
        let writer = ArrowWriter::try_new(file, schema::<R>(), Some(properties))?;
        let columns = Columns::new::<R>();
        Ok(Table { writer, columns, waiting: 0, rows: 0, of: std::marker::PhantomData })
    }

    pub fn push(&mut self, row: &R) -> Result<(), ParquetError> {
        self.columns.at = 0;
        row.append(&mut self.columns);
        assert_eq!(self.columns.at, R::COLUMNS.len(), "a row fills every column");
        self.waiting += 1;
        self.rows += 1;
        if self.waiting == BATCH_ROWS_MAX || self.columns.bytes >= BATCH_BYTES_MAX {
            self.encode()?;
        }
        Ok(())
    }

    fn encode(&mut self) -> Result<(), ParquetError> {
        let arrays = self.columns.builders.iter_mut().map(Builder::finish).collect();
        let batch = RecordBatch::try_new(schema::<R>(), arrays)
            .expect("one array for each column, all of the same length");
        self.waiting = 0;
        self.columns.bytes = 0;
        self.writer.write(&batch)
    }

    /// Puts the file in its place. When this returns, it survives a power cut.
    pub fn finish(mut self) -> Result<FileFacts, ParquetError> {
        if self.waiting > 0 {
            self.encode()?;
        }
        let rows = self.rows;
        let bytes = self.writer.into_inner()?.finish()?;
        Ok(FileFacts { rows, bytes })
    }
}

/// What an error of the format's library is about: nothing else than the file.
pub(crate) fn as_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        error => io::Error::other(error),
    }
}

impl Row for Handled {
    const COLUMNS: &'static [(&'static str, Type, bool)] = &[
        ("offset", Type::U64, false),
        ("block_number", Type::U64, false),
        ("block_hash", Type::Text, false),
        ("block_time", Type::Time, true),
        ("kind", Type::Text, false),
        ("logs", Type::U32, false),
        ("reads", Type::U32, false),
        ("outcomes", Type::U32, false),
        ("writes", Type::U32, false),
        ("effects", Type::U32, false),
        ("fuel", Type::U64, false),
        ("micros", Type::U64, false),
        ("wrote", Type::Text, false),
        ("read", Type::Text, false),
        ("after", Type::Text, false),
        ("abandoned", Type::Bool, false),
        ("warm_up", Type::Bool, false),
    ];

    fn append(&self, to: &mut Columns) {
        let trace = &self.trace;
        to.u64(trace.offset.get())
            .u64(trace.block.number)
            .display(trace.block.hash)
            .time(Some(trace.timestamp))
            .text(Some(trace.kind.as_str()))
            .u32(trace.logs)
            .u32(trace.reads)
            .u32(trace.outcomes)
            .u32(trace.writes)
            .u32(trace.effects)
            .u64(trace.fuel)
            .u64(trace.micros)
            .display(trace.wrote)
            .display(trace.read)
            .display(trace.after)
            .bool(self.standing.abandoned)
            .bool(self.standing.warm_up);
    }
}

/// An effect with the times that its rows are shown with.
#[derive(Clone, Debug)]
pub(crate) struct TimedEffect {
    pub asked: Asked,
    /// Time of the block that asked, in seconds since 1970.
    pub time: u64,
    /// Time of the block at which the outcome was known.
    pub settled: Option<u64>,
}

impl Row for TimedEffect {
    const COLUMNS: &'static [(&'static str, Type, bool)] = &[
        ("offset", Type::U64, false),
        ("index", Type::U32, false),
        ("block_number", Type::U64, false),
        ("block_hash", Type::Text, false),
        ("block_time", Type::Time, true),
        ("receiver", Type::Text, false),
        ("key", Type::Text, false),
        ("deliver", Type::Text, false),
        ("due_block", Type::U64, true),
        ("expires", Type::Time, true),
        ("result", Type::Text, false),
        ("settled_block", Type::U64, true),
        ("settled_time", Type::Time, true),
        ("latency_blocks", Type::U64, true),
        ("attempts", Type::U32, true),
        ("refusal_status", Type::U16, true),
        ("refusal_type", Type::Text, true),
        ("reason", Type::Text, true),
        ("owner", Type::Text, true),
        ("order_receiver", Type::Text, true),
        ("sell_token", Type::Text, true),
        ("buy_token", Type::Text, true),
        ("sell_amount", Type::Text, true),
        ("buy_amount", Type::Text, true),
        ("valid_to", Type::Time, true),
        ("order_kind", Type::Text, true),
        ("partially_fillable", Type::Bool, true),
        ("signing_scheme", Type::Text, true),
        ("app_data", Type::Text, true),
        ("body", Type::Text, false),
        ("abandoned", Type::Bool, false),
        ("warm_up", Type::Bool, false),
    ];

    fn append(&self, to: &mut Columns) {
        let Asked { id, block, effect, outcome, standing } = &self.asked;
        let order = match effect.key {
            EffectKey::Order(_) => Order::of(&effect.body).unwrap_or_default(),
            EffectKey::Webhook { .. } => Order::default(),
        };
        let (receiver, key) = match &effect.key {
            EffectKey::Order(_) => ("orderbook", effect.key.to_string()),
            EffectKey::Webhook { destination, key } => (destination.as_str(), key.clone()),
        };
        let refusal = match outcome.as_ref().map(|outcome| &outcome.result) {
            Some(EffectResult::Refused(refusal)) => Some(refusal),
            _ => None,
        };
        let reason = self.asked.reason();
        to.u64(id.offset.get())
            .u32(id.index)
            .u64(block.number)
            .display(block.hash)
            .time(Some(self.time))
            .text(Some(receiver))
            .text(Some(key))
            .text(Some(deliver(effect.deliver)))
            .u64(self.asked.due())
            .time(Some(effect.expires))
            .text(Some(self.asked.result()))
            .u64(outcome.as_ref().map(|outcome| outcome.head.number))
            .time(self.settled)
            .u64(self.asked.latency())
            .u32(outcome.as_ref().map(|outcome| outcome.attempts))
            .u16(refusal.map(|refusal| refusal.status))
            .text(refusal.and_then(|refusal| refusal.error_type.as_ref()))
            .text((!reason.is_empty()).then_some(reason))
            .text(order.from.as_ref())
            .text(order.receiver.as_ref())
            .text(order.sell_token.as_ref())
            .text(order.buy_token.as_ref())
            .text(order.sell_amount.as_ref())
            .text(order.buy_amount.as_ref())
            .time(order.valid_to.map(u64::from))
            .text(order.kind.as_ref())
            .bool(order.partially_fillable)
            .text(order.signing_scheme.as_ref())
            .text(order.signed_app_data())
            .text(Some(String::from_utf8_lossy(&effect.body)))
            .bool(standing.abandoned)
            .bool(standing.warm_up);
    }
}

/// When an effect may leave, as a word.
pub(crate) fn deliver(deliver: Deliver) -> String {
    match deliver {
        Deliver::Instant => "instant".to_owned(),
        Deliver::Confirmations(depth) => format!("{depth} confirmations"),
        Deliver::Finalized => "finalized".to_owned(),
    }
}

impl Row for Entry {
    const COLUMNS: &'static [(&'static str, Type, bool)] = &[
        ("key", Type::Bytes, false),
        ("value", Type::Bytes, false),
        ("key_text", Type::Text, true),
        ("value_text", Type::Text, true),
    ];

    fn append(&self, to: &mut Columns) {
        let (key, value) = self;
        to.bytes(key).bytes(value).text(readable(key)).text(readable(value));
    }
}

/// The bytes as text, when they are text that people can read.
pub(crate) fn readable(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let visible = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().all(visible).then_some(text)
}
