//! Llama (Touvron et al. 2023) and its relatives: causal decoders with RMS norms before each block,
//! rotated queries and keys, grouped-query attention and a SwiGLU feed-forward, as Hugging Face's
//! `LlamaForCausalLM`, `MistralForCausalLM`, `Qwen2ForCausalLM` and `Qwen3ForCausalLM`.
//!
//! Tokens are packed as in the encoders: only attention lays them out as `[texts, longest]`.

use rondo_base::config::LlamaConfig;
use tch::Tensor;

use super::blocks::{Attention, RmsNorm};
use super::linears::Bias;
use super::rope::{Rotary, rotate};
use super::{LayerCache, LinearHook, Linears, ModelError, Transformer, Weight, WeightFiles};
use crate::batch::Batch;
use crate::error::TrainerError;

/// A decoder with its vocabulary matrix, frozen.
pub struct Llama {
    /// `[vocabulary, hidden]`
    words: Weight,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// `[vocabulary, hidden]`; `None` where it is `words`.
    vocabulary: Option<Weight>,
    rotary: Rotary,
    linears: Linears,
    config: LlamaConfig,
}

struct Layer {
    attention_norm: RmsNorm,
    query: usize,
    key: usize,
    value: usize,
    output: usize,
    /// Norms of each head's query and key (Qwen3).
    head_norms: Option<(RmsNorm, RmsNorm)>,
    attention: Attention,
    mlp_norm: RmsNorm,
    gate: usize,
    up: usize,
    down: usize,
}

impl Llama {
    /// Takes the model out of its files.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub fn load(mut weights: WeightFiles, sizes: LlamaConfig) -> Result<Self, ModelError> {
        let rotary = Rotary::new(&sizes.rope, &mut |pairs| weights.take_rope_factors(pairs))?;
        let hidden = sizes.hidden;
        let vocabulary = [sizes.vocabulary, sizes.hidden];
        let mut linears = Linears::default();

        let words = weights.take_table("model.embed_tokens.weight", &vocabulary)?;
        let mut layers = Vec::new();
        for number in 0..sizes.layers {
            layers.push(Layer::load(number, &sizes, &mut weights, &mut linears)?);
        }
        let norm = RmsNorm::load(&mut weights, "model.norm", hidden, sizes.norm_eps)?;
        let vocabulary = match sizes.tied {
            true => None,
            false => Some(weights.take_table("lm_head.weight", &vocabulary)?),
        };
        Ok(Self { words, layers, norm, vocabulary, rotary, linears, config: sizes })
    }

    /// `softmax(Q K^T / sqrt(d)) V` with its four linear layers, `[n, hidden]` to the same.
    fn attend(
        &self,
        layer: &Layer,
        x: &Tensor,
        batch: &Batch,
        hook: &dyn LinearHook,
        cache: Option<&mut LayerCache>,
    ) -> Result<Tensor, TrainerError> {
        let Attention { heads, kv_heads, head_size, .. } = layer.attention;
        let run = |number: usize, heads: i64| -> Result<Tensor, TrainerError> {
            Ok(self.linears.forward(number, x, hook)?.f_view([-1, heads, head_size])?)
        };
        let mut query = run(layer.query, heads)?;
        let mut key = run(layer.key, kv_heads)?;
        let value = run(layer.value, kv_heads)?;
        if let Some((query_norm, key_norm)) = &layer.head_norms {
            (query, key) = (query_norm.forward(&query)?, key_norm.forward(&key)?);
        }
        let tables = self.rotary.tables(batch, x.kind())?;
        let query = rotate(&query, &tables)?;
        let key = rotate(&key, &tables)?;
        let context = layer.attention.causal(&query, &key, &value, batch, cache)?;
        self.linears.forward(layer.output, &context, hook)
    }

    /// `down(silu(gate(x)) * up(x))` (Shazeer 2020), `[n, hidden]` to the same.
    fn feed_forward(&self, layer: &Layer, x: &Tensor, hook: &dyn LinearHook) -> Result<Tensor, TrainerError> {
        let run = |number: usize, x: &Tensor| self.linears.forward(number, x, hook);
        let inner = run(layer.gate, x)?.f_silu()?.f_mul(&run(layer.up, x)?)?;
        run(layer.down, &inner)
    }
}

impl Layer {
    fn load(
        number: usize,
        sizes: &LlamaConfig,
        weights: &mut WeightFiles,
        linears: &mut Linears,
    ) -> Result<Self, ModelError> {
        let hidden = sizes.hidden;
        let eps = sizes.norm_eps;
        let head_size = sizes.head_size;
        let wide = sizes.heads * head_size;
        let narrow = sizes.kv_heads * head_size;
        let at = |part: &str| format!("model.layers.{number}.{part}");
        let attention_norm = RmsNorm::load(weights, &at("input_layernorm"), hidden, eps)?;
        let mlp_norm = RmsNorm::load(weights, &at("post_attention_layernorm"), hidden, eps)?;
        let head_norms = match sizes.head_norms {
            true => Some((
                RmsNorm::load(weights, &at("self_attn.q_norm"), head_size, eps)?,
                RmsNorm::load(weights, &at("self_attn.k_norm"), head_size, eps)?,
            )),
            false => None,
        };
        let mut linear = |part: &str, out: usize, inp: usize, bias: bool| {
            linears.load(weights, &at(part), [out, inp], Bias::from_flag(bias))
        };
        Ok(Self {
            attention_norm,
            query: linear("self_attn.q_proj", wide, hidden, sizes.input_bias)?,
            key: linear("self_attn.k_proj", narrow, hidden, sizes.input_bias)?,
            value: linear("self_attn.v_proj", narrow, hidden, sizes.input_bias)?,
            output: linear("self_attn.o_proj", hidden, wide, sizes.output_bias)?,
            gate: linear("mlp.gate_proj", sizes.inner, hidden, sizes.mlp_bias)?,
            up: linear("mlp.up_proj", sizes.inner, hidden, sizes.mlp_bias)?,
            down: linear("mlp.down_proj", hidden, sizes.inner, sizes.mlp_bias)?,
            head_norms,
            attention: Attention {
                heads: sizes.heads as i64,
                kv_heads: sizes.kv_heads as i64,
                head_size: head_size as i64,
                window: sizes.windows[number].map(|window| window as i64),
            },
            mlp_norm,
        })
    }
}

impl Transformer for Llama {
    fn hidden_size(&self) -> usize {
        self.config.hidden
    }

    fn max_positions(&self) -> usize {
        self.rotary.max_positions()
    }

    fn linears(&self) -> &Linears {
        &self.linears
    }

    fn layers(&self) -> usize {
        self.layers.len()
    }

    fn embed(&self, batch: &Batch) -> Result<Tensor, TrainerError> {
        self.words.rows(batch.ids())
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
        // What a linear layer gives is fresh and no gradient formula needs its value, so it can
        // take the sum.
        let x = self.attend(layer, &layer.attention_norm.forward(x)?, batch, hook, cache)?.f_add_(x)?;
        Ok(self.feed_forward(layer, &layer.mlp_norm.forward(&x)?, hook)?.f_add_(&x)?)
    }

    fn finish(&self, x: &Tensor) -> Result<Tensor, TrainerError> {
        self.norm.forward(x)
    }

    fn vocabulary(&self) -> Option<&Weight> {
        Some(self.vocabulary.as_ref().unwrap_or(&self.words))
    }
}
