//! The shapes that rows have, and which of them a task can use.

use rondo_proto::run_file::{Task, TaskKind, Template};
use serde::{Deserialize, Serialize};

/// What a row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Told by the columns.
    #[default]
    Auto,
    /// `text` and `label`.
    Labelled,
    /// `text`.
    Text,
    /// `prompt` and `completion`.
    Completion,
    /// `instruction`, `input` (may be empty) and `output`.
    Alpaca,
    /// `instruction`, `context` (may be empty), `response`; `category` is the group.
    Dolly,
    /// `messages`: a list of turns with `role` and `content`.
    Messages,
    /// `question`, `choices` and `answer`.
    Choice,
    /// `question` and `answer`.
    Question,
}

/// What examples are wanted for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wants<'t> {
    /// The kind of task.
    pub kind: TaskKind,
    /// The labels of a classification, in the order of their indices.
    pub labels: &'t [String],
    /// How instructions and questions become text.
    pub template: Template,
}

impl<'t> Wants<'t> {
    /// What a run's task wants.
    pub fn of(task: &'t Task) -> Self {
        Self { kind: task.kind, labels: &task.labels, template: task.template }
    }

    /// Labelled texts.
    pub fn classification(labels: &'t [String]) -> Self {
        Self { kind: TaskKind::Classification, labels, template: Template::Auto }
    }
}

/// The shapes that a kind of task can use, in the order in which they are looked for.
pub(super) fn shapes(kind: TaskKind) -> &'static [Shape] {
    match kind {
        TaskKind::Classification => &[Shape::Labelled],
        TaskKind::MultipleChoice => &[Shape::Choice],
        TaskKind::ExactAnswer => &[Shape::Question, Shape::Dolly, Shape::Alpaca, Shape::Completion, Shape::Messages],
        TaskKind::CausalLm => &[
            Shape::Messages,
            Shape::Dolly,
            Shape::Alpaca,
            Shape::Completion,
            Shape::Choice,
            Shape::Question,
            Shape::Text,
        ],
    }
}

pub(super) fn names(kind: TaskKind) -> String {
    shapes(kind).iter().map(|shape| format!("\"{}\"", shape.name())).collect::<Vec<_>>().join(", ")
}

pub(super) fn described(kind: TaskKind) -> String {
    shapes(kind).iter().map(|shape| format!("{} ({})", shape.name(), shape.columns())).collect::<Vec<_>>().join("; ")
}

impl Shape {
    /// As client.toml calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Labelled => "labelled",
            Self::Text => "text",
            Self::Completion => "completion",
            Self::Alpaca => "alpaca",
            Self::Dolly => "dolly",
            Self::Messages => "messages",
            Self::Choice => "choice",
            Self::Question => "question",
        }
    }

    /// Its columns.
    fn columns(self) -> &'static str {
        match self {
            Self::Auto => "any",
            Self::Labelled => "text, label",
            Self::Text => "text",
            Self::Completion => "prompt, completion",
            Self::Alpaca => "instruction, input, output",
            Self::Dolly => "instruction, context, response",
            Self::Messages => "messages",
            Self::Choice => "question, choices, answer",
            Self::Question => "question, answer",
        }
    }
}
