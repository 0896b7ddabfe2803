//! The Llama family: Llama, Mistral, Qwen2, Qwen3.

use serde_json::Value as Json;

use super::rope::RopeConfig;
use super::unpacked;
use super::values::{ConfigValues, MAX_LAYERS, MAX_POSITIONS, MAX_VOCABULARY, MAX_WIDTH};
use crate::architecture::Architecture;
use crate::error::BaseError;

/// Sizes and choices of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Its row of the table.
    pub architecture: &'static Architecture,
    /// Tokens.
    pub vocabulary: usize,
    /// Length of a token's state.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; `heads` is a multiple.
    pub kv_heads: usize,
    /// Numbers in a head.
    pub head_size: usize,
    /// Width of the feed-forward part.
    pub inner: usize,
    /// Longest input in tokens.
    pub max_positions: usize,
    /// Added to the mean square in a norm.
    pub norm_eps: f64,
    /// The vocabulary matrix is the embedding. A checkpoint that holds another matrix than
    /// config.json says makes this false when it is opened.
    pub tied: bool,
    /// Queries, keys and values have a bias.
    pub input_bias: bool,
    /// The attention's output has a bias.
    pub output_bias: bool,
    /// The feed-forward part has biases.
    pub mlp_bias: bool,
    /// Queries and keys are normed head by head.
    pub head_norms: bool,
    /// By layer: how many tokens a token sees, itself among them.
    pub windows: Vec<Option<usize>>,
    /// How queries and keys are rotated.
    pub rope: RopeConfig,
}

/// What transformers takes where config.json is silent.
struct Defaults {
    vocabulary: usize,
    inner: usize,
    /// `None`: as many as heads.
    kv_heads: Option<usize>,
    max_positions: usize,
}

fn defaults(family: &str) -> Defaults {
    match family {
        "mistral" => Defaults { vocabulary: 32_000, inner: 14_336, kv_heads: Some(8), max_positions: 131_072 },
        "qwen2" | "qwen3" => Defaults { vocabulary: 151_936, inner: 22_016, kv_heads: Some(32), max_positions: 32_768 },
        _ => Defaults { vocabulary: 32_000, inner: 11_008, kv_heads: None, max_positions: 2048 },
    }
}

impl LlamaConfig {
    pub(super) fn read(values: &ConfigValues, architecture: &'static Architecture) -> Result<Self, BaseError> {
        let family = architecture.model_type;
        let silent = defaults(family);
        unpacked(values)?;
        if let Some(other) = values.get("hidden_act").filter(|name| !["silu", "swish"].map(Json::from).contains(name)) {
            return Err(values.unsupported("hidden_act", other, "\"silu\""));
        }
        let hidden = values.count("hidden_size", 4096, MAX_WIDTH)?;
        let heads = values.count("num_attention_heads", 32, MAX_WIDTH)?;
        let kv_heads = match values.get("num_key_value_heads") {
            // Null stands for plain attention where transformers lets it stand.
            Some(Json::Null) if family != "mistral" => heads,
            None => silent.kv_heads.unwrap_or(heads),
            Some(_) => values.count("num_key_value_heads", heads, MAX_WIDTH)?,
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(values.refuse(format!("{heads} heads cannot share {kv_heads} key-value heads evenly")));
        }
        let head_size = match values.get("head_dim") {
            None if family == "qwen3" => 128,
            None | Some(Json::Null) if family != "qwen3" => match hidden.is_multiple_of(heads) {
                true => hidden / heads,
                false => {
                    return Err(values.refuse(format!("`hidden_size` {hidden} is no multiple of {heads} heads")));
                }
            },
            _ => values.count("head_dim", 128, MAX_WIDTH)?,
        };
        let attention_bias = matches!(family, "llama" | "qwen3") && values.flag("attention_bias", false)?;
        let layers = values.count("num_hidden_layers", 32, MAX_LAYERS)?;
        let max_positions = values.count("max_position_embeddings", silent.max_positions, MAX_POSITIONS)?;
        Ok(Self {
            architecture,
            vocabulary: values.count("vocab_size", silent.vocabulary, MAX_VOCABULARY)?,
            hidden,
            layers,
            heads,
            kv_heads,
            head_size,
            inner: values.count("intermediate_size", silent.inner, MAX_WIDTH)?,
            max_positions,
            norm_eps: values.number("rms_norm_eps", 1e-6, 1.0)?,
            tied: values.flag("tie_word_embeddings", false)?,
            input_bias: attention_bias || family == "qwen2",
            output_bias: attention_bias,
            mlp_bias: family == "llama" && values.flag("mlp_bias", false)?,
            head_norms: family == "qwen3",
            windows: windows(values, family, layers)?,
            rope: RopeConfig::read(values, head_size, max_positions)?,
        })
    }
}

/// Each layer's sliding window.
fn windows(values: &ConfigValues, family: &str, layers: usize) -> Result<Vec<Option<usize>>, BaseError> {
    if family == "llama" {
        return Ok(vec![None; layers]);
    }
    // Here null is not the same as absent, for which transformers has this default.
    let window = match values.get("sliding_window") {
        None => Some(4096),
        Some(_) => values.optional_count("sliding_window", MAX_POSITIONS)?,
    };
    if family == "mistral" {
        return Ok(vec![window; layers]);
    }
    let window = window.filter(|_| matches!(values.get("use_sliding_window"), Some(Json::Bool(true))));
    values.flag("use_sliding_window", false)?;
    let first = values.whole("max_window_layers", 28, MAX_LAYERS)?;
    let Some(kinds) = values.get("layer_types").filter(|kinds| !kinds.is_null()) else {
        return Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect());
    };
    let kinds = kinds.as_array().filter(|kinds| kinds.len() == layers);
    let kinds = kinds.ok_or_else(|| values.refuse(format!("`layer_types` must name all {layers} layers")))?;
    let window_of = |kind: &Json| match (kind.as_str(), window) {
        (Some("full_attention"), _) => Ok(None),
        (Some("sliding_attention"), Some(window)) => Ok(Some(window)),
        (Some("sliding_attention"), None) => Err(values.refuse(
            "`layer_types` names sliding attention, but `use_sliding_window` or `sliding_window` turns it off"
                .to_owned(),
        )),
        _ => Err(values.unsupported("layer_types", kind, "\"full_attention\", \"sliding_attention\"")),
    };
    kinds.iter().map(window_of).collect()
}
