//! Backward passes, and sums of what they give.

use tch::{Kind, Tensor};

use crate::error::TrainerError;

/// Adds gradients, in f32, to those that are there.
pub(super) fn accumulate(sums: &mut [Tensor], gradients: &[Tensor]) -> Result<(), TrainerError> {
    for (sum, gradient) in sums.iter_mut().zip(gradients) {
        if !gradient.defined() {
            continue;
        }
        if sum.defined() {
            let _ = sum.f_add_(gradient)?;
        } else {
            *sum = gradient.f_to_kind(Kind::Float)?;
        }
    }
    Ok(())
}

/// The vector-Jacobian product: the gradient of a loss with respect to `inputs`, from its gradient
/// `dy` with respect to `y`. Both have the shape of `y`. Inputs that `y` does not depend on come
/// back undefined.
///
/// Written as the gradient of `sum(y * dy)`, since a backward pass always starts with ones here.
pub(super) fn vjp(y: &Tensor, dy: &Tensor, inputs: &[Tensor]) -> Result<Vec<Tensor>, TrainerError> {
    if !y.requires_grad() {
        return Ok(inputs.iter().map(|_| Tensor::new()).collect());
    }
    let root = y.f_mul(dy)?.f_sum(None::<Kind>)?;
    Ok(Tensor::f_run_backward(&[root], inputs, false, false)?)
}
