//! From a record to an example: which shape the columns have, and how each is read.

mod kept;

use std::borrow::Cow;

use rondo_proto::run_file::{TaskKind, Template};
use rondo_proto::wording::SettingKey;
use serde_json::Value;

use super::choice::Choices;
use super::column::{self, Cell, Column};
use super::error::Place;
use super::shape::shapes;
use super::{Content, DataError, Example, Message, Record, Role, Shape, Source, Wants};

/// How a source's rows are read for a task.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shaper {
    fields: Fields,
    group: Option<Column>,
    reference: Option<Column>,
    chat: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Fields {
    Labelled { text: Column, label: Column },
    Text(Column),
    Completion { prompt: Column, completion: Column },
    Instruction { instruction: Column, input: Column, output: Column },
    Messages(Column),
    Choice { question: Column, choices: Box<Choices> },
    Question { question: Column, answer: Column, answer_after: Option<String> },
}

/// A column that a JSON row may leave out, so that the first row does not tell whether it is there.
const MAY_BE_ABSENT: &str = "input";

impl Shaper {
    /// Refuses a `rows` that the task cannot use, before a file is opened.
    pub(super) fn check(source: &Source, wants: Wants<'_>) -> Result<(), DataError> {
        if source.rows != Shape::Auto && !shapes(wants.kind).contains(&source.rows) {
            return Err(DataError::ShapeOfTask { file: source.path.clone(), rows: source.rows, kind: wants.kind });
        }
        Ok(())
    }

    /// The reading for rows with these columns.
    pub(super) fn new(source: &Source, wants: Wants<'_>, columns: &[String], at: Place) -> Result<Self, DataError> {
        Self::check_named(source, columns, at)?;
        let candidates: Vec<Shape> = match (source.rows, shapes(wants.kind)) {
            (Shape::Auto, [one]) => vec![*one],
            (Shape::Auto, several) => {
                let mut several = several.to_vec();
                // A shape whose columns client.toml names goes before the others.
                several.sort_by_key(|shape| !Self::is_named(source, *shape));
                several
            }
            (said, _) => vec![said],
        };
        for shape in &candidates {
            let fields = Fields::new(source, *shape, columns);
            match fields.needed().into_iter().find(|column| !column.is_in(columns)) {
                None => return Ok(Self::with(source, wants, *shape, fields, columns)),
                Some(column) if candidates.len() == 1 => return Err(missing(source, column, columns, at)),
                Some(_) => {}
            }
        }
        let there = columns.to_vec();
        Err(DataError::UnknownShape { file: source.path.clone(), at, there, kind: wants.kind })
    }

    /// Refuses a column that is named and not there: it would else be passed over where the rows have another shape
    /// besides.
    pub(super) fn check_named(source: &Source, columns: &[String], at: Place) -> Result<(), DataError> {
        let named = source.named_columns().filter(|(role, _)| *role != MAY_BE_ABSENT);
        match named.map(|(_, name)| Column::new(name)).find(|column| !column.is_in(columns)) {
            Some(column) => Err(missing(source, &column, columns, at)),
            None => Ok(()),
        }
    }

    fn is_named(source: &Source, shape: Shape) -> bool {
        let map = &source.mapping;
        match shape {
            Shape::Auto => false,
            Shape::Labelled => true,
            Shape::Text => source.text != "text",
            Shape::Completion => map.prompt.is_some() || map.completion.is_some(),
            Shape::Alpaca | Shape::Dolly => map.instruction.is_some() || map.input.is_some() || map.output.is_some(),
            Shape::Messages => map.messages.is_some(),
            Shape::Choice => map.choices.is_some() || map.options.is_some(),
            Shape::Question => map.question.is_some() && map.choices.is_none() && map.options.is_none(),
        }
    }

    fn with(source: &Source, wants: Wants<'_>, shape: Shape, fields: Fields, columns: &[String]) -> Self {
        let by_default = (shape == Shape::Dolly && column::has(columns, "category")).then(|| "category".to_owned());
        let group = source.mapping.group.clone().or(by_default).map(|name| Column::new(&name));
        // An instruction row of an exact-answer run may name the answer beside a longer output.
        let named = matches!(fields, Fields::Instruction { .. } | Fields::Completion { .. } | Fields::Messages(_));
        let answer = Column::new(source.mapping.answer.as_deref().unwrap_or("answer"));
        let reference = (wants.kind == TaskKind::ExactAnswer && named && answer.is_in(columns)).then_some(answer);
        Self { fields, group, reference, chat: wants.template == Template::Chat }
    }

