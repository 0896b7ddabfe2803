//! An encoder's linear layers, in one table: what adapters attach to.

use tch::Tensor;

use super::{ModelError, WeightFiles};
use crate::trainer::adapted::Adapters;
use crate::trainer::error::TrainerError;

struct Linear {
    name: String,
    /// `[out, in]`
    weight: Tensor,
    /// `[out]`
    bias: Tensor,
}

/// Frozen linear layers `y = x W^T + b`, numbered in the order in which they were loaded.
#[derive(Default)]
pub struct Linears {
    layers: Vec<Linear>,
}

impl Linears {
    /// Loads `<name>.weight` and `<name>.bias` and returns the layer's number.
    pub(super) fn load(
        &mut self,
        weights: &mut WeightFiles,
        name: &str,
        out: usize,
        inp: usize,
    ) -> Result<usize, ModelError> {
        let weight = weights.take(&format!("{name}.weight"), &[out, inp])?;
        let bias = weights.take(&format!("{name}.bias"), &[out])?;
        self.layers.push(Linear { name: name.to_owned(), weight, bias });
        Ok(self.layers.len() - 1)
    }

    /// The layer's number.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.layers.iter().position(|layer| layer.name == name)
    }

    /// Its weight `[out, in]`, as loaded.
    pub fn weight(&self, number: usize) -> &Tensor {
        &self.layers[number].weight
    }

    /// All names, by number.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.layers.iter().map(|layer| layer.name.as_str())
    }

    /// `x W^T + b` plus what the adapters attach here. Shapes: `x` `[n, in]`, result `[n, out]`.
    pub fn forward(&self, number: usize, x: &Tensor, adapters: &Adapters) -> Result<Tensor, TrainerError> {
        let layer = &self.layers[number];
        let Some(attached) = adapters.at(number) else {
            return Ok(x.f_linear(&layer.weight, Some(&layer.bias))?);
        };
        let weight = attached.merged_weight().unwrap_or(&layer.weight);
        let mut y = x.f_linear(weight, Some(&layer.bias))?;
        match attached.delta(x)? {
            // `y` is fresh and no gradient formula needs its value, so it can take the sum.
            Some(delta) => Ok(y.f_add_(&delta)?),
            None => Ok(y),
        }
    }
}
