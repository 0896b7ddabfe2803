//! A model that is one .gguf file: sizes, tokenizer and weights in one.

use std::collections::BTreeMap;
use std::path::Path;

use rondo_proto::v1;
use serde_json::Value as Json;

use crate::gguf::{self, Header, TensorInfo};
use crate::{BaseError, Model, architecture, gguf_names};

/// The model in a file, from its header alone. Layers are named as Hugging Face names them.
pub(super) fn model(path: &Path) -> Result<Model, BaseError> {
    let header = gguf::read(path)?;
    let config = gguf_names::config(&header)?;
    let model_type = config.get("model_type").and_then(Json::as_str).unwrap_or_default();
    let architecture = architecture::find(model_type).ok_or_else(|| BaseError::Architecture {
        path: path.to_owned(),
        model_type: model_type.to_owned(),
        supported: architecture::supported(),
    })?;

    let mut found = BTreeMap::new();
    let mut parameters = 0u64;
    for tensor in &header.tensors {
        let Some(name) = gguf_names::hugging_face(&tensor.name) else {
            // An unknown tensor would silently be left out of the model.
            if tensor.name == gguf_names::ROPE_FACTORS {
                continue;
            }
            return Err(header.invalid(format!("a {model_type} model has no tensor {:?}", tensor.name)).into());
        };
        parameters = parameters.saturating_add(tensor.numbers());
        let Some(module) = name.strip_suffix(".weight") else { continue };
        let Some((layer, place)) = architecture.linear(module) else { continue };
        let (out_features, in_features) = sizes(&header, tensor)?;
        found.insert((layer, place), v1::LinearLayer { name: module.to_owned(), out_features, in_features });
    }
    let size =
        |key: &str| config.get(key).and_then(Json::as_u64).and_then(|size| u32::try_from(size).ok()).unwrap_or(0);
    let layers = size("num_hidden_layers");
    let expected = u64::from(layers) * architecture.linears.len() as u64;
    if found.len() as u64 != expected || found.keys().any(|(layer, _)| *layer >= layers) {
        let problem =
            format!("it holds {} linear layers, {layers} layers of a {model_type} model have {expected}", found.len());
        return Err(header.invalid(problem).into());
    }
    Ok(Model {
        architecture: model_type.to_owned(),
        parameters,
        hidden_size: size("hidden_size"),
        max_positions: size("max_position_embeddings"),
        linears: found.into_values().collect(),
    })
}

fn sizes(header: &Header, tensor: &TensorInfo) -> Result<(u32, u32), BaseError> {
    let problem = || header.invalid(format!("tensor {:?} has shape {:?}, not [out, in]", tensor.name, tensor.shape));
    let [rows, columns] = tensor.shape[..] else { return Err(problem().into()) };
    let (Ok(rows), Ok(columns)) = (u32::try_from(rows), u32::try_from(columns)) else { return Err(problem().into()) };
    Ok((rows, columns))
}
