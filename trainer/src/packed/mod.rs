//! Packed weights: blocks as GGUF files hold them, and NF4, which is made here at load from weights
//! in full precision.
//!
//! Headers are read by [`rondo_base::gguf`]; everything here works on bytes and needs no libtorch.

pub mod blocks;
mod k_blocks;
mod legacy_blocks;
pub mod nf4;
