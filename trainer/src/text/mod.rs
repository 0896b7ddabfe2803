//! Texts to token ids: tokenizers from folders and GGUF files, and how an example becomes a
//! sequence.

mod encode;
pub mod encoded;
pub mod gguf_tokenizer;
mod gguf_vocabulary;
mod layout;
pub mod load_tokenizer;
pub mod rows;
pub mod tokens;
mod vocab_size;

#[cfg(test)]
mod damaged_tests;
