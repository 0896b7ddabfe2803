//! Text classification: token states to one vector, a linear head.

use rondo_methods::head::{HEAD_BIAS, HEAD_WEIGHT};
use rondo_proto::run_file::Pooling;
use tch::Tensor;

use crate::adapters::copy_per_text;
use crate::batch::Batch;
use crate::error::TrainerError;

/// The classifier: logits = pooled W^T + b, in f32.
pub struct Head {
    /// `[labels, hidden]`; with [`Head::per_text`], `[texts, labels, hidden]`.
    pub weight: Tensor,
    /// `[labels]`; with [`Head::per_text`], `[texts, labels]`.
    pub bias: Tensor,
    /// How token states become one vector.
    pub pooling: Pooling,
    /// Every text has a copy of its own, as the gradients of single examples need it.
    pub per_text: bool,
}

impl Head {
    /// The same head with a copy for each of `texts` texts where it takes gradients; the copies are added to `copies` by
    /// full name. A head that does not train is shared.
    pub fn for_texts(&self, texts: i64, copies: &mut Vec<(String, Tensor)>) -> Result<Self, TrainerError> {
        let mut copy = |name: &str, tensor: &Tensor| -> Result<Tensor, TrainerError> {
            let copy = copy_per_text(tensor, texts)?;
            copies.push((name.to_owned(), copy.shallow_clone()));
            Ok(copy)
        };
        let per_text = self.weight.requires_grad();
        let (weight, bias) = match per_text {
            true => (copy(HEAD_WEIGHT, &self.weight)?, copy(HEAD_BIAS, &self.bias)?),
            false => (self.weight.shallow_clone(), self.bias.shallow_clone()),
        };
        Ok(Self { weight, bias, pooling: self.pooling, per_text })
    }

    /// Token states `[n, hidden]` of a batch to logits `[texts, labels]`.
    pub fn logits(&self, states: &Tensor, batch: &Batch) -> Result<Tensor, TrainerError> {
        let pooled = match self.pooling {
            Pooling::Mean => batch.mean(states)?,
            Pooling::Cls => batch.first(states)?,
        };
        if self.per_text {
            let column = pooled.f_unsqueeze(2)?;
            return Ok(self.weight.f_bmm(&column)?.f_squeeze_dim(2)?.f_add(&self.bias)?);
        }
        Ok(pooled.f_linear(&self.weight, Some(&self.bias))?)
    }
}