    /// The example a record makes; `None` where its label is one to leave out.
    pub(super) fn example(
        &self,
        source: &Source,
        wants: Wants<'_>,
        record: &Record,
        at: Place,
    ) -> Result<Option<Example>, DataError> {
        let cell = Cell { source, record, at };
        let group = match &self.group {
            Some(column) => Some(Box::from(cell.scalar(column)?.as_ref())),
            None => None,
        };
        let reference = match &self.reference {
            Some(column) => Some(Box::from(cell.scalar(column)?.trim())),
            None => None,
        };
        let Some((given, content)) = self.content(cell, wants)? else { return Ok(None) };
        Ok(Some(Example::new(&source.name, &given, content, reference, group, at)))
    }

    /// What decides the row's side of the split, and what the row says.
    fn content(&self, cell: Cell<'_>, wants: Wants<'_>) -> Result<Option<(String, Content)>, DataError> {
        Ok(Some(match &self.fields {
            Fields::Labelled { text, label } => {
                let (text, label) = (cell.text(text)?, cell.scalar(label)?);
                let Some(label) = class(cell, label.trim(), wants.labels)? else { return Ok(None) };
                (text.to_string(), Content::Labelled { text: text.into(), label })
            }
            Fields::Text(text) => {
                let text = said(cell, text, cell.text(text)?)?;
                (text.to_string(), Content::Text(text.into()))
            }
            Fields::Completion { prompt, completion } => {
                let given = cell.text_or_nothing(prompt)?;
                let completion = said(cell, completion, cell.text(completion)?)?;
                let content = self.pair(&given, &completion, str::to_owned);
                (if given.is_empty() { &completion } else { &given }.to_string(), content)
            }
            Fields::Instruction { instruction, input, output } => {
                let asked = said(cell, instruction, cell.text(instruction)?)?;
                let input = cell.text_or_nothing(input)?;
                let output = said(cell, output, cell.scalar(output)?)?;
                let given = if input.trim().is_empty() { asked.to_string() } else { format!("{asked}\n\n{input}") };
                let content = self.pair(&given, &output, |_| headed(&asked, &input));
                (given, content)
            }
            Fields::Messages(messages) => {
                let content = Content::Chat(turns(cell, messages)?);
                (content.given(), content)
            }
            Fields::Choice { question, choices } => {
                let question = said(cell, question, cell.text(question)?)?;
                let (options, answer) = choices.read(cell)?;
                let (prompt, before) = if self.chat { (question.to_string(), "") } else { (asked(&question), " ") };
                let options = options.iter().map(|option| format!("{before}{}", option.trim()).into()).collect();
                (question.to_string(), Content::Choice { prompt: prompt.into(), options, answer })
            }
            Fields::Question { question, answer, answer_after } => {
                let question = said(cell, question, cell.text(question)?)?;
                let mut answer = said(cell, answer, cell.scalar(answer)?)?;
                if let Some(words) = answer_after {
                    let (_, after) = answer.rsplit_once(words.as_str()).ok_or_else(|| {
                        cell.bad(format!("the answer does not hold {words:?} ({})", SettingKey::AnswerAfter))
                    })?;
                    answer = after.trim().to_owned().into();
                }
                let before = if self.chat { "" } else { " " };
                let content = self.pair(&question, &format!("{before}{}", answer.trim()), asked);
                (question.to_string(), content)
            }
        }))
    }

    /// A prompt and what follows it: as two turns, or as the text that `plain` makes of the prompt and the rest.
    fn pair(&self, given: &str, completion: &str, plain: impl FnOnce(&str) -> String) -> Content {
        if self.chat {
            return Content::Chat(vec![Message::new(Role::User, given), Message::new(Role::Assistant, completion)]);
        }
        Content::Completion { prompt: plain(given).into(), completion: completion.into() }
    }
}

fn missing(source: &Source, column: &Column, columns: &[String], at: Place) -> DataError {
    let name = column.bases().find(|base| !column::has(columns, base)).unwrap_or(&column.name).to_owned();
    DataError::MissingColumn { file: source.path.clone(), at, column: name, there: columns.to_vec() }
}

