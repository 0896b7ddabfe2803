//! A base model's tokenizer, from its folder or out of its GGUF file.

use std::path::Path;

use rondo_base::gguf::{self, GgufError};
use rondo_base::is_gguf;
use rondo_data::template::SpecialTokens;

use crate::error::TrainerError;
use crate::text::gguf_tokenizer;
use crate::text::tokens::Tokens;

/// Reads tokenizer, special tokens and chat template of the model in `path`.
///
/// # Errors
/// A file that cannot be read, or a kind of tokenizer that is not supported.
pub fn load_tokenizer(path: &Path) -> Result<Tokens, TrainerError> {
    if !is_gguf(path) {
        return Tokens::load(path);
    }
    let refuse = |error: GgufError| TrainerError::Tokenizer { path: path.to_owned(), problem: error.to_string() };
    let header = gguf::read(path).map_err(refuse)?;
    let facts = gguf_tokenizer::facts(&header).map_err(refuse)?;
    let named = [("bos_token", facts.bos_text), ("eos_token", facts.eos_text)];
    let special: SpecialTokens = named.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?))).collect();
    Tokens::new(gguf_tokenizer::load(&header).map_err(refuse)?, special, facts.chat_template.as_deref(), path)
}
