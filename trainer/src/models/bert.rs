//! BERT (Devlin et al. 2019), encoder only, as Hugging Face's `BertModel` without its pooler.

use std::path::Path;

use serde_json::Value;
use tch::{Device, Kind};

use super::ModelError;
use super::activation::Activation;
use super::encoder::{Encoder, EncoderConfig, Names};
use super::settings::Settings;

pub(super) const NAMES: Names = Names {
    architecture: "bert",
    prefix: "bert.",
    // The pooler, pre-training heads, a classifier, a saved index buffer.
    ignored: &["pooler.", "cls.", "classifier.", "qa_outputs.", "embeddings.position_ids"],
    layers: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    inner: "intermediate.dense",
    outer: "output.dense",
    output_norm: "output.LayerNorm",
};

/// Reads the encoder in `dir`; `config` is its parsed config.json.
pub(super) fn load(dir: &Path, config: &Value, device: Device, kind: Kind) -> Result<Encoder, ModelError> {
    Encoder::load(dir, &NAMES, read_config(&Settings::new(dir, config))?, device, kind)
}

/// What config.json says.
pub(super) fn read_config(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    settings.only("position_embedding_type", &["absolute".into()], "\"absolute\"")?;
    settings.only("is_decoder", &[false.into()], "false")?;
    settings.only("add_cross_attention", &[false.into()], "false")?;
    settings.only("quantization_config", &[], "none")?;
    let hidden = settings.count("hidden_size")?;
    let attention = settings.attention("num_attention_heads", ("hidden_size", hidden))?;
    Ok(EncoderConfig {
        vocabulary: settings.count("vocab_size")?,
        hidden,
        layers: settings.count("num_hidden_layers")?,
        attention,
        inner: settings.count("intermediate_size")?,
        positions: settings.count("max_position_embeddings")?,
        first_position: 0,
        types: Some(settings.count("type_vocab_size")?),
        norm_eps: settings.number_or("layer_norm_eps", 1e-12)?,
        activation: settings.activation("hidden_act", Activation::Gelu)?,
    })
}
