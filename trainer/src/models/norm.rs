//! Layer normalisation (Ba et al. 2016).

use tch::Tensor;

use super::{ModelError, WeightFiles};
use crate::error::TrainerError;

/// `(x - mean) / sqrt(variance + eps) * weight + bias`, over the numbers of each token.
pub(super) struct LayerNorm {
    /// `[hidden]`
    weight: Tensor,
    /// `[hidden]`
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Takes `<name>.weight` and `<name>.bias`, `[hidden]` each.
    pub(super) fn load(weights: &mut WeightFiles, name: &str, hidden: usize, eps: f64) -> Result<Self, ModelError> {
        let weight = weights.take(&format!("{name}.weight"), &[hidden])?;
        let bias = weights.take(&format!("{name}.bias"), &[hidden])?;
        Ok(Self { weight, bias, eps })
    }

    /// `[n, hidden]` to the same.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TrainerError> {
        Ok(x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, false)?)
    }
}
