//! Rotary position embedding as config.json describes it, read as transformers 5 reads it: a
//! `rope_scaling` that is not empty replaces `rope_parameters`, and `rope_theta` beside them counts
//! only where the table in force has none.

use serde_json::{Map, Value as Json};

use super::values::{ConfigValues, MAX_POSITIONS};
use crate::error::BaseError;

/// What `rope_type` may say.
const SUPPORTED: &str = "\"default\", \"linear\", \"dynamic\", \"llama3\", \"yarn\"";
/// The base of transformers where nothing is said.
const USUAL_BASE: f64 = 10_000.0;
/// Largest base.
const MAX_BASE: f64 = 1e18;
/// Largest factor of any kind.
const MAX_FACTOR: f64 = 1e9;

/// The rotation of a model's queries and keys.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// `rope_theta`
    pub base: f64,
    /// Numbers in a head, d.
    pub head_size: usize,
    /// Longest input by config.json.
    pub max_positions: usize,
    /// How the angles differ from `position * base^(-2i/d)`.
    pub scaling: RopeScaling,
}

/// What is done for inputs longer than the model was first trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Nothing.
    None,
    /// Positions are divided by a factor (Chen et al. 2023).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// The base grows with the text once it is longer than `max_positions` ("dynamic NTK").
    Dynamic {
        /// How much longer texts may be.
        factor: f64,
    },
    /// Llama 3.1: long waves are divided by a factor, short ones stay, those between are blended.
    Llama3 {
        /// The divisor.
        factor: f64,
        /// Waves with fewer turns within the first training length are long.
        low: f64,
        /// Waves with more turns are short.
        high: f64,
        /// First training length in tokens.
        original: f64,
    },
    /// Frequencies are divided by a number each, which a GGUF file brings.
    Factors,
    /// YaRN (Peng et al. 2023): blended by the number of turns within the first training length.
    Yarn {
        /// The divisor of long waves.
        factor: f64,
        /// What cosines and sines are multiplied by.
        attention: f64,
        /// Waves with more turns stay.
        fast: f64,
        /// Waves with fewer turns are divided.
        slow: f64,
        /// First training length in tokens.
        original: f64,
        /// Whether the bounds between waves are rounded to whole pairs.
        truncate: bool,
    },
}

impl RopeConfig {
    pub(super) fn read(values: &ConfigValues, head_size: usize, max_positions: usize) -> Result<Self, BaseError> {
        if head_size < 4 || !head_size.is_multiple_of(2) {
            return Err(values
                .refuse(format!("heads of {head_size} numbers cannot be rotated; it takes an even number from 4")));
        }
        let table = Table::in_force(values)?;
        for partial in [table.get("partial_rotary_factor"), values.get("partial_rotary_factor")] {
            if let Some(partial) = partial.filter(|value| !value.is_null() && value.as_f64() != Some(1.0)) {
                return Err(values.unsupported("partial_rotary_factor", partial, "1.0"));
            }
        }
        let base = match table.get("rope_theta").or_else(|| values.get("rope_theta")) {
            None => USUAL_BASE,
            Some(value) => match values.positive("rope_theta", value, MAX_BASE)? {
                base if base > 1.0 => base,
                _ => return Err(values.unfit("rope_theta", value, "a number above 1")),
            },
        };
        let scaling = table.scaling(max_positions)?;
        Ok(Self { base, head_size, max_positions, scaling })
    }
}

/// The table that says how, and its name.
struct Table<'v> {
    values: &'v ConfigValues,
    name: &'static str,
    settings: Option<&'v Map<String, Json>>,
}

impl<'v> Table<'v> {
    fn in_force(values: &'v ConfigValues) -> Result<Self, BaseError> {
        let mut found = Self { values, name: "rope_parameters", settings: None };
        for name in ["rope_scaling", "rope_parameters"] {
            let settings = match values.get(name) {
                None | Some(Json::Null) => None,
                Some(Json::Object(settings)) => Some(settings).filter(|settings| !settings.is_empty()),
                Some(other) => return Err(values.unfit(name, other, "a table")),
            };
            if found.settings.is_none() && settings.is_some() {
                found = Self { values, name, settings };
            }
        }
        // A table for each kind of layer is another family's.
        let nested = found.settings.into_iter().flatten().find(|(_, value)| value.is_object());
        match nested {
            Some((key, _)) => {
                Err(values.refuse(format!("`{}` has a table of its own under `{key}`, which is not read", found.name)))
            }
            None => Ok(found),
        }
    }

