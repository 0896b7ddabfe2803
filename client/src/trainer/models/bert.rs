//! BERT (Devlin et al. 2019), encoder only, as Hugging Face's `BertModel` without its pooler.
//!
//! Tokens are packed: every step that works token by token (embeddings, linear layers, norms) sees only real tokens as
//! one `[tokens, hidden]` matrix; only attention lays them out as `[texts, longest]`. With texts of mixed length this
//! halves the work of a padded batch, and gives the same numbers.

use std::path::Path;

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::{LayerCache, Linears, ModelError, Transformer, WeightFiles};
use crate::trainer::adapted::Adapters;
use crate::trainer::batch::Batch;
use crate::trainer::error::TrainerError;

/// Tensors of other parts of a BERT checkpoint, not needed here: the pooler, pre-training heads, a saved index buffer.
const IGNORED: [&str; 4] = ["pooler.", "cls.", "classifier.", "embeddings.position_ids"];

/// The encoder, frozen.
pub struct Bert {
    /// `[vocabulary, hidden]`
    words: Tensor,
    /// `[max_positions, hidden]`
    positions: Tensor,
    /// Row 0 of the token types, `[1, hidden]`: every input is one text.
    first_type: Tensor,
    embedding_norm: Norm,
    layers: Vec<Layer>,
    linears: Linears,
    shape: Shape,
}

struct Layer {
    query: usize,
    key: usize,
    value: usize,
    attention_output: usize,
    attention_norm: Norm,
    intermediate: usize,
    output: usize,
    output_norm: Norm,
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
}

#[derive(Debug, Clone, Copy)]
enum Activation {
    Gelu,
    GeluTanh,
    Relu,
}

/// What config.json says.
struct Shape {
    vocabulary: usize,
    hidden: usize,
    layers: usize,
    heads: usize,
    intermediate: usize,
    max_positions: usize,
    types: usize,
    norm_eps: f64,
    activation: Activation,
}

impl Bert {
    /// Reads the encoder in `dir`; `config` is its parsed config.json. A prefix `bert.` of tensor names is dropped.
    pub fn load(dir: &Path, config: &Value, device: Device, kind: Kind) -> Result<Self, ModelError> {
        let shape = Shape::read(&dir.join("config.json"), config)?;
        let hidden = shape.hidden;
        let mut weights = WeightFiles::open(dir, "bert.", device, kind)?;
        let mut linears = Linears::default();

        let words = weights.take("embeddings.word_embeddings.weight", &[shape.vocabulary, hidden])?;
        let positions = weights.take("embeddings.position_embeddings.weight", &[shape.max_positions, hidden])?;
        let types = weights.take("embeddings.token_type_embeddings.weight", &[shape.types, hidden])?;
        let embedding_norm = Norm::load(&mut weights, "embeddings.LayerNorm", hidden)?;
        let mut layers = Vec::with_capacity(shape.layers);
        for number in 0..shape.layers {
            let at = |part: &str| format!("encoder.layer.{number}.{part}");
            let mut linear = |part: &str, out, inp| linears.load(&mut weights, &at(part), out, inp);
            let query = linear("attention.self.query", hidden, hidden)?;
            let key = linear("attention.self.key", hidden, hidden)?;
            let value = linear("attention.self.value", hidden, hidden)?;
            let attention_output = linear("attention.output.dense", hidden, hidden)?;
            let intermediate = linear("intermediate.dense", shape.intermediate, hidden)?;
            let output = linear("output.dense", hidden, shape.intermediate)?;
            let attention_norm = Norm::load(&mut weights, &at("attention.output.LayerNorm"), hidden)?;
            let output_norm = Norm::load(&mut weights, &at("output.LayerNorm"), hidden)?;
            layers.push(Layer {
                query,
                key,
                value,
                attention_output,
                attention_norm,
                intermediate,
                output,
                output_norm,
            });
        }
        weights.finish("bert", &IGNORED)?;
        let first_type = types.f_narrow(0, 0, 1)?;
        Ok(Self { words, positions, first_type, embedding_norm, layers, linears, shape })
    }

    /// `softmax(Q K^T / sqrt(d)) V` over each text's own tokens. All shapes `[tokens, hidden]`.
    fn attend(&self, query: &Tensor, key: &Tensor, value: &Tensor, batch: &Batch) -> Result<Tensor, TrainerError> {
        let heads = self.shape.heads as i64;
        let split = |x: &Tensor| -> Result<Tensor, TrainerError> {
            let [texts, longest, hidden] = [batch.texts(), batch.longest(), self.shape.hidden as i64];
            let padded = batch.pad(x)?.f_view([texts, longest, heads, hidden / heads])?;
            Ok(padded.f_transpose(1, 2)?)
        };
        let context = Tensor::f_scaled_dot_product_attention(
            &split(query)?,
            &split(key)?,
            &split(value)?,
            batch.attention_mask(),
            0.0,
            false,
            None,
            false,
        )?;
        let rows = batch.texts() * batch.longest();
        batch.unpad(&context.f_transpose(1, 2)?.f_reshape([rows, self.shape.hidden as i64])?)
    }

