//! The tokenizer that a GGUF file brings.
