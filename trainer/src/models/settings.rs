//! What a model's config.json says, with refusals that name the key.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ModelError;
use super::activation::Activation;
use super::blocks::Attention;

/// A parsed config.json and where it stands.
pub(super) struct Settings<'c> {
    path: PathBuf,
    values: &'c Value,
}

impl<'c> Settings<'c> {
    /// `values` is the parsed config.json of the model in `dir`.
    pub(super) fn new(dir: &Path, values: &'c Value) -> Self {
        Self::of(&dir.join("config.json"), values)
    }

    /// The same by the path of the file itself, which may be a GGUF one.
    pub(super) fn of(path: &Path, values: &'c Value) -> Self {
        Self { path: path.to_owned(), values }
    }

    /// What stands under the key; null counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'c Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there and null.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(Value::is_null)
    }

    /// A positive whole number.
    pub(super) fn count(&self, key: &'static str) -> Result<usize, ModelError> {
        match self.get(key).and_then(Value::as_u64) {
            Some(n @ 1..=0xffff_ffff) => Ok(n as usize),
            _ => Err(self.malformed(format!("`{key}` must be a count"))),
        }
    }

    /// A whole number, 0 included, or the default where the key is absent.
    pub(super) fn whole_or(&self, key: &'static str, default: usize) -> Result<usize, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => match value.as_u64() {
                Some(n) => Ok(n as usize),
                None => Err(self.malformed(format!("`{key}` must be a whole number"))),
            },
        }
    }

    /// A number above 0, or the default where the key is absent.
    pub(super) fn number_or(&self, key: &'static str, default: f64) -> Result<f64, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => match value.as_f64() {
                Some(number) if number > 0.0 => Ok(number),
                _ => Err(self.malformed(format!("`{key}` must be a number above 0"))),
            },
        }
    }

    /// True or false, or the default where the key is absent.
    pub(super) fn flag_or(&self, key: &'static str, default: bool) -> Result<bool, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.malformed(format!("`{key}` must be true or false"))),
        }
    }

    /// Refuses a setting that changes what is computed, unless it is absent or one of `allowed`.
    pub(super) fn only(&self, key: &'static str, allowed: &[Value], supported: &'static str) -> Result<(), ModelError> {
        match self.get(key) {
            Some(value) if !allowed.contains(value) => Err(self.unsupported(key, value, supported)),
            _ => Ok(()),
        }
    }

    /// The function between the two halves of a feed-forward block.
    pub(super) fn activation(&self, key: &'static str, default: Activation) -> Result<Activation, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_str()
                .and_then(Activation::named)
                .ok_or_else(|| self.unsupported(key, value, Activation::SUPPORTED)),
        }
    }

    /// Attention with as many heads as `key` says, which share a token's state evenly; its key and
    /// size are given.
    pub(super) fn attention(&self, key: &'static str, hidden: (&str, usize)) -> Result<Attention, ModelError> {
        let (heads, (hidden, size)) = (self.count(key)?, hidden);
        if !size.is_multiple_of(heads) {
            return Err(self.malformed(format!("`{hidden}` {size} is no multiple of {heads} heads")));
        }
        let (heads, head_size) = (heads as i64, (size / heads) as i64);
        Ok(Attention { heads, kv_heads: heads, head_size, window: None })
    }

    /// A refusal of the file as a whole.
    pub(super) fn malformed(&self, problem: String) -> ModelError {
        ModelError::Malformed { path: self.path.clone(), problem }
    }

    /// A refusal of what the key says.
    pub(super) fn unsupported(&self, key: &'static str, value: &Value, supported: &'static str) -> ModelError {
        ModelError::Unsupported {
            path: self.path.clone(),
            key,
            value: value.to_string(),
            supported: supported.to_owned(),
        }
    }
}
