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
    /// Every text has one of its own, as the gradients of single examples need it.
    pub per_text: bool,
}

impl Head {
    /// The same head for each of `texts` texts, so that no product has more than one text's rows.
    /// Where it takes gradients, each text gets a copy of its own, and the copies are added to
    /// `copies` by full name; otherwise all texts read the one there is.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn for_texts(&self, texts: i64, copies: &mut Vec<(String, Tensor)>) -> Result<Self, TrainerError> {
        let mut of_each = |name: &str, tensor: &Tensor| -> Result<Tensor, TrainerError> {
            if !tensor.requires_grad() {
                let mut size = tensor.size();
                size.insert(0, texts);
                return Ok(tensor.f_unsqueeze(0)?.f_expand(&size, false)?);
            }
            let copy = copy_per_text(tensor, texts)?;
            copies.push((name.to_owned(), copy.shallow_clone()));
            Ok(copy)
        };
        let weight = of_each(HEAD_WEIGHT, &self.weight)?;
        let bias = of_each(HEAD_BIAS, &self.bias)?;
        Ok(Self { weight, bias, pooling: self.pooling, per_text: true })
    }

    /// Token states `[n, hidden]` of a batch to logits `[texts, labels]`.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
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
