//! Options of a question and which of them is right, in the forms that files have them.

use std::borrow::Cow;

use rondo_proto::wording::SettingKey;
use serde_json::Value;

use super::column::{self, Cell, Column};
use super::{Columns, DataError, Source};

/// Where options, their labels and the answer stand.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choices {
    from: From,
    labels: Option<Column>,
    answer: Column,
    answer_after: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum From {
    /// The same for every row.
    Fixed(Vec<String>),
    /// One column with a list.
    List(Column),
    /// One column per option.
    Columns(Vec<Column>),
}

impl Choices {
    pub(super) fn new(source: &Source, answer: Column) -> Self {
        let mapping = &source.mapping;
        let from = match (&mapping.options, &mapping.choices) {
            (Some(options), _) => From::Fixed(options.clone()),
            (None, Some(Columns::Many(columns))) => {
                From::Columns(columns.iter().map(|name| Column::new(name)).collect())
            }
            (None, Some(Columns::One(column))) => From::List(Column::new(column)),
            (None, None) => From::List(Column::new("choices")),
        };
        Self {
            from,
            labels: mapping.choice_labels.as_deref().map(Column::new),
            answer,
            answer_after: mapping.answer_after.clone(),
        }
    }

    /// The columns that must be there.
    pub(super) fn columns(&self) -> Vec<&Column> {
        let options = match &self.from {
            From::Fixed(_) => Vec::new(),
            From::List(column) => vec![column],
            From::Columns(columns) => columns.iter().collect(),
        };
        options.into_iter().chain(&self.labels).chain([&self.answer]).collect()
    }

    /// A row's options and the index of the right one.
    pub(super) fn read(&self, cell: Cell<'_>) -> Result<(Vec<String>, u32), DataError> {
        let (options, mut labels) = match &self.from {
            From::Fixed(options) => (options.clone(), None),
            From::Columns(columns) => {
                let each = columns.iter().map(|column| cell.scalar(column).map(Cow::into_owned));
                (each.collect::<Result<_, _>>()?, None)
            }
            From::List(column) => listed(cell, column)?,
        };
        if let Some(column) = &self.labels {
            labels = Some(texts(cell, column, cell.value(column)?)?);
        }
        if options.len() < 2 {
            return Err(cell.bad(format!("has {} options; a choice needs at least 2", options.len())));
        }
        if let Some(empty) = options.iter().position(|option| option.trim().is_empty()) {
            return Err(cell.bad(format!("option {} is empty", empty + 1)));
        }
        if let Some(labels) = labels.as_ref().filter(|labels| labels.len() != options.len()) {
            return Err(cell.bad(format!("has {} options, but {} labels of options", options.len(), labels.len())));
        }
        let answer = self.answer(cell, &options, labels.as_deref())?;
        Ok((options, answer as u32))
    }

    /// Which option the answer names: by the options' own labels, as the option's text, by letter, or by index from 0.
    fn answer(&self, cell: Cell<'_>, options: &[String], labels: Option<&[String]>) -> Result<usize, DataError> {
        let said = cell.scalar(&self.answer)?;
        let said = match &self.answer_after {
            Some(words) => said.rsplit_once(words.as_str()).map(|(_, answer)| answer).ok_or_else(|| {
                cell.bad(format!("column `{}` does not hold {words:?} ({})", self.answer.name, SettingKey::AnswerAfter))
            })?,
            None => &said,
        };
        let said = said.trim();
        let said = cell.source.labels.get(said).map_or(said, String::as_str);
        let named = |names: &[String]| names.iter().position(|name| name.trim() == said);
        // "C. Hurler syndrome" or "(C)" name C.
        let letter = said.trim_start_matches('(');
        let letter = letter.split(['.', ')', ':']).next().filter(|letter| letter.len() == 1).unwrap_or(said);
        let found = match labels {
            Some(labels) => named(labels)
                .or_else(|| named(options))
                .or_else(|| labels.iter().position(|label| label.trim() == letter)),
            None => named(options).or_else(|| by_position(letter)),
        };
        found.filter(|&index| index < options.len()).ok_or_else(|| {
            let labels = labels.map_or_else(String::new, |labels| format!(" with the labels {}", labels.join(", ")));
            let (column, count) = (&self.answer.name, options.len());
            cell.bad(format!("column `{column}`: {said:?} names none of the {count} options{labels}"))
        })
    }
}

/// A letter from A, or an index from 0.
fn by_position(said: &str) -> Option<usize> {
    match said.as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        [letter @ b'a'..=b'z'] => Some(usize::from(letter - b'a')),
        _ => said.parse().ok(),
    }
}

/// Texts, and their labels where they have any: a list of texts, a list of `{text, label}`, or `{text: [..], label: [..]}`.
fn listed(cell: Cell<'_>, column: &Column) -> Result<(Vec<String>, Option<Vec<String>>), DataError> {
    const EXPECTED: &str = "a list of options";
    let value = cell.value(column)?;
    if let Value::Object(both) = value.as_ref() {
        let part = |key: &str| {
            both.get(key).map(|part| texts(cell, &Column::new(&format!("{}.{key}", column.name)), Cow::Borrowed(part)))
        };
        let options = part("text").unwrap_or_else(|| Err(cell.wrong(column, &value, EXPECTED)))?;
        return Ok((options, part("label").transpose()?));
    }
    let list = column::list(value).map_err(|value| cell.wrong(column, &value, EXPECTED))?;
    if list.iter().all(|item| item.get("text").is_some()) {
        let take = |key: &str| {
            list.iter()
                .map(|item| item.get(key).and_then(column::scalar).map(Cow::into_owned))
                .collect::<Option<Vec<_>>>()
        };
        let options =
            take("text").ok_or_else(|| cell.wrong(column, &Value::Array(list.clone()), "a text per option"))?;
        return Ok((options, take("label")));
    }
    Ok((texts(cell, column, Cow::Owned(Value::Array(list)))?, None))
}

fn texts(cell: Cell<'_>, column: &Column, value: Cow<'_, Value>) -> Result<Vec<String>, DataError> {
    const EXPECTED: &str = "a list of texts";
    let list = column::list(value).map_err(|value| cell.wrong(column, &value, EXPECTED))?;
    let each = list.iter().map(|item| column::scalar(item).map(Cow::into_owned));
    each.collect::<Option<Vec<_>>>().ok_or_else(|| cell.wrong(column, &Value::Array(list.clone()), EXPECTED))
}
