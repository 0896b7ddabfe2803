//! A language model's row as token ids: what text it is laid out as, which of it counts, and where it is cut.
//!
//! The whole text is encoded in one go, as it would be met in the wild, and a token counts when any of its bytes belongs
//! to what the model should say. The end-of-text token behind a plain row counts too; a chat template ends turns itself.

use std::ops::Range;
use std::path::{Path, PathBuf};

use rondo_proto::run_file::{LossOn, TaskKind, Template};
use rondo_proto::wording::SettingKey;
use tokenizers::Tokenizer;

use crate::error::TrainerError;
use crate::text::encoded::{Choices, Encoded};
use rondo_data::template::{ChatTemplate, TemplateError};
use rondo_data::{Content, Example, Message, Role};

/// What of a task decides how its rows become tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) kind: TaskKind,
    pub(super) loss_on: LossOn,
    pub(super) template: Template,
    pub(super) max_tokens: usize,
}

/// A tokenizer with what goes with it.
#[derive(Clone)]
pub(super) struct Codec {
    pub(super) path: PathBuf,
    pub(super) tokenizer: Tokenizer,
    /// Ends a text; or why none is known, though the model names one. Encoders need none.
    pub(super) end: Result<Option<i64>, String>,
    /// The model's own template; why there is none, otherwise.
    pub(super) chat: Result<ChatTemplate, Missing>,
    pub(super) plain: ChatTemplate,
}

/// Why a model's chat template cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Missing {
    Absent,
    Unreadable(TemplateError),
}

impl Missing {
    /// The same without what to do, which is another thing for a run than for a conversation.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Absent => {
                "has no chat template (chat_template in tokenizer_config.json, or chat_template.jinja)".to_owned()
            }
            Self::Unreadable(TemplateError::Syntax(problem)) => {
                format!("has a chat template that cannot be read: {problem}")
            }
            Self::Unreadable(error) => format!("has a chat template that cannot be used: {error}"),
        }
    }
}

/// Why a row has no use.
#[derive(Debug)]
pub(super) enum Refusal {
    /// This row is at fault; the data set's policy decides.
    Row(String),
    /// Every row would fail.
    All(TrainerError),
}

impl From<TemplateError> for Refusal {
    fn from(error: TemplateError) -> Self {
        Self::Row(error.to_string())
    }
}

/// A text, and which bytes of it the model should say.
struct Laid {
    text: String,
    said: Vec<Range<usize>>,
    /// Whether the tokenizer adds its special tokens, and the end-of-text token follows: not behind a chat template,
    /// which writes them itself.
    bare: bool,
}

impl Codec {
    /// Appends a row to train or measure on; of a multiple choice the question with the right option.
    pub(super) fn push(&self, layout: Layout, example: &Example, encoded: &mut Encoded) -> Result<(), Refusal> {
        let laid = match &example.content {
            Content::Labelled { text, .. } | Content::Text(text) => {
                Laid { text: text.to_string(), said: std::iter::once(0..text.len()).collect(), bare: true }
            }
            Content::Completion { prompt, completion } => Laid::pair(prompt, completion),
            Content::Chat(messages) => self.chat(layout, messages)?,
            Content::Choice { prompt, options, answer } => {
                let Some(option) = options.get(*answer as usize) else {
                    return Err(Refusal::Row(format!("answer {answer} of {} options", options.len())));
                };
                let (ids, counts) = self.option(layout, prompt, option)?;
                encoded.push_counted(&ids, &counts);
                return Ok(());
            }
            Content::Unusable => return Err(Refusal::Row("it has nothing that the task can use".to_owned())),
        };
        let (mut ids, mut counts) = self.encode(&laid)?;
        if layout.loss_on == LossOn::All {
            counts.fill(true);
        }
        if let Some(end) = self.end()?.filter(|_| laid.bare) {
            // Some tokenizers end texts themselves.
            if ids.last() == Some(&end) {
                counts.pop();
            } else {
                ids.push(end);
            }
            counts.push(true);
        }
        let tokens = ids.len();
        ids.truncate(layout.max_tokens);
        counts.truncate(layout.max_tokens);
        if !counts.iter().skip(1).any(|&counts| counts) {
            let problem = if tokens > layout.max_tokens {
                format!(
                    "nothing of its completion is within the first {} of its {tokens} tokens ({})",
                    layout.max_tokens,
                    SettingKey::MaxTokens
                )
            } else {
                "it has no token that could be predicted from one before it".to_owned()
            };
            return Err(Refusal::Row(problem));
        }
        encoded.push_counted(&ids, &counts);
        Ok(())
    }

