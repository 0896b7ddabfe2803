//! What config.json says of a model of the Llama family, with Hugging Face's defaults for what it
//! leaves out.

use rondo_base::architecture::{self, ModelClass};
use serde_json::Value;

use crate::models::ModelError;
use crate::models::linears::Bias;
use crate::models::settings::Settings;

/// Sizes and choices of a decoder.
pub(super) struct LlamaConfig {
    /// The `model_type`.
    pub(super) family: &'static str,
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_size: usize,
    pub(super) intermediate: usize,
    pub(super) max_positions: usize,
    pub(super) norm_eps: f64,
    /// The vocabulary matrix is the embedding.
    pub(super) tied: bool,
    /// Of queries, keys and values.
    pub(super) input_bias: Bias,
    /// Of the attention's output.
    pub(super) output_bias: Bias,
    pub(super) mlp_bias: Bias,
    /// Queries and keys are normed head by head.
    pub(super) head_norms: bool,
    /// By layer: how many tokens a token sees, itself among them.
    pub(super) windows: Vec<Option<i64>>,
}

impl LlamaConfig {
    pub(super) fn read(config: &Settings<'_>) -> Result<Self, ModelError> {
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let Some(found) = architecture::find(model_type).filter(|found| found.model_class == ModelClass::Llama) else {
            return Err(config.malformed(format!("`model_type` {model_type:?} is not of the Llama family")));
        };
        let family = found.model_type;
        config.only("quantization_config", &[], "none; unpacked weights, or a GGUF file")?;
        config.only("hidden_act", &["silu".into(), "swish".into()], "\"silu\"")?;
        let hidden = config.count("hidden_size")?;
        let heads = config.count("num_attention_heads")?;
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
            "llama" | "qwen3" => config.flag_or("attention_bias", false)?,
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
            norm_eps: config.number_or("rms_norm_eps", 1e-6)?,
            tied: config.flag_or("tie_word_embeddings", false)?,
            input_bias: Bias::from_flag(attention_bias || family == "qwen2"),
            output_bias: Bias::from_flag(attention_bias),
            mlp_bias: Bias::from_flag(family == "llama" && config.flag_or("mlp_bias", false)?),
            head_norms: family == "qwen3",
            windows: windows(config, family, layers)?,
        })
    }
}

/// Each layer's sliding window.
fn windows(config: &Settings<'_>, family: &str, layers: usize) -> Result<Vec<Option<i64>>, ModelError> {
    // Here null is not the same as absent.
    let window = match config.get("sliding_window") {
        Some(_) => Some(config.count("sliding_window")? as i64),
        None if config.is_null("sliding_window") => None,
        // Hugging Face's default in both families.
        None => Some(4096),
    };
    match family {
        "llama" => return Ok(vec![None; layers]),
        "mistral" => return Ok(vec![window; layers]),
        _ if !config.flag_or("use_sliding_window", false)? => return Ok(vec![None; layers]),
        _ => {}
    }
    let Some(kinds) = config.get("layer_types") else {
        let first = config.whole_or("max_window_layers", 28)?;
        return Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect());
    };
    let kinds = kinds.as_array().filter(|kinds| kinds.len() == layers);
    let kinds = kinds.ok_or_else(|| config.malformed(format!("`layer_types` must name all {layers} layers")))?;
    let window_of = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Ok(None),
        Some("sliding_attention") => Ok(window),
        _ => Err(config.unsupported("layer_types", kind, "\"full_attention\", \"sliding_attention\"")),
    };
    kinds.iter().map(window_of).collect()
}
