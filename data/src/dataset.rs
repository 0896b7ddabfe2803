//! A data set read for one task, and its two parts.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::Place;
use super::read::{self, Found, Sink};
use super::shaper::Shaper;
use super::source::OnBadRow;
use super::store::{Indexing, Store};
use super::{Content, DataError, Example, Record, Source, Wants, split};

/// Bad rows that are told one by one; the others are counted.
const TOLD: u64 = 5;

/// A data set, read for one task. Each text is held once, or not at all where the file is too large for memory.
#[derive(Debug)]
pub struct Dataset {
    name: String,
    labels: Vec<String>,
    /// In key order, so that the held-out rows come first and the rest follows.
    store: Store,
    held_out: usize,
    file: Option<PathBuf>,
    on_bad_row: OnBadRow,
    max_bad_rows: f64,
    skipped: u64,
}

/// The training or the held-out rows of a data set, by index from 0.
#[derive(Debug, Clone, Copy)]
pub struct Part<'d> {
    data: &'d Dataset,
    first: usize,
    len: usize,
}

impl Dataset {
    /// Reads a source for a task. The result does not depend on the order of the rows. Of a file of more than `in_memory`
    /// bytes (0 = no limit; of Parquet its unpacked bytes) only an index is kept, and rows are read when they are taken.
    ///
    /// # Errors
    /// The first row that cannot be used, with its file, line and column; or, where the source says to skip such rows, that
    /// there are too many of them; none of this where it says to keep them. A file without rows; rows of a shape that the
    /// task cannot use.
    pub fn load(source: &Source, wants: Wants<'_>, in_memory: u64) -> Result<Self, DataError> {
        Shaper::check(source, wants)?;
        let format = source.format()?;
        let index = match in_memory > 0 && read::size(source, format)? > in_memory {
            true => Some(Indexing::new(source, format)?),
            false => None,
        };
        let mut loading =
            Loading { source, wants, shaper: None, seen: 0, bad: 0, first_bad: None, examples: Vec::new(), index };
        read::read(source, format, &mut loading)?;
        loading.enough_are_good()?;
        let Loading { shaper, bad, mut examples, index, .. } = loading;
        let store = match (index, shaper) {
            (Some(index), Some(shaper)) => index.finish(source, format, wants, shaper)?,
            _ => {
                examples.sort_by_key(|example| (example.key, example.tie));
                Store::Memory(examples)
            }
        };
        if store.len() == 0 {
            return Err(DataError::NoRows { file: source.path.clone() });
        }
        let held_out = store.below(split::bound(source.eval_fraction));
        let (name, labels) = (source.name.clone(), wants.labels.to_vec());
        let (on_bad_row, max_bad_rows) = (source.on_bad_row, source.max_bad_rows);
        let file = Some(source.path.clone());
        Ok(Self { name, labels, store, held_out, file, on_bad_row, max_bad_rows, skipped: bad })
    }

    /// Makes a data set of texts in memory, each with its index into `labels`, and splits it as [`Dataset::load`] does.
    pub fn of(
        name: &str,
        labels: &[String],
        rows: impl IntoIterator<Item = (String, u32)>,
        eval_fraction: f64,
    ) -> Self {
        let labelled = |(text, label): (String, u32)| Content::Labelled { text: text.into(), label };
        let examples = rows.into_iter().map(|row| Example::of(name, labelled(row), None)).collect();
        Self { labels: labels.to_vec(), ..Self::of_examples(name, examples, eval_fraction) }
    }

    /// Makes a data set of examples in memory (see [`Example::of`]; their data set must be `name`).
    pub fn of_examples(name: &str, mut examples: Vec<Example>, eval_fraction: f64) -> Self {
        examples.sort_by_key(|example| (example.key, example.tie));
        let store = Store::Memory(examples);
        let held_out = store.below(split::bound(eval_fraction));
        Self {
            name: name.to_owned(),
            labels: Vec::new(),
            store,
            held_out,
            file: None,
            on_bad_row: OnBadRow::Stop,
            max_bad_rows: 0.0,
            skipped: 0,
        }
    }

    /// The same rows, all of them held out: a set that is only measured on.
    pub fn whole_held_out(self) -> Self {
        Self { held_out: self.store.len(), ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The run's labels, in the order of their indices.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Rows that could not be used: left out, or kept and adding nothing ([`OnBadRow::Keep`]).
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// What happens to a row that turns out to be of no use later.
    pub fn on_bad_row(&self) -> OnBadRow {
        self.on_bad_row
    }

    /// The largest share of rows that may be left out.
    pub fn max_bad_rows(&self) -> f64 {
        self.max_bad_rows
    }

    /// The file it was read from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// True when rows are read from the file whenever they are taken.
    pub fn is_streamed(&self) -> bool {
        matches!(self.store, Store::File(_))
    }

    /// Examples to train on.
    pub fn train(&self) -> Part<'_> {
        Part { data: self, first: self.held_out, len: self.store.len() - self.held_out }
    }

    /// Examples to evaluate on; never trained on. Any number of the first ones is a random sample of them.
    pub fn held_out(&self) -> Part<'_> {
        Part { data: self, first: 0, len: self.held_out }
    }
}

