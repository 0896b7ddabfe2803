//! The formats that rows have: which columns hold what.

use serde::{Deserialize, Serialize};

/// What a row holds: the `rows` key of a `[[dataset]]` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowFormat {
    /// Found by looking at the columns.
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

impl RowFormat {
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

    /// Its columns, as messages list them.
    pub(super) fn columns(self) -> &'static str {
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
