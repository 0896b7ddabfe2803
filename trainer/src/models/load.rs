//! From a path to a model: which class its files are of, and how its weights are held.

use std::path::Path;

use rondo_base::architecture::{self, ARCHITECTURES, ModelClass};
use rondo_base::gguf;
use rondo_base::gguf_names;
use rondo_base::is_gguf;
use rondo_proto::run_file::Quantise;
use rondo_proto::wording::SettingKey;
use serde_json::Value;
use tch::{Device, Kind};

use super::{Gpt2, Llama, ModelError, PackedWeights, Transformer, WeightFiles, bert, distilbert, roberta};

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
/// .gguf file, whose blocks stay packed.
///
/// # Errors
/// A file that cannot be read, a model that is not supported, weights that config.json does not
/// describe.
pub fn load(path: &Path, options: LoadOptions) -> Result<Box<dyn Transformer>, ModelError> {
    let LoadOptions { device, kind, quantise, packed } = options;
    if is_gguf(path) {
        let header = gguf::read(path)?;
        let config = gguf_names::config(&header)?;
        let head_size = config.get("head_dim").and_then(Value::as_u64).unwrap_or_default();
        let weights = WeightFiles::open_gguf(&header, head_size as usize, device, kind)?;
        return Ok(Box::new(Llama::load(weights.with_packing(quantise, packed), path, &config)?));
    }
    let dir = path;
    let path = dir.join("config.json");
    let text = std::fs::read(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
    let config: Value = serde_json::from_slice(&text)
        .map_err(|error| ModelError::Malformed { path: path.clone(), problem: error.to_string() })?;
    let model_type = config.get("model_type").and_then(Value::as_str);
    let refuse = |value: String, supported: String| ModelError::Unsupported {
        path: path.clone(),
        key: "model_type",
        value,
        supported,
    };
    let Some(found) = model_type.and_then(architecture::find) else {
        let value = model_type.map_or_else(|| "absent".to_owned(), |name| format!("{name:?}"));
        let names: Vec<String> = ARCHITECTURES.iter().map(|known| format!("{:?}", known.model_type)).collect();
        return Err(refuse(value, names.join(", ")));
    };
    if quantise != Quantise::None && found.model_class != ModelClass::Llama {
        let setting = SettingKey::Quantise;
        let value = format!("{:?} with {setting}", found.model_type);
        return Err(refuse(value, format!("{setting} with the Llama family")));
    }
    Ok(match found.model_class {
        ModelClass::Bert => Box::new(bert::load(dir, &config, device, kind)?),
        ModelClass::Roberta => Box::new(roberta::load(dir, &config, device, kind)?),
        ModelClass::DistilBert => Box::new(distilbert::load(dir, &config, device, kind)?),
        ModelClass::Gpt2 => Box::new(Gpt2::load(dir, &config, device, kind)?),
        ModelClass::Llama => {
            let weights = WeightFiles::open(dir, "", device, kind)?;
            Box::new(Llama::load(weights.with_packing(quantise, packed), &path, &config)?)
        }
    })
}
