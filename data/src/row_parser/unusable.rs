//! Rows that cannot be used and still count ([`OnBadRow::Keep`]).

use std::borrow::Cow;

use super::columns::RowColumns;
use super::{Column, DataError, Example, Place, Record, Row, RowParser, Source, TaskSpec};
use crate::OnBadRow;

impl RowParser {
    /// As [`RowParser::example`]. Where unusable rows are kept, also such a row, together with what
    /// is wrong with it.
    ///
    /// # Errors
    /// As of [`RowParser::example`], where unusable rows are not kept.
    pub(crate) fn example_or_unusable(
        &self,
        source: &Source,
        task: TaskSpec<'_>,
        record: &Record,
        at: Place,
    ) -> Result<(Option<Example>, Option<DataError>), DataError> {
        match self.example(source, task, record, at) {
            Err(error) if error.is_of_a_row() && source.on_bad_row == OnBadRow::Keep => {
                let given = self.given(Row { source, record, at });
                // Neither a label nor an answer moves a row to the other side, since a run may ask
                // for others.
                let given = given.unwrap_or_else(|| serde_json::to_string(record).unwrap_or_default());
                Ok((Some(Example::unusable(&source.name, &given, at)), Some(error)))
            }
            other => Ok((other?, None)),
        }
    }

    /// What decides the row's side of the split, where that much of it can be read.
    fn given(&self, row: Row<'_>) -> Option<String> {
        let text = |column: &Column| row.field(column).text().ok().map(Cow::into_owned);
        match &self.columns {
            RowColumns::Labelled { text: column, .. } | RowColumns::Text(column) => text(column),
            RowColumns::Completion { prompt, completion } => match row.field(prompt).text_or_empty().ok()? {
                given if given.is_empty() => text(completion),
                given => Some(given.into_owned()),
            },
            RowColumns::Instruction { instruction, input, .. } => {
                let asked = text(instruction)?;
                let input = row.field(input).text_or_empty().ok()?;
                Some(if input.trim().is_empty() { asked } else { format!("{asked}\n\n{input}") })
            }
            RowColumns::Choice { question, .. } | RowColumns::Question { question, .. } => text(question),
            RowColumns::Messages(_) => None,
        }
    }
}