    /// What stands under a key, null too.
    fn get(&self, key: &str) -> Option<&'v Json> {
        self.settings?.get(key)
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    /// A number above 0 that must be there.
    fn need(&self, key: &str) -> Result<f64, BaseError> {
        match self.get(key) {
            Some(value) => self.values.positive(&self.key(key), value, MAX_FACTOR),
            None => Err(self.values.refuse(format!("`{}` lacks `{key}`", self.name))),
        }
    }

    /// A number above 0; nothing where it is absent or null.
    fn find(&self, key: &str) -> Result<Option<f64>, BaseError> {
        let value = self.get(key).filter(|value| !value.is_null());
        value.map(|value| self.values.positive(&self.key(key), value, MAX_FACTOR)).transpose()
    }

    /// The same where 0 stands for nothing too, as in Python's `or`.
    fn find_or_zero(&self, key: &str) -> Result<Option<f64>, BaseError> {
        match self.get(key).and_then(Json::as_f64) {
            Some(0.0) => Ok(None),
            _ => self.find(key),
        }
    }

    /// First training length: beside the table, in it, else the longest input.
    fn original(&self, max_positions: usize) -> Result<f64, BaseError> {
        const KEY: &str = "original_max_position_embeddings";
        let beside = self.values.get(KEY);
        let name = if beside.is_some() { KEY.to_owned() } else { self.key(KEY) };
        match beside.or_else(|| self.get(KEY)) {
            Some(value) => self.values.positive(&name, value, MAX_POSITIONS as f64),
            None => Ok(max_positions as f64),
        }
    }

    fn scaling(&self, max_positions: usize) -> Result<RopeScaling, BaseError> {
        let kind = self.get("rope_type").or_else(|| self.get("type"));
        Ok(match kind.map_or(Some("default"), Json::as_str) {
            Some("default") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor: self.need("factor")? },
            Some("dynamic") => RopeScaling::Dynamic { factor: self.need("factor")? },
            Some("llama3") => RopeScaling::Llama3 {
                factor: self.need("factor")?,
                low: self.need("low_freq_factor")?,
                high: self.need("high_freq_factor")?,
                original: self.original(max_positions)?,
            },
            Some("factors") if self.values.is_gguf() => RopeScaling::Factors,
            Some("yarn") => self.yarn(max_positions)?,
            _ => return Err(self.values.unsupported("rope_type", kind.unwrap_or(&Json::Null), SUPPORTED)),
        })
    }

    fn yarn(&self, max_positions: usize) -> Result<RopeScaling, BaseError> {
        let original = self.original(max_positions)?;
        let factor = match self.get("factor") {
            // Null asks for the ratio of the two lengths.
            Some(Json::Null) => max_positions as f64 / original,
            _ => self.need("factor")?,
        };
        let scale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        let weights = (self.find_or_zero("mscale")?, self.find_or_zero("mscale_all_dim")?);
        let attention = match (self.find("attention_factor")?, weights) {
            (Some(attention), _) => attention,
            (None, (Some(above), Some(below))) => scale(above) / scale(below),
            (None, _) => scale(1.0),
        };
        let truncate = match self.get("truncate") {
            None => true,
            Some(Json::Null) => false,
            Some(Json::Bool(truncate)) => *truncate,
            Some(other) => return Err(self.values.unfit(&self.key("truncate"), other, "true or false")),
        };
        Ok(RopeScaling::Yarn {
            factor,
            attention,
            fast: self.find_or_zero("beta_fast")?.unwrap_or(32.0),
            slow: self.find_or_zero("beta_slow")?.unwrap_or(1.0),
            original,
            truncate,
        })
    }
}
