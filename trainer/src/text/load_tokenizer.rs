//! A base model's tokenizer, from its folder or out of its GGUF file.

use std::path::Path;

use rondo_base::config::{ConfigValues, ModelConfig};
use rondo_base::gguf::{self, GgufError};
use rondo_base::tokens::TokenSettings;
use rondo_base::{BaseError, CONFIG_FILE, gguf_names, is_gguf};

use crate::error::TrainerError;
use crate::models::ModelError;
use crate::text::gguf_tokenizer;
use crate::text::tokens::Tokens;

/// Reads tokenizer, special tokens, chat template and ends of texts of the model in `path`, and how
/// many tokens the model knows: a text with one more is refused.
///
/// # Errors
/// A file that cannot be read, or a kind of tokenizer that is not supported.
pub fn load_tokenizer(path: &Path) -> Result<Tokens, TrainerError> {
    let of_base = |error: BaseError| TrainerError::Model(ModelError::Base(error));
    if !is_gguf(path) {
        let config = ConfigValues::read(&path.join(CONFIG_FILE)).and_then(|values| ModelConfig::read(&values));
        let vocab_size = config.map_err(of_base)?.vocabulary();
        return Ok(Tokens::load(path)?.with_vocab_size(vocab_size));
    }
    let refuse = |error: GgufError| TrainerError::Tokenizer { path: path.to_owned(), problem: error.to_string() };
    let header = gguf::read(path).map_err(refuse)?;
    let facts = gguf_tokenizer::facts(&header).map_err(refuse)?;
    let named = [("bos_token", facts.bos_text), ("eos_token", facts.eos_text)];
    let settings = TokenSettings {
        special: named.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?))).collect(),
        chat_template: facts.chat_template,
        ends: facts.ends.into_iter().collect(),
    };
    let tokens = Tokens::new(gguf_tokenizer::load(&header).map_err(refuse)?, settings, path)?;
    let values = gguf_names::config(&header).map_err(refuse)?;
    let config = ConfigValues::of(path, values).and_then(|values| ModelConfig::read(&values));
    Ok(tokens.with_vocab_size(config.map_err(of_base)?.vocabulary()))
}
