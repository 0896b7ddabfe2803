//! The weighted mean of each tensor: X = sum_k w_k X_k, in f64. With padding, a smaller X_k counts
//! as if zeros stood behind its last row and column (HetLoRA's zero padding).

use std::collections::BTreeMap;

use super::{Law, LawContext, LawDefinition, LawOutput, PARTIAL_SUM, TargetUpdate};
use crate::error::MethodError;
use crate::tensor::{Tensor, TensorSet, fits, full_name};

/// The weighted mean.
pub(super) const MEAN: LawDefinition = LawDefinition {
    start: |context| Box::new(Mean::new(context.target)),
    merged: None,
    keeps_tensors: true,
    takes_smaller: false,
    keeps_unsent: true,
    stacks: false,
    needs_pair: false,
    only_for_warm_up: false,
    serves_warm_up: true,
    server_steps: Ok(()),
};

/// The weighted mean with padding.
pub(super) const PADDED: LawDefinition = LawDefinition {
    start: |context| Box::new(Mean::padded(context)),
    merged: None,
    keeps_tensors: true,
    takes_smaller: true,
    keeps_unsent: false,
    stacks: false,
    needs_pair: false,
    only_for_warm_up: false,
    serves_warm_up: false,
    server_steps: Ok(()),
};

pub(super) struct Mean {
    target: String,
    /// Shapes up to which tensors are filled with zeros; without padding empty.
    padded: BTreeMap<String, Vec<usize>>,
    sums: BTreeMap<String, Sum>,
    absorbed: usize,
}

struct Sum {
    shape: Vec<usize>,
    total: Vec<f64>,
    partial: Vec<f64>,
}

impl Mean {
    pub(super) fn new(target: &str) -> Self {
        Self { target: target.to_owned(), padded: BTreeMap::new(), sums: BTreeMap::new(), absorbed: 0 }
    }

    pub(super) fn padded(context: &LawContext<'_>) -> Self {
        Self { padded: context.shapes.clone(), ..Self::new(context.target) }
    }

    fn close_partial(&mut self) {
        for sum in self.sums.values_mut() {
            for (total, partial) in sum.total.iter_mut().zip(&mut sum.partial) {
                *total += *partial;
                *partial = 0.0;
            }
        }
    }
}

impl Law for Mean {
    fn absorb(&mut self, update: &TargetUpdate<'_>) -> Result<(), MethodError> {
        for name in update.sent {
            let place = || format!("the update of client {}", update.client);
            let tensor = update
                .tensors
                .get(name)
                .ok_or_else(|| MethodError::Missing { tensor: full_name(&self.target, name), place: place() })?;
            let padded = match self.padded.get(name) {
                Some(shape) if *shape != tensor.shape && fits(&tensor.shape, shape) => {
                    Some(Tensor::zeros(shape).with_leading(tensor))
                }
                _ => None,
            };
            let tensor = padded.as_ref().unwrap_or(tensor);
            let sum = self.sums.entry(name.clone()).or_insert_with(|| Sum {
                shape: tensor.shape.clone(),
                total: vec![0.0; tensor.len()],
                partial: vec![0.0; tensor.len()],
            });
            if sum.shape != tensor.shape {
                return Err(MethodError::Shape {
                    tensor: full_name(&self.target, name),
                    place: place(),
                    expected: sum.shape.clone(),
                    got: tensor.shape.clone(),
                });
            }
            for (total, &x) in sum.partial.iter_mut().zip(&tensor.data) {
                *total += update.weight * f64::from(x);
            }
        }
        self.absorbed += 1;
        if self.absorbed.is_multiple_of(PARTIAL_SUM) {
            self.close_partial();
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<LawOutput, MethodError> {
        self.close_partial();
        let tensor = |sum: Sum| Tensor { shape: sum.shape, data: sum.total.iter().map(|&x| x as f32).collect() };
        Ok(LawOutput::from(self.sums.into_iter().map(|(name, sum)| (name, tensor(sum))).collect::<TensorSet>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::Delta;
    use crate::law::LawKind;

    #[test]
    fn sums_in_partial_sums() {
        let count = 2 * PARTIAL_SUM + 88;
        let value = |k: usize| (k as f32).sin() * 1e3;
        let mut law = LawKind::Mean.start(&LawContext::of("t"));
        for k in 0..count {
            let tensors = TensorSet::from([("x".to_owned(), Tensor { shape: vec![2], data: vec![value(k), 1.0] })]);
            let update = TargetUpdate {
                client: "c",
                weight: 1.0 / count as f64,
                delta: &Delta::mat("x"),
                tensors: &tensors,
                sent: &["x".to_owned()],
            };
            law.absorb(&update).unwrap();
        }
        let mean = law.finish().unwrap().tensors;
        let weight = 1.0 / count as f64;
        let sum_of = |range: std::ops::Range<usize>| range.fold(0.0, |sum, k| sum + weight * f64::from(value(k)));
        let expected = (sum_of(0..PARTIAL_SUM) + sum_of(PARTIAL_SUM..2 * PARTIAL_SUM)) + sum_of(2 * PARTIAL_SUM..count);
        assert_eq!(mean["x"].data[0].to_bits(), (expected as f32).to_bits());
        assert!((mean["x"].data[1] - 1.0).abs() < 1e-6);
    }
}
