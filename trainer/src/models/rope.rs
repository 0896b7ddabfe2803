//! Rotary position embedding (Su et al. 2021): each pair of a head's numbers turns by an angle that
//! grows with the token's position, in Hugging Face's pairing (number i with number i + d/2).

use std::cell::RefCell;
use std::f64::consts::PI;
use std::path::Path;

use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

use super::ModelError;
use crate::batch::Batch;
use crate::error::TrainerError;

/// What `rope_type` may say.
const SUPPORTED: &str = "\"default\", \"linear\", \"dynamic\", \"llama3\", \"yarn\"";

/// Smallest table of angles, in positions.
const FIRST_TABLE: usize = 512;

/// The rotation of a model's queries and keys.
pub(super) struct Rotary {
    base: f64,
    /// Numbers in a head, d.
    head_size: usize,
    /// Longest input by config.json.
    max_positions: usize,
    scaling: Scaling,
    /// Cosines and sines, `[positions, 1, d/2]`, grown when a longer text comes.
    tables: RefCell<Option<(Tensor, Tensor)>>,
}

/// How the angles differ from `position * base^(-2i/d)`, for inputs longer than the model was first
/// trained on.
#[derive(Debug, Clone, PartialEq)]
enum Scaling {
    None,
    /// Positions are divided by a factor (Chen et al. 2023).
    Linear {
        factor: f64,
    },
    /// The base grows with the text once it is longer than `max_positions` ("dynamic NTK").
    Dynamic {
        factor: f64,
    },
    /// Llama 3.1: long waves are divided by a factor, short ones stay, those between are blended.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// Frequencies are divided by a number each, which a GGUF file brings.
    Factors(Vec<f64>),
    /// YaRN (Peng et al. 2023): blended by the number of turns within the first training length.
    Yarn {
        factor: f64,
        attention: f64,
        fast: f64,
        slow: f64,
        original: f64,
        truncate: bool,
    },
}

