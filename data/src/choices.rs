//! Options of a question and which of them is right, in the forms that files have them.

use std::borrow::Cow;

use rondo_proto::wording::SettingKey;
use serde_json::Value;

use super::column::{self, Column};
use super::field::Row;
use super::{Columns, DataError, Source};

/// Where options, their labels and the answer stand.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choices {
    from: OptionsFrom,
    labels: Option<Column>,
    answer: Column,
    answer_after: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum OptionsFrom {
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
            (Some(options), _) => OptionsFrom::Fixed(options.clone()),
            (None, Some(Columns::Many(columns))) => {
                OptionsFrom::Columns(columns.iter().map(|name| Column::new(name)).collect())
            }
            (None, Some(Columns::One(column))) => OptionsFrom::List(Column::new(column)),
            (None, None) => OptionsFrom::List(Column::new("choices")),
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
            OptionsFrom::Fixed(_) => Vec::new(),
            OptionsFrom::List(column) => vec![column],
            OptionsFrom::Columns(columns) => columns.iter().collect(),
        };
        options.into_iter().chain(&self.labels).chain([&self.answer]).collect()
    }

    /// A row's options and the index of the right one.
    pub(super) fn read(&self, row: Row<'_>) -> Result<(Vec<String>, u32), DataError> {
        let (options, mut labels) = match &self.from {
            OptionsFrom::Fixed(options) => (options.clone(), None),
            OptionsFrom::Columns(columns) => {
                let each = columns.iter().map(|column| row.field(column).scalar().map(Cow::into_owned));
                (each.collect::<Result<_, _>>()?, None)
            }
            OptionsFrom::List(column) => listed(row, column)?,
        };
        if let Some(column) = &self.labels {
            labels = Some(texts(row, column, row.field(column).value()?)?);
        }
        if options.len() < 2 {
            return Err(row.bad(format!("has {} options; a choice needs at least 2", options.len())));
        }
        if let Some(empty) = options.iter().position(|option| option.trim().is_empty()) {
            return Err(row.bad(format!("option {} is empty", empty + 1)));
        }
        if let Some(labels) = labels.as_ref().filter(|labels| labels.len() != options.len()) {
            return Err(row.bad(format!("has {} options, but {} labels of options", options.len(), labels.len())));
        }
        let answer = self.answer(row, &options, labels.as_deref())?;
        Ok((options, answer as u32))
    }

    /// Which option the answer names: by the options' own labels, as the option's text, by letter,
    /// or by index from 0.
    fn answer(&self, row: Row<'_>, options: &[String], labels: Option<&[String]>) -> Result<usize, DataError> {
        let said = row.field(&self.answer).scalar()?;
        let said = match &self.answer_after {
            Some(words) => said.rsplit_once(words.as_str()).map(|(_, answer)| answer).ok_or_else(|| {
                row.bad(format!("column `{}` does not hold {words:?} ({})", self.answer.name, SettingKey::AnswerAfter))
            })?,
            None => &said,
        };
        let said = said.trim();
        let said = row.source.labels.get(said).map_or(said, String::as_str);
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
            let column = &self.answer.name;
            let count = options.len();
            row.bad(format!("column `{column}`: {said:?} names none of the {count} options{labels}"))
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

/// Texts, and their labels where they have any: a list of texts, a list of `{text, label}`, or
/// `{text: [..], label: [..]}`.
fn listed(row: Row<'_>, column: &Column) -> Result<(Vec<String>, Option<Vec<String>>), DataError> {
    const EXPECTED: &str = "a list of options";
    let value = row.field(column).value()?;
    if let Value::Object(both) = value.as_ref() {
        let part = |key: &str| {
            both.get(key).map(|part| texts(row, &Column::new(&format!("{}.{key}", column.name)), Cow::Borrowed(part)))
        };
        let options = part("text").unwrap_or_else(|| Err(row.field(column).wrong(&value, EXPECTED)))?;
        return Ok((options, part("label").transpose()?));
    }
    let list = column::list(value).map_err(|value| row.field(column).wrong(&value, EXPECTED))?;
    if list.iter().all(|item| item.get("text").is_some()) {
        let take = |key: &str| {
            list.iter()
                .map(|item| item.get(key).and_then(column::scalar).map(Cow::into_owned))
                .collect::<Option<Vec<_>>>()
        };
        let options =
            take("text").ok_or_else(|| row.field(column).wrong(&Value::Array(list.clone()), "a text per option"))?;
        return Ok((options, take("label")));
    }
    Ok((texts(row, column, Cow::Owned(Value::Array(list)))?, None))
}

fn texts(row: Row<'_>, column: &Column, value: Cow<'_, Value>) -> Result<Vec<String>, DataError> {
    const EXPECTED: &str = "a list of texts";
    let list = column::list(value).map_err(|value| row.field(column).wrong(&value, EXPECTED))?;
    let each = list.iter().map(|item| column::scalar(item).map(Cow::into_owned));
    each.collect::<Option<Vec<_>>>().ok_or_else(|| row.field(column).wrong(&Value::Array(list.clone()), EXPECTED))
}
