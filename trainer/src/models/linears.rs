//! A model's linear layers, in one table: what adapters attach to.

use tch::Tensor;

use super::{ModelError, Weight, WeightFiles};
use crate::adapters::Adapters;
use crate::error::TrainerError;

struct Linear {
    name: String,
    /// `[out, in]`
    weight: Weight,
    /// `[out]`
    bias: Option<Tensor>,
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
        self.load_with(weights, name, out, inp, true)
    }

    /// The same, with or without a bias.
    pub(super) fn load_with(
        &mut self,
        weights: &mut WeightFiles,
        name: &str,
        out: usize,
        inp: usize,
        bias: bool,
    ) -> Result<usize, ModelError> {
        let weight = weights.take_weight(&format!("{name}.weight"), &[out, inp])?;
        let bias = bias.then(|| weights.take(&format!("{name}.bias"), &[out])).transpose()?;
        Ok(self.push(name, weight, bias))
    }

    /// Takes a layer in and returns its number.
    pub(crate) fn push(&mut self, name: &str, weight: Weight, bias: Option<Tensor>) -> usize {
        self.layers.push(Linear { name: name.to_owned(), weight, bias });
        self.layers.len() - 1
    }

    /// The layer's number.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.layers.iter().position(|layer| layer.name == name)
    }

    /// Its weight `[out, in]`.
    pub fn weight(&self, number: usize) -> &Weight {
        &self.layers[number].weight
    }

    /// All names, by number.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.layers.iter().map(|layer| layer.name.as_str())
    }

    /// `x W^T + b` plus what the adapters attach here. Shapes: `x` `[n, in]`, result `[n, out]`.
    pub fn forward(&self, number: usize, x: &Tensor, adapters: &Adapters) -> Result<Tensor, TrainerError> {
        let layer = &self.layers[number];
        let bias = layer.bias.as_ref();
        let Some(attached) = adapters.at(number) else {
            return Ok(x.f_linear(&layer.weight.dense()?, bias)?);
        };
        let mut y = match attached.merged_weight() {
            Some(merged) => x.f_linear(merged, bias)?,
            None => x.f_linear(&layer.weight.dense()?, bias)?,
        };
        match attached.delta(x)? {
            // `y` is fresh and no gradient formula needs its value, so it can take the sum.
            Some(delta) => Ok(y.f_add_(&delta)?),
            None => Ok(y),
        }
    }
}
