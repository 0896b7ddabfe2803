//! From a path to a model: which class its files are of, and how its weights are held.

use std::path::Path;

use rondo_base::Checkpoint;
use rondo_base::config::ModelConfig;
use rondo_proto::run_file::Quantise;
use rondo_proto::wording::SettingKey;
use tch::{Device, Kind};

use super::{Encoder, Gpt2, Llama, ModelError, PackedWeights, Transformer, WeightFiles};

/// How a base model is loaded.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Where it computes.
    pub device: Device,
    /// What its weights are converted to, and what it computes in.
    pub kind: Kind,
    /// How linear layers' weights are packed. What a GGUF file has in blocks stays in these.
    pub quantise: Quantise,
    /// How packed weights are held.
    pub packed: PackedWeights,
}

impl LoadOptions {
    /// Weights as the files have them, converted to `kind` where they are numbers.
    pub fn new(device: Device, kind: Kind) -> Self {
        Self { device, kind, quantise: Quantise::None, packed: PackedWeights::Keep }
    }
}

/// Reads the model at a path: a Hugging Face folder by the `model_type` of its config.json, or a
/// .gguf file, whose blocks stay packed. What was passed over is logged in one line.
///
/// # Errors
/// A file that cannot be read, a model that is not supported, weights that config.json does not
/// describe.
pub fn load(path: &Path, options: LoadOptions) -> Result<Box<dyn Transformer>, ModelError> {
    let LoadOptions { device, kind, quantise, packed } = options;
    let checkpoint = Checkpoint::open(path)?;
    if quantise != Quantise::None && !matches!(checkpoint.config, ModelConfig::Llama(_)) {
        let setting = SettingKey::Quantise;
        return Err(ModelError::Unsupported {
            path: path.to_owned(),
            key: "model_type",
            value: format!("{:?} with {setting}", checkpoint.config.architecture().model_type),
            supported: format!("{setting} with the Llama family"),
        });
    }
    if let Some(remark) = checkpoint.remark() {
        tracing::warn!("{remark}");
    }
    let weights = WeightFiles::open(&checkpoint, device, kind)?;
    Ok(match checkpoint.config {
        ModelConfig::Encoder(config) => Box::new(Encoder::load(weights, config)?),
        ModelConfig::Gpt2(config) => Box::new(Gpt2::load(weights, config)?),
        ModelConfig::Llama(config) => Box::new(Llama::load(weights.with_packing(quantise, packed), config)?),
    })
}
