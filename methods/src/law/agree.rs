//! Agreement: every client computed the same thing from the same base, so their deltas must be equal to rounding.
//!
//! Compared is the delta, not the tensors: singular vectors may differ in sign and in the basis of equal values.

use super::{Law, Part};
use crate::error::MethodError;
use crate::linalg::Matrix;
use crate::tensor::TensorSet;

/// Largest ||D_k - D_1||_F / ||D_1||_F that counts as equal: f32 tensors of the same f64 computation stay below 1e-5.
const TOLERANCE: f64 = 1e-3;

pub(super) struct Agree {
    target: String,
    groups: Vec<Group>,
}

/// Clients whose deltas are equal; the tensors are those of the first.
struct Group {
    dense: Matrix,
    tensors: TensorSet,
    clients: Vec<String>,
}

impl Agree {
    pub(super) fn new(target: &str) -> Self {
        Self { target: target.to_owned(), groups: Vec::new() }
    }
}

fn distance(of: &Matrix, from: &Matrix) -> f64 {
    let mut difference = of.clone();
    difference.add_scaled(-1.0, from);
    let (difference, size) = (difference.norm(), from.norm());
    if difference == 0.0 { 0.0 } else { difference / size }
}

impl Law for Agree {
    fn absorb(&mut self, part: &Part<'_>) -> Result<(), MethodError> {
        let dense = part.delta.dense(part.tensors).map_err(|source| MethodError::delta(&self.target, source))?;
        // NaN equals nothing, itself included, so it founds a group of its own.
        if let Some(group) = self.groups.iter_mut().find(|group| distance(&dense, &group.dense) <= TOLERANCE) {
            group.clients.push(part.client.to_owned());
        } else {
            let sent = part.sent.iter().filter_map(|name| Some((name.clone(), part.tensors.get(name)?.clone())));
            self.groups.push(Group { dense, tensors: sent.collect(), clients: vec![part.client.to_owned()] });
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<TensorSet, MethodError> {
        let largest = self.groups.iter().map(|group| group.clients.len()).max().unwrap_or(0);
        let mut leaders: Vec<&Group> = self.groups.iter().filter(|group| group.clients.len() == largest).collect();
        match (leaders.pop(), leaders.is_empty(), self.groups.len()) {
            (Some(only), true, 1) => Ok(only.tensors.clone()),
            (Some(leader), alone, _) => {
                let odd = self.groups.iter().filter(|group| !alone || !std::ptr::eq(*group, leader));
                let named = odd.flat_map(|group| {
                    let off = distance(&group.dense, &leader.dense);
                    group.clients.iter().map(move |client| format!("{client} (off by {off:.1e})"))
                });
                Err(MethodError::Disagree { target: self.target.clone(), clients: named.collect() })
            }
            (None, _, _) => Err(MethodError::Contributions(format!("no factors came for target `{}`", self.target))),
        }
    }
}
