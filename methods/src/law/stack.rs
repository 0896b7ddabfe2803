//! Stacking (FLoRA): dW = sum_k w_k dW_k = [B_1 ... B_K] . [w_1 s_1 A_1; ...; w_K s_K A_K].
//!
//! Weight and scale go into the inner factor and nowhere else: on both factors they would count
//! twice.

use super::{Law, LawDefinition, LawOutput, TargetUpdate};
use crate::delta::{Delta, DeltaError};
use crate::error::MethodError;
use crate::linalg::Matrix;
use crate::tensor::{Tensor, TensorSet};

/// The stack of inner factors, `[sum r_k, in]`.
pub const STACK_A: &str = "lora_A";
/// The outer factors side by side, `[out, sum r_k]`.
pub const STACK_B: &str = "lora_B";

/// Rows of a stack that are multiplied at a time, so that its value needs no second copy of it in
/// f64.
const ROWS: usize = 256;

/// What a published pair of an outer and an inner factor stands for: its scale is 1.
pub fn pair_delta((outer, inner): (&str, &str)) -> Delta {
    Delta::product(&[outer, inner])
}

/// The dense value of a published pair, `[out, in]`, some rows of the inner factor at a time.
///
/// # Errors
/// A factor is missing or is no matrix, or the two factors do not fit each other.
pub fn pair_dense(names: (&str, &str), parts: &TensorSet) -> Result<Matrix, DeltaError> {
    let (out, inp) = pair_delta(names).shape(&|part| parts.get(part).map(|tensor| tensor.shape.clone()))?;
    let (b, a) = (&parts[names.0], &parts[names.1]);
    let rank = a.shape[0];
    let mut sum = Matrix::zeros(out, inp);
    for first in (0..rank).step_by(ROWS) {
        let last = rank.min(first + ROWS);
        let right = a.data[first * inp..last * inp].iter().map(|&x| f64::from(x)).collect();
        let left = (0..out).flat_map(|row| b.data[row * rank + first..row * rank + last].iter().map(|&x| f64::from(x)));
        let left = Matrix::new(out, last - first, left.collect());
        sum.add_scaled(1.0, &left.times(&Matrix::new(last - first, inp, right)));
    }
    Ok(sum)
}

/// The stack.
pub(super) const STACK: LawDefinition = LawDefinition {
    start: |context| Box::new(Stack::new(context.target, context.stacked)),
    merged: Some((STACK_B, STACK_A)),
    keeps_tensors: false,
    takes_smaller: true,
    keeps_unsent: false,
    stacks: true,
    needs_pair: false,
    only_for_warm_up: false,
    serves_warm_up: false,
    server_steps: Err("its aggregate is merged into the base, so there are no tensors to step from"),
};

/// Holds the stack itself, at its final size from the first client on, and of the clients nothing
/// else.
pub(super) struct Stack {
    target: String,
    /// sum r_k.
    rank: usize,
    filled: usize,
    stack: Option<Factors>,
}

struct Factors {
    a: Tensor,
    b: Tensor,
}

impl Stack {
    pub(super) fn new(target: &str, rank: usize) -> Self {
        Self { target: target.to_owned(), rank, filled: 0, stack: None }
    }

    fn refuse(&self, problem: String) -> MethodError {
        MethodError::Contributions(format!("the stack of target `{}`: {problem}", self.target))
    }
}

