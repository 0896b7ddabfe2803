//! A data set read for one task, and its two splits.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::loading::{self, Rows};
use super::row_store::RowStore;
use super::source::OnBadRow;
use super::{Content, DataError, Example, Source, TaskSpec, split_key};

/// A data set, read for one task. Each text is held once, or not at all where the file is too large
/// for memory.
#[derive(Debug)]
pub struct Dataset {
    name: String,
    labels: Vec<String>,
    /// In key order, so that the held-out rows come first and the rest follows.
    store: RowStore,
    held_out: usize,
    file: Option<PathBuf>,
    on_bad_row: OnBadRow,
    max_bad_rows: f64,
    skipped: u64,
}

/// The training or the held-out rows of a data set, by index from 0.
#[derive(Debug, Clone, Copy)]
pub struct Split<'d> {
    data: &'d Dataset,
    first: usize,
    len: usize,
}

impl Dataset {
    /// Reads a source for a task. The result does not depend on the order of the rows. Of a file of
    /// more than `in_memory` bytes only an index is kept, and rows are read when they are taken.
    /// 0 means no limit; Parquet counts unpacked.
    ///
    /// # Errors
    /// A file without rows; rows of a format that the task cannot use. Of rows that cannot be used,
    /// by the source's `on_bad_row`:
    /// - stop: the first such row, with its file, line and column;
    /// - skip: that there are more of them than `max_bad_rows` allows;
    /// - keep: nothing.
    pub fn load(source: &Source, task: TaskSpec<'_>, in_memory: u64) -> Result<Self, DataError> {
        let Rows { store, skipped } = loading::load(source, task, in_memory)?;
        let held_out = store.below(split_key::bound(source.eval_fraction));
        Ok(Self {
            name: source.name.clone(),
            labels: task.labels.to_vec(),
            store,
            held_out,
            file: Some(source.path.clone()),
            on_bad_row: source.on_bad_row,
            max_bad_rows: source.max_bad_rows,
            skipped,
        })
    }

    /// Makes a data set of texts in memory, each with its index into `labels`. It is split as by
    /// [`Dataset::load`].
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
        let store = RowStore::Memory(examples);
        let held_out = store.below(split_key::bound(eval_fraction));
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

    /// Number of rows that are not learnt: with a label to leave out, or unusable, whether left out
    /// or kept and adding nothing ([`OnBadRow::Keep`]).
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// What happens to a row that later turns out to be unusable.
    pub fn on_bad_row(&self) -> OnBadRow {
        self.on_bad_row
    }

    /// The largest share of rows that may be left out, from 0 to 1.
    pub fn max_bad_rows(&self) -> f64 {
        self.max_bad_rows
    }

    /// The file it was read from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// True when rows are read from the file whenever they are taken.
    pub fn is_streamed(&self) -> bool {
        matches!(self.store, RowStore::File(_))
    }

    /// Examples to train on.
    pub fn train(&self) -> Split<'_> {
        Split { data: self, first: self.held_out, len: self.store.len() - self.held_out }
    }

    /// Examples to evaluate on; never trained on. Any number of the first ones is a random sample
    /// of them.
    pub fn held_out(&self) -> Split<'_> {
        Split { data: self, first: 0, len: self.held_out }
    }
}

impl<'d> Split<'d> {
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

    /// A range of the rows, without a copy where they are in memory.
    ///
    /// # Errors
    /// As of [`Split::take`].
    pub fn range(self, range: Range<usize>) -> Result<Cow<'d, [Example]>, DataError> {
        let end = range.end.min(self.len);
        self.data.store.range(self.first + range.start.min(end)..self.first + end)
    }

    /// All rows at once. They take the memory that the limit on files saves.
    ///
    /// # Errors
    /// As of [`Split::take`].
    pub fn all(self) -> Result<Cow<'d, [Example]>, DataError> {
        self.range(0..self.len)
    }

    /// Bytes of text of each row, known without reading or encoding a row. Batches bring rows of
    /// like length together by it.
    pub fn lengths(self) -> Vec<u32> {
        (self.first..self.first + self.len).map(|index| self.data.store.bytes(index)).collect()
    }

    fn checked(self, index: usize) -> usize {
        assert!(index < self.len, "row {index} of {}", self.len);
        index
    }
}
