//! What config.json says of a model of the Llama family, with Hugging Face's defaults for what it leaves out.

use std::path::Path;

use serde_json::Value;

use super::FAMILY;
use crate::trainer::models::ModelError;

/// Sizes and choices of a decoder.
pub struct Shape {
    /// The `model_type`.
    pub family: &'static str,
    pub vocabulary: usize,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_size: usize,
    pub intermediate: usize,
    pub max_positions: usize,
    pub norm_eps: f64,
    /// The vocabulary matrix is the embedding.
    pub tied: bool,
    /// Queries, keys and values have biases.
    pub input_bias: bool,
    /// The attention's output has a bias.
    pub output_bias: bool,
    pub mlp_bias: bool,
    /// Queries and keys are normed head by head.
    pub head_norms: bool,
    /// By layer: how many tokens a token sees, itself among them.
    pub windows: Vec<Option<i64>>,
}

/// A config.json and its path, for messages.
struct Config<'c> {
    path: &'c Path,
    values: &'c Value,
}

impl Shape {
    pub fn read(path: &Path, values: &Value) -> Result<Self, ModelError> {
        let config = Config { path, values };
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let Some(family) = FAMILY.into_iter().find(|family| *family == model_type) else {
            return Err(config.malformed(format!("`model_type` {model_type:?} is not of the Llama family")));
        };
        if let Some(value) = config.get("quantization_config") {
            return config.unsupported("quantization_config", value, "none; unpacked weights, or a GGUF file");
        }
        match config.get("hidden_act") {
            None => {}
            Some(value) if matches!(value.as_str(), Some("silu" | "swish")) => {}
            Some(value) => return config.unsupported("hidden_act", value, "\"silu\""),
        }
        let (hidden, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
        let kv_heads = match config.get("num_key_value_heads") {
            // The first Llama came before grouped queries.
            None if family == "llama" => heads,
            _ => config.count("num_key_value_heads")?,
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(config.malformed(format!("{heads} heads cannot share {kv_heads} key-value heads evenly")));
        }
        let head_size = match config.get("head_dim") {
            Some(_) => config.count("head_dim")?,
            None if family == "qwen3" => 128,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => return Err(config.malformed(format!("`hidden_size` {hidden} is no multiple of {heads} heads"))),
        };
        let attention_bias = match family {
            "llama" | "qwen3" => config.flag("attention_bias", false)?,
            _ => false,
        };
        let layers = config.count("num_hidden_layers")?;
        Ok(Self {
            family,
            vocabulary: config.count("vocab_size")?,
            hidden,
            layers,
            heads,
            kv_heads,
            head_size,
            intermediate: config.count("intermediate_size")?,
            max_positions: config.count("max_position_embeddings")?,
            norm_eps: config.get("rms_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6),
            tied: config.flag("tie_word_embeddings", false)?,
            input_bias: attention_bias || family == "qwen2",
            output_bias: attention_bias,
            mlp_bias: family == "llama" && config.flag("mlp_bias", false)?,
            head_norms: family == "qwen3",
            windows: config.windows(family, layers)?,
        })
    }
}

impl Config<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    fn malformed(&self, problem: String) -> ModelError {
        ModelError::Malformed { path: self.path.to_owned(), problem }
    }

    fn unsupported<T>(&self, key: &'static str, value: &Value, supported: &'static str) -> Result<T, ModelError> {
        Err(ModelError::Unsupported { path: self.path.to_owned(), key, value: value.to_string(), supported })
    }

    fn count(&self, key: &str) -> Result<usize, ModelError> {
        match self.get(key).and_then(Value::as_u64) {
            Some(n @ 1..=0xffff_ffff) => Ok(n as usize),
            _ => Err(self.malformed(format!("`{key}` must be a count"))),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.malformed(format!("`{key}` must be true or false"))),
        }
    }

    /// Each layer's sliding window.
    fn windows(&self, family: &str, layers: usize) -> Result<Vec<Option<i64>>, ModelError> {
        let window = match self.values.get("sliding_window") {
            Some(Value::Null) => None,
            // Hugging Face's default in both families.
            None => Some(4096),
            Some(_) => Some(self.count("sliding_window")? as i64),
        };
        match family {
            "llama" => return Ok(vec![None; layers]),
            "mistral" => return Ok(vec![window; layers]),
            _ if !self.flag("use_sliding_window", false)? => return Ok(vec![None; layers]),
            _ => {}
        }
        let Some(kinds) = self.get("layer_types") else {
            let first = match self.get("max_window_layers") {
                None => 28,
                Some(value) => {
                    value.as_u64().ok_or_else(|| self.malformed("`max_window_layers` must be a count".into()))?
                }
            };
            return Ok((0..layers as u64).map(|layer| window.filter(|_| layer >= first)).collect());
        };
        let kinds = kinds.as_array().filter(|kinds| kinds.len() == layers);
        let kinds = kinds.ok_or_else(|| self.malformed(format!("`layer_types` must name all {layers} layers")))?;
        let window_of = |kind: &Value| match kind.as_str() {
            Some("full_attention") => Ok(None),
            Some("sliding_attention") => Ok(window),
            _ => self.unsupported("layer_types", kind, "\"full_attention\", \"sliding_attention\""),
        };
        kinds.iter().map(window_of).collect()
    }
}