impl<'d> Part<'d> {
    /// Number of rows.
    pub fn len(self) -> usize {
        self.len
    }

    /// True when there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The data set.
    pub fn dataset(self) -> &'d Dataset {
        self.data
    }

    /// The rows with these indices, in this order.
    ///
    /// # Errors
    /// Of a data set that is read from its file: the file cannot be read, or was changed.
    pub fn take(self, indices: &[usize]) -> Result<Vec<Example>, DataError> {
        self.data.store.take(indices.iter().map(|&index| self.first + self.checked(index)))
    }

    /// A stretch of the rows, without a copy where they are in memory.
    ///
    /// # Errors
    /// As of [`Part::take`].
    pub fn range(self, range: Range<usize>) -> Result<Cow<'d, [Example]>, DataError> {
        let end = range.end.min(self.len);
        self.data.store.range(self.first + range.start.min(end)..self.first + end)
    }

    /// All rows. Of a data set that does not fit into memory this does not fit either.
    ///
    /// # Errors
    /// As of [`Part::take`].
    pub fn all(self) -> Result<Cow<'d, [Example]>, DataError> {
        self.range(0..self.len)
    }

    /// Bytes of text of each row: the measure of length that batches go by, known without reading or encoding a row.
    pub fn lengths(self) -> Vec<u32> {
        (self.first..self.first + self.len).map(|index| self.data.store.bytes(index)).collect()
    }

    fn checked(self, index: usize) -> usize {
        assert!(index < self.len, "row {index} of {}", self.len);
        index
    }
}

/// A file being read.
struct Loading<'s> {
    source: &'s Source,
    wants: Wants<'s>,
    shaper: Option<Shaper>,
    seen: u64,
    bad: u64,
    first_bad: Option<DataError>,
    examples: Vec<Example>,
    index: Option<Indexing>,
}

impl Loading<'_> {
    fn keep(&mut self, found: Found, record: Record) -> Result<(), DataError> {
        let (source, wants) = (self.source, self.wants);
        let shaper = match &self.shaper {
            Some(shaper) => shaper,
            None => {
                let columns: Vec<String> = record.keys().cloned().collect();
                self.shaper.insert(Shaper::new(source, wants, &columns, found.place)?)
            }
        };
        let (example, problem) = shaper.example_or_kept(source, wants, &record, found.place)?;
        if let Some(problem) = problem {
            self.tell_bad(problem);
        }
        let Some(example) = example else { return Ok(()) };
        match &mut self.index {
            Some(index) => index.push(source, found, &record, &example)?,
            None => self.examples.push(example),
        }
        Ok(())
    }

    fn tell_bad(&mut self, problem: DataError) {
        self.bad += 1;
        if self.bad <= TOLD {
            tracing::warn!(dataset = self.source.name, %problem, "a row that cannot be used");
        }
        self.first_bad.get_or_insert(problem);
    }

    fn enough_are_good(&mut self) -> Result<(), DataError> {
        let most = self.source.max_bad_rows;
        if self.bad == 0 {
            return Ok(());
        }
        if self.source.on_bad_row == OnBadRow::Keep {
            let (dataset, unusable, rows) = (&self.source.name, self.bad, self.seen);
            tracing::warn!(dataset, unusable, rows, "rows that cannot be used add nothing to a run with privacy");
            return Ok(());
        }
        if self.bad as f64 > most * self.seen as f64
            && let Some(first) = self.first_bad.take()
        {
            let (file, bad, seen) = (self.source.path.clone(), self.bad, self.seen);
            return Err(DataError::TooManyBad { file, bad, seen, most, first: Box::new(first) });
        }
        let (dataset, skipped, rows) = (&self.source.name, self.bad, self.seen);
        tracing::warn!(dataset, skipped, rows, "bad rows were left out");
        Ok(())
    }
}

impl Sink for Loading<'_> {
    fn columns(&mut self, columns: &[String], at: Place) -> Result<(), DataError> {
        self.shaper = Some(Shaper::new(self.source, self.wants, columns, at)?);
        Ok(())
    }

    fn record(&mut self, found: Found, record: Result<Record, DataError>) -> Result<(), DataError> {
        self.seen += 1;
        match record.and_then(|record| self.keep(found, record)) {
            // A row without columns, or before the first that has those of a shape, is no row of any run.
            Err(error) if error.is_of_a_row() && self.source.on_bad_row != OnBadRow::Stop => {
                self.tell_bad(error);
                // A file of nothing but bad rows need not be read to its end.
                if self.seen == 1000 { self.nothing_but_bad() } else { Ok(()) }
            }
            other => other,
        }
    }
}

impl Loading<'_> {
    fn nothing_but_bad(&mut self) -> Result<(), DataError> {
        if self.bad == self.seen && self.source.max_bad_rows < 1.0 && self.source.on_bad_row == OnBadRow::Skip {
            self.enough_are_good()
        } else {
            Ok(())
        }
    }
}
