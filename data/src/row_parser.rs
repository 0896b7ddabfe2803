//! From a record to an example: which row format the columns fit, and how each is read.

mod columns;
mod instruction;
mod turns;
mod unusable;

use std::borrow::Cow;

use rondo_proto::run_file::{TaskKind, Template, trimmed};
use rondo_proto::wording::SettingKey;

use super::column::{self, Column};
use super::error::Place;
use super::field::Row;
use super::task_spec::row_formats;
use super::{Content, DataError, Example, Message, Record, Role, RowFormat, Source, TaskSpec};
use columns::RowColumns;
use instruction::{Before, headed};

/// How a source's rows are read for a task.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RowParser {
    columns: RowColumns,
    group: Option<Column>,
    reference: Option<Column>,
    chat: bool,
}

/// A column that a JSON row may leave out, so that the first row does not show whether it exists.
const MAY_BE_ABSENT: &str = "input";

impl RowParser {
    /// Refuses a `rows` that the task cannot use, before a file is opened.
    pub(super) fn check(source: &Source, task: TaskSpec<'_>) -> Result<(), DataError> {
        if source.rows != RowFormat::Auto && !row_formats(task.kind).contains(&source.rows) {
            return Err(DataError::RowFormatOfTask { file: source.path.clone(), rows: source.rows, kind: task.kind });
        }
        Ok(())
    }

    /// The reading for rows with these columns.
    pub(super) fn new(source: &Source, task: TaskSpec<'_>, columns: &[String], at: Place) -> Result<Self, DataError> {
        Self::check_named(source, columns, at)?;
        let candidates: Vec<RowFormat> = match (source.rows, row_formats(task.kind)) {
            (RowFormat::Auto, [one]) => vec![*one],
            (RowFormat::Auto, several) => {
                let mut several = several.to_vec();
                // A row format whose columns client.toml names goes before the others.
                several.sort_by_key(|row_format| !Self::is_named(source, *row_format));
                several
            }
            (named, _) => vec![named],
        };
        for row_format in &candidates {
            let read = RowColumns::new(source, *row_format, columns);
            match read.needed().into_iter().find(|column| !column.is_in(columns)) {
                None => return Ok(Self::with(source, task, *row_format, read, columns)),
                Some(column) if candidates.len() == 1 => return Err(missing_column(source, column, columns, at)),
                Some(_) => {}
            }
        }
        let there = columns.to_vec();
        Err(DataError::UnknownRowFormat { file: source.path.clone(), at, there, kind: task.kind })
    }

    /// Refuses a column that client.toml names and the file lacks. Without this check the name
    /// would be ignored where the rows fit another row format too.
    pub(super) fn check_named(source: &Source, columns: &[String], at: Place) -> Result<(), DataError> {
        let named = source.named_columns().filter(|(role, _)| *role != MAY_BE_ABSENT);
        match named.map(|(_, name)| Column::new(name)).find(|column| !column.is_in(columns)) {
            Some(column) => Err(missing_column(source, &column, columns, at)),
            None => Ok(()),
        }
    }

    /// Whether client.toml names a column of this row format.
    fn is_named(source: &Source, row_format: RowFormat) -> bool {
        let map = &source.mapping;
        match row_format {
            RowFormat::Auto => false,
            RowFormat::Labelled => true,
            RowFormat::Text => source.text != "text",
            RowFormat::Completion => map.prompt.is_some() || map.completion.is_some(),
            RowFormat::Alpaca | RowFormat::Dolly => {
                map.instruction.is_some() || map.input.is_some() || map.output.is_some()
            }
            RowFormat::Messages => map.messages.is_some(),
            RowFormat::Choice => map.choices.is_some() || map.options.is_some(),
            RowFormat::Question => map.question.is_some() && map.choices.is_none() && map.options.is_none(),
        }
    }

    fn with(source: &Source, task: TaskSpec<'_>, row_format: RowFormat, read: RowColumns, columns: &[String]) -> Self {
        let by_default =
            (row_format == RowFormat::Dolly && column::has(columns, "category")).then(|| "category".to_owned());
        let group = source.mapping.group.clone().or(by_default).map(|name| Column::new(&name));
        // An instruction row of an exact-answer run may name the answer beside a longer output.
        let named =
            matches!(read, RowColumns::Instruction { .. } | RowColumns::Completion { .. } | RowColumns::Messages(_));
        let answer = Column::new(source.mapping.answer.as_deref().unwrap_or("answer"));
        let reference = (task.kind == TaskKind::ExactAnswer && named && answer.is_in(columns)).then_some(answer);
        Self { columns: read, group, reference, chat: task.template == Template::Chat }
    }

    /// The example that a record makes; `None` where its label is one to leave out.
    ///
    /// # Errors
    /// The row cannot be used: a column is missing, empty or of the wrong kind.
    pub(super) fn example(
        &self,
        source: &Source,
        task: TaskSpec<'_>,
        record: &Record,
        at: Place,
    ) -> Result<Option<Example>, DataError> {
        let row = Row { source, record, at };
        let group = match &self.group {
            Some(column) => Some(Box::from(row.field(column).scalar()?.as_ref())),
            None => None,
        };
        let reference = match &self.reference {
            Some(column) => Some(Box::from(row.field(column).scalar()?.trim())),
            None => None,
        };
        let Some((given, content)) = self.content(row, task)? else { return Ok(None) };
        Ok(Some(Example::new(&source.name, &given, content, reference, group, at)))
    }

