//! What every model offers, whatever its architecture.

use tch::Tensor;

use super::{LayerCache, LinearHook, Linears, Weight};
use crate::batch::Batch;
use crate::error::TrainerError;

/// A frozen transformer: token ids in, one state per token out.
///
/// It runs layer by layer, so that a caller may keep the states between the layers and run each
/// layer again for its gradients. Its linear layers ask a [`LinearHook`] for what an adapter adds
/// to them.
pub trait Transformer {
    /// Length of a token's state.
    fn hidden_size(&self) -> usize;

    /// Longest input in tokens.
    fn max_positions(&self) -> usize;

    /// The linear layers its output depends on; these may be adapted.
    fn linears(&self) -> &Linears;

    /// Number of layers.
    fn layers(&self) -> usize;

    /// What goes into the first layer, packed: `[tokens, hidden_size]`, in the order of [`Batch`].
    fn embed(&self, batch: &Batch) -> Result<Tensor, TrainerError>;

    /// One layer, `[tokens, hidden_size]` to the same. With a `cache`, a language model attends to
    /// what it holds as well and appends its own keys and values; encoders have no use for one.
    fn layer(
        &self,
        number: usize,
        x: &Tensor,
        batch: &Batch,
        hook: &dyn LinearHook,
        cache: Option<&mut LayerCache>,
    ) -> Result<Tensor, TrainerError>;

    /// What follows the last layer, such as a final norm.
    fn finish(&self, x: &Tensor) -> Result<Tensor, TrainerError> {
        Ok(x.shallow_clone())
    }

    /// The matrix from states to the vocabulary; `None` for encoders.
    fn vocabulary(&self) -> Option<&Weight> {
        None
    }

    /// Token states of a batch, all layers: `[tokens, hidden_size]`.
    fn forward(&self, batch: &Batch, hook: &dyn LinearHook) -> Result<Tensor, TrainerError> {
        let mut x = self.embed(batch)?;
        for number in 0..self.layers() {
            x = self.layer(number, &x, batch, hook, None)?;
        }
        self.finish(&x)
    }
}
