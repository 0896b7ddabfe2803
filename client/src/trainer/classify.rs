//! Text classification: token states to one vector, a linear head.

use rondo_proto::run_file::Pooling;
use tch::Tensor;

use super::batch::Batch;
use super::error::TrainerError;

/// The classifier: logits = pooled W^T + b, in f32.
pub struct Head {
    /// `[labels, hidden]`
    pub weight: Tensor,
    /// `[labels]`
    pub bias: Tensor,
    /// How token states become one vector.
    pub pooling: Pooling,
}

impl Head {
    /// Token states `[n, hidden]` of a batch to logits `[texts, labels]`.
    pub fn logits(&self, states: &Tensor, batch: &Batch) -> Result<Tensor, TrainerError> {
        let pooled = match self.pooling {
            Pooling::Mean => batch.mean(states)?,
            Pooling::Cls => batch.first(states)?,
        };
        Ok(pooled.f_linear(&self.weight, Some(&self.bias))?)
    }
}
