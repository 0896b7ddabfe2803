//! The weighted mean of each tensor: X = sum_k w_k X_k, in f64. With padding, a smaller X_k counts as if zeros stood
//! behind its last row and column (HetLoRA's zero padding).

use std::collections::BTreeMap;

use super::{Frame, Law, Merged, PART, Part};
use crate::error::MethodError;
use crate::tensor::{Tensor, TensorSet, fits, full_name};

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
    part: Vec<f64>,
}

impl Mean {
    pub(super) fn new(target: &str) -> Self {
        Self { target: target.to_owned(), padded: BTreeMap::new(), sums: BTreeMap::new(), absorbed: 0 }
    }

    pub(super) fn padded(frame: &Frame<'_>) -> Self {
        Self { padded: frame.shapes.clone(), ..Self::new(frame.target) }
    }

    fn close_part(&mut self) {
        for sum in self.sums.values_mut() {
            for (total, part) in sum.total.iter_mut().zip(&mut sum.part) {
                *total += *part;
                *part = 0.0;
            }
        }
    }
}

impl Law for Mean {
    fn absorb(&mut self, part: &Part<'_>) -> Result<(), MethodError> {
        for name in part.sent {
            let place = || format!("the update of client {}", part.client);
            let tensor = part
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
                part: vec![0.0; tensor.len()],
            });
            if sum.shape != tensor.shape {
                return Err(MethodError::Shape {
                    tensor: full_name(&self.target, name),
                    place: place(),
                    expected: sum.shape.clone(),
                    got: tensor.shape.clone(),
                });
            }
            for (total, &x) in sum.part.iter_mut().zip(&tensor.data) {
                *total += part.weight * f64::from(x);
            }
        }
        self.absorbed += 1;
        if self.absorbed.is_multiple_of(PART) {
            self.close_part();
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Merged, MethodError> {
        self.close_part();
        let tensor = |sum: Sum| Tensor { shape: sum.shape, data: sum.total.iter().map(|&x| x as f32).collect() };
        Ok(Merged::from(self.sums.into_iter().map(|(name, sum)| (name, tensor(sum))).collect::<TensorSet>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::Delta;
    use crate::law::LawKind;

    #[test]
    fn sums_in_parts() {
        let count = 2 * PART + 88;
        let value = |k: usize| (k as f32).sin() * 1e3;
        let mut law = LawKind::Mean.start(&Frame::of("t"));
        for k in 0..count {
            let tensors = TensorSet::from([("x".to_owned(), Tensor { shape: vec![2], data: vec![value(k), 1.0] })]);
            let part = Part {
                client: "c",
                weight: 1.0 / count as f64,
                delta: &Delta::mat("x"),
                tensors: &tensors,
                sent: &["x".to_owned()],
            };
            law.absorb(&part).unwrap();
        }
        let mean = law.finish().unwrap().tensors;
        let weight = 1.0 / count as f64;
        let sum_of = |range: std::ops::Range<usize>| range.fold(0.0, |sum, k| sum + weight * f64::from(value(k)));
        let expected = (sum_of(0..PART) + sum_of(PART..2 * PART)) + sum_of(2 * PART..count);
        assert_eq!(mean["x"].data[0].to_bits(), (expected as f32).to_bits());
        assert!((mean["x"].data[1] - 1.0).abs() < 1e-6);
    }
}
