//! The change that an update makes: what it sends, less what its round began with. Where the
//! privacy guarantee is per client, this change is clipped, summed and noised, never the tensors
//! themselves.

use std::path::{Path, PathBuf};

use rondo_proto::run_file::Dtype;

use crate::at::Instance;
use crate::error::MethodError;
use crate::file::{FileError, TensorFile};
use crate::job::{Job, Kind};
use crate::tensor::{Tensor, TensorSet};

/// What every client of a round begins with, of the tensors that it sends: one vector, in the order
/// of the upload.
#[derive(Debug, Clone, PartialEq)]
pub struct RoundStart {
    tensors: Vec<(String, Tensor)>,
    dtype: Dtype,
}

impl Job {
    /// What the statistics of a warm-up count from:
    /// zero, so that the change is the statistic itself.
    pub fn warm_up_start(&self) -> RoundStart {
        let sent = self.upload_tensors(Kind::WarmUp, Instance::in_round(0));
        let zero = |shape: Vec<usize>| Tensor { data: vec![0.0; shape.iter().product()], shape };
        let tensors = sent.into_iter().map(|(name, shape)| (name, zero(shape))).collect();
        RoundStart { tensors, dtype: self.upload_dtype(Kind::WarmUp) }
    }

    /// What the clients of a training round begin with, at the run's rank, from the artefacts that
    /// hold when it starts.
    ///
    /// # Errors
    /// As of [`Job::state`].
    pub fn round_start(
        &self,
        round: u32,
        frozen: Option<&Path>,
        published: &[PathBuf],
    ) -> Result<RoundStart, MethodError> {
        let mut state = self.state(round, "", self.rank(), frozen, published)?;
        let sent = self.upload_tensors(Kind::Train, Instance::in_round(round));
        let found = sent.into_iter().map(|(name, shape)| {
            let place = || "what the round began with".to_owned();
            let tensor = state.tensors.remove(&name);
            let tensor = tensor.ok_or_else(|| MethodError::Missing { tensor: name.clone(), place: place() })?;
            if tensor.shape != shape {
                let (tensor, expected, got) = (name, shape, tensor.shape);
                return Err(MethodError::Shape { tensor, place: place(), expected, got });
            }
            Ok((name, tensor))
        });
        Ok(RoundStart { tensors: found.collect::<Result<_, _>>()?, dtype: self.wire_dtype() })
    }
}

impl RoundStart {
    /// Count of numbers.
    pub fn dimension(&self) -> usize {
        self.tensors.iter().map(|(_, tensor)| tensor.len()).sum()
    }

    /// Writes the change of an update that has passed validation into `change`, shape
    /// `[dimension]`; what `change` held before is dropped.
    ///
    /// # Errors
    /// A file that cannot be read, or has other tensors.
    pub fn change(&self, update: &Path, change: &mut Vec<f64>) -> Result<(), FileError> {
        change.clear();
        let file = TensorFile::open(update)?;
        for (name, tensor) in &self.tensors {
            let mut start = tensor.data.iter();
            let from = change.len();
            file.for_each_block(name, |block| {
                change.extend(block.iter().zip(&mut start).map(|(&new, &old)| f64::from(new) - f64::from(old)));
            })?;
            if change.len() - from != tensor.len() {
                let problem = format!("tensor `{name}` does not have the {} numbers that it began with", tensor.len());
                return Err(FileError::format(update, problem));
            }
        }
        Ok(())
    }

    /// The tensors after a change `[dimension]`, by full name.
    pub fn changed(&self, change: &[f64]) -> TensorSet {
        let mut change = change.iter();
        let moved = self.tensors.iter().map(|(name, tensor)| {
            let data = tensor.data.iter().zip(&mut change).map(|(&old, by)| (f64::from(old) + by) as f32).collect();
            (name.clone(), Tensor { shape: tensor.shape.clone(), data })
        });
        moved.collect()
    }

    /// How far rounding the tensors to the wire may move a change of norm at most `clip`, at most.
    pub fn rounding(&self, clip: f64) -> f64 {
        let start = norm(self.tensors.iter().flat_map(|(_, tensor)| tensor.data.iter().map(|&x| f64::from(x))));
        let half_step = match self.dtype {
            Dtype::F32 => 2f64.powi(-24),
            Dtype::Bf16 => 2f64.powi(-9),
        };
        half_step * (start + clip)
    }
}

/// L2 norm, as a multiple of the largest number, which neither overflows nor underflows; NaN or
/// infinite where a number is.
pub fn norm(numbers: impl Iterator<Item = f64> + Clone) -> f64 {
    let mut largest = 0.0_f64;
    for number in numbers.clone() {
        // Not `max` alone, which would let a NaN pass.
        if !number.is_finite() {
            return number.abs();
        }
        largest = largest.max(number.abs());
    }
    if largest == 0.0 {
        return 0.0;
    }
    largest * numbers.map(|x| (x / largest) * (x / largest)).sum::<f64>().sqrt()
}

/// Scales the joint change from `start` to `tensors` down to an L2 norm of at most `clip`. Tensors
/// that do not begin anywhere are left.
pub fn clip(start: &TensorSet, tensors: &mut TensorSet, clip: f64) {
    let changes = tensors.iter().filter_map(|(name, tensor)| Some((tensor, start.get(name)?)));
    let changes = changes.flat_map(|(new, old)| new.data.iter().zip(&old.data));
    let norm = norm(changes.map(|(&new, &old)| f64::from(new) - f64::from(old)));
    if norm <= clip {
        return;
    }
    // Not finite: nothing of it can be kept.
    let factor = if norm.is_finite() { clip / norm } else { 0.0 };
    for (name, tensor) in tensors {
        let Some(old) = start.get(name) else { continue };
        for (new, &old) in tensor.data.iter_mut().zip(&old.data) {
            let change = if factor > 0.0 { factor * (f64::from(*new) - f64::from(old)) } else { 0.0 };
            *new = (f64::from(old) + change) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[f32]) -> TensorSet {
        let (a, b) = numbers.split_at(1);
        let tensor = |data: &[f32]| Tensor { shape: vec![data.len()], data: data.to_vec() };
        TensorSet::from([("a".to_owned(), tensor(a)), ("b".to_owned(), tensor(b))])
    }

    #[test]
    fn changes_are_clipped_over_all_tensors_together() {
        let start = set(&[1.0, 2.0, 3.0]);
        let mut near = set(&[1.3, 2.0, 3.4]);
        clip(&start, &mut near, 0.6);
        assert_eq!(near, set(&[1.3, 2.0, 3.4]), "within the clip nothing moves");
        let mut far = set(&[4.0, 2.0, 7.0]);
        clip(&start, &mut far, 0.5);
        assert_eq!(far, set(&[1.3, 2.0, 3.4]));
        for bad in [f32::NAN, f32::INFINITY] {
            let mut broken = set(&[1.5, bad, 3.0]);
            clip(&start, &mut broken, 0.5);
            assert_eq!(broken, start, "what is not finite changes nothing");
        }
    }

    #[test]
    fn norms_do_not_overflow() {
        assert!((norm([3e200, 4e200].into_iter()) / 5e200 - 1.0).abs() < 1e-12);
        assert_eq!(norm([0.0; 3].into_iter()), 0.0);
        assert!(norm([1.0, f64::NAN, 2.0].into_iter()).is_nan());
    }
}
