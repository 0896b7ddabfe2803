//! model.safetensors.index.json: which file of a folder holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value as Json;

use crate::error::BaseError;
use crate::files::is_weights;
use crate::json::read_json;

/// Its name.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// A file by tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    places: BTreeMap<String, String>,
}

impl Index {
    /// Reads the index at a path.
    ///
    /// # Errors
    /// It cannot be read, has no `weight_map`, names no file, or one that is no weights file beside
    /// it.
    pub fn read(path: &Path) -> Result<Self, BaseError> {
        let refuse = |problem: String| BaseError::Config { path: path.to_owned(), problem };
        let index = read_json(path)?;
        let Some(map) = index.get("weight_map").and_then(Json::as_object) else {
            return Err(refuse("has no object under \"weight_map\"".to_owned()));
        };
        let mut places = BTreeMap::new();
        for (tensor, file) in map {
            let Some(name) = file.as_str().filter(|name| is_weights(name) && !name.contains(['/', '\\'])) else {
                return Err(refuse(format!(
                    "places tensor {tensor:?} in {file}, which is no .safetensors file beside it"
                )));
            };
            places.insert(tensor.clone(), name.to_owned());
        }
        if places.is_empty() {
            return Err(refuse("names no tensor under \"weight_map\"".to_owned()));
        }
        Ok(Self { places })
    }

    /// The files that it names.
    pub fn files(&self) -> BTreeSet<String> {
        self.places.values().cloned().collect()
    }

    /// Tensor and file, by tensor.
    pub fn places(&self) -> impl Iterator<Item = (&str, &str)> {
        self.places.iter().map(|(tensor, file)| (tensor.as_str(), file.as_str()))
    }
}
