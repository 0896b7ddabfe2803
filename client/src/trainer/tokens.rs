//! Texts to token ids with the model's own tokenizer.json; each data set is encoded once and kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::{Tokenizer, TruncationParams};

use super::batch::Encoded;
use super::error::TrainerError;
use crate::data::Example;

/// How many encoded data sets are kept: a client serves few runs at a time, each with a training and
/// a held-out part.
const KEPT: usize = 8;

/// Texts encoded together; larger parts gain no speed.
const PART: usize = 1024;

/// A model's tokenizer and what it encoded so far.
pub struct Tokens {
    path: PathBuf,
    tokenizer: Tokenizer,
    max_tokens: usize,
    kept: Vec<([u8; 32], usize, Arc<Encoded>)>,
}

impl Tokens {
    /// Reads tokenizer.json in a model's folder. The padding and truncation it asks for are replaced by ours.
    pub fn load(dir: &Path) -> Result<Self, TrainerError> {
        let path = dir.join("tokenizer.json");
        let mut tokenizer = Tokenizer::from_file(&path)
            .map_err(|error| TrainerError::Tokenizer { path: path.clone(), problem: error.to_string() })?;
        tokenizer.with_padding(None);
        Ok(Self { path, tokenizer, max_tokens: 0, kept: Vec::new() })
    }

    /// Token ids of the texts, special tokens included, each cut at the end to `max_tokens`.
    pub fn encode<'t>(
        &mut self,
        texts: impl IntoIterator<Item = &'t str>,
        max_tokens: usize,
    ) -> Result<Encoded, TrainerError> {
        let refuse = |problem: String| TrainerError::Tokenizer { path: self.path.clone(), problem };
        if self.max_tokens != max_tokens {
            let truncation = TruncationParams { max_length: max_tokens, ..Default::default() };
            self.tokenizer.with_truncation(Some(truncation)).map_err(|error| refuse(error.to_string()))?;
            self.max_tokens = max_tokens;
        }
        let mut encoded = Encoded::new();
        let mut texts = texts.into_iter().peekable();
        while texts.peek().is_some() {
            let part: Vec<&str> = texts.by_ref().take(PART).collect();
            let encodings = self.tokenizer.encode_batch_fast(part, true).map_err(|error| refuse(error.to_string()))?;
            for encoding in encodings {
                if encoding.get_ids().is_empty() {
                    return Err(refuse("an empty text has no tokens; leave such rows out".to_owned()));
                }
                encoded.push(encoding.get_ids().iter().map(|&id| i64::from(id)));
            }
        }
        Ok(encoded)
    }

    /// The same for examples, remembered by their content.
    pub fn encode_examples(&mut self, examples: &[Example], max_tokens: usize) -> Result<Arc<Encoded>, TrainerError> {
        let mut content = blake3::Hasher::new();
        for example in examples {
            content.update(&(example.text().len() as u64).to_le_bytes()).update(example.text().as_bytes());
        }
        let content = *content.finalize().as_bytes();
        if let Some((_, _, encoded)) =
            self.kept.iter().find(|(key, tokens, _)| *key == content && *tokens == max_tokens)
        {
            return Ok(Arc::clone(encoded));
        }
        let encoded = Arc::new(self.encode(examples.iter().map(Example::text), max_tokens)?);
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push((content, max_tokens, Arc::clone(&encoded)));
        Ok(encoded)
    }
}