    fn activate(&self, x: &Tensor) -> Result<Tensor, TrainerError> {
        Ok(match self.shape.activation {
            Activation::Gelu => x.f_gelu("none")?,
            Activation::GeluTanh => x.f_gelu("tanh")?,
            Activation::Relu => x.f_relu()?,
        })
    }
}

impl Transformer for Bert {
    fn hidden_size(&self) -> usize {
        self.shape.hidden
    }

    fn max_positions(&self) -> usize {
        self.shape.max_positions
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
        self.embedding_norm.forward(&words.f_add(&self.first_type)?.f_add(&positions)?, self.shape.norm_eps)
    }

    fn layer(
        &self,
        number: usize,
        x: &Tensor,
        batch: &Batch,
        adapters: &Adapters,
        _cache: Option<&mut LayerCache>,
    ) -> Result<Tensor, TrainerError> {
        let (layer, eps) = (&self.layers[number], self.shape.norm_eps);
        let run = |number: usize, x: &Tensor| self.linears.forward(number, x, adapters);
        let context = self.attend(&run(layer.query, x)?, &run(layer.key, x)?, &run(layer.value, x)?, batch)?;
        let mut attended = run(layer.attention_output, &context)?;
        let x = layer.attention_norm.forward(&attended.f_add_(x)?, eps)?;
        let inner = self.activate(&run(layer.intermediate, &x)?)?;
        let mut outer = run(layer.output, &inner)?;
        layer.output_norm.forward(&outer.f_add_(&x)?, eps)
    }
}

impl Norm {
    fn load(weights: &mut WeightFiles, name: &str, hidden: usize) -> Result<Self, ModelError> {
        let weight = weights.take(&format!("{name}.weight"), &[hidden])?;
        let bias = weights.take(&format!("{name}.bias"), &[hidden])?;
        Ok(Self { weight, bias })
    }

    fn forward(&self, x: &Tensor, eps: f64) -> Result<Tensor, TrainerError> {
        Ok(x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), eps, false)?)
    }
}

impl Shape {
    fn read(path: &Path, config: &Value) -> Result<Self, ModelError> {
        let count = |key: &'static str| match config.get(key).and_then(Value::as_u64) {
            Some(n @ 1..) => Ok(n as usize),
            _ => Err(ModelError::Malformed { path: path.to_owned(), problem: format!("`{key}` must be a count") }),
        };
        // Settings that change what is computed: anything but what this file computes is refused.
        let must = |key: &'static str, allowed: &[Value], supported: &'static str| match config.get(key) {
            Some(value) if !value.is_null() && !allowed.contains(value) => {
                Err(ModelError::Unsupported { path: path.to_owned(), key, value: value.to_string(), supported })
            }
            _ => Ok(()),
        };
        must("position_embedding_type", &["absolute".into()], "\"absolute\"")?;
        must("is_decoder", &[false.into()], "false")?;
        must("add_cross_attention", &[false.into()], "false")?;
        must("quantization_config", &[], "none")?;
        let activation = match config.get("hidden_act").and_then(Value::as_str).unwrap_or("gelu") {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => {
                return Err(ModelError::Unsupported {
                    path: path.to_owned(),
                    key: "hidden_act",
                    value: format!("{other:?}"),
                    supported: "\"gelu\", \"gelu_new\", \"gelu_pytorch_tanh\", \"relu\"",
                });
            }
        };
        let shape = Self {
            vocabulary: count("vocab_size")?,
            hidden: count("hidden_size")?,
            layers: count("num_hidden_layers")?,
            heads: count("num_attention_heads")?,
            intermediate: count("intermediate_size")?,
            max_positions: count("max_position_embeddings")?,
            types: count("type_vocab_size")?,
            norm_eps: config.get("layer_norm_eps").and_then(Value::as_f64).unwrap_or(1e-12),
            activation,
        };
        if !shape.hidden.is_multiple_of(shape.heads) {
            let problem = format!("`hidden_size` {} is no multiple of {} heads", shape.hidden, shape.heads);
            return Err(ModelError::Malformed { path: path.to_owned(), problem });
        }
        Ok(shape)
    }
}
