//! A row that is being read, and the fields in it.

use std::borrow::Cow;

use serde_json::Value;

use super::column::{self, Column, lookup};
use super::error::Place;
use crate::{DataError, Record, Source};

/// A row that is being read, with what its errors name.
#[derive(Clone, Copy)]
pub(super) struct Row<'r> {
    pub(super) source: &'r Source,
    pub(super) record: &'r Record,
    pub(super) at: Place,
}

impl<'r> Row<'r> {
    /// The row's field in this column.
    pub(super) fn field<'c>(self, column: &'c Column) -> Field<'r, 'c> {
        Field { row: self, column }
    }

    /// An error that names the row.
    pub(super) fn bad(self, problem: String) -> DataError {
        DataError::Row { file: self.source.path.clone(), at: self.at, problem }
    }
}

/// One row's value in one column.
#[derive(Clone, Copy)]
pub(super) struct Field<'r, 'c> {
    row: Row<'r>,
    column: &'c Column,
}

impl<'r> Field<'r, '_> {
    /// The value.
    ///
    /// # Errors
    /// The column is missing, or null.
    pub(super) fn value(self) -> Result<Cow<'r, Value>, DataError> {
        self.column.value(self.row.record).ok_or_else(|| {
            let missing = self.column.bases().find(|base| lookup(self.row.record, base).is_none());
            match missing {
                Some(missing) => self.missing(missing),
                None => self.wrong(&Value::Null, "a value"),
            }
        })
    }

    /// The text, which must be a string.
    ///
    /// # Errors
    /// The column is missing, or holds something else.
    pub(super) fn text(self) -> Result<Cow<'r, str>, DataError> {
        match self.value()? {
            Cow::Borrowed(Value::String(text)) => Ok(Cow::Borrowed(text)),
            Cow::Owned(Value::String(text)) => Ok(Cow::Owned(text)),
            other => Err(self.wrong(&other, "a string")),
        }
    }

    /// The text; empty where the column is absent or null.
    ///
    /// # Errors
    /// The column holds something other than a string.
    pub(super) fn text_or_empty(self) -> Result<Cow<'r, str>, DataError> {
        if self.column.value(self.row.record).is_none() { Ok(Cow::Borrowed("")) } else { self.text() }
    }

    /// A string, number or truth value, as text.
    ///
    /// # Errors
    /// The column is missing, or holds a list or an object.
    pub(super) fn scalar(self) -> Result<Cow<'r, str>, DataError> {
        let value = self.value()?;
        match &value {
            Cow::Borrowed(borrowed) => column::scalar(borrowed),
            Cow::Owned(owned) => column::scalar(owned).map(|text| Cow::Owned(text.into_owned())),
        }
        .ok_or_else(|| self.wrong(&value, "a string, a number, true or false"))
    }

    fn missing(self, column: &str) -> DataError {
        DataError::MissingColumn {
            file: self.row.source.path.clone(),
            at: self.row.at,
            column: column.to_owned(),
            there: self.row.record.keys().cloned().collect(),
        }
    }

    /// An error: the column holds `value`, which is not what was expected.
    pub(super) fn wrong(self, value: &Value, expected: &'static str) -> DataError {
        DataError::WrongKind {
            file: self.row.source.path.clone(),
            at: self.row.at,
            column: self.column.name.clone(),
            found: kind(value),
            expected,
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
