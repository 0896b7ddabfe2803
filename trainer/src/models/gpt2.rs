//! GPT-2 (Radford et al. 2019): learned positions, causal attention, a norm before every half layer
//! and one at the end, and the words' table as the matrix to the vocabulary.
//!
//! Checkpoints hold its linear layers as `Conv1D`, `[in, out]`; here they are `[out, in]` like
//! everyone else's, and so are the adapters on them. Query, key and value are one layer (`c_attn`),
//! and one target.

use rondo_base::config::Gpt2Config;
use tch::Tensor;

use super::activation::activate;
use super::blocks::Attention;
use super::norm::LayerNorm;
use super::{LayerCache, LinearHook, Linears, ModelError, Transformer, Weight, WeightFiles};
use crate::batch::Batch;
use crate::error::TrainerError;

/// The language model, frozen.
pub struct Gpt2 {
    /// `[vocabulary, hidden]`
    words: Tensor,
    /// `[max_positions, hidden]`
    positions: Tensor,
    layers: Vec<Layer>,
    last_norm: LayerNorm,
    vocabulary: Weight,
    linears: Linears,
    attention: Attention,
    config: Gpt2Config,
}

struct Layer {
    attention_norm: LayerNorm,
    /// Query, key and value side by side.
    attention_input: usize,
    attention_output: usize,
    inner_norm: LayerNorm,
    inner: usize,
    outer: usize,
}

impl Gpt2 {
    /// Takes the model out of its files.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub(super) fn load(mut weights: WeightFiles, sizes: Gpt2Config) -> Result<Self, ModelError> {
        let hidden = sizes.hidden;
        let eps = sizes.norm_eps;
        let mut linears = Linears::default();
        let words = weights.take("wte.weight", &[sizes.vocabulary, hidden])?;
        let positions = weights.take("wpe.weight", &[sizes.positions, hidden])?;
        let mut layers = Vec::new();
        for number in 0..sizes.layers {
            let at = |part: &str| format!("h.{number}.{part}");
            let mut linear = |part: &str, out, inp| conv1d(&mut linears, &mut weights, &at(part), out, inp);
            let attention_input = linear("attn.c_attn", 3 * hidden, hidden)?;
            let attention_output = linear("attn.c_proj", hidden, hidden)?;
            let inner = linear("mlp.c_fc", sizes.inner, hidden)?;
            let outer = linear("mlp.c_proj", hidden, sizes.inner)?;
            let attention_norm = LayerNorm::load(&mut weights, &at("ln_1"), hidden, eps)?;
            let inner_norm = LayerNorm::load(&mut weights, &at("ln_2"), hidden, eps)?;
            layers.push(Layer { attention_norm, attention_input, attention_output, inner_norm, inner, outer });
        }
        let last_norm = LayerNorm::load(&mut weights, "ln_f", hidden, eps)?;
        let vocabulary = match sizes.tied {
            true => words.shallow_clone(),
            false => weights.take("lm_head.weight", &[sizes.vocabulary, hidden])?,
        };
        let attention = Attention::plain(sizes.heads);
        let vocabulary = Weight::Dense(vocabulary);
        Ok(Self { words, positions, layers, last_norm, vocabulary, linears, attention, config: sizes })
    }
}

/// Loads `<name>.weight`, `[in, out]` in the file, and `<name>.bias`; returns the layer's number.
fn conv1d(
    linears: &mut Linears,
    weights: &mut WeightFiles,
    name: &str,
    out: usize,
    inp: usize,
) -> Result<usize, ModelError> {
    let weight = weights.take_weight_transposed(&format!("{name}.weight"), [out, inp])?;
    let bias = weights.take(&format!("{name}.bias"), &[out])?;
    Ok(linears.push(name, weight, Some(bias)))
}

impl Transformer for Gpt2 {
    fn hidden_size(&self) -> usize {
        self.config.hidden
    }

    fn max_positions(&self) -> usize {
        self.config.positions
    }

    fn linears(&self) -> &Linears {
        &self.linears
    }

    fn layers(&self) -> usize {
        self.layers.len()
    }

    fn embed(&self, batch: &Batch) -> Result<Tensor, TrainerError> {
        let words = self.words.f_index_select(0, batch.ids())?;
        let positions = self.positions.f_index_select(0, batch.positions())?;
        Ok(words.f_add(&positions)?)
    }

    fn layer(
        &self,
        number: usize,
        x: &Tensor,
        batch: &Batch,
        hook: &dyn LinearHook,
        cache: Option<&mut LayerCache>,
    ) -> Result<Tensor, TrainerError> {
        let layer = &self.layers[number];
        let run = |number: usize, x: &Tensor| self.linears.forward(number, x, hook);
        let fused = run(layer.attention_input, &layer.attention_norm.forward(x)?)?;
        let Attention { heads, head_size, .. } = self.attention;
        let fused = fused.f_view([-1, 3, heads, head_size])?;
        let part = |index: i64| fused.f_select(1, index);
        let context = self.attention.causal(&part(0)?, &part(1)?, &part(2)?, batch, cache)?;
        let mut attended = run(layer.attention_output, &context)?;
        let x = attended.f_add_(x)?;
        let inner = activate(self.config.activation, &run(layer.inner, &layer.inner_norm.forward(&x)?)?)?;
        let mut outer = run(layer.outer, &inner)?;
        Ok(outer.f_add_(&x)?)
    }

    fn finish(&self, x: &Tensor) -> Result<Tensor, TrainerError> {
        self.last_norm.forward(x)
    }

    fn vocabulary(&self) -> Option<&Weight> {
        Some(&self.vocabulary)
    }
}