impl Law for Stack {
    fn absorb(&mut self, update: &TargetUpdate<'_>) -> Result<(), MethodError> {
        let folded = update.delta.fold(update.tensors).map_err(|source| MethodError::delta(&self.target, source))?;
        let out = folded.left.rows();
        let inp = folded.right.cols();
        let own = folded.rank();
        let rank = self.rank;
        if self.filled + own > rank {
            return Err(self.refuse(format!("rank {own} of client {} is above what was announced", update.client)));
        }
        let first = self.filled;
        let stack = self
            .stack
            .get_or_insert_with(|| Factors { a: Tensor::zeros(&[rank, inp]), b: Tensor::zeros(&[out, rank]) });
        let (height, width) = (stack.b.shape[0], stack.a.shape[1]);
        if (height, width) != (out, inp) {
            let problem = format!("client {} sent a change of shape {:?}", update.client, (out, inp));
            return Err(self.refuse(format!("{problem}, those before {:?}", (height, width))));
        }
        let weight = update.weight * folded.scale;
        let rows = &mut stack.a.data[first * inp..(first + own) * inp];
        rows.iter_mut().zip(folded.right.data()).for_each(|(to, from)| *to = (from * weight) as f32);
        for row in 0..out {
            let columns = &mut stack.b.data[row * rank + first..row * rank + first + own];
            let from = &folded.left.data()[row * own..(row + 1) * own];
            columns.iter_mut().zip(from).for_each(|(to, from)| *to = *from as f32);
        }
        self.filled += own;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<LawOutput, MethodError> {
        match self.stack.take() {
            Some(Factors { a, b }) if self.filled == self.rank => {
                Ok(LawOutput::from(TensorSet::from([(STACK_A.to_owned(), a), (STACK_B.to_owned(), b)])))
            }
            _ => Err(self.refuse(format!("{} rows came, {} were announced", self.filled, self.rank))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::{LawContext, LawKind};

    const PAIR: (&str, &str) = (STACK_B, STACK_A);

    fn stack(rank: usize) -> Box<dyn Law> {
        LawKind::Stack.start(&LawContext { stacked: rank, ..LawContext::of("t") })
    }

    fn factors(a: &[usize], b: &[usize]) -> TensorSet {
        let tensor = |salt: f32, shape: &[usize]| {
            let count: usize = shape.iter().product();
            Tensor { shape: shape.to_vec(), data: (0..count).map(|index| (index as f32 + salt).sin()).collect() }
        };
        TensorSet::from([(STACK_A.to_owned(), tensor(0.5, a)), (STACK_B.to_owned(), tensor(9.0, b))])
    }

    fn absorb(law: &mut dyn Law, tensors: &TensorSet) -> Result<(), MethodError> {
        law.absorb(&TargetUpdate { client: "c", weight: 0.5, delta: &pair_delta(PAIR), tensors, sent: &[] })
    }

    #[test]
    fn a_tall_stack_has_the_value_of_its_parts() {
        let (one, two) = (factors(&[300, 5], &[4, 300]), factors(&[7, 5], &[4, 7]));
        let mut law = stack(307);
        absorb(&mut *law, &one).unwrap();
        absorb(&mut *law, &two).unwrap();
        let made = law.finish().unwrap().tensors;
        assert_eq!((&made[STACK_A].shape, &made[STACK_B].shape), (&vec![307, 5], &vec![4, 307]));
        let mut expected = pair_delta(PAIR).dense(&one).unwrap().scaled(0.5);
        expected.add_scaled(0.5, &pair_delta(PAIR).dense(&two).unwrap());
        for got in [pair_dense(PAIR, &made).unwrap(), pair_delta(PAIR).dense(&made).unwrap()] {
            let mut difference = got;
            difference.add_scaled(-1.0, &expected);
            assert!(difference.norm() < 1e-5 * expected.norm());
        }
    }

    #[test]
    fn what_does_not_fit_the_stack_is_refused() {
        let mut law = stack(3);
        absorb(&mut *law, &factors(&[2, 5], &[4, 2])).unwrap();
        for (a, b) in [([1, 6], [4, 1]), ([1, 5], [3, 1])] {
            let error = absorb(&mut *law, &factors(&a, &b)).unwrap_err().to_string();
            assert!(error.contains("client c") && error.contains("(4, 5)"), "{error}");
        }
        assert!(absorb(&mut *law, &factors(&[2, 5], &[4, 2])).unwrap_err().to_string().contains("announced"));
        assert!(law.finish().unwrap_err().to_string().contains("2 rows came, 3 were announced"));
    }
}