impl Rotary {
    /// Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before) of a
    /// config.json. `factors` gives the divisors of so many pairs, if it asks for "factors", as a
    /// GGUF file does.
    pub(super) fn read(
        path: &Path,
        config: &Value,
        head_size: usize,
        max_positions: usize,
        factors: &mut dyn FnMut(usize) -> Result<Vec<f64>, ModelError>,
    ) -> Result<Self, ModelError> {
        let malformed = |problem: String| ModelError::Malformed { path: path.to_owned(), problem };
        if head_size < 4 || !head_size.is_multiple_of(2) {
            return Err(malformed(format!(
                "heads of {head_size} numbers cannot be rotated; it takes an even number from 4"
            )));
        }
        let empty = Map::new();
        let settings = match config.get("rope_parameters").or_else(|| config.get("rope_scaling")) {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(settings)) => settings,
            Some(other) => return Err(malformed(format!("`rope_scaling` must be a table, not {other}"))),
        };
        let unsupported = |key: &'static str, value: &Value, supported: &'static str| {
            let supported = supported.to_owned();
            Err(ModelError::Unsupported { path: path.to_owned(), key, value: value.to_string(), supported })
        };
        let top = |key: &str| config.get(key).filter(|value| !value.is_null());
        let given = |key: &str| settings.get(key).filter(|value| !value.is_null());
        let number = |key: &str, value: Option<&Value>| match value.map(Value::as_f64) {
            None => Ok(None),
            Some(Some(number)) if number.is_finite() && number > 0.0 => Ok(Some(number)),
            Some(_) => Err(malformed(format!("`{key}` of the rotary embedding must be a number above 0"))),
        };
        let need =
            |key: &str| number(key, given(key))?.ok_or_else(|| malformed(format!("`rope_scaling` lacks `{key}`")));
        let partial = given("partial_rotary_factor").or_else(|| top("partial_rotary_factor"));
        if let Some(partial) = partial.filter(|value| value.as_f64() != Some(1.0)) {
            return unsupported("partial_rotary_factor", partial, "1.0");
        }
        let base = match number("rope_theta", given("rope_theta"))? {
            Some(base) => base,
            None => number("rope_theta", top("rope_theta"))?.unwrap_or(10_000.0),
        };
        let original = || -> Result<f64, ModelError> {
            let key = "original_max_position_embeddings";
            match number(key, top(key))? {
                Some(original) => Ok(original),
                None => Ok(number(key, given(key))?.unwrap_or(max_positions as f64)),
            }
        };
        let kind = given("rope_type").or_else(|| given("type"));
        let scaling = match kind.map_or(Some("default"), Value::as_str) {
            Some("default") => Scaling::None,
            Some("linear") => Scaling::Linear { factor: need("factor")? },
            Some("dynamic") => Scaling::Dynamic { factor: need("factor")? },
            Some("llama3") => Scaling::Llama3 {
                factor: need("factor")?,
                low: need("low_freq_factor")?,
                high: need("high_freq_factor")?,
                original: original()?,
            },
            Some("factors") => Scaling::Factors(factors(head_size / 2)?),
            Some("yarn") => {
                let original = original()?;
                let factor = number("factor", given("factor"))?.unwrap_or(max_positions as f64 / original);
                let scale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
                let weights = (number("mscale", given("mscale"))?, number("mscale_all_dim", given("mscale_all_dim"))?);
                let attention = match (number("attention_factor", given("attention_factor"))?, weights) {
                    (Some(attention), _) => attention,
                    (None, (Some(above), Some(below))) => scale(above) / scale(below),
                    (None, _) => scale(1.0),
                };
                Scaling::Yarn {
                    factor,
                    attention,
                    fast: number("beta_fast", given("beta_fast"))?.unwrap_or(32.0),
                    slow: number("beta_slow", given("beta_slow"))?.unwrap_or(1.0),
                    original,
                    truncate: given("truncate").and_then(Value::as_bool).unwrap_or(true),
                }
            }
            _ => return unsupported("rope_type", kind.unwrap_or(&Value::Null), SUPPORTED),
        };
        Ok(Self { base, head_size, max_positions, scaling, tables: RefCell::new(None) })
    }

    /// The longest input that the rotation is made for: a dynamic one stretches config.json's by
    /// its factor.
    pub(super) fn max_positions(&self) -> usize {
        match &self.scaling {
            Scaling::Dynamic { factor } => (self.max_positions as f64 * factor.max(1.0)) as usize,
            _ => self.max_positions,
        }
    }

    /// Cosines and sines for a batch's tokens, each `[n, 1, d/2]`.
    ///
    /// A text's angles depend on the text alone. With "dynamic" scaling, keys that a cache holds
    /// from before a text outgrew the model's positions keep the angles they had, as in Hugging
    /// Face's implementation.
    pub(super) fn tables(&self, batch: &Batch, kind: Kind) -> Result<(Tensor, Tensor), TrainerError> {
        let device = batch.positions().device();
        let end = batch.ends().max().unwrap_or(0) as usize;
        if matches!(self.scaling, Scaling::Dynamic { .. }) && end > self.max_positions {
            return self.stretched(batch, device, kind);
        }
        let mut tables = self.tables.borrow_mut();
        let fits = |(cos, _): &&(Tensor, Tensor)| cos.size()[0] >= end as i64 && cos.kind() == kind;
        let (cos, sin) = match tables.as_ref().filter(fits) {
            Some(tables) => tables,
            None => {
                let rows = end.next_power_of_two().max(FIRST_TABLE);
                let (frequencies, scale) = self.frequencies(end);
                let angles = (0..rows).flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
                tables.insert(self.table(angles.collect(), scale, device, kind)?)
            }
        };
        Ok((cos.f_index_select(0, batch.positions())?, sin.f_index_select(0, batch.positions())?))
    }

    fn stretched(&self, batch: &Batch, device: Device, kind: Kind) -> Result<(Tensor, Tensor), TrainerError> {
        let mut angles = Vec::new();
        for ((start, end), extent) in batch.offsets().iter().zip(batch.ends()).zip(batch.extents()) {
            let (frequencies, _) = self.frequencies(end as usize);
            // What fills a text up has angles too; nothing reads what comes of them.
            angles.extend(
                (*start..start + extent).flat_map(|position| frequencies.iter().map(move |f| position as f32 * f)),
            );
        }
        self.table(angles, 1.0, device, kind)
    }

    fn table(
        &self,
        angles: Vec<f32>,
        scale: f32,
        device: Device,
        kind: Kind,
    ) -> Result<(Tensor, Tensor), TrainerError> {
        let shaped = |f: fn(f32) -> f32| -> Result<Tensor, TrainerError> {
            let values: Vec<f32> = angles.iter().map(|&angle| f(angle) * scale).collect();
            let table = Tensor::f_from_slice(&values)?.f_view([-1, 1, self.head_size as i64 / 2])?;
            Ok(table.f_to_device(device)?.f_to_kind(kind)?)
        };
        Ok((shaped(f32::cos)?, shaped(f32::sin)?))
    }

    /// Angle per position of each pair, `[d/2]`, for a text of this length, and what cosines and
    /// sines are scaled by.
    fn frequencies(&self, length: usize) -> (Vec<f32>, f32) {
        let dim = self.head_size as f64;
        let pairs = self.head_size / 2;
        let with = |base: f64| (0..pairs).map(move |pair| base.powf(-2.0 * pair as f64 / dim));
        let plain = with(self.base);
        let single = |frequencies: &mut dyn Iterator<Item = f64>| frequencies.map(|f| f as f32).collect();
        match &self.scaling {
            Scaling::None => (single(&mut { plain }), 1.0),
            Scaling::Factors(factors) => (single(&mut plain.zip(factors).map(|(f, factor)| f / factor)), 1.0),
            Scaling::Linear { factor } => (single(&mut plain.map(|f| f / factor)), 1.0),
            Scaling::Dynamic { factor } => {
                let factor = *factor;
                let longer = length.max(self.max_positions) as f64 / self.max_positions as f64;
                let base = self.base * (factor * longer - (factor - 1.0)).powf(dim / (dim - 2.0));
                (single(&mut with(base)), 1.0)
            }
            Scaling::Llama3 { factor, low, high, original } => {
                let factor = *factor;
                let low = *low;
                let high = *high;
                let original = *original;
                let scaled = plain.map(|f| {
                    let turns = original * f / (2.0 * PI);
                    if turns > high {
                        f
                    } else if turns < low {
                        f / factor
                    } else {
                        let smooth = (turns - low) / (high - low);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                });
                (single(&mut { scaled }), 1.0)
            }
            Scaling::Yarn { factor, attention, fast, slow, original, truncate } => {
                let original = *original;
                // The pair that turns so many times within the first training length.
                let pair_of = |turns: f64| dim * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.base.ln());
                let mut low = pair_of(*fast);
                let mut high = pair_of(*slow);
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(dim - 1.0));
                if low == high {
                    high += 0.001;
                }
                let scaled = plain.enumerate().map(|(pair, f)| {
                    let ramp = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    f / factor * ramp + f * (1.0 - ramp)
                });
                (single(&mut { scaled }), *attention as f32)
            }
        }
    }
}

/// Turns heads `[n, heads, d]` by the angles of [`Rotary::tables`].
pub(super) fn rotate(x: &Tensor, (cos, sin): &(Tensor, Tensor)) -> Result<Tensor, TrainerError> {
    let half = x.size()[2] / 2;
    let left = x.f_narrow(2, 0, half)?;
    let right = x.f_narrow(2, half, half)?;
    // The products are fresh and no gradient formula needs their values, so they can take the sums.
    let first = left.f_mul(cos)?.f_sub_(&right.f_mul(sin)?)?;
    let second = right.f_mul(cos)?.f_add_(&left.f_mul(sin)?)?;
    Ok(Tensor::f_cat(&[first, second], 2)?)
}
