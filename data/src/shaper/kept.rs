//! Rows that cannot be used and count all the same ([`OnBadRow::Keep`]).

use std::borrow::Cow;

use super::{Cell, Column, DataError, Example, Fields, Place, Record, Shaper, Source, Wants};
use crate::OnBadRow;

impl Shaper {
    /// [`Shaper::example`]; where rows that cannot be used count and add nothing, such a row and what is wrong with it.
    pub(crate) fn example_or_kept(
        &self,
        source: &Source,
        wants: Wants<'_>,
        record: &Record,
        at: Place,
    ) -> Result<(Option<Example>, Option<DataError>), DataError> {
        match self.example(source, wants, record, at) {
            Err(error) if error.is_of_a_row() && source.on_bad_row == OnBadRow::Keep => {
                let given = self.given(Cell { source, record, at });
                // Neither a label nor an answer moves a row to the other side, since a run may ask for others.
                let given = given.unwrap_or_else(|| serde_json::to_string(record).unwrap_or_default());
                Ok((Some(Example::unusable(&source.name, &given, at)), Some(error)))
            }
            other => Ok((other?, None)),
        }
    }

    /// What decides the row's side of the split, where that much of it can be read.
    fn given(&self, cell: Cell<'_>) -> Option<String> {
        let text = |column: &Column| cell.text(column).ok().map(Cow::into_owned);
        match &self.fields {
            Fields::Labelled { text: column, .. } | Fields::Text(column) => text(column),
            Fields::Completion { prompt, completion } => match cell.text_or_nothing(prompt).ok()? {
                given if given.is_empty() => text(completion),
                given => Some(given.into_owned()),
            },
            Fields::Instruction { instruction, input, .. } => {
                let (asked, input) = (text(instruction)?, cell.text_or_nothing(input).ok()?);
                Some(if input.trim().is_empty() { asked } else { format!("{asked}\n\n{input}") })
            }
            Fields::Choice { question, .. } | Fields::Question { question, .. } => text(question),
            Fields::Messages(_) => None,
        }
    }
}
