//! The tokenizer and chat template that a GGUF file brings.

use rondo_base::gguf::{GgufError, Header};
use serde_json::Value as Json;
use tokenizers::Tokenizer;

use super::gguf_vocabulary::Vocabulary;

/// What a file says of its tokens, without the tokenizer itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFacts {
    /// Start of a text.
    pub bos: Option<u32>,
    /// End of a text, or of a turn in a chat.
    pub eos: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
    /// Whether encoding a text adds its start; the tokenizer does so when special tokens are asked
    /// for.
    pub add_bos: bool,
    /// Whether it adds its end.
    pub add_eos: bool,
    /// The spelling of the start, for chat templates.
    pub bos_text: Option<String>,
    /// The spelling of the end.
    pub eos_text: Option<String>,
    /// Tokens that end a text, a turn or a message (`eos`, `eot` and `eom`).
    pub ends: Vec<u32>,
    /// The Jinja template of conversations.
    pub chat_template: Option<String>,
}

/// The tokenizer as tokenizer.json would hold it.
///
/// # Errors
/// A kind of vocabulary that is not supported, or one that is damaged.
pub fn tokenizer_json(header: &Header) -> Result<Json, GgufError> {
    Vocabulary::read(header)?.json()
}

/// Ids, flags and the chat template.
///
/// # Errors
/// As [`tokenizer_json`].
pub fn facts(header: &Header) -> Result<TokenFacts, GgufError> {
    let vocabulary = Vocabulary::read(header)?;
    let spelling = |id: Option<u32>| id.map(|id| vocabulary.tokens[id as usize].clone());
    Ok(TokenFacts {
        bos: vocabulary.bos,
        eos: vocabulary.eos,
        pad: vocabulary.pad,
        add_bos: vocabulary.add_bos,
        add_eos: vocabulary.add_eos,
        bos_text: spelling(vocabulary.bos),
        eos_text: spelling(vocabulary.eos),
        ends: vocabulary.ends.clone(),
        chat_template: header.text("tokenizer.chat_template")?.map(str::to_owned),
    })
}

/// The tokenizer, ready for use.
///
/// # Errors
/// As [`tokenizer_json`].
pub fn load(header: &Header) -> Result<Tokenizer, GgufError> {
    let json = tokenizer_json(header)?;
    serde_json::from_value(json).map_err(|error| header.invalid(format!("its tokenizer cannot be built: {error}")))
}

#[cfg(test)]
#[path = "gguf_tokenizer_tests.rs"]
mod tests;
