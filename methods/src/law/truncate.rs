//! The best approximation at the run's rank (FlexLoRA): M = sum_k w_k dW_k = U S V, published as
//! the factors A = V_r and B = U_r diag(S_r) / s, s the scale of the run's delta. M is never
//! formed: QR of the two sides of the stack, then an SVD of the small core (as in FLoRIST).

use super::stack::Stack;
use super::{Law, LawContext, LawDefinition, LawOutput, STACK_A, STACK_B, TargetUpdate};
use crate::error::MethodError;
use crate::linalg::{Matrix, truncated_svd_of_product};
use crate::tensor::{Tensor, TensorSet};

/// The truncation.
pub(super) const TRUNCATE: LawDefinition = LawDefinition {
    start: |context| Box::new(Truncate::new(context)),
    merged: None,
    keeps_tensors: true,
    takes_smaller: true,
    keeps_unsent: false,
    stacks: true,
    needs_pair: true,
    only_for_warm_up: false,
    serves_warm_up: false,
    server_steps: Err("its factors are derived anew in every round, so moments of them mean nothing"),
};

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
    pub(super) fn new(context: &LawContext<'_>) -> Self {
        let published = context.delta.and_then(|delta| {
            let (scale, outer, inner) = delta.pair()?;
            let rank = *context.shapes.get(inner)?.first()?;
            Some(Published { scale, outer: outer.to_owned(), inner: inner.to_owned(), rank })
        });
        let stack = Box::new(Stack::new(context.target, context.stacked));
        Self { target: context.target.to_owned(), stack, published }
    }
}

impl Law for Truncate {
    fn absorb(&mut self, update: &TargetUpdate<'_>) -> Result<(), MethodError> {
        self.stack.absorb(update)
    }

    fn finish(self: Box<Self>) -> Result<LawOutput, MethodError> {
        let stack = self.stack.finish()?.tensors;
        let Some(Published { scale, outer, inner, rank }) = self.published else {
            let problem = format!("the truncation of target `{}` needs a delta of two factors", self.target);
            return Err(MethodError::Contributions(problem));
        };
        let svd = truncated_svd_of_product(&stack[STACK_B].to_matrix(), &stack[STACK_A].to_matrix(), rank)
            .map_err(|source| MethodError::linalg(&self.target, source))?;
        let b = svd.u.times(&Matrix::diagonal(&svd.s)).scaled(1.0 / scale);
        let tensors = [(outer, Tensor::from_matrix(&b)), (inner, Tensor::from_matrix(&svd.v))];
        Ok(LawOutput::from(TensorSet::from(tensors)))
    }
}
