//! A conversation, as a model's chat template is given it.

use std::ops::Deref;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// A conversation: its turns, and what belongs to it as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Conversation {
    /// The turns.
    pub messages: Vec<Message>,
    /// The tools that the model may call: a JSON list as text; empty where there are none. Text
    /// keeps the order of keys, which templates show.
    pub tools: Box<str>,
    /// The documents that the model may quote, likewise.
    pub documents: Box<str>,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; of content in parts their texts, one behind the other.
    pub content: Box<str>,
    /// Further keys that templates may use, such as `tool_calls`: a JSON object as text; empty where
    /// there are none.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub extra: Box<str>,
    /// Whether a turn of the assistant is learnt; otherwise the model only reads it.
    #[serde(default = "learnt", skip_serializing_if = "is_learnt")]
    pub is_learnt: bool,
}

/// Who speaks in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// What a tool gave back.
    Tool,
    /// Instructions to the model, in newer conversations. A template that does not know the role is
    /// given it as the system's.
    Developer,
}

fn learnt() -> bool {
    true
}

fn is_learnt(learnt: &bool) -> bool {
    *learnt
}

impl Role {
    /// As templates know it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::Developer => "developer",
        }
    }
}

impl Message {
    /// A turn of plain text.
    pub fn new(role: Role, content: impl Into<Box<str>>) -> Self {
        Self { role, content: content.into(), extra: "".into(), is_learnt: true }
    }

    /// The further keys.
    pub(super) fn extra_keys(&self) -> Map<String, Value> {
        serde_json::from_str(&self.extra).unwrap_or_default()
    }
}

impl Conversation {
    /// Turns alone.
    pub fn new(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }

    /// Bytes of all its text.
    pub(super) fn bytes(&self) -> usize {
        let turns = self.messages.iter().map(|message| message.content.len() + message.extra.len());
        turns.sum::<usize>() + self.tools.len() + self.documents.len()
    }
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self::new(messages)
    }
}

impl Deref for Conversation {
    type Target = [Message];

    fn deref(&self) -> &[Message] {
        &self.messages
    }
}

/// Without tools and documents it is the list of its turns, as it was before there were any: the
/// order of rows with equal keys depends on it.
impl Serialize for Conversation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.tools.is_empty() && self.documents.is_empty() {
            return self.messages.serialize(serializer);
        }
        let mut parts = serializer.serialize_struct("Conversation", 3)?;
        parts.serialize_field("messages", &self.messages)?;
        parts.serialize_field("tools", &self.tools)?;
        parts.serialize_field("documents", &self.documents)?;
        parts.end()
    }
}
