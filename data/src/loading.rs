//! Reads a file from its first to its last row, and counts the rows that cannot be used.

use super::error::Place;
use super::read::{self, RecordPlace, Sink};
use super::row_parser::RowParser;
use super::row_store::{IndexBuilder, RowStore};
use super::source::OnBadRow;
use super::{DataError, Example, Record, Source, TaskSpec};

/// How many bad rows are logged one by one; the others are only counted.
const REPORTED: u64 = 5;

/// The rows of a file.
pub(super) struct Rows {
    pub(super) store: RowStore,
    /// How many rows could not be used, or have a label to leave out.
    pub(super) skipped: u64,
}

/// Reads a source for a task; see [`super::Dataset::load`].
///
/// # Errors
/// As of [`super::Dataset::load`].
pub(super) fn load(source: &Source, task: TaskSpec<'_>, in_memory: u64) -> Result<Rows, DataError> {
    RowParser::check(source, task)?;
    let format = source.format()?;
    let index = match in_memory > 0 && read::size(source, format)? > in_memory {
        true => Some(IndexBuilder::new(source, format)?),
        false => None,
    };
    let mut loading = Loading {
        source,
        task,
        parser: None,
        seen: 0,
        bad: 0,
        left_out: 0,
        first_bad: None,
        examples: Vec::new(),
        index,
    };
    read::read(source, format, &mut loading)?;
    loading.enough_are_good()?;
    let Loading { parser, bad, left_out, mut examples, index, .. } = loading;
    let store = match (index, parser) {
        (Some(index), Some(parser)) => index.finish(source, format, task, parser)?,
        _ => {
            examples.sort_by_key(|example| (example.key, example.tie));
            RowStore::Memory(examples)
        }
    };
    if store.len() == 0 {
        return Err(DataError::NoRows { file: source.path.clone() });
    }
    Ok(Rows { store, skipped: bad + left_out })
}

/// A file being read.
struct Loading<'s> {
    source: &'s Source,
    task: TaskSpec<'s>,
    parser: Option<RowParser>,
    seen: u64,
    bad: u64,
    /// Rows with one of the labels to leave out.
    left_out: u64,
    first_bad: Option<DataError>,
    examples: Vec<Example>,
    index: Option<IndexBuilder>,
}

impl Loading<'_> {
    /// Parses a record and keeps the example or, of a large file, its place.
    fn keep(&mut self, found: RecordPlace, record: Record) -> Result<(), DataError> {
        let source = self.source;
        let task = self.task;
        let parser = match &self.parser {
            Some(parser) => parser,
            None => {
                let columns: Vec<String> = record.keys().cloned().collect();
                self.parser.insert(RowParser::new(source, task, &columns, found.place)?)
            }
        };
        let (example, problem) = parser.example_or_unusable(source, task, &record, found.place)?;
        if let Some(problem) = problem {
            self.report_bad(problem);
        }
        let Some(example) = example else {
            self.left_out += 1;
            return Ok(());
        };
        match &mut self.index {
            Some(index) => index.push(source, found, &record, &example)?,
            None => self.examples.push(example),
        }
        Ok(())
    }

    fn report_bad(&mut self, problem: DataError) {
        self.bad += 1;
        if self.bad <= REPORTED {
            tracing::warn!(dataset = self.source.name, %problem, "a row that cannot be used");
        }
        self.first_bad.get_or_insert(problem);
    }

    /// Refuses a file with more bad rows than the source allows.
    fn enough_are_good(&mut self) -> Result<(), DataError> {
        let most = self.source.max_bad_rows;
        if self.bad == 0 {
            return Ok(());
        }
        if self.source.on_bad_row == OnBadRow::Keep {
            tracing::warn!(
                dataset = self.source.name,
                unusable = self.bad,
                rows = self.seen,
                "rows that cannot be used add nothing to a run with privacy"
            );
            return Ok(());
        }
        if self.bad as f64 > most * self.seen as f64
            && let Some(first) = self.first_bad.take()
        {
            return Err(DataError::TooManyBad {
                file: self.source.path.clone(),
                bad: self.bad,
                seen: self.seen,
                most,
                first: Box::new(first),
            });
        }
        tracing::warn!(dataset = self.source.name, skipped = self.bad, rows = self.seen, "bad rows were left out");
        Ok(())
    }

    /// Refuses, after the first rows, a file in which every row is bad.
    fn nothing_but_bad(&mut self) -> Result<(), DataError> {
        if self.bad == self.seen && self.source.max_bad_rows < 1.0 && self.source.on_bad_row == OnBadRow::Skip {
            self.enough_are_good()
        } else {
            Ok(())
        }
    }
}

impl Sink for Loading<'_> {
    fn columns(&mut self, columns: &[String], at: Place) -> Result<(), DataError> {
        self.parser = Some(RowParser::new(self.source, self.task, columns, at)?);
        Ok(())
    }

    fn record(&mut self, found: RecordPlace, record: Result<Record, DataError>) -> Result<(), DataError> {
        self.seen += 1;
        match record.and_then(|record| self.keep(found, record)) {
            // A row before the first one that fits a row format belongs to no run, and so does one
            // that has no columns.
            Err(error) if error.is_of_a_row() && self.source.on_bad_row != OnBadRow::Stop => {
                self.report_bad(error);
                // A file of nothing but bad rows need not be read to its end.
                if self.seen == 1000 { self.nothing_but_bad() } else { Ok(()) }
            }
            other => other,
        }
    }
}
