//! Texts to token ids with the model's own tokenizer; each data set is encoded once and kept.

use std::path::Path;
use std::sync::Arc;

use rondo_base::tokens::TokenSettings;
use rondo_data::template::ChatTemplate;
use rondo_data::{Content, Example, Message, OnBadRow, Split};
use rondo_proto::run_file::{LossOn, Task, TaskKind, Template};
use tokenizers::{Tokenizer, TruncationParams};

use crate::error::TrainerError;
use crate::models::ModelError;
use crate::text::encode::{self, EncodedDataset, encode_all, encode_whole};
use crate::text::encoded::{Choices, Encoded};
use crate::text::layout::{Codec, Layout, MissingTemplate, Refusal, Specials};
use crate::text::rows::Rows;

/// How many encoded data sets are kept: a client serves few runs at a time, each with a training
/// and a held-out part.
const KEPT: usize = 8;

/// A model's tokenizer and what it encoded so far.
pub struct Tokens {
    codec: Arc<Codec>,
    ends: Vec<i64>,
    /// The tokenizer as classification uses it, cutting texts to so many tokens.
    cutting: Option<(usize, Arc<Codec>)>,
    kept: Vec<([u8; 32], Layout, EncodedDataset)>,
}

impl Tokens {
    /// Reads tokenizer.json in a model's folder, and its special tokens, chat template and ends of
    /// texts. The padding and truncation that tokenizer.json asks for are replaced by ours.
    ///
    /// # Errors
    /// A file that cannot be read. A chat template that cannot be read is an error once it is
    /// needed.
    pub fn load(dir: &Path) -> Result<Self, TrainerError> {
        let path = dir.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&path)
            .map_err(|error| TrainerError::Tokenizer { path: path.clone(), problem: error.to_string() })?;
        let settings = TokenSettings::read(dir, |text| tokenizer.token_to_id(text).is_some());
        let settings = settings.map_err(|error| TrainerError::Model(ModelError::Base(error)))?;
        Self::new(tokenizer, settings, &path)
    }

    /// A tokenizer made elsewhere, for example from a GGUF file; errors name the file `path`.
    ///
    /// # Errors
    /// The tokenizer refuses its settings.
    pub fn new(mut tokenizer: Tokenizer, settings: TokenSettings, path: &Path) -> Result<Self, TrainerError> {
        let TokenSettings { special, chat_template, ends } = settings;
        let refuse = |problem: String| TrainerError::Tokenizer { path: path.to_owned(), problem };
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| refuse(error.to_string()))?;
        let end = match special.get("eos_token") {
            None => Ok(None),
            Some(text) => tokenizer.token_to_id(text).map(|id| Some(i64::from(id))).ok_or_else(|| {
                format!("the end-of-text token {text:?} (eos_token) is not in the tokenizer's vocabulary")
            }),
        };
        let chat = match chat_template {
            None => Err(MissingTemplate::Absent),
            Some(source) => ChatTemplate::new(&source, special.clone()).map_err(MissingTemplate::Unreadable),
        };
        let plain = ChatTemplate::plain(special).map_err(|error| refuse(error.to_string()))?;
        // Chat models end turns with tokens of their own, whatever their files say.
        let turns = ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>"];
        let mut ends: Vec<i64> = ends.into_iter().map(i64::from).chain(end.iter().flatten().copied()).collect();
        ends.extend(turns.iter().filter_map(|text| tokenizer.token_to_id(text)).map(i64::from));
        ends.sort_unstable();
        ends.dedup();
        let codec = Codec { path: path.to_owned(), tokenizer, end, chat, plain, vocab_size: usize::MAX };
        Ok(Self { codec: Arc::new(codec), ends, cutting: None, kept: Vec::new() })
    }

    /// The same for a model that knows so many tokens: a text with one more is refused.
    #[must_use]
    pub fn with_vocab_size(self, vocab_size: usize) -> Self {
        let codec = Codec { vocab_size, ..Codec::clone(&self.codec) };
        Self { codec: Arc::new(codec), cutting: None, kept: Vec::new(), ..self }
    }

    /// Token ids of the texts, special tokens included, each cut at the end to `max_tokens`: as
    /// encoders read them.
    ///
    /// # Errors
    /// A text without a token.
    pub fn encode<'t>(
        &mut self,
        texts: impl IntoIterator<Item = &'t str>,
        max_tokens: usize,
    ) -> Result<Encoded, TrainerError> {
        let codec = self.cutting(max_tokens)?;
        let mut encoded = Encoded::new();
        encode_whole(&codec, texts, OnBadRow::Stop, &mut encoded)?;
        Ok(encoded)
    }

    /// The rows of a part of a data set as a task sees them: encoded here and kept where they are
    /// in memory, read and encoded when they are taken where they are not.
    ///
    /// # Errors
    /// A row that cannot be used, unless the data set skips such rows; a model without the chat
    /// template that the task asks for; a file that cannot be read.
    pub fn rows<'d>(&mut self, part: Split<'d>, task: &Task) -> Result<Rows<'d>, TrainerError> {
        let layout = Layout::of(task);
        let codec = self.codec_for(layout)?;
        let kept = match part.dataset().is_streamed() {
            true => None,
            false => Some(self.kept(&part.all()?, layout, &codec, Some(part))?),
        };
        Rows::new(part, layout, codec, kept)
    }

    /// The token ids of examples in memory, one text each; remembered by their content.
    ///
    /// # Errors
    /// A row that cannot be used, whatever the data set's policy is.
    pub fn encode_rows(&mut self, examples: &[Example], task: &Task) -> Result<Arc<Encoded>, TrainerError> {
        let layout = Layout::of(task);
        let codec = self.codec_for(layout)?;
        Ok(self.kept(examples, layout, &codec, None)?.encoded)
    }

    /// The questions of a multiple choice, one text per option.
    ///
    /// # Errors
    /// A row that is no such question, or is too long for `task.max_tokens`.
    pub fn choices(&self, examples: &[Example], task: &Task) -> Result<Choices, TrainerError> {
        let mut choices = Choices::new();
        for example in examples {
            self.codec
                .push_choice(Layout::of(task), example, &mut choices)
                .map_err(|refusal| self.codec.refusal_error(refusal, example, None))?;
        }
        Ok(choices)
    }

    /// Ids from which the model goes on to what it should say: of a conversation all but its last
    /// turn.
    ///
    /// # Errors
    /// No chat template where one is needed, or one that refuses the conversation.
    pub fn prompt(&self, example: &Example, task: &Task) -> Result<Vec<i64>, TrainerError> {
        self.codec.prompt(Layout::of(task), example).map_err(|refusal| self.codec.refusal_error(refusal, example, None))
    }

    /// Ids from which the assistant's next turn follows, by the model's own chat template.
    ///
    /// # Errors
    /// As of [`Tokens::prompt`].
    pub fn conversation(&self, messages: &[Message]) -> Result<Vec<i64>, TrainerError> {
        let layout =
            Layout { kind: TaskKind::CausalLm, loss_on: LossOn::All, template: Template::Chat, max_tokens: usize::MAX };
        self.codec.conversation(layout, &messages.to_vec().into()).map_err(|refusal| match refusal {
            Refusal::Row(problem) => self.codec.error(problem),
            Refusal::All(error) => error,
        })
    }

    /// Ids of a text, with the special tokens that the tokenizer puts around it.
    ///
    /// # Errors
    /// The tokenizer fails on it.
    pub fn ids(&self, text: &str) -> Result<Vec<i64>, TrainerError> {
        self.codec.ids(text, Specials::Add).map_err(|refusal| match refusal {
            Refusal::Row(problem) => self.codec.error(problem),
            Refusal::All(error) => error,
        })
    }

    /// The text of ids, special tokens left out.
    ///
    /// # Errors
    /// Ids that the vocabulary does not have.
    pub fn text(&self, ids: &[i64]) -> Result<String, TrainerError> {
        let ids: Vec<u32> = ids.iter().map(|&id| u32::try_from(id).unwrap_or(u32::MAX)).collect();
        self.codec.tokenizer.decode(&ids, true).map_err(|error| self.codec.error(error.to_string()))
    }

    /// Ids behind which nothing follows: the end of a text, and of a turn.
    pub fn ends(&self) -> &[i64] {
        &self.ends
    }

    /// Why the model's chat template cannot be used, as what is said of the model; nothing where it
    /// can be.
    pub fn lacks_chat_template(&self) -> Option<String> {
        self.codec.chat.as_ref().err().map(|missing| missing.reason())
    }

    fn codec_for(&mut self, layout: Layout) -> Result<Arc<Codec>, TrainerError> {
        if layout.kind == TaskKind::Classification {
            self.cutting(layout.max_tokens)
        } else {
            Ok(Arc::clone(&self.codec))
        }
    }

    fn cutting(&mut self, max_tokens: usize) -> Result<Arc<Codec>, TrainerError> {
        if let Some((tokens, codec)) = &self.cutting
            && *tokens == max_tokens
        {
            return Ok(Arc::clone(codec));
        }
        let mut codec = Codec::clone(&self.codec);
        let truncation = TruncationParams { max_length: max_tokens, ..Default::default() };
        codec.tokenizer.with_truncation(Some(truncation)).map_err(|error| self.codec.error(error.to_string()))?;
        let codec = Arc::new(codec);
        self.cutting = Some((max_tokens, Arc::clone(&codec)));
        Ok(codec)
    }

    fn kept(
        &mut self,
        examples: &[Example],
        layout: Layout,
        codec: &Codec,
        part: Option<Split<'_>>,
    ) -> Result<EncodedDataset, TrainerError> {
        let mut content = blake3::Hasher::new();
        // Whether bad rows are skipped is part of what comes out.
        content.update(&[u8::from(encode::policy(part) != OnBadRow::Stop)]);
        for example in examples {
            match &example.content {
                Content::Labelled { text, .. } => {
                    content.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
                }
                other => {
                    // Writing to a hasher cannot fail, and JSON marks where texts end.
                    let _ = serde_json::to_writer(&mut content, other);
                }
            }
        }
        let content = *content.finalize().as_bytes();
        if let Some((.., kept)) = self.kept.iter().find(|(key, with, _)| *key == content && *with == layout) {
            return Ok(kept.clone());
        }
        let kept = encode_all(codec, layout, examples, part)?;
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push((content, layout, kept.clone()));
        Ok(kept)
    }
}

#[cfg(test)]
mod tests;
