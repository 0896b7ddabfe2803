//! Rotary position embedding (Su et al. 2021): each pair of a head's numbers turns by an angle that
//! grows with the token's position, in Hugging Face's pairing (number i with number i + d/2).

use std::cell::RefCell;
use std::f64::consts::PI;

use rondo_base::config::{RopeConfig, RopeScaling};
use tch::{Device, Kind, Tensor};

use super::ModelError;
use crate::batch::Batch;
use crate::error::TrainerError;

/// Smallest table of angles, in positions.
const FIRST_TABLE: usize = 512;

/// The rotation of a model's queries and keys.
pub(super) struct Rotary {
    config: RopeConfig,
    /// Divisors of the frequencies that a GGUF file brings; else empty.
    factors: Vec<f64>,
    /// Cosines and sines, `[positions, 1, d/2]`, grown when a longer text comes.
    tables: RefCell<Option<(Tensor, Tensor)>>,
}

impl Rotary {
    /// The rotation that a config describes. `factors` gives the divisors of so many pairs, if it
    /// asks for them, as a GGUF file does.
    pub(super) fn new(
        config: &RopeConfig,
        factors: &mut dyn FnMut(usize) -> Result<Vec<f64>, ModelError>,
    ) -> Result<Self, ModelError> {
        let factors = match config.scaling {
            RopeScaling::Factors => factors(config.head_size / 2)?,
            _ => Vec::new(),
        };
        Ok(Self { config: config.clone(), factors, tables: RefCell::new(None) })
    }

    /// The longest input that the rotation is made for: a dynamic one stretches config.json's by
    /// its factor.
    pub(super) fn max_positions(&self) -> usize {
        match &self.config.scaling {
            RopeScaling::Dynamic { factor } => (self.config.max_positions as f64 * factor.max(1.0)) as usize,
            _ => self.config.max_positions,
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
        if matches!(self.config.scaling, RopeScaling::Dynamic { .. }) && end > self.config.max_positions {
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
            let table = Tensor::f_from_slice(&values)?.f_view([-1, 1, self.config.head_size as i64 / 2])?;
            Ok(table.f_to_device(device)?.f_to_kind(kind)?)
        };
        Ok((shaped(f32::cos)?, shaped(f32::sin)?))
    }

    /// Angle per position of each pair, `[d/2]`, for a text of this length, and what cosines and
    /// sines are scaled by.
    fn frequencies(&self, length: usize) -> (Vec<f32>, f32) {
        let dim = self.config.head_size as f64;
        let pairs = self.config.head_size / 2;
        let with = |base: f64| (0..pairs).map(move |pair| base.powf(-2.0 * pair as f64 / dim));
        let plain = with(self.config.base);
        let single = |frequencies: &mut dyn Iterator<Item = f64>| frequencies.map(|f| f as f32).collect();
        match &self.config.scaling {
            RopeScaling::None => (single(&mut { plain }), 1.0),
            RopeScaling::Factors => (single(&mut plain.zip(&self.factors).map(|(f, factor)| f / factor)), 1.0),
            RopeScaling::Linear { factor } => (single(&mut plain.map(|f| f / factor)), 1.0),
            RopeScaling::Dynamic { factor } => {
                let factor = *factor;
                let longer = length.max(self.config.max_positions) as f64 / self.config.max_positions as f64;
                let base = self.config.base * (factor * longer - (factor - 1.0)).powf(dim / (dim - 2.0));
                (single(&mut with(base)), 1.0)
            }
            RopeScaling::Llama3 { factor, low, high, original } => {
                let factor = *factor;
                let low = *low;
                let high = *high;
                let original = *original;
                let scaled = plain.map(|f| {
                    let turns = original * f / (2.0 * PI);
                    // In this order, which matters where `low` is above `high`.
                    if turns < low {
                        f / factor
                    } else if turns > high || high <= low {
                        f
                    } else {
                        let smooth = (turns - low) / (high - low);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                });
                (single(&mut { scaled }), 1.0)
            }
            RopeScaling::Yarn { factor, attention, fast, slow, original, truncate } => {
                let original = *original;
                // The pair that turns so many times within the first training length.
                let pair_of = |turns: f64| dim * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.config.base.ln());
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

#[cfg(test)]
#[path = "rope_tests.rs"]
mod tests;
