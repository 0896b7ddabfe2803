//! Apache Parquet, row by row.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::{Field, Row};
use serde_json::Value;

use super::{DataError, Record, RecordPlace, Sink, Source, Span};
use crate::error::Place;

/// Bytes of all pages, unpacked.
pub(super) fn size(source: &Source) -> Result<u64, DataError> {
    let groups = open(source)?;
    let groups = groups.metadata().row_groups();
    Ok(groups.iter().map(|group| u64::try_from(group.total_byte_size()).unwrap_or(0)).sum())
}

/// Reads row by row, one row group after the other.
pub(super) fn read(source: &Source, sink: &mut dyn Sink) -> Result<(), DataError> {
    let reader = open(source)?;
    let schema = reader.metadata().file_metadata().schema().get_fields();
    let columns: Vec<String> = schema.iter().map(|field| field.name().to_owned()).collect();
    sink.columns(&columns, Place::Row(0))?;
    let expected = reader.metadata().file_metadata().num_rows();
    let mut number = 0;
    let mut rows = guarded(source, 1, || reader.get_row_iter(None))?;
    while let Some(row) = guarded(source, number + 1, || rows.next().transpose())? {
        number += 1;
        sink.record(RecordPlace { place: Place::Row(number), span: Span::default() }, Ok(record(row)))?;
    }
    if i64::try_from(number) != Ok(expected) {
        let problem = format!("holds {number} rows where its footer says {expected}; the file is damaged");
        return Err(DataError::File { file: source.path.clone(), problem });
    }
    Ok(())
}

/// What the library reads. On some damaged files it panics; here that is an error like any other.
fn guarded<T>(source: &Source, row: u64, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    let read = catch_unwind(AssertUnwindSafe(read));
    let read = read.unwrap_or_else(|_| Err(ParquetError::General("the file is damaged".to_owned())));
    read.map_err(|error| refuse(source, row, &error))
}

fn open(source: &Source) -> Result<SerializedFileReader<File>, DataError> {
    let file = File::open(&source.path).map_err(|error| super::io(source, error))?;
    SerializedFileReader::new(file).map_err(|error| DataError::File {
        file: source.path.clone(),
        problem: format!("not a whole Parquet file (its footer cannot be read): {error}"),
    })
}

fn refuse(source: &Source, row: u64, error: &ParquetError) -> DataError {
    let problem = match error {
        ParquetError::NYI(what) => {
            format!("row {row}: {what}; write the file with snappy, zstd or gzip, and plain column types")
        }
        other => format!("row {row}: the Parquet data cannot be read: {other}"),
    };
    DataError::File { file: source.path.clone(), problem }
}

fn record(row: Row) -> Record {
    row.into_columns().into_iter().map(|(name, field)| (name, value(field))).collect()
}

/// A value as JSON has it. Bytes are text when they are UTF-8, and nothing otherwise: images and
/// the like are no text.
fn value(field: Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) | Field::Date(number) | Field::TimeMillis(number) => number.into(),
        Field::Long(number)
        | Field::TimeMicros(number)
        | Field::TimestampMillis(number)
        | Field::TimestampMicros(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        Field::Float16(number) => f64::from(number).into(),
        Field::Float(number) => number.into(),
        Field::Double(number) => number.into(),
        field @ Field::Decimal(_) => Value::String(decimal(&field.to_string())),
        Field::Str(text) => text.into(),
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_or(Value::Null, Into::into),
        Field::Group(row) => Value::Object(record(row)),
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        Field::MapInternal(map) => {
            let entries = map.entries().iter().cloned();
            Value::Object(
                entries.map(|(key, entry)| (key.to_string().trim_matches('"').to_owned(), value(entry))).collect(),
            )
        }
    }
}

/// A decimal number as people write it: nothing behind the point that says nothing. The library
/// writes "1." and "2.50".
fn decimal(text: &str) -> String {
    let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    short.to_owned()
}
