//! Averaging without loss (FedEx-LoRA): the mean of each tensor, and beside it what the mean's
//! delta lacks, E = sum_k w_k dW_k - dW(mean), as a pair of factors. Everybody adds E to the base.
//!
//! For a product of two factors E = sum_k w_k s (B_k - B)(A_k - A), of which only K - 1 terms are
//! independent: rank E is at most (K - 1) r. E is never formed: it is [B_1 ... B_K, B] . [w_1 s
//! A_1; ...; w_K s A_K; -s A], compressed by QR of both sides and an SVD of the small core.

use super::mean::Mean;
use super::stack::Stack;
use super::{Law, LawContext, LawDefinition, LawOutput, STACK_A, STACK_B, TargetUpdate};
use crate::delta::Delta;
use crate::error::MethodError;
use crate::linalg::{Matrix, truncated_svd_of_product};
use crate::tensor::{Tensor, TensorSet};

/// The residual's inner factor, `[h, in]`, rows orthonormal.
pub const RESIDUAL_A: &str = "residual_A";
/// The residual's outer factor, `[out, h]`.
pub const RESIDUAL_B: &str = "residual_B";

/// Height h of a residual: `stacked` = sum of the clients' folded ranks, `own` = that of the mean.
pub fn residual_rank(stacked: usize, own: usize, out: usize, inp: usize) -> usize {
    stacked.saturating_sub(own).min(out).min(inp)
}

/// The mean and its residual.
pub(super) const RESIDUAL: LawDefinition = LawDefinition {
    start: |context| Box::new(Residual::new(context)),
    merged: Some((RESIDUAL_B, RESIDUAL_A)),
    keeps_tensors: true,
    takes_smaller: false,
    keeps_unsent: false,
    stacks: true,
    needs_pair: false,
    only_for_warm_up: false,
    serves_warm_up: false,
    server_steps: Err("its residual makes up for the plain mean, and for nothing else"),
};

/// Holds the stack and the sums.
pub(super) struct Residual {
    target: String,
    mean: Box<Mean>,
    stack: Box<Stack>,
    /// Of the first client, as are its tensors that are not averaged.
    first: Option<(Delta, TensorSet)>,
}

impl Residual {
    pub(super) fn new(context: &LawContext<'_>) -> Self {
        Self {
            target: context.target.to_owned(),
            mean: Box::new(Mean::new(context.target)),
            stack: Box::new(Stack::new(context.target, context.stacked)),
            first: None,
        }
    }
}

impl Law for Residual {
    fn absorb(&mut self, update: &TargetUpdate<'_>) -> Result<(), MethodError> {
        self.mean.absorb(update)?;
        self.stack.absorb(update)?;
        if self.first.is_none() {
            let mut others = update.tensors.clone();
            others.retain(|name, _| !update.sent.contains(name));
            self.first = Some((update.delta.clone(), others));
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<LawOutput, MethodError> {
        let mut made = self.mean.finish()?.tensors;
        let stack = self.stack.finish()?.tensors;
        let Some((delta, mut parts)) = self.first else {
            return Err(MethodError::Contributions(format!("no factors came for target `{}`", self.target)));
        };
        parts.extend(made.clone());
        let mean = delta.fold(&parts).map_err(|source| MethodError::delta(&self.target, source))?;
        let (b, a) = (stack[STACK_B].to_matrix(), stack[STACK_A].to_matrix());
        let own = mean.rank();
        let out = b.rows();
        let inp = a.cols();
        let rank = residual_rank(a.rows(), own, out, inp);
        let (outer, inner) = if rank == 0 {
            (Tensor::zeros(&[out, 0]), Tensor::zeros(&[0, inp]))
        } else {
            let left = Matrix::beside(&[b, mean.left]);
            let right = Matrix::below(&[a, mean.right.scaled(-mean.scale)]);
            let svd = truncated_svd_of_product(&left, &right, rank)
                .map_err(|source| MethodError::linalg(&self.target, source))?;
            (Tensor::from_matrix(&svd.u.times(&Matrix::diagonal(&svd.s))), Tensor::from_matrix(&svd.v))
        };
        made.insert(RESIDUAL_B.to_owned(), outer);
        made.insert(RESIDUAL_A.to_owned(), inner);
        Ok(LawOutput::from(made))
    }
}
