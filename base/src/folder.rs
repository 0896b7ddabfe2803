//! A Hugging Face folder: config.json, tokenizer.json and the weights in one or more .safetensors
//! files.

use std::collections::BTreeMap;
use std::path::Path;

use rondo_proto::manifest::{self, TensorEntry};
use rondo_proto::v1;

use crate::architecture::{self, Architecture};
use crate::files::{is_weights, size_of};
use crate::{BaseError, Model};

pub(super) const CONFIG: &str = "config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
/// Which file holds which tensor; says what a whole set of files is. Some checkpoints come without.
const INDEX: &str = "model.safetensors.index.json";
/// Largest config.json or index that is read.
const MAX_JSON_BYTES: u64 = 32 << 20;

/// The model in a folder, from headers alone.
pub(super) fn model(dir: &Path, names: &[String]) -> Result<Model, BaseError> {
    let config_path = dir.join(CONFIG);
    let config = read_json(&config_path)?;
    let model_type = text_of(&config, "model_type", &config_path)?;
    let architecture = architecture::find(&model_type).ok_or_else(|| BaseError::Architecture {
        path: config_path.clone(),
        model_type: model_type.clone(),
        supported: architecture::supported(),
    })?;
    let keys = &architecture.config_keys;
    let layers = number_of(&config, keys.layers, &config_path)?;

    let mut tensors: BTreeMap<String, (&str, TensorEntry)> = BTreeMap::new();
    for file in names.iter().filter(|file| is_weights(file)) {
        for tensor in manifest::read(&dir.join(file))? {
            // Two copies of the weights would both count, and it would be unclear which of them
            // trains.
            if let Some((other, _)) = tensors.insert(tensor.name.clone(), (file, tensor.clone())) {
                let problem = format!(
                    "tensor {:?} stands both in {other} and in {file}; keep one copy of the weights in the folder",
                    tensor.name
                );
                return Err(BaseError::Weights { dir: dir.to_owned(), problem });
            }
        }
    }
    check_index(dir, &tensors)?;
    let linears = linears(architecture, tensors.values().map(|(_, tensor)| tensor));
    let expected = layers as usize * architecture.linears.len();
    if linears.len() != expected {
        let problem = format!(
            "the weights hold {} linear layers, config.json's {layers} layers of a {model_type} model have {expected}",
            linears.len()
        );
        return Err(BaseError::Weights { dir: dir.to_owned(), problem });
    }
    let positions = number_of(&config, keys.max_positions, &config_path)?;
    let max_positions = positions.checked_sub(architecture.positions_before).filter(|positions| *positions > 0);
    Ok(Model {
        architecture: model_type,
        // Integer tensors are buffers, such as position ids.
        parameters: tensors
            .values()
            .filter(|(_, tensor)| is_float(tensor))
            .fold(0, |sum: u64, (_, tensor)| sum.saturating_add(tensor.numbers() as u64)),
        hidden_size: number_of(&config, keys.hidden_size, &config_path)?,
        max_positions: max_positions.ok_or_else(|| BaseError::Config {
            path: config_path.clone(),
            problem: format!("has {positions} positions, {} of which are not used", architecture.positions_before),
        })?,
        linears,
    })
}

/// The files a base is made of, sorted by name.
pub(super) fn files(dir: &Path) -> Result<Vec<String>, BaseError> {
    let io_error = |source| BaseError::Io { path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io_error)? {
        let name = entry.map_err(io_error)?.file_name();
        if let Some(name) = name.to_str()
            && (name == CONFIG || name == TOKENIZER || is_weights(name))
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    let missing = |file: &str| BaseError::MissingFile { dir: dir.to_owned(), file: file.to_owned() };
    for needed in [CONFIG, TOKENIZER] {
        if !names.iter().any(|name| name == needed) {
            return Err(missing(needed));
        }
    }
    if !names.iter().any(|name| is_weights(name)) {
        return Err(missing("*.safetensors file"));
    }
    Ok(names)
}

/// Where there is an index, every tensor must lie in the file that the index names. So a download
/// that lacks a shard is reported by the shard's name, not by a wrong number of layers.
fn check_index(dir: &Path, tensors: &BTreeMap<String, (&str, TensorEntry)>) -> Result<(), BaseError> {
    let path = dir.join(INDEX);
    if !path.exists() {
        return Ok(());
    }
    let index = read_json(&path)?;
    let Some(map) = index.get("weight_map").and_then(serde_json::Value::as_object) else {
        return Err(BaseError::Config { path, problem: "has no object under \"weight_map\"".to_owned() });
    };
    for (tensor, file) in map {
        let file = file.as_str().unwrap_or_default();
        if tensors.get(tensor).is_none_or(|(place, _)| *place != file) {
            let problem = format!("{INDEX} places tensor {tensor:?} in {file:?}, which does not hold it");
            return Err(BaseError::Weights { dir: dir.to_owned(), problem });
        }
    }
    Ok(())
}

/// Linear layers by layer number, then in the order of the architecture's table.
fn linears<'t>(architecture: &Architecture, tensors: impl Iterator<Item = &'t TensorEntry>) -> Vec<v1::LinearLayer> {
    let mut found = BTreeMap::new();
    for tensor in tensors {
        let name = architecture.canonical(&tensor.name);
        let Some(module) = name.strip_suffix(".weight") else { continue };
        let (Some(place), [rows, columns]) = (architecture.linear(module), tensor.shape.as_slice()) else { continue };
        let (out, inp) = architecture.sizes([*rows, *columns]);
        let (Ok(out_features), Ok(in_features)) = (u32::try_from(out), u32::try_from(inp)) else { continue };
        found.insert(place, v1::LinearLayer { name: module.to_owned(), out_features, in_features });
    }
    found.into_values().collect()
}

fn is_float(tensor: &TensorEntry) -> bool {
    tensor.dtype.starts_with('F') || tensor.dtype == "BF16"
}

fn read_json(path: &Path) -> Result<serde_json::Value, BaseError> {
    let bytes = size_of(path)?;
    let problem = |problem: String| BaseError::Config { path: path.to_owned(), problem };
    if bytes > MAX_JSON_BYTES {
        return Err(problem(format!("has {bytes} bytes, more than {MAX_JSON_BYTES}")));
    }
    let text = std::fs::read(path).map_err(|source| BaseError::Io { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|error| problem(format!("is not valid JSON: {error}")))
}

fn text_of(config: &serde_json::Value, key: &str, path: &Path) -> Result<String, BaseError> {
    let text = config.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
    text.ok_or_else(|| BaseError::Config { path: path.to_owned(), problem: format!("has no text under {key:?}") })
}

fn number_of(config: &serde_json::Value, key: &str, path: &Path) -> Result<u32, BaseError> {
    let number = config.get(key).and_then(serde_json::Value::as_u64).and_then(|number| u32::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| BaseError::Config {
        path: path.to_owned(),
        problem: format!("has no positive whole number under {key:?}"),
    })
}
