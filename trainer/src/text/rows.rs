//! The rows of a data set as token ids, whether they are in memory or read when a batch needs them.

use std::sync::Arc;

use rondo_data::{DataError, Example, OnBadRow, Split};
use rondo_proto::wording::SettingKey;

use crate::error::TrainerError;
use crate::text::encode::{self, EncodedDataset, encode_all};
use crate::text::encoded::{Choices, Encoded};
use crate::text::layout::{Codec, Layout, Refusal};

/// Rows that [`Rows::chunks`] takes together.
const CHUNK: usize = 512;

/// Batches without any usable row after which training gives up.
const TRIES: usize = 100;

/// A part of a data set whose rows can be taken as token ids.
pub struct Rows<'d> {
    part: Split<'d>,
    layout: Layout,
    codec: Arc<Codec>,
    /// The tokens of all rows; `None` where rows are encoded when they are taken.
    kept: Option<EncodedDataset>,
}

/// Some rows: what they say, and their token ids in the same order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EncodedRows {
    /// The rows that can be used.
    pub examples: Vec<Example>,
    /// A text each.
    pub encoded: Encoded,
}

impl EncodedRows {
    /// Labels of the rows, for classification.
    pub fn labels(&self) -> Vec<i64> {
        self.examples.iter().map(|example| i64::from(example.label())).collect()
    }

    /// Indices of all texts.
    pub fn indices(&self) -> Vec<usize> {
        (0..self.encoded.len()).collect()
    }
}

impl<'d> Rows<'d> {
    pub(super) fn new(
        part: Split<'d>,
        layout: Layout,
        codec: Arc<Codec>,
        kept: Option<EncodedDataset>,
    ) -> Result<Self, TrainerError> {
        let rows = Self { part, layout, codec, kept };
        let skipped = rows.skipped();
        let total = rows.len();
        if skipped > 0 {
            let dataset = part.dataset().name();
            tracing::warn!(
                dataset,
                skipped,
                rows = total,
                "rows that cannot be used, or whose completion is cut away, were left out"
            );
            let too_many = skipped as f64 > part.dataset().max_bad_rows() * total as f64;
            if too_many && part.dataset().on_bad_row() != OnBadRow::Keep {
                let problem = format!(
                    "{skipped} of {total} rows cannot be used within {} by the task's template, more \
                     than {} allows",
                    SettingKey::MaxTokens.with(layout.max_tokens),
                    SettingKey::MaxBadRows.quoted()
                );
                let file = part.dataset().file().map_or_else(|| dataset.into(), ToOwned::to_owned);
                return Err(TrainerError::Data(DataError::File { file, problem }));
            }
        }
        Ok(rows)
    }

    /// Number of rows, those included that turn out to be unusable.
    pub fn len(&self) -> usize {
        self.part.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.part.is_empty()
    }

    /// Rows known to be unusable; of a data set that is read from its file, none is known before it
    /// is taken.
    pub fn skipped(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.texts.iter().filter(|text| text.is_none()).count())
    }

    /// Length of each row, in bytes of its text: what batches of like length go by.
    pub fn lengths(&self) -> Vec<u32> {
        self.part.lengths()
    }

    /// The rows with these indices, in this order, without unusable ones where the data set's
    /// policy skips them.
    ///
    /// # Errors
    /// A row that cannot be used, unless such rows are skipped; a file that cannot be read or was
    /// changed.
    pub fn take(&self, indices: &[usize]) -> Result<EncodedRows, TrainerError> {
        let examples = self.part.take(indices)?;
        let read;
        let (encoded, texts): (&Encoded, Vec<Option<u32>>) = match &self.kept {
            Some(kept) => (&kept.encoded, indices.iter().map(|&index| kept.texts[index]).collect()),
            None => {
                read = encode_all(&self.codec, self.layout, &examples, Some(self.part))?;
                (&read.encoded, read.texts.to_vec())
            }
        };
        let mut found = EncodedRows { examples: Vec::with_capacity(indices.len()), encoded: Encoded::new() };
        for (example, text) in examples.into_iter().zip(texts) {
            if let Some(text) = text {
                found.encoded.push_from(encoded, text as usize);
                found.examples.push(example);
            }
        }
        Ok(found)
    }

    /// The next of some batches of indices that has a usable row.
    ///
    /// # Errors
    /// As of [`Rows::take`]; no batch with such a row among the next hundred.
    pub fn draw(&self, batches: &mut dyn Iterator<Item = Vec<usize>>) -> Result<EncodedRows, TrainerError> {
        for batch in batches.take(TRIES) {
            let rows = self.take(&batch)?;
            if !rows.examples.is_empty() {
                return Ok(rows);
            }
        }
        Err(TrainerError::NoExamples { what: "every batch within reach" })
    }

    /// The first `count` rows in parts, for a pass over them.
    pub fn chunks(&self, count: usize) -> impl Iterator<Item = Result<EncodedRows, TrainerError>> + '_ {
        let count = count.min(self.len());
        (0..count).step_by(CHUNK).map(move |first| {
            let indices: Vec<usize> = (first..(first + CHUNK).min(count)).collect();
            self.take(&indices)
        })
    }

    /// The questions with these indices, a text per option, and their rows.
    ///
    /// # Errors
    /// As of [`Rows::take`].
    pub fn take_choices(&self, indices: &[usize]) -> Result<(Vec<Example>, Choices), TrainerError> {
        let policy = encode::policy(Some(self.part));
        let mut examples = Vec::with_capacity(indices.len());
        let mut choices = Choices::new();
        for example in self.part.take(indices)? {
            match self.codec.push_choice(self.layout, &example, &mut choices) {
                Ok(()) => examples.push(example),
                Err(Refusal::Row(_)) if policy != OnBadRow::Stop => {}
                Err(refusal) => return Err(self.codec.refusal_error(refusal, &example, Some(self.part))),
            }
        }
        Ok((examples, choices))
    }
}
