//! Which columns of a file each row format reads.

use crate::choices::Choices;
use crate::column::{self, Column};
use crate::{RowFormat, Source};

/// The columns that a row format reads.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RowColumns {
    Labelled { text: Column, label: Column },
    Text(Column),
    Completion { prompt: Column, completion: Column },
    Instruction { instruction: Column, input: Column, output: Column },
    Messages(Column),
    Choice { question: Column, choices: Box<Choices> },
    Question { question: Column, answer: Column, answer_after: Option<String> },
}

impl RowColumns {
    /// The columns of a row format: those that client.toml names, else the format's own.
    pub(super) fn new(source: &Source, row_format: RowFormat, columns: &[String]) -> Self {
        let map = &source.mapping;
        // The name in client.toml, else the first of the format's own names that is there, else the
        // first of them.
        let column = |named: &Option<String>, own: &[&str]| {
            let there = own.iter().find(|name| column::has(columns, name)).or(own.first()).copied();
            Column::new(named.as_deref().or(there).unwrap_or_default())
        };
        let answer = || column(&map.answer, &["answer", "answerKey"]);
        match row_format {
            RowFormat::Auto | RowFormat::Labelled => {
                Self::Labelled { text: Column::new(&source.text), label: Column::new(&source.label) }
            }
            RowFormat::Text => Self::Text(Column::new(&source.text)),
            RowFormat::Completion => Self::Completion {
                prompt: column(&map.prompt, &["prompt"]),
                completion: column(&map.completion, &["completion"]),
            },
            RowFormat::Alpaca => Self::Instruction {
                instruction: column(&map.instruction, &["instruction"]),
                input: column(&map.input, &["input"]),
                output: column(&map.output, &["output"]),
            },
            RowFormat::Dolly => Self::Instruction {
                instruction: column(&map.instruction, &["instruction"]),
                input: column(&map.input, &["context"]),
                output: column(&map.output, &["response"]),
            },
            RowFormat::Messages => Self::Messages(column(&map.messages, &["messages", "conversations"])),
            RowFormat::Choice => Self::Choice {
                question: column(&map.question, &["question", "question_stem"]),
                choices: Box::new(Choices::new(source, answer())),
            },
            RowFormat::Question => Self::Question {
                question: column(&map.question, &["question"]),
                answer: answer(),
                answer_after: map.answer_after.clone(),
            },
        }
    }

    /// The columns without which no row can be read.
    pub(super) fn needed(&self) -> Vec<&Column> {
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
