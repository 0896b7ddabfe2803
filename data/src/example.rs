//! One row of a data set, as tasks use it.

use serde::Serialize;

use super::error::Place;
use super::{Conversation, Role, split_key};

/// One row of a data set. Two rows are equal when they say the same, wherever they stand.
#[derive(Debug, Clone)]
pub struct Example {
    /// Where the split puts it: the first 8 bytes of BLAKE3(data set name, 0, what is given). Rows
    /// are kept in this order.
    pub(super) key: u64,
    /// The order of rows with equal keys.
    pub(super) tie: u64,
    /// Where it stands in its file.
    pub(super) place: Place,
    /// What the row says.
    pub content: Content,
    /// What an exact answer is compared with, where the row names it beside the completion.
    pub(super) reference: Option<Box<str>>,
    /// The group that evaluations report it under, where the data set names groups.
    pub group: Option<Box<str>>,
}

impl PartialEq for Example {
    fn eq(&self, other: &Self) -> bool {
        let parts = |example: &Self| (example.key, example.tie);
        parts(self) == parts(other)
            && self.content == other.content
            && self.reference == other.reference
            && self.group == other.group
    }
}

/// What a row says, by the kind of task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Content {
    /// A text and its class.
    Labelled {
        /// As the file has it.
        text: Box<str>,
        /// Index into the run's labels.
        label: u32,
    },
    /// A text to learn as a whole.
    Text(Box<str>),
    /// What is given, and what the model should say after it.
    Completion {
        /// Given.
        prompt: Box<str>,
        /// To be said.
        completion: Box<str>,
    },
    /// A conversation, to be laid out by the model's chat template.
    Chat(Conversation),
    /// A question with options.
    Choice {
        /// The question, up to where an option follows.
        prompt: Box<str>,
        /// The options.
        options: Vec<Box<str>>,
        /// Index of the right one.
        answer: u32,
    },
    /// Nothing that the task can use. The row counts and adds nothing ([`super::OnBadRow::Keep`]).
    Unusable,
}

impl Example {
    /// An example made in memory, of no file.
    pub fn of(dataset: &str, content: Content, group: Option<&str>) -> Self {
        let given = content.given();
        Self::new(dataset, &given, content, None, group.map(Into::into), Place::Row(0))
    }

    pub(super) fn new(
        dataset: &str,
        given: &str,
        content: Content,
        reference: Option<Box<str>>,
        group: Option<Box<str>>,
        place: Place,
    ) -> Self {
        let tie = match &content {
            Content::Labelled { label, .. } => u64::from(*label),
            other => split_key::tie(other, reference.as_deref(), group.as_deref()),
        };
        Self { key: split_key::key(dataset, given), tie, place, content, reference, group }
    }

    /// A row that cannot be used and yet counts, on the side of the split where `given` puts it.
    pub(super) fn unusable(dataset: &str, given: &str, place: Place) -> Self {
        let key = split_key::key(dataset, given);
        Self { key, tie: u64::MAX, place, content: Content::Unusable, reference: None, group: None }
    }

    /// A labelled text; of other content the text that stands first.
    pub fn text(&self) -> &str {
        match &self.content {
            Content::Labelled { text, .. } | Content::Text(text) => text,
            Content::Completion { prompt, .. } | Content::Choice { prompt, .. } => prompt,
            Content::Chat(talk) => talk.messages.first().map_or("", |message| &message.content),
            Content::Unusable => "",
        }
    }

    /// The class of a labelled text; 0 for other content.
    pub fn label(&self) -> u32 {
        match self.content {
            Content::Labelled { label, .. } => label,
            _ => 0,
        }
    }

    /// What an exact answer is compared with: the answer that the row names, else what the model
    /// should say (of a conversation its last turn of the assistant), without spaces around it.
    pub fn reference(&self) -> &str {
        if let Some(reference) = &self.reference {
            return reference;
        }
        match &self.content {
            Content::Completion { completion, .. } => completion.trim(),
            Content::Choice { options, answer, .. } => options.get(*answer as usize).map_or("", |option| option.trim()),
            Content::Chat(talk) => {
                let last = talk.messages.iter().rev().find(|message| message.role == Role::Assistant);
                last.map_or("", |message| message.content.trim())
            }
            Content::Labelled { .. } | Content::Text(_) | Content::Unusable => "",
        }
    }

    /// Where it stands in its file.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Bytes of all its text.
    pub(super) fn bytes(&self) -> u32 {
        let bytes = match &self.content {
            Content::Labelled { text, .. } | Content::Text(text) => text.len(),
            Content::Completion { prompt, completion } => prompt.len() + completion.len(),
            Content::Chat(talk) => talk.bytes(),
            Content::Choice { prompt, options, .. } => {
                prompt.len() + options.iter().map(|text| text.len()).sum::<usize>()
            }
            Content::Unusable => 0,
        };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

impl Content {
    /// What is given to the model, which decides the side of the split: rows that ask the same
    /// stand on the same side.
    pub(super) fn given(&self) -> String {
        match self {
            Self::Labelled { text, .. } | Self::Text(text) => text.to_string(),
            Self::Completion { prompt, completion } if prompt.is_empty() => completion.to_string(),
            Self::Completion { prompt, .. } | Self::Choice { prompt, .. } => prompt.to_string(),
            Self::Chat(Conversation { messages, .. }) => {
                let last =
                    messages.iter().rposition(|message| message.role == Role::Assistant).unwrap_or(messages.len());
                let asked = |end: usize| messages[..end].iter().any(|message| message.role != Role::System);
                let end = if asked(last) { last } else { messages.len() };
                messages[..end].iter().map(|message| &*message.content).collect::<Vec<_>>().join("\0")
            }
            Self::Unusable => String::new(),
        }
    }
}
