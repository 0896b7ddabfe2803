//! What stands before an instruction: the `system` text and the `history` of an Alpaca row.

use serde_json::Value;

use crate::column::{self, lookup};
use crate::field::Row;
use crate::{Content, Conversation, DataError, Message, Role};

/// The text and the turns that the model is given before the instruction.
#[derive(Debug, Default)]
pub(super) struct Before {
    system: Option<String>,
    history: Vec<(String, String)>,
}

impl Before {
    /// Reads the columns `system` and `history`, where the row has them.
    ///
    /// # Errors
    /// `system` is no string; `history` is no list of pairs of strings.
    pub(super) fn read(row: Row<'_>) -> Result<Self, DataError> {
        let there = |name: &str| lookup(row.record, name).filter(|value| !value.is_null());
        let system = match there("system") {
            Some(value) => {
                let text = value.as_str().ok_or_else(|| row.bad("column `system` holds no string".to_owned()))?;
                Some(text.to_owned()).filter(|text| !text.trim().is_empty())
            }
            None => None,
        };
        let pairs = || row.bad("column `history` holds no list of pairs of strings".to_owned());
        let history = match there("history") {
            Some(value) if value.as_str().is_some_and(|text| text.trim().is_empty()) => Vec::new(),
            Some(value) => {
                let list = column::list(value).map_err(|_| pairs())?;
                list.iter().map(pair).collect::<Option<Vec<_>>>().ok_or_else(pairs)?
            }
            None => Vec::new(),
        };
        Ok(Self { system, history })
    }

    /// Puts it before a prompt in plain text, under the headings of instructions.
    pub(super) fn plain(&self, prompt: &str) -> String {
        let mut text = self.system.as_ref().map_or_else(String::new, |system| format!("{}\n\n", system.trim()));
        for (asked, said) in &self.history {
            text.push_str(&headed(asked, ""));
            text.push_str(&format!("{}\n\n", said.trim()));
        }
        text + prompt
    }

    /// The conversation of which the last answer alone is learnt.
    pub(super) fn chat(self, asked: &str, said: &str) -> Content {
        let mut messages: Vec<Message> =
            self.system.iter().map(|system| Message::new(Role::System, system.as_str())).collect();
        for (asked, said) in &self.history {
            messages.push(Message::new(Role::User, asked.as_str()));
            messages.push(Message { is_learnt: false, ..Message::new(Role::Assistant, said.as_str()) });
        }
        messages.push(Message::new(Role::User, asked));
        messages.push(Message::new(Role::Assistant, said));
        Content::Chat(Conversation::new(messages))
    }
}

fn pair(value: &Value) -> Option<(String, String)> {
    match value.as_array()?.as_slice() {
        [asked, said] => Some((asked.as_str()?.to_owned(), said.as_str()?.to_owned())),
        _ => None,
    }
}

/// An instruction under headings, up to where the response follows.
pub(super) fn headed(instruction: &str, input: &str) -> String {
    let mut text = format!("### Instruction:\n{}\n\n", instruction.trim());
    if !input.trim().is_empty() {
        text.push_str(&format!("### Input:\n{}\n\n", input.trim()));
    }
    text.push_str("### Response:\n");
    text
}