    /// Appends a question, one text per option.
    pub(super) fn push_choice(&self, layout: Layout, example: &Example, choices: &mut Choices) -> Result<(), Refusal> {
        let Content::Choice { prompt, options, answer } = &example.content else {
            return Err(Refusal::Row("it is no question with options".to_owned()));
        };
        let texts = options.iter().map(|option| self.option(layout, prompt, option)).collect::<Result<Vec<_>, _>>()?;
        for (ids, counts) in texts {
            choices.encoded.push_counted(&ids, &counts);
        }
        choices.first.push(choices.encoded.len());
        choices.answers.push(*answer as usize);
        Ok(())
    }

    /// A question and an option. Nothing is cut: options compare by all of their tokens.
    fn option(&self, layout: Layout, prompt: &str, option: &str) -> Result<(Vec<i64>, Vec<bool>), Refusal> {
        let laid = if layout.template == Template::Chat {
            let asked = [Message::new(Role::User, prompt)];
            let mut laid = Laid::pair(&self.template(layout)?.render(&asked, true)?, option);
            laid.bare = false;
            laid
        } else {
            Laid::pair(prompt, option)
        };
        let (ids, counts) = self.encode(&laid)?;
        if ids.len() > layout.max_tokens {
            let (tokens, most) = (ids.len(), layout.max_tokens);
            return Err(Refusal::Row(format!(
                "the question with an option has {tokens} tokens, more than {}; options are never cut",
                SettingKey::MaxTokens.with(most)
            )));
        }
        if !counts.iter().skip(1).any(|&counts| counts) {
            return Err(Refusal::Row(format!("the option {option:?} has no token of its own")));
        }
        Ok((ids, counts))
    }

    /// Ids from which the model goes on: all that is given, and nothing of what it should say.
    pub(super) fn prompt(&self, layout: Layout, example: &Example) -> Result<Vec<i64>, Refusal> {
        let text = match &example.content {
            Content::Labelled { text, .. } | Content::Text(text) => text,
            Content::Completion { prompt, .. } => prompt,
            Content::Choice { prompt, .. } if layout.template == Template::Chat => {
                return self.conversation(layout, &[Message::new(Role::User, &**prompt)]);
            }
            Content::Choice { prompt, .. } => prompt,
            Content::Unusable => return Err(Refusal::Row("it has nothing that the task can use".to_owned())),
            Content::Chat(messages) => {
                let end =
                    messages.iter().rposition(|message| message.role == Role::Assistant).unwrap_or(messages.len());
                return self.conversation(layout, &messages[..end]);
            }
        };
        let mut ids = self.ids(text, true)?;
        // A tokenizer that ends every text itself would have the model go on behind an end.
        if ids.len() > 1 && self.end()?.is_some_and(|end| ids.last() == Some(&end)) {
            ids.pop();
        }
        Ok(ids)
    }

    /// Ids from which the assistant's next turn follows.
    pub(super) fn conversation(&self, layout: Layout, messages: &[Message]) -> Result<Vec<i64>, Refusal> {
        self.ids(&self.template(layout)?.render(messages, true)?, false)
    }

    pub(super) fn ids(&self, text: &str, special: bool) -> Result<Vec<i64>, Refusal> {
        let encoding = self.tokenizer.encode_fast(text, special).map_err(|error| self.refuse(&*error))?;
        Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
    }

    fn chat(&self, layout: Layout, messages: &[Message]) -> Result<Laid, Refusal> {
        let template = self.template(layout)?;
        if layout.loss_on == LossOn::All {
            let text = template.render(messages, false)?;
            return Ok(Laid { said: std::iter::once(0..text.len()).collect(), text, bare: false });
        }
        let mut laid = Laid { text: String::new(), said: Vec::new(), bare: false };
        for segment in template.segments(messages)? {
            let start = laid.text.len();
            laid.text.push_str(&segment.text);
            if segment.is_assistant {
                laid.said.push(start..laid.text.len());
            }
        }
        Ok(laid)
    }

