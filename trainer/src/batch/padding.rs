//! Between packed tokens `[n, h]` and a grid of one row per text `[b * t, h]`. `b` = texts,
//! `t` = tokens of the longest.

use tch::Tensor;

use crate::error::TrainerError;

/// Where a batch's tokens stand in its grid.
pub struct Padding {
    /// Row of each token in the grid, `[n]`; `None` where all texts are equally long, so that both
    /// are one.
    rows: Option<Tensor>,
    texts: i64,
    longest: i64,
}

impl Padding {
    pub(super) fn new(rows: Option<Tensor>, texts: i64, longest: i64) -> Self {
        Self { rows, texts, longest }
    }

    /// The same once more; tensors are shared.
    pub fn share(&self) -> Self {
        Self { rows: self.rows.as_ref().map(Tensor::shallow_clone), ..*self }
    }

    /// Number of texts b.
    pub fn texts(&self) -> i64 {
        self.texts
    }

    /// Tokens of the longest text t.
    pub fn longest(&self) -> i64 {
        self.longest
    }

    /// From `[n, h]` to `[b * t, h]`, zeros where there is no token.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn pad(&self, packed: &Tensor) -> Result<Tensor, TrainerError> {
        let Some(rows) = &self.rows else {
            return Ok(packed.shallow_clone());
        };
        let size = [self.texts * self.longest, packed.size()[1]];
        Ok(Tensor::f_zeros(size, (packed.kind(), packed.device()))?.f_index_copy(0, rows, packed)?)
    }

    /// From `[b * t, h]` back to `[n, h]`.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn unpad(&self, padded: &Tensor) -> Result<Tensor, TrainerError> {
        match &self.rows {
            // Not `index_select`: the gradient of `embedding` is 20 times faster on the CPU.
            Some(rows) => Ok(Tensor::f_embedding(padded, rows, -1, false, false)?),
            None => Ok(padded.shallow_clone()),
        }
    }

    /// Each text's tokens times a matrix of the text's own: `x` `[n, p]` by `matrices` `[b, p, q]`
    /// gives `[n, q]`.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn times(&self, x: &Tensor, matrices: &Tensor) -> Result<Tensor, TrainerError> {
        let grid = self.pad(x)?.f_view([self.texts, self.longest, x.size()[1]])?;
        let product = grid.f_bmm(matrices)?;
        self.unpad(&product.f_view([self.texts * self.longest, matrices.size()[2]])?)
    }
}
