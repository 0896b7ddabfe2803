//! Agreement: every client computed the same thing from the same base, so their deltas must be
//! equal to rounding. What more than half of the clients sent is taken; the others are named as
//! outliers.
//!
//! The law compares the deltas, not the tensors: singular vectors may differ in sign and in the
//! basis of equal values.

use super::{Law, LawDefinition, LawOutput, Outlier, TargetUpdate};
use crate::delta::Delta;
use crate::error::MethodError;
use crate::linalg::Matrix;
use crate::tensor::TensorSet;

/// Largest ||D_k - D_1||_F / ||D_1||_F that counts as equal: f32 tensors of the same f64
/// computation stay below 1e-5.
const TOLERANCE: f64 = 1e-3;

/// The agreement.
pub(super) const AGREE: LawDefinition = LawDefinition {
    start: |context| Box::new(Agree::new(context.target)),
    merged: None,
    keeps_tensors: false,
    takes_smaller: false,
    keeps_unsent: false,
    stacks: false,
    needs_pair: false,
    only_for_warm_up: true,
    serves_warm_up: true,
    server_steps: Err("it is for warm-up statistics only"),
};

/// Holds the factors of every group, one group where all agree; two dense deltas at a time, those
/// compared.
pub(super) struct Agree {
    target: String,
    groups: Vec<Group>,
}

/// Clients whose deltas are equal; the tensors are those of the first.
struct Group {
    delta: Delta,
    tensors: TensorSet,
    sent: Vec<String>,
    clients: Vec<String>,
}

impl Group {
    fn dense(&self, target: &str) -> Result<Matrix, MethodError> {
        self.delta.dense(&self.tensors).map_err(|source| MethodError::delta(target, source))
    }
}

impl Agree {
    pub(super) fn new(target: &str) -> Self {
        Self { target: target.to_owned(), groups: Vec::new() }
    }

    /// The clients of every group but one, with their distance from that one.
    fn others(&self, leader: usize) -> Result<Vec<Outlier>, MethodError> {
        let reference = self.groups[leader].dense(&self.target)?;
        let mut outliers = Vec::new();
        for group in self.groups.iter().enumerate().filter(|(index, _)| *index != leader).map(|(_, group)| group) {
            let relative_error = distance(&group.dense(&self.target)?, &reference);
            outliers.extend(group.clients.iter().map(|client| Outlier { client: client.clone(), relative_error }));
        }
        Ok(outliers)
    }
}

fn distance(of: &Matrix, from: &Matrix) -> f64 {
    let mut difference = of.clone();
    difference.add_scaled(-1.0, from);
    let difference = difference.norm();
    let size = from.norm();
    if difference == 0.0 { 0.0 } else { difference / size }
}

impl Law for Agree {
    fn absorb(&mut self, update: &TargetUpdate<'_>) -> Result<(), MethodError> {
        let dense = update.delta.dense(update.tensors).map_err(|source| MethodError::delta(&self.target, source))?;
        for group in &mut self.groups {
            // NaN equals nothing, itself included, so it founds a group of its own.
            if distance(&dense, &group.dense(&self.target)?) <= TOLERANCE {
                group.clients.push(update.client.to_owned());
                return Ok(());
            }
        }
        self.groups.push(Group {
            delta: update.delta.clone(),
            tensors: update.tensors.clone(),
            sent: update.sent.to_vec(),
            clients: vec![update.client.to_owned()],
        });
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<LawOutput, MethodError> {
        // Of groups of one size the first, which is that of the first client.
        let largest = (0..self.groups.len()).rev().max_by_key(|&index| self.groups[index].clients.len());
        let Some(leader) = largest else {
            return Err(MethodError::Contributions(format!("no factors came for target `{}`", self.target)));
        };
        let outliers = self.others(leader)?;
        let all: usize = self.groups.iter().map(|group| group.clients.len()).sum();
        let Group { mut tensors, sent, clients, .. } = self.groups.swap_remove(leader);
        if 2 * clients.len() <= all {
            let named =
                outliers.iter().map(|outlier| format!("{} (off by {:.1e})", outlier.client, outlier.relative_error));
            let clients = clients.iter().cloned().chain(named).collect();
            return Err(MethodError::Disagree { target: self.target, clients });
        }
        tensors.retain(|name, _| sent.contains(name));
        Ok(LawOutput { tensors, outliers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::{LawContext, LawKind};
    use crate::tensor::Tensor;

    /// One number per client stands for its factors.
    fn agree(sent: &[(&str, f32)]) -> Result<LawOutput, MethodError> {
        let mut law = LawKind::Agree.start(&LawContext::of("t"));
        for &(client, value) in sent {
            let tensors = TensorSet::from([("x".to_owned(), Tensor { shape: vec![1, 1], data: vec![value] })]);
            let delta = Delta::mat("x");
            let sent = ["x".to_owned()];
            law.absorb(&TargetUpdate { client, weight: 0.1, delta: &delta, tensors: &tensors, sent: &sent }).unwrap();
        }
        law.finish()
    }

    #[test]
    fn more_than_half_are_taken_and_the_others_named() {
        for sent in [
            [("a", 2.0), ("b", 2.0), ("c", 3.0)],
            [("a", 2.0), ("b", 3.0), ("c", 2.0)],
            [("a", 3.0), ("b", 2.0), ("c", 2.000_001)],
        ] {
            let merged = agree(&sent).unwrap();
            assert_eq!(merged.tensors["x"].data, [2.0]);
            let differing = sent.iter().find(|(_, value)| *value == 3.0).unwrap().0;
            assert_eq!(merged.outliers, [Outlier { client: differing.to_owned(), relative_error: 0.5 }]);
        }
        assert!(agree(&[("a", 2.0)]).unwrap().outliers.is_empty());
        let outliers = agree(&[("a", f32::NAN), ("b", 2.0), ("c", 2.0)]).unwrap().outliers;
        assert!(outliers.len() == 1 && outliers[0].client == "a" && outliers[0].relative_error.is_nan());
    }

    #[test]
    fn half_is_not_enough() {
        for (sent, named) in [
            (&[("a", 2.0), ("b", 3.0)][..], &["a", "b (off by 5.0e-1)"][..]),
            (&[("a", 2.0), ("b", 3.0), ("c", 4.0)], &["a", "b (off by 5.0e-1)", "c (off by 1.0e0)"]),
            (&[("a", 2.0), ("b", 3.0), ("c", 2.0), ("d", 4.0)], &["a", "c", "b (off by 5.0e-1)", "d (off by 1.0e0)"]),
            (&[("a", f32::NAN), ("b", f32::NAN)], &["a", "b (off by NaN)"]),
        ] {
            let Err(MethodError::Disagree { clients, .. }) = agree(sent) else { panic!("{sent:?} agree") };
            assert_eq!(clients, named);
        }
        assert!(matches!(agree(&[]), Err(MethodError::Contributions(_))));
    }
}
