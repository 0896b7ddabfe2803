//! A model's linear layers, in one table: what adapters attach to.

use tch::Tensor;

use super::{LinearHook, ModelError, Weight, WeightFiles};
use crate::error::TrainerError;

struct Linear {
    name: String,
    /// `[out, in]`
    weight: Weight,
    /// `[out]`
    bias: Option<Tensor>,
}

/// Whether a linear layer has a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bias {
    Present,
    Absent,
}

impl Bias {
    /// As config.json says it.
    pub(super) fn from_flag(flag: bool) -> Self {
        if flag { Self::Present } else { Self::Absent }
    }
}

/// Frozen linear layers `y = x W^T + b`, numbered in the order in which they were loaded.
#[derive(Default)]
pub struct Linears {
    layers: Vec<Linear>,
}

impl Linears {
    /// Loads `<name>.weight` `[out, in]` and, where the layer has one, `<name>.bias` `[out]`.
    /// Returns the layer's number.
    pub(super) fn load(
        &mut self,
        weights: &mut WeightFiles,
        name: &str,
        [out, inp]: [usize; 2],
        bias: Bias,
    ) -> Result<usize, ModelError> {
        let weight = weights.take_weight(&format!("{name}.weight"), &[out, inp])?;
        let bias = match bias {
            Bias::Present => Some(weights.take(&format!("{name}.bias"), &[out])?),
            Bias::Absent => None,
        };
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

    /// `x W^T + b` plus what the hook adds here. Shapes: `x` `[n, in]`, result `[n, out]`.
    ///
    /// # Errors
    /// A packed weight that cannot be unpacked, or whatever libtorch refuses.
    pub fn forward(&self, number: usize, x: &Tensor, hook: &dyn LinearHook) -> Result<Tensor, TrainerError> {
        let layer = &self.layers[number];
        let bias = layer.bias.as_ref();
        let mut y = match hook.merged_weight(number) {
            Some(merged) => x.f_linear(merged, bias)?,
            None => x.f_linear(&layer.weight.dense()?, bias)?,
        };
        match hook.delta(number, x)? {
            // `y` is fresh and no gradient formula needs its value, so it can take the sum.
            Some(delta) => Ok(y.f_add_(&delta)?),
            None => Ok(y),
        }
    }
}
