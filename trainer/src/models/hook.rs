//! What a model asks at every linear layer that it runs: how an adapter changes it.

use tch::Tensor;

use crate::error::TrainerError;

/// Changes the linear layers `y = x W^T + b` of a frozen model. Layers go by their numbers in
/// [`Linears`](super::Linears).
pub trait LinearHook {
    /// The weight `[out, in]` to use in place of the base's; `None` where the base's is right.
    fn merged_weight(&self, layer: usize) -> Option<&Tensor>;

    /// What is added to the layer's output: `x` `[n, in]` gives `[n, out]`, of the kind of `x`;
    /// `None` adds nothing.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    fn delta(&self, layer: usize, x: &Tensor) -> Result<Option<Tensor>, TrainerError>;
}
