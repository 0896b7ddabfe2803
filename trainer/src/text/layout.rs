//! A language model's row as token ids: what text it is rendered out as, which of it counts, and
//! where it is cut.
//!
//! The whole text is encoded in one go, as it stands in practice, and a token counts when any of
//! its bytes belongs to what the model should say. The end-of-text token behind a plain row counts
//! too; a chat template ends turns itself.

use std::ops::Range;
use std::path::PathBuf;

use rondo_data::template::{ChatTemplate, TemplateError};
use rondo_data::{Content, Conversation, Example, Message, Role};
use rondo_proto::run_file::{LossOn, Task, TaskKind, Template};
use rondo_proto::wording::SettingKey;
use tokenizers::Tokenizer;

use crate::error::TrainerError;
use crate::text::encoded::{Choices, Encoded};

/// What of a task decides how its rows become tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) kind: TaskKind,
    pub(super) loss_on: LossOn,
    pub(super) template: Template,
    pub(super) max_tokens: usize,
}

impl Layout {
    pub(super) fn of(task: &Task) -> Self {
        Self { kind: task.kind, loss_on: task.loss_on, template: task.template, max_tokens: task.max_tokens }
    }
}

/// A tokenizer with its end-of-text token and chat templates.
#[derive(Clone)]
pub(super) struct Codec {
    pub(super) path: PathBuf,
    pub(super) tokenizer: Tokenizer,
    /// Ends a text; or why none is known, though the model names one. Encoders need none.
    pub(super) end: Result<Option<i64>, String>,
    /// The model's own template; why there is none, otherwise.
    pub(super) chat: Result<ChatTemplate, MissingTemplate>,
    pub(super) plain: ChatTemplate,
    /// How many tokens the model knows.
    pub(super) vocab_size: usize,
}

/// Why a model's chat template cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum MissingTemplate {
    Absent,
    Unreadable(TemplateError),
}

impl MissingTemplate {
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

/// Why a row cannot be used.
#[derive(Debug)]
pub(super) enum Refusal {
    /// This row is at fault; the data set's policy decides.
    Row(String),
    /// Every row would fail.
    All(TrainerError),
}

/// Who writes the special tokens around a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Specials {
    /// The tokenizer adds them.
    Add,
    /// They are in the text already.
    InText,
}

/// A text, and which bytes of it the model should say.
struct Rendered {
    text: String,
    said: Vec<Range<usize>>,
    /// Whether the tokenizer adds its special tokens, and the end-of-text token follows. A chat
    /// template writes both itself.
    specials: Specials,
}

