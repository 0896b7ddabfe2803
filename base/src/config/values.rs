//! A config.json whose values are checked as they are asked for: kind, range, and a refusal that
//! names key and file.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use crate::error::BaseError;
use crate::files::is_gguf;
use crate::json::read_json;

/// Largest width: hidden sizes, heads, numbers in a head.
pub(super) const MAX_WIDTH: usize = 1 << 20;
/// Most layers.
pub(super) const MAX_LAYERS: usize = 10_000;
/// Most tokens of a vocabulary.
pub(super) const MAX_VOCABULARY: usize = 1 << 24;
/// Most positions.
pub(super) const MAX_POSITIONS: usize = u32::MAX as usize;

/// The parsed values and the file that they stand in.
#[derive(Debug)]
pub struct ConfigValues {
    path: PathBuf,
    values: Map<String, Json>,
}

impl ConfigValues {
    /// Reads a config.json.
    ///
    /// # Errors
    /// The file cannot be read, or is no JSON object.
    pub fn read(path: &Path) -> Result<Self, BaseError> {
        Self::of(path, read_json(path)?)
    }

    /// The same of values that stand elsewhere; `path` is for messages.
    ///
    /// # Errors
    /// The values are no object.
    pub fn of(path: &Path, values: Json) -> Result<Self, BaseError> {
        let path = path.to_owned();
        match values {
            Json::Object(values) => Ok(Self { path, values }),
            _ => Err(BaseError::Config { path, problem: "is no JSON object".to_owned() }),
        }
    }

    /// Whether the values are a GGUF file's.
    pub(super) fn is_gguf(&self) -> bool {
        is_gguf(&self.path)
    }

    /// What stands under a key, null too.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.values.get(key)
    }

    /// A whole number from 1, or the default where the key is absent.
    pub(super) fn count(&self, key: &str, default: usize, most: usize) -> Result<usize, BaseError> {
        self.whole_between(key, self.get(key), 1, most).map(|count| count.unwrap_or(default))
    }

    /// A whole number from 1; nothing where the key is absent or null.
    pub(super) fn optional_count(&self, key: &str, most: usize) -> Result<Option<usize>, BaseError> {
        self.whole_between(key, self.get(key).filter(|value| !value.is_null()), 1, most)
    }

    /// A whole number from 0, or the default where the key is absent.
    pub(super) fn whole(&self, key: &str, default: usize, most: usize) -> Result<usize, BaseError> {
        self.whole_between(key, self.get(key), 0, most).map(|number| number.unwrap_or(default))
    }

    fn whole_between(
        &self,
        key: &str,
        value: Option<&Json>,
        least: usize,
        most: usize,
    ) -> Result<Option<usize>, BaseError> {
        let Some(value) = value else { return Ok(None) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.unfit(key, value, &format!("a whole number from {least} to {most}"))),
        }
    }

    /// A number above 0, or the default where the key is absent.
    pub(super) fn number(&self, key: &str, default: f64, most: f64) -> Result<f64, BaseError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => self.positive(key, value, most),
        }
    }

    /// This value of a key as a number above 0.
    pub(super) fn positive(&self, key: &str, value: &Json, most: f64) -> Result<f64, BaseError> {
        let number = value.as_f64().filter(|number| *number > 0.0 && *number <= most);
        number.ok_or_else(|| self.unfit(key, value, &format!("a number above 0 and at most {most}")))
    }

    /// True or false, or the default where the key is absent.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, BaseError> {
        match self.get(key) {
            None => Ok(default),
            Some(Json::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.unfit(key, other, "true or false")),
        }
    }

    /// Refuses a setting that changes what is computed, unless it is absent, null or `allowed`.
    pub(super) fn only(&self, key: &'static str, allowed: &[Json], supported: &str) -> Result<(), BaseError> {
        match self.get(key) {
            Some(value) if !value.is_null() && !allowed.contains(value) => Err(self.unsupported(key, value, supported)),
            _ => Ok(()),
        }
    }

    /// Refuses a flag of any other value than this, which is also its default.
    pub(super) fn only_flag(&self, key: &'static str, value: bool) -> Result<(), BaseError> {
        match self.flag(key, value)? == value {
            true => Ok(()),
            false => Err(self.unsupported(key, &Json::Bool(!value), if value { "true" } else { "false" })),
        }
    }

    /// A refusal of the file as a whole.
    pub(super) fn refuse(&self, problem: String) -> BaseError {
        BaseError::Config { path: self.path.clone(), problem }
    }

    /// A refusal of a value of a wrong kind or size.
    pub(super) fn unfit(&self, key: &str, value: &Json, wanted: &str) -> BaseError {
        self.refuse(format!("`{key}` is {}; it must be {wanted}", short(value)))
    }

    /// A refusal of a value that means something which is not computed.
    pub(super) fn unsupported(&self, key: &'static str, value: &Json, supported: &str) -> BaseError {
        BaseError::Unsupported { path: self.path.clone(), key, value: short(value), supported: supported.to_owned() }
    }
}

/// A value as a message quotes it.
fn short(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
