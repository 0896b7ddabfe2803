//! Text classification: token states to one vector, a linear head, cross entropy and accuracy.

use rondo_proto::run_file::Pooling;
use tch::{Reduction, Tensor};

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

/// Mean cross entropy in nats; `labels` by row of the logits.
pub fn mean_loss(logits: &Tensor, labels: &[i64]) -> Result<Tensor, TrainerError> {
    let labels = Tensor::f_from_slice(labels)?.f_to_device(logits.device())?;
    Ok(logits.f_cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0)?)
}