    fn template(&self, layout: Layout) -> Result<&ChatTemplate, Refusal> {
        if layout.template == Template::Plain {
            return Ok(&self.plain);
        }
        self.chat.as_ref().map_err(|missing| {
            let problem = match missing {
                Missing::Absent => format!("the model {}; {}", missing.reason(), SettingKey::Template.set("plain")),
                Missing::Unreadable(error) => error.to_string(),
            };
            Refusal::All(self.error(problem))
        })
    }

    fn encode(&self, laid: &Laid) -> Result<(Vec<i64>, Vec<bool>), Refusal> {
        let encoding = self.tokenizer.encode(laid.text.as_str(), laid.bare).map_err(|error| self.refuse(&*error))?;
        let ids = encoding.get_ids().iter().map(|&id| i64::from(id)).collect();
        let mut said = laid.said.iter().peekable();
        let mut before = 0;
        let counts =
            encoding.get_offsets().iter().zip(encoding.get_special_tokens_mask()).map(|(&(start, end), &added)| {
                // Byte-level tokenizers leave spaces out of their offsets; a token of spaces alone has what lies before it.
                let start = if start == end { before.min(start) } else { start };
                before = end.max(before);
                while said.next_if(|range| range.end <= start).is_some() {}
                // What the tokenizer added by itself stands nowhere in the text.
                (added == 0 || start < end) && said.peek().is_some_and(|range| start < range.end && range.start < end)
            });
        Ok((ids, counts.collect()))
    }

    fn end(&self) -> Result<Option<i64>, Refusal> {
        self.end.clone().map_err(|problem| Refusal::All(self.error(problem)))
    }

    fn refuse(&self, error: &(dyn std::error::Error + Send + Sync)) -> Refusal {
        Refusal::All(self.error(error.to_string()))
    }

    pub(super) fn error(&self, problem: String) -> TrainerError {
        TrainerError::Tokenizer { path: self.path.clone(), problem }
    }
}

impl Laid {
    fn pair(prompt: &str, completion: &str) -> Self {
        let text = format!("{prompt}{completion}");
        Self { said: std::iter::once(prompt.len()..text.len()).collect(), text, bare: true }
    }
}

/// A model's own files of tokens, as Hugging Face folders have them.
pub(super) struct Files {
    pub(super) special: rondo_data::template::SpecialTokens,
    pub(super) chat: Option<String>,
}

impl Files {
    /// Reads tokenizer_config.json, special_tokens_map.json and chat_template.jinja of a folder; each may be absent.
    pub(super) fn read(dir: &Path) -> Result<Self, TrainerError> {
        let json = |name: &str| -> Result<serde_json::Value, TrainerError> {
            let path = dir.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => serde_json::from_slice(&bytes)
                    .map_err(|error| TrainerError::Tokenizer { path, problem: format!("not JSON: {error}") }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(serde_json::Value::Null),
                Err(error) => Err(TrainerError::Tokenizer { path, problem: error.to_string() }),
            }
        };
        let config = json("tokenizer_config.json")?;
        let map = json("special_tokens_map.json")?;
        let mut special = rondo_data::template::SpecialTokens::new();
        for name in ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"] {
            let text = |value: &serde_json::Value| {
                let token = value.get(name)?;
                token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
            };
            if let Some(text) = text(&config).or_else(|| text(&map)) {
                special.insert(name.to_owned(), text);
            }
        }
        let chat = match std::fs::read_to_string(dir.join("chat_template.jinja")) {
            Ok(template) => Some(template),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => in_config(&config["chat_template"]),
            Err(error) => {
                let path = dir.join("chat_template.jinja");
                return Err(TrainerError::Tokenizer { path, problem: error.to_string() });
            }
        };
        Ok(Self { special, chat })
    }
}

/// A template, or the one named "default" of a list of them.
fn in_config(value: &serde_json::Value) -> Option<String> {
    if let Some(template) = value.as_str() {
        return Some(template.to_owned());
    }
    let default = value.as_array()?.iter().find(|named| named["name"] == "default")?;
    default["template"].as_str().map(str::to_owned)
}
