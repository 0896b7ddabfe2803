//! The functions between the two linear layers of a feed-forward block.

use rondo_base::config::Activation;
use tch::Tensor;

use crate::error::TrainerError;

/// Applies one number by number.
pub(super) fn activate(activation: Activation, x: &Tensor) -> Result<Tensor, TrainerError> {
    Ok(match activation {
        Activation::Gelu => x.f_gelu("none")?,
        Activation::GeluTanh => x.f_gelu("tanh")?,
        Activation::Relu => x.f_relu()?,
    })
}
