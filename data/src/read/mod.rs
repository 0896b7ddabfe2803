//! Reading files record by record, never more of a file in memory than one record (of Parquet one
//! page per column).

mod json;
mod jsonl;
mod object;
mod ordered;
mod parquet;
mod quotes;
mod separated;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use rondo_proto::wording::SettingKey;

use super::error::Place;
use super::{DataError, Format, Record, Source};

/// Bytes of the longest record. A file read in the wrong format is one huge record; it is refused
/// before memory is.
const LONGEST: usize = 64 << 20;

/// Where a record stands in its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordPlace {
    pub(super) place: Place,
    /// Its bytes in the file; empty for Parquet.
    pub(super) span: Span,
}

/// A range of bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// What takes the records.
pub(super) trait Sink {
    /// The columns of a file that names them before its first row.
    fn columns(&mut self, columns: &[String], at: Place) -> Result<(), DataError>;

    /// A record, or why it is none. An error given back ends the reading.
    fn record(&mut self, found: RecordPlace, record: Result<Record, DataError>) -> Result<(), DataError>;
}

/// Reads a whole file.
pub(super) fn read(source: &Source, format: Format, sink: &mut dyn Sink) -> Result<(), DataError> {
    match format {
        Format::Jsonl => jsonl::read(source, sink),
        Format::Json => json::read(source, sink),
        Format::Csv | Format::Tsv => separated::read(source, format, sink),
        Format::Parquet => parquet::read(source, sink),
    }
}

/// Bytes that the rows of a file take in memory, roughly; Parquet's are packed.
pub(super) fn size(source: &Source, format: Format) -> Result<u64, DataError> {
    if format == Format::Parquet {
        return parquet::size(source);
    }
    let about = std::fs::metadata(&source.path).map_err(|error| io(source, error))?;
    Ok(about.len())
}

/// Reads single records of a file again, by their bytes.
pub(super) struct RecordReader {
    format: Format,
    separated: Option<separated::Layout>,
}

impl RecordReader {
    /// How the records of a file are read again. Parquet rows have no bytes of their own; they are
    /// kept as JSON lines elsewhere.
    pub(super) fn new(source: &Source, format: Format) -> Result<Self, DataError> {
        let separated = match format {
            Format::Csv | Format::Tsv => Some(separated::Layout::open(source, format)?.0),
            Format::Jsonl | Format::Json | Format::Parquet => None,
        };
        Ok(Self { format, separated })
    }

    /// The record in these bytes.
    pub(super) fn record(&self, source: &Source, bytes: &[u8], at: Place) -> Result<Record, DataError> {
        match (&self.separated, self.format) {
            (Some(layout), _) => layout.record(source, bytes, at),
            (None, Format::Json) => json::parse(source, bytes, at),
            (None, _) => jsonl::parse(source, bytes, at),
        }
    }
}

/// The bytes of a span.
pub(super) fn read_span(file: &mut File, span: Span) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; span.length as usize];
    file.seek(SeekFrom::Start(span.offset))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file behind its byte order mark, if it has one; gives the bytes of the mark too.
fn open(source: &Source) -> Result<(BufReader<File>, u64), DataError> {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    let mut file = File::open(&source.path).map_err(|error| io(source, error))?;
    let mut start = [0; 4];
    let mut read = 0;
    while read < start.len() {
        match file.read(&mut start[read..]).map_err(|error| io(source, error))? {
            0 => break,
            more => read += more,
        }
    }
    if start[..read].starts_with(&[0xff, 0xfe]) || start[..read].starts_with(&[0xfe, 0xff]) {
        let problem = "is UTF-16; convert it to UTF-8".to_owned();
        return Err(DataError::File { file: source.path.clone(), problem });
    }
    let skip = if start[..read].starts_with(MARK) { MARK.len() as u64 } else { 0 };
    file.seek(SeekFrom::Start(skip)).map_err(|error| io(source, error))?;
    Ok((BufReader::with_capacity(1 << 16, file), skip))
}

fn io(source: &Source, error: std::io::Error) -> DataError {
    DataError::Io { file: source.path.clone(), source: error }
}

fn syntax(source: &Source, at: Place, problem: String) -> DataError {
    DataError::Syntax { file: source.path.clone(), at, problem }
}

fn too_long(source: &Source, at: Place) -> DataError {
    let problem = format!("a row of more than {} MiB; is {} right?", LONGEST >> 20, SettingKey::Format.quoted());
    DataError::Syntax { file: source.path.clone(), at, problem }
}