    /// What decides the row's side of the split, and what the row says.
    fn content(&self, row: Row<'_>, task: TaskSpec<'_>) -> Result<Option<(String, Content)>, DataError> {
        Ok(Some(match &self.columns {
            RowColumns::Labelled { text, label } => {
                let text = row.field(text).text()?;
                let label = row.field(label).scalar()?;
                let Some(label) = class(row, trimmed(&label), task.labels)? else { return Ok(None) };
                (text.to_string(), Content::Labelled { text: text.into(), label })
            }
            RowColumns::Text(text) => {
                let text = not_empty(row, text, row.field(text).text()?)?;
                (text.to_string(), Content::Text(text.into()))
            }
            RowColumns::Completion { prompt, completion } => {
                let given = row.field(prompt).text_or_empty()?;
                let completion = not_empty(row, completion, row.field(completion).text()?)?;
                let content = self.pair(&given, &completion, str::to_owned);
                (if given.is_empty() { &completion } else { &given }.to_string(), content)
            }
            RowColumns::Instruction { instruction, input, output } => {
                let asked = not_empty(row, instruction, row.field(instruction).text()?)?;
                let input = row.field(input).text_or_empty()?;
                let output = not_empty(row, output, row.field(output).scalar()?)?;
                let given = if input.trim().is_empty() { asked.to_string() } else { format!("{asked}\n\n{input}") };
                let before = Before::read(row)?;
                let content = match self.chat {
                    true => before.chat(&given, &output),
                    false => {
                        let prompt = before.plain(&headed(&asked, &input)).into();
                        Content::Completion { prompt, completion: output.as_ref().into() }
                    }
                };
                (given, content)
            }
            RowColumns::Messages(messages) => {
                let content = Content::Chat(turns::read(row, messages)?);
                (content.given(), content)
            }
            RowColumns::Choice { question, choices } => {
                let question = not_empty(row, question, row.field(question).text()?)?;
                let (options, answer) = choices.read(row)?;
                let (prompt, before) = if self.chat { (question.to_string(), "") } else { (asked(&question), " ") };
                let options = options.iter().map(|option| format!("{before}{}", option.trim()).into()).collect();
                (question.to_string(), Content::Choice { prompt: prompt.into(), options, answer })
            }
            RowColumns::Question { question, answer, answer_after } => {
                let question = not_empty(row, question, row.field(question).text()?)?;
                let mut answer = not_empty(row, answer, row.field(answer).scalar()?)?;
                if let Some(words) = answer_after {
                    let (_, after) = answer.rsplit_once(words.as_str()).ok_or_else(|| {
                        row.bad(format!("the answer does not hold {words:?} ({})", SettingKey::AnswerAfter))
                    })?;
                    answer = after.trim().to_owned().into();
                }
                let before = if self.chat { "" } else { " " };
                let content = self.pair(&question, &format!("{before}{}", answer.trim()), asked);
                (question.to_string(), content)
            }
        }))
    }

    /// A prompt and what follows it: as two turns, or as the text that `plain` makes of the prompt
    /// and the rest.
    fn pair(&self, given: &str, completion: &str, plain: impl FnOnce(&str) -> String) -> Content {
        if self.chat {
            return Content::Chat(
                vec![Message::new(Role::User, given), Message::new(Role::Assistant, completion)].into(),
            );
        }
        Content::Completion { prompt: plain(given).into(), completion: completion.into() }
    }
}

/// The class that a label in the file means; `None` where its rows are left out.
fn class(row: Row<'_>, label: &str, known: &[String]) -> Result<Option<u32>, DataError> {
    let source = row.source;
    if source.skip_labels.iter().any(|skipped| trimmed(skipped) == label) {
        return Ok(None);
    }
    let mapped = source.labels.iter().find(|(from, _)| trimmed(from) == label);
    let named = mapped.map_or(label, |(_, to)| trimmed(to));
    if let Some(class) = known.iter().position(|known| trimmed(known) == named) {
        return Ok(Some(class as u32));
    }
    let mapped = if named == label { String::new() } else { format!(" (mapped to {named:?})") };
    Err(DataError::UnknownLabel {
        file: source.path.clone(),
        at: row.at,
        column: source.label.clone(),
        label: format!("{label:?}{mapped}"),
        known: known.to_vec(),
    })
}

/// Refuses a text that is empty or only spaces.
fn not_empty<'r>(row: Row<'_>, column: &Column, text: Cow<'r, str>) -> Result<Cow<'r, str>, DataError> {
    if text.trim().is_empty() {
        return Err(row.bad(format!("column `{}` is empty", column.name)));
    }
    Ok(text)
}

/// A question, up to where the answer follows.
fn asked(question: &str) -> String {
    format!("Question: {}\nAnswer:", question.trim())
}

fn missing_column(source: &Source, column: &Column, columns: &[String], at: Place) -> DataError {
    let name = column.bases().find(|base| !column::has(columns, base)).unwrap_or(&column.name).to_owned();
    DataError::MissingColumn { file: source.path.clone(), at, column: name, there: columns.to_vec() }
}
