//! Stacking (FLoRA): dW = sum_k w_k dW_k = [B_1 ... B_K] . [w_1 s_1 A_1; ...; w_K s_K A_K].
//!
//! Weight and scale go into the inner factor and nowhere else: on both factors they would count twice.

use super::{Law, Part};
use crate::delta::Delta;
use crate::error::MethodError;
use crate::linalg::Matrix;
use crate::tensor::{Tensor, TensorSet};

/// The stack of inner factors, `[sum r_k, in]`.
pub const STACK_A: &str = "lora_A";
/// The outer factors side by side, `[out, sum r_k]`.
pub const STACK_B: &str = "lora_B";

/// What a published stack stands for: its scale is 1.
pub fn stack_delta() -> Delta {
    Delta::product(&[STACK_B, STACK_A])
}

pub(super) struct Stack {
    target: String,
    lefts: Vec<Matrix>,
    rights: Vec<Matrix>,
}

impl Stack {
    pub(super) fn new(target: &str) -> Self {
        Self { target: target.to_owned(), lefts: Vec::new(), rights: Vec::new() }
    }
}

impl Law for Stack {
    fn absorb(&mut self, part: &Part<'_>) -> Result<(), MethodError> {
        let folded = part.delta.fold(part.tensors).map_err(|source| MethodError::delta(&self.target, source))?;
        self.lefts.push(folded.left);
        self.rights.push(folded.right.scaled(part.weight * folded.scale));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<TensorSet, MethodError> {
        Ok(TensorSet::from([
            (STACK_A.to_owned(), Tensor::from_matrix(&Matrix::below(&self.rights))),
            (STACK_B.to_owned(), Tensor::from_matrix(&Matrix::beside(&self.lefts))),
        ]))
    }
}