impl Codec {
    /// Appends a row to train or measure on; of a multiple choice the question with the right
    /// option.
    pub(super) fn push(&self, layout: Layout, example: &Example, encoded: &mut Encoded) -> Result<(), Refusal> {
        let rendered = match &example.content {
            Content::Labelled { text, .. } | Content::Text(text) => Rendered {
                text: text.to_string(),
                said: std::iter::once(0..text.len()).collect(),
                specials: Specials::Add,
            },
            Content::Completion { prompt, completion } => Rendered::pair(prompt, completion),
            Content::Chat(talk) => self.chat(layout, talk)?,
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
        let (mut ids, mut counts) = self.encode(&rendered)?;
        if layout.loss_on == LossOn::All {
            counts.fill(true);
        }
        if let Some(end) = self.end()?.filter(|_| rendered.specials == Specials::Add) {
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
        self.check_ids(&ids)?;
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
        let rendered = if layout.template == Template::Chat {
            let asked = vec![Message::new(Role::User, prompt)].into();
            let mut rendered = Rendered::pair(&self.render(layout, &asked)?, option);
            rendered.specials = Specials::InText;
            rendered
        } else {
            Rendered::pair(prompt, option)
        };
        let (ids, counts) = self.encode(&rendered)?;
        self.check_ids(&ids)?;
        if ids.len() > layout.max_tokens {
            let tokens = ids.len();
            let most = layout.max_tokens;
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
                return self.conversation(layout, &vec![Message::new(Role::User, &**prompt)].into());
            }
            Content::Choice { prompt, .. } => prompt,
            Content::Unusable => return Err(Refusal::Row("it has nothing that the task can use".to_owned())),
            Content::Chat(talk) => {
                let end = talk.iter().rposition(|message| message.role == Role::Assistant).unwrap_or(talk.len());
                let asked = Conversation { messages: talk[..end].to_vec(), ..talk.clone() };
                return self.conversation(layout, &asked);
            }
        };
        let mut ids = self.ids(text, Specials::Add)?;
        // A tokenizer that ends every text itself would have the model go on behind an end.
        if ids.len() > 1 && self.end()?.is_some_and(|end| ids.last() == Some(&end)) {
            ids.pop();
        }
        Ok(ids)
    }

    /// Ids from which the assistant's next turn follows.
    pub(super) fn conversation(&self, layout: Layout, talk: &Conversation) -> Result<Vec<i64>, Refusal> {
        self.ids(&self.render(layout, talk)?, Specials::InText)
    }

    pub(super) fn ids(&self, text: &str, specials: Specials) -> Result<Vec<i64>, Refusal> {
        let encoding =
            self.tokenizer.encode_fast(text, specials == Specials::Add).map_err(|error| self.refuse(&*error))?;
        let ids: Vec<i64> = encoding.get_ids().iter().map(|&id| i64::from(id)).collect();
        self.check_ids(&ids)?;
        Ok(ids)
    }

    fn chat(&self, layout: Layout, talk: &Conversation) -> Result<Rendered, Refusal> {
        let template = self.template(layout)?;
        if layout.loss_on == LossOn::All {
            let text = template.render(talk, false).map_err(|error| self.template_refusal(error))?;
            return Ok(Rendered { said: std::iter::once(0..text.len()).collect(), text, specials: Specials::InText });
        }
        let mut rendered = Rendered { text: String::new(), said: Vec::new(), specials: Specials::InText };
        for segment in template.segments(talk).map_err(|error| self.template_refusal(error))? {
            let start = rendered.text.len();
            rendered.text.push_str(&segment.text);
            if segment.is_assistant {
                rendered.said.push(start..rendered.text.len());
            }
        }
        Ok(rendered)
    }

    /// The conversation up to where the assistant's next turn begins.
    fn render(&self, layout: Layout, talk: &Conversation) -> Result<String, Refusal> {
        self.template(layout)?.render(talk, true).map_err(|error| self.template_refusal(error))
    }

    /// A fault of the template is every row's; what it refuses of a conversation is the row's.
    fn template_refusal(&self, error: TemplateError) -> Refusal {
        match error {
            TemplateError::Syntax(_) | TemplateError::NotSupported { .. } | TemplateError::Endless => {
                Refusal::All(self.error(error.to_string()))
            }
            TemplateError::Refused(_)
            | TemplateError::Failed(_)
            | TemplateError::Dropped { .. }
            | TemplateError::NotAPrefix { .. } => Refusal::Row(error.to_string()),
        }
    }

    fn template(&self, layout: Layout) -> Result<&ChatTemplate, Refusal> {
        if layout.template == Template::Plain {
            return Ok(&self.plain);
        }
        self.chat.as_ref().map_err(|missing| {
            let problem = match missing {
                MissingTemplate::Absent => {
                    format!("the model {}; {}", missing.reason(), SettingKey::Template.set("plain"))
                }
                MissingTemplate::Unreadable(error) => error.to_string(),
            };
            Refusal::All(self.error(problem))
        })
    }

    fn encode(&self, rendered: &Rendered) -> Result<(Vec<i64>, Vec<bool>), Refusal> {
        let encoding = self
            .tokenizer
            .encode(rendered.text.as_str(), rendered.specials == Specials::Add)
            .map_err(|error| self.refuse(&*error))?;
        let ids = encoding.get_ids().iter().map(|&id| i64::from(id)).collect();
        let mut said = rendered.said.iter().peekable();
        let mut before = 0;
        let counts =
            encoding.get_offsets().iter().zip(encoding.get_special_tokens_mask()).map(|(&(start, end), &added)| {
                // Byte-level tokenizers leave spaces out of their offsets; a token of spaces alone
                // has what lies before it.
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

impl Rendered {
    fn pair(prompt: &str, completion: &str) -> Self {
        let text = format!("{prompt}{completion}");
        Self { said: std::iter::once(prompt.len()..text.len()).collect(), text, specials: Specials::Add }
    }
}
