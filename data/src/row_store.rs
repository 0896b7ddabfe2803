//! Where the rows of a data set are: in memory, or in their file with an index of 40 bytes a row.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rondo_proto::run_file::{TaskKind, Template};

use super::error::Place;
use super::read::{self, RecordPlace, RecordReader, Span};
use super::row_parser::RowParser;
use super::{DataError, Example, Format, Record, Source, TaskSpec};

/// All rows of a data set, in the order of their keys.
#[derive(Debug)]
pub(super) enum RowStore {
    Memory(Vec<Example>),
    File(Box<IndexedFile>),
}

/// A file whose rows are read when they are needed.
pub(super) struct IndexedFile {
    source: Source,
    parser: RowParser,
    kind: TaskKind,
    labels: Vec<String>,
    template: Template,
    rows: Vec<Entry>,
    reader: RecordReader,
    file: Mutex<File>,
    /// Length and time of the file when it was indexed. `None` for a copy, which no other program
    /// can write to.
    stamp: Option<(u64, Option<SystemTime>)>,
}

/// What is kept of a row.
#[derive(Debug, Clone, Copy)]
struct Entry {
    key: u64,
    tie: u64,
    offset: u64,
    number: u32,
    length: u32,
    bytes: u32,
}

impl std::fmt::Debug for IndexedFile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("IndexedFile")
            .field("source", &self.source)
            .field("rows", &self.rows.len())
            .finish_non_exhaustive()
    }
}

impl RowStore {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Memory(examples) => examples.len(),
            Self::File(indexed) => indexed.rows.len(),
        }
    }

    /// How many rows have keys below the bound; they stand first.
    pub(super) fn below(&self, bound: u64) -> usize {
        match self {
            Self::Memory(examples) => examples.partition_point(|example| example.key < bound),
            Self::File(indexed) => indexed.rows.partition_point(|row| row.key < bound),
        }
    }

    /// Bytes of text of a row.
    pub(super) fn bytes(&self, index: usize) -> u32 {
        match self {
            Self::Memory(examples) => examples[index].bytes(),
            Self::File(indexed) => indexed.rows[index].bytes,
        }
    }

    /// The rows with these indices.
    pub(super) fn take(&self, indices: impl Iterator<Item = usize>) -> Result<Vec<Example>, DataError> {
        match self {
            Self::Memory(examples) => Ok(indices.map(|index| examples[index].clone()).collect()),
            Self::File(indexed) => indexed.take(indices),
        }
    }

    /// The rows of a range, without a copy where they are in memory.
    pub(super) fn range(&self, range: std::ops::Range<usize>) -> Result<Cow<'_, [Example]>, DataError> {
        match self {
            Self::Memory(examples) => Ok(Cow::Borrowed(&examples[range])),
            Self::File(indexed) => indexed.take(range).map(Cow::Owned),
        }
    }
}

impl IndexedFile {
    fn take(&self, indices: impl Iterator<Item = usize>) -> Result<Vec<Example>, DataError> {
        let changed = || DataError::Changed { file: self.source.path.clone() };
        if self.stamp.is_some() && stamp(&self.source)? != self.stamp {
            return Err(changed());
        }
        let task = TaskSpec { kind: self.kind, labels: &self.labels, template: self.template };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut examples = Vec::new();
        for index in indices {
            let row = self.rows[index];
            let number = u64::from(row.number);
            let place = if self.stamp.is_some() { Place::Line(number) } else { Place::Row(number) };
            let span = Span { offset: row.offset, length: row.length };
            let bytes = read::read_span(&mut file, span)
                .map_err(|source| DataError::Io { file: self.source.path.clone(), source })?;
            let record = self.reader.record(&self.source, &bytes, place)?;
            let example = self.parser.example_or_unusable(&self.source, task, &record, place)?.0.ok_or_else(changed)?;
            if (example.key, example.tie) != (row.key, row.tie) {
                return Err(changed());
            }
            examples.push(example);
        }
        Ok(examples)
    }
}

/// Makes the index while a file is read.
pub(super) struct IndexBuilder {
    rows: Vec<Entry>,
    /// Parquet cannot be read row by row in any order: its rows are copied, as JSON lines, to a
    /// file without a name.
    copy: Option<(BufWriter<File>, u64)>,
    stamp: Option<(u64, Option<SystemTime>)>,
}

impl IndexBuilder {
    pub(super) fn new(source: &Source, format: Format) -> Result<Self, DataError> {
        if format != Format::Parquet {
            return Ok(Self { rows: Vec::new(), copy: None, stamp: stamp(source)? });
        }
        let copy = tempfile::tempfile().map_err(|error| Self::no_copy(source, &error))?;
        Ok(Self { rows: Vec::new(), copy: Some((BufWriter::new(copy), 0)), stamp: None })
    }

    fn no_copy(source: &Source, error: &std::io::Error) -> DataError {
        let problem = format!(
            "its rows cannot be copied to {} to be read in any order: {error}; let TMPDIR name a folder on a disk with room, \
             or convert the file to JSONL",
            std::env::temp_dir().display()
        );
        DataError::File { file: source.path.clone(), problem }
    }

    pub(super) fn push(
        &mut self,
        source: &Source,
        found: RecordPlace,
        record: &Record,
        example: &Example,
    ) -> Result<(), DataError> {
        let mut span = found.span;
        if let Some((copy, end)) = &mut self.copy {
            let mut line = serde_json::to_vec(record).map_err(|error| Self::no_copy(source, &error.into()))?;
            line.push(b'\n');
            copy.write_all(&line).map_err(|error| Self::no_copy(source, &error))?;
            span = Span { offset: *end, length: line.len() as u32 };
            *end += line.len() as u64;
        }
        let (Place::Line(number) | Place::Row(number)) = found.place;
        self.rows.push(Entry {
            key: example.key,
            tie: example.tie,
            offset: span.offset,
            number: u32::try_from(number).unwrap_or(u32::MAX),
            length: span.length,
            bytes: example.bytes(),
        });
        Ok(())
    }

    pub(super) fn finish(
        mut self,
        source: &Source,
        format: Format,
        task: TaskSpec<'_>,
        parser: RowParser,
    ) -> Result<RowStore, DataError> {
        let file = match self.copy {
            Some((copy, _)) => copy.into_inner().map_err(|error| Self::no_copy(source, error.error()))?,
            None => {
                File::open(&source.path).map_err(|error| DataError::Io { file: source.path.clone(), source: error })?
            }
        };
        self.rows.sort_by_key(|row| (row.key, row.tie));
        Ok(RowStore::File(Box::new(IndexedFile {
            reader: RecordReader::new(source, format)?,
            source: source.clone(),
            parser,
            kind: task.kind,
            labels: task.labels.to_vec(),
            template: task.template,
            rows: self.rows,
            file: Mutex::new(file),
            stamp: self.stamp,
        })))
    }
}

fn stamp(source: &Source) -> Result<Option<(u64, Option<SystemTime>)>, DataError> {
    let about =
        std::fs::metadata(&source.path).map_err(|error| DataError::Io { file: source.path.clone(), source: error })?;
    Ok(Some((about.len(), about.modified().ok())))
}
