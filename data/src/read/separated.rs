//! Comma- and tab-separated files, with or without a header line.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};

use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use serde_json::Value;

use super::quotes::QuoteCheck;
use super::{DataError, Format, LONGEST, Record, RecordPlace, Sink, Source, Span};
use crate::error::Place;

/// The columns, and how fields are set apart.
pub(super) struct Layout {
    columns: Vec<String>,
    builder: ReaderBuilder,
}

impl Layout {
    /// Reads the header line, unless `columns` stands for it. Gives the reader behind it, and the
    /// bytes before its start.
    pub(super) fn open(source: &Source, format: Format) -> Result<(Self, Rows, u64), DataError> {
        let (input, mark) = super::open(source)?;
        let tabs = format == Format::Tsv;
        let delimiter = if tabs { b'\t' } else { b',' };
        let quotes = source.quotes.unwrap_or(!tabs);
        let input = if quotes { Input::Checked(QuoteCheck::new(input, delimiter)) } else { Input::Plain(input) };
        let mut builder = ReaderBuilder::new();
        builder.has_headers(false).flexible(true).delimiter(delimiter).quoting(quotes);
        let mut reader = builder.from_reader(input);
        let columns = match &source.columns {
            Some(columns) => columns.clone(),
            None => {
                let mut header = ByteRecord::new();
                next(source, &mut reader, &mut header)?;
                let names = header.iter().map(|name| std::str::from_utf8(name).map(|name| name.trim().to_owned()));
                names
                    .collect::<Result<_, _>>()
                    .map_err(|_| super::syntax(source, Place::Line(1), "a column's name is not UTF-8".to_owned()))?
            }
        };
        let mut seen = BTreeSet::new();
        if let Some(twice) = columns.iter().find(|name| !name.is_empty() && !seen.insert(*name)) {
            let problem = format!("two columns are called `{twice}`; rename one, or name all by `columns`");
            return Err(DataError::File { file: source.path.clone(), problem });
        }
        Ok((Self { columns, builder }, reader, mark))
    }

    /// The record in these bytes.
    pub(super) fn record(&self, source: &Source, bytes: &[u8], at: Place) -> Result<Record, DataError> {
        let mut fields = ByteRecord::new();
        self.builder.from_reader(bytes).read_byte_record(&mut fields).map_err(|error| translate(source, error))?;
        self.name(source, &fields, at)
    }

    fn name(&self, source: &Source, fields: &ByteRecord, at: Place) -> Result<Record, DataError> {
        let syntax = |problem: String| super::syntax(source, at, problem);
        if fields.len() != self.columns.len() {
            return Err(syntax(format!("{} fields where the columns are {}", fields.len(), self.columns.len())));
        }
        let mut record = Record::new();
        for (number, (column, field)) in self.columns.iter().zip(fields).enumerate() {
            let text = std::str::from_utf8(field).map_err(|_| syntax(format!("field {} is not UTF-8", number + 1)))?;
            record.insert(column.clone(), Value::String(text.to_owned()));
        }
        Ok(record)
    }
}

/// A file whose quotes are watched, or one without quotes.
pub(super) enum Input {
    Plain(BufReader<File>),
    Checked(QuoteCheck<BufReader<File>>),
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Checked(input) => input.read(buffer),
        }
    }
}

/// The rows of a file.
pub(super) type Rows = Reader<Input>;

/// Reads the next row; false at the end. Rows before a fault of the quotes are not trusted either:
/// the file is refused as a whole.
fn next(source: &Source, reader: &mut Rows, fields: &mut ByteRecord) -> Result<bool, DataError> {
    let more = reader.read_byte_record(fields).map_err(|error| translate(source, error))?;
    match reader.get_ref() {
        Input::Checked(input) => match input.fault() {
            Some(fault) => Err(DataError::File {
                file: source.path.clone(),
                problem: format!("line {}: {}", fault.line(), fault.problem()),
            }),
            None => Ok(more),
        },
        Input::Plain(_) => Ok(more),
    }
}

/// Reads row by row.
pub(super) fn read(source: &Source, format: Format, sink: &mut dyn Sink) -> Result<(), DataError> {
    let (layout, mut reader, mark) = Layout::open(source, format)?;
    if !layout.columns.is_empty() {
        sink.columns(&layout.columns, Place::Line(1))?;
    }
    let mut fields = ByteRecord::new();
    while next(source, &mut reader, &mut fields)? {
        let start = fields.position().map_or(0, ::csv::Position::byte);
        let place = Place::Line(fields.position().map_or(0, ::csv::Position::line));
        let length = reader.position().byte().saturating_sub(start);
        let record = if length > LONGEST as u64 {
            Err(super::too_long(source, place))
        } else {
            layout.name(source, &fields, place)
        };
        sink.record(RecordPlace { place, span: Span { offset: mark + start, length: length as u32 } }, record)?;
    }
    Ok(())
}

fn translate(source: &Source, error: ::csv::Error) -> DataError {
    let at = Place::Line(error.position().map_or(0, ::csv::Position::line));
    match error.into_kind() {
        ErrorKind::Io(error) => super::io(source, error),
        other => super::syntax(source, at, format!("{other:?}")),
    }
}
