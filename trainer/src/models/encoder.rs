//! The encoder that BERT, RoBERTa and DistilBERT share: learned positions, full attention, a norm
//! after every half layer.
//!
//! Tokens are packed: every step that works token by token (embeddings, linear layers, norms) sees
//! only real tokens as one `[tokens, hidden]` matrix; only attention lays them out as
//! `[texts, longest]`. With texts of mixed length this halves the work of a padded batch, and gives
//! the same numbers.

use rondo_base::architecture::ModelClass;
use rondo_base::config::EncoderConfig;
use tch::Tensor;

use super::activation::activate;
use super::blocks::Attention;
use super::encoder_names;
use super::linears::Bias;
use super::norm::LayerNorm;
use super::{LayerCache, LinearHook, Linears, ModelError, Transformer, WeightFiles};
use crate::batch::Batch;
use crate::error::TrainerError;

/// An encoder, frozen.
pub struct Encoder {
    /// `[vocabulary, hidden]`
    words: Tensor,
    /// From the first token's on, `[max_positions, hidden]`.
    positions: Tensor,
    /// Row 0 of the token types, `[1, hidden]`: every input is one text.
    first_type: Option<Tensor>,
    embedding_norm: LayerNorm,
    layers: Vec<Layer>,
    linears: Linears,
    attention: Attention,
    config: EncoderConfig,
}

struct Layer {
    query: usize,
    key: usize,
    value: usize,
    attention_output: usize,
    attention_norm: LayerNorm,
    inner: usize,
    outer: usize,
    output_norm: LayerNorm,
}

impl Encoder {
    /// Takes the model out of its files.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub(super) fn load(mut weights: WeightFiles, config: EncoderConfig) -> Result<Self, ModelError> {
        let hidden = config.hidden;
        let eps = config.norm_eps;
        let names = match config.architecture.model_class {
            ModelClass::DistilBert => &encoder_names::DISTILBERT,
            _ => &encoder_names::BERT,
        };
        let mut linears = Linears::default();
        let words = weights.take("embeddings.word_embeddings.weight", &[config.vocabulary, hidden])?;
        let positions = weights.take("embeddings.position_embeddings.weight", &[config.positions, hidden])?;
        let first_type = match config.types {
            Some(types) => {
                let types = weights.take("embeddings.token_type_embeddings.weight", &[types, hidden])?;
                Some(types.f_narrow(0, 0, 1)?)
            }
            None => None,
        };
        let embedding_norm = LayerNorm::load(&mut weights, "embeddings.LayerNorm", hidden, eps)?;
        let mut layers = Vec::new();
        for number in 0..config.layers {
            let at = |part: &str| format!("{}.{number}.{part}", names.layers);
            let mut linear = |part: &str, out, inp| linears.load(&mut weights, &at(part), [out, inp], Bias::Present);
            let query = linear(names.query, hidden, hidden)?;
            let key = linear(names.key, hidden, hidden)?;
            let value = linear(names.value, hidden, hidden)?;
            let attention_output = linear(names.attention_output, hidden, hidden)?;
            let inner = linear(names.inner, config.inner, hidden)?;
            let outer = linear(names.outer, hidden, config.inner)?;
            let attention_norm = LayerNorm::load(&mut weights, &at(names.attention_norm), hidden, eps)?;
            let output_norm = LayerNorm::load(&mut weights, &at(names.output_norm), hidden, eps)?;
            layers.push(Layer { query, key, value, attention_output, attention_norm, inner, outer, output_norm });
        }
        let first = config.first_position as i64;
        let positions = positions.f_narrow(0, first, config.positions as i64 - first)?;
        let attention = Attention::plain(config.heads);
        Ok(Self { words, positions, first_type, embedding_norm, layers, linears, attention, config })
    }
}

impl Transformer for Encoder {
    fn hidden_size(&self) -> usize {
        self.config.hidden
    }

    fn max_positions(&self) -> usize {
        self.config.positions - self.config.first_position
    }

    fn linears(&self) -> &Linears {
        &self.linears
    }

    fn layers(&self) -> usize {
        self.layers.len()
    }

    fn embed(&self, batch: &Batch) -> Result<Tensor, TrainerError> {
        let mut words = self.words.f_index_select(0, batch.ids())?;
        if let Some(first_type) = &self.first_type {
            words = words.f_add(first_type)?;
        }
        let positions = self.positions.f_index_select(0, batch.positions())?;
        self.embedding_norm.forward(&words.f_add(&positions)?)
    }

    fn layer(
        &self,
        number: usize,
        x: &Tensor,
        batch: &Batch,
        hook: &dyn LinearHook,
        _cache: Option<&mut LayerCache>,
    ) -> Result<Tensor, TrainerError> {
        let layer = &self.layers[number];
        let run = |number: usize, x: &Tensor| self.linears.forward(number, x, hook);
        let query = run(layer.query, x)?;
        let key = run(layer.key, x)?;
        let value = run(layer.value, x)?;
        let context = self.attention.bidirectional(&query, &key, &value, batch)?;
        let mut attended = run(layer.attention_output, &context)?;
        let x = layer.attention_norm.forward(&attended.f_add_(x)?)?;
        let inner = activate(self.config.activation, &run(layer.inner, &x)?)?;
        let mut outer = run(layer.outer, &inner)?;
        layer.output_norm.forward(&outer.f_add_(&x)?)
    }
}
