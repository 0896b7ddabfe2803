//! BERT, RoBERTa and its relatives, DistilBERT.

use super::values::{ConfigValues, MAX_LAYERS, MAX_POSITIONS, MAX_VOCABULARY, MAX_WIDTH};
use super::{Activation, Heads, activation, heads, unpacked};
use crate::architecture::{Architecture, ModelClass};
use crate::error::BaseError;

/// What config.json says of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
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
    /// The row of a text's first token.
    pub first_position: usize,
    /// Rows of the table of token types, where there is one.
    pub types: Option<usize>,
    /// Added to the variance in a norm.
    pub norm_eps: f64,
    /// Between the two linear layers of the feed-forward part.
    pub activation: Activation,
}

/// DistilBERT has no setting for it.
const DISTILBERT_NORM_EPS: f64 = 1e-12;

impl EncoderConfig {
    pub(super) fn read(values: &ConfigValues, architecture: &'static Architecture) -> Result<Self, BaseError> {
        unpacked(values)?;
        match architecture.model_class {
            ModelClass::DistilBert => Self::distilbert(values, architecture),
            ModelClass::Roberta => Self::bert(values, architecture)?.behind_padding(values),
            _ => Self::bert(values, architecture),
        }
    }

    fn bert(values: &ConfigValues, architecture: &'static Architecture) -> Result<Self, BaseError> {
        values.only("position_embedding_type", &["absolute".into()], "\"absolute\"")?;
        values.only_flag("is_decoder", false)?;
        values.only_flag("add_cross_attention", false)?;
        let hidden = values.count("hidden_size", 768, MAX_WIDTH)?;
        let vocabulary = if architecture.model_type == "roberta" { 50_265 } else { 30_522 };
        Ok(Self {
            architecture,
            vocabulary: values.count("vocab_size", vocabulary, MAX_VOCABULARY)?,
            hidden,
            layers: values.count("num_hidden_layers", 12, MAX_LAYERS)?,
            heads: heads(values, "num_attention_heads", 12, ("hidden_size", hidden))?,
            inner: values.count("intermediate_size", 3072, MAX_WIDTH)?,
            positions: values.count("max_position_embeddings", 512, MAX_POSITIONS)?,
            first_position: 0,
            types: Some(values.count("type_vocab_size", 2, MAX_VOCABULARY)?),
            norm_eps: values.number("layer_norm_eps", 1e-12, 1.0)?,
            activation: activation(values, "hidden_act", Activation::Gelu)?,
        })
    }

    /// RoBERTa counts positions from behind the padding token's row.
    fn behind_padding(mut self, values: &ConfigValues) -> Result<Self, BaseError> {
        let first = values.whole("pad_token_id", 1, MAX_VOCABULARY)? + 1;
        let rows = self.positions;
        if first >= rows {
            return Err(values.refuse(format!(
                "positions start at `pad_token_id` + 1 = {first}, `max_position_embeddings` is only {rows}"
            )));
        }
        self.first_position = first;
        Ok(self)
    }

    fn distilbert(values: &ConfigValues, architecture: &'static Architecture) -> Result<Self, BaseError> {
        let hidden = values.count("dim", 768, MAX_WIDTH)?;
        Ok(Self {
            architecture,
            vocabulary: values.count("vocab_size", 30_522, MAX_VOCABULARY)?,
            hidden,
            layers: values.count("n_layers", 6, MAX_LAYERS)?,
            heads: heads(values, "n_heads", 12, ("dim", hidden))?,
            inner: values.count("hidden_dim", 3072, MAX_WIDTH)?,
            positions: values.count("max_position_embeddings", 512, MAX_POSITIONS)?,
            first_position: 0,
            types: None,
            norm_eps: DISTILBERT_NORM_EPS,
            activation: activation(values, "activation", Activation::Gelu)?,
        })
    }
}
