//! The best approximation at the run's rank (FlexLoRA): M = sum_k w_k dW_k = U S V, published as the factors
//! A = V_r and B = U_r diag(S_r) / s, s the scale of the run's delta. M is never formed: QR of the two sides of the
//! stack, then an SVD of the small core (as in FLoRIST).

use super::stack::Stack;
use super::{Frame, Law, Merged, Part, STACK_A, STACK_B};
use crate::error::MethodError;
use crate::linalg::{Matrix, truncated_svd_of_product};
use crate::tensor::{Tensor, TensorSet};

/// Holds the stack of one target.
pub(super) struct Truncate {
    target: String,
    stack: Box<Stack>,
    published: Option<Published>,
}

/// Where the approximation goes: the published delta is `scale * outer . inner`.
struct Published {
    scale: f64,
    outer: String,
    inner: String,
    rank: usize,
}

impl Truncate {
    pub(super) fn new(frame: &Frame<'_>) -> Self {
        let published = frame.delta.and_then(|delta| {
            let (scale, outer, inner) = delta.pair()?;
            let rank = *frame.shapes.get(inner)?.first()?;
            Some(Published { scale, outer: outer.to_owned(), inner: inner.to_owned(), rank })
        });
        let stack = Box::new(Stack::new(frame.target, frame.stacked));
        Self { target: frame.target.to_owned(), stack, published }
    }
}

impl Law for Truncate {
    fn absorb(&mut self, part: &Part<'_>) -> Result<(), MethodError> {
        self.stack.absorb(part)
    }

    fn finish(self: Box<Self>) -> Result<Merged, MethodError> {
        let stack = self.stack.finish()?.tensors;
        let Some(Published { scale, outer, inner, rank }) = self.published else {
            let problem = format!("the truncation of target `{}` needs a delta of two factors", self.target);
            return Err(MethodError::Contributions(problem));
        };
        let svd = truncated_svd_of_product(&stack[STACK_B].to_matrix(), &stack[STACK_A].to_matrix(), rank)
            .map_err(|source| MethodError::linalg(&self.target, source))?;
        let b = svd.u.times(&Matrix::diagonal(&svd.s)).scaled(1.0 / scale);
        let tensors = [(outer, Tensor::from_matrix(&b)), (inner, Tensor::from_matrix(&svd.v))];
        Ok(Merged::from(TensorSet::from(tensors)))
    }
}
