//! What a task asks of data, and which row formats it can use.

use rondo_proto::run_file::{Task, TaskKind, Template};

use crate::RowFormat;

/// The task that examples are read for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskSpec<'t> {
    /// The kind of task.
    pub kind: TaskKind,
    /// The labels of a classification, in the order of their indices.
    pub labels: &'t [String],
    /// How instructions and questions become text.
    pub template: Template,
}

impl<'t> TaskSpec<'t> {
    /// What a run's task asks of data.
    pub fn of(task: &'t Task) -> Self {
        Self { kind: task.kind, labels: &task.labels, template: task.template }
    }

    /// Labelled texts.
    pub fn classification(labels: &'t [String]) -> Self {
        Self { kind: TaskKind::Classification, labels, template: Template::Auto }
    }
}

/// The row formats that a kind of task can use, in the order in which they are tried.
pub(super) fn row_formats(kind: TaskKind) -> &'static [RowFormat] {
    match kind {
        TaskKind::Classification => &[RowFormat::Labelled],
        TaskKind::MultipleChoice => &[RowFormat::Choice],
        TaskKind::ExactAnswer => {
            &[RowFormat::Question, RowFormat::Dolly, RowFormat::Alpaca, RowFormat::Completion, RowFormat::Messages]
        }
        TaskKind::CausalLm => &[
            RowFormat::Messages,
            RowFormat::Dolly,
            RowFormat::Alpaca,
            RowFormat::Completion,
            RowFormat::Choice,
            RowFormat::Question,
            RowFormat::Text,
        ],
    }
}

/// Their names in quotes, for messages.
pub(super) fn names(kind: TaskKind) -> String {
    row_formats(kind).iter().map(|row_format| format!("\"{}\"", row_format.name())).collect::<Vec<_>>().join(", ")
}

/// Their names and columns, for messages.
pub(super) fn described(kind: TaskKind) -> String {
    row_formats(kind)
        .iter()
        .map(|row_format| format!("{} ({})", row_format.name(), row_format.columns()))
        .collect::<Vec<_>>()
        .join("; ")
}
