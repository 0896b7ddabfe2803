//! GPT-2.

use super::values::{ConfigValues, MAX_LAYERS, MAX_POSITIONS, MAX_VOCABULARY, MAX_WIDTH};
use super::{Activation, Heads, activation, heads, unpacked};
use crate::architecture::Architecture;
use crate::error::BaseError;

/// What config.json says of a GPT-2.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpt2Config {
    /// Its row of the table.
    pub architecture: &'static Architecture,
    /// Tokens.
    pub vocabulary: usize,
    /// Length of a token's state.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: Heads,
    /// Width of the feed-forward part.
    pub inner: usize,
    /// Rows of the table of positions.
    pub positions: usize,
    /// Added to the variance in a norm.
    pub norm_eps: f64,
    /// Between the two linear layers of the feed-forward part.
    pub activation: Activation,
    /// The words' table is the matrix to the vocabulary. A checkpoint that holds another matrix
    /// than config.json says makes this false when it is opened.
    pub tied: bool,
}

impl Gpt2Config {
    pub(super) fn read(values: &ConfigValues, architecture: &'static Architecture) -> Result<Self, BaseError> {
        unpacked(values)?;
        values.only_flag("scale_attn_weights", true)?;
        values.only_flag("scale_attn_by_inverse_layer_idx", false)?;
        values.only_flag("reorder_and_upcast_attn", false)?;
        values.only_flag("add_cross_attention", false)?;
        let hidden = values.count("n_embd", 768, MAX_WIDTH)?;
        Ok(Self {
            architecture,
            vocabulary: values.count("vocab_size", 50_257, MAX_VOCABULARY)?,
            hidden,
            layers: values.count("n_layer", 12, MAX_LAYERS)?,
            heads: heads(values, "n_head", 12, ("n_embd", hidden))?,
            inner: values.optional_count("n_inner", MAX_WIDTH)?.unwrap_or(4 * hidden),
            positions: values.count("n_positions", 1024, MAX_POSITIONS)?,
            norm_eps: values.number("layer_norm_epsilon", 1e-5, 1.0)?,
            activation: activation(values, "activation_function", Activation::GeluTanh)?,
            tied: values.flag("tie_word_embeddings", true)?,
        })
    }
}