impl Fields {
    fn new(source: &Source, shape: Shape, columns: &[String]) -> Self {
        let map = &source.mapping;
        // The name said, else the first of the shape's own names that is there, else the first of them.
        let column = |said: &Option<String>, own: &[&str]| {
            let there = own.iter().find(|name| column::has(columns, name)).or(own.first()).copied();
            Column::new(said.as_deref().or(there).unwrap_or_default())
        };
        let answer = || column(&map.answer, &["answer", "answerKey"]);
        match shape {
            Shape::Auto | Shape::Labelled => {
                Self::Labelled { text: Column::new(&source.text), label: Column::new(&source.label) }
            }
            Shape::Text => Self::Text(Column::new(&source.text)),
            Shape::Completion => Self::Completion {
                prompt: column(&map.prompt, &["prompt"]),
                completion: column(&map.completion, &["completion"]),
            },
            Shape::Alpaca => Self::Instruction {
                instruction: column(&map.instruction, &["instruction"]),
                input: column(&map.input, &["input"]),
                output: column(&map.output, &["output"]),
            },
            Shape::Dolly => Self::Instruction {
                instruction: column(&map.instruction, &["instruction"]),
                input: column(&map.input, &["context"]),
                output: column(&map.output, &["response"]),
            },
            Shape::Messages => Self::Messages(column(&map.messages, &["messages", "conversations"])),
            Shape::Choice => Self::Choice {
                question: column(&map.question, &["question", "question_stem"]),
                choices: Box::new(Choices::new(source, answer())),
            },
            Shape::Question => Self::Question {
                question: column(&map.question, &["question"]),
                answer: answer(),
                answer_after: map.answer_after.clone(),
            },
        }
    }

    /// The columns without which no row can be read.
    fn needed(&self) -> Vec<&Column> {
        match self {
            Self::Labelled { text, label } => vec![text, label],
            Self::Text(text) | Self::Messages(text) => vec![text],
            Self::Completion { prompt, completion } => vec![prompt, completion],
            Self::Instruction { instruction, output, .. } => vec![instruction, output],
            Self::Choice { question, choices } => [question].into_iter().chain(choices.columns()).collect(),
            Self::Question { question, answer, .. } => vec![question, answer],
        }
    }
}

/// The class that a label in the file means; `None` where its rows are left out.
fn class(cell: Cell<'_>, label: &str, known: &[String]) -> Result<Option<u32>, DataError> {
    let source = cell.source;
    if source.skip_labels.iter().any(|skipped| skipped == label) {
        return Ok(None);
    }
    let named = source.labels.get(label).map_or(label, String::as_str);
    if let Some(class) = known.iter().position(|known| known == named) {
        return Ok(Some(class as u32));
    }
    let mapped = if named == label { String::new() } else { format!(" (mapped to {named:?})") };
    Err(DataError::UnknownLabel {
        file: source.path.clone(),
        at: cell.at,
        column: source.label.clone(),
        label: format!("{label:?}{mapped}"),
        known: known.to_vec(),
    })
}

/// Refuses a text that says nothing.
fn said<'r>(cell: Cell<'_>, column: &Column, text: Cow<'r, str>) -> Result<Cow<'r, str>, DataError> {
    if text.trim().is_empty() {
        return Err(cell.bad(format!("column `{}` is empty", column.name)));
    }
    Ok(text)
}

/// An instruction under headings, up to where the response follows.
fn headed(instruction: &str, input: &str) -> String {
    let mut text = format!("### Instruction:\n{}\n\n", instruction.trim());
    if !input.trim().is_empty() {
        text.push_str(&format!("### Input:\n{}\n\n", input.trim()));
    }
    text.push_str("### Response:\n");
    text
}

/// A question, up to where the answer follows.
fn asked(question: &str) -> String {
    format!("Question: {}\nAnswer:", question.trim())
}

/// The turns of a conversation: `role` and `content`, or `from` and `value`.
fn turns(cell: Cell<'_>, column: &Column) -> Result<Vec<Message>, DataError> {
    let list = column::list(cell.value(column)?).map_err(|value| cell.wrong(column, &value, "a list of turns"))?;
    let mut turns = Vec::with_capacity(list.len());
    for (number, turn) in list.iter().enumerate() {
        let bad = |problem: &str| cell.bad(format!("column `{}`: turn {} {problem}", column.name, number + 1));
        let part = |keys: [&str; 2]| keys.iter().find_map(|key| turn.get(key)).and_then(Value::as_str);
        let role = match part(["role", "from"]) {
            Some("system") => Role::System,
            Some("user" | "human") => Role::User,
            Some("assistant" | "gpt") => Role::Assistant,
            Some(other) => return Err(bad(&format!("has the role {other:?}; there are system, user and assistant"))),
            None => return Err(bad("has no `role` that is a string")),
        };
        let content = part(["content", "value"]).ok_or_else(|| bad("has no `content` that is a string"))?;
        if role == Role::Assistant && content.trim().is_empty() {
            return Err(bad("of the assistant is empty"));
        }
        turns.push(Message::new(role, content));
    }
    if !turns.iter().any(|turn| turn.role == Role::Assistant) {
        return Err(cell.bad(format!("column `{}` has no turn of the assistant to learn from", column.name)));
    }
    Ok(turns)
}
