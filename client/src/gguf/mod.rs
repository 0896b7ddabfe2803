//! Models in GGUF files: their packed numbers, and the tokenizer they bring.
//!
//! Headers are read by [`rondo_proto::gguf`]; everything here works on bytes and needs no libtorch.

pub mod blocks;
mod k_blocks;
#[cfg(feature = "torch")]
pub mod tokenizer;
