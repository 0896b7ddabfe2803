//! DistilBERT (Sanh et al. 2019): BERT's layers under other names, half as many, without token
//! types.
//!
//! Positions are read from the checkpoint whether they were learned or (`sinusoidal_pos_embds`)
//! computed: both are saved.

use std::path::Path;

use serde_json::Value;
use tch::{Device, Kind};

use super::ModelError;
use super::activation::Activation;
use super::encoder::{Encoder, EncoderConfig, Names};
use super::settings::Settings;

const NAMES: Names = Names {
    architecture: "distilbert",
    prefix: "distilbert.",
    ignored: &["vocab_", "pre_classifier.", "classifier.", "qa_outputs.", "embeddings.position_ids"],
    layers: "transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    inner: "ffn.lin1",
    outer: "ffn.lin2",
    output_norm: "output_layer_norm",
};

/// The architecture has no setting for it.
const NORM_EPS: f64 = 1e-12;

/// Reads the encoder in `dir`; `config` is its parsed config.json.
pub(super) fn load(dir: &Path, config: &Value, device: Device, kind: Kind) -> Result<Encoder, ModelError> {
    let settings = Settings::new(dir, config);
    settings.only("quantization_config", &[], "none")?;
    let hidden = settings.count("dim")?;
    let attention = settings.attention("n_heads", ("dim", hidden))?;
    let encoder = EncoderConfig {
        vocabulary: settings.count("vocab_size")?,
        hidden,
        layers: settings.count("n_layers")?,
        attention,
        inner: settings.count("hidden_dim")?,
        positions: settings.count("max_position_embeddings")?,
        first_position: 0,
        types: None,
        norm_eps: NORM_EPS,
        activation: settings.activation("activation", Activation::Gelu)?,
    };
    Encoder::load(dir, &NAMES, encoder, device, kind)
}
