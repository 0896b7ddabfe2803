//! Factors of the base weight itself: W0 ~ U_r . diag(S_r) . V_r. Needs no data and costs no privacy.
//!
//! A client computes them from its own copy of the base and uploads them once; the others' copies cross-check.

use crate::delta::Delta;
use crate::dim::Dim;
use crate::law::LawKind;
use crate::layout::{Origin, Role, Start, Target, TensorSpec, Travel};
use crate::linalg::{LinalgError, Matrix, truncated_svd};
use crate::method::{Statistic, WarmUp};
use crate::tensor::{Tensor, TensorSet};

/// Left vectors, `[out, r]`.
pub const U: &str = "svd_u";
/// Singular values, `[r]`.
pub const S: &str = "svd_s";
/// Right vectors as rows, `[r, in]`.
pub const V: &str = "svd_v";

/// The warm-up that collects the factors.
pub fn warm_up(target: &Target, rank: usize) -> WarmUp {
    let part = |name: &str, dims: &[Dim]| {
        let role = Role::Frozen { from: Origin::Base };
        TensorSpec::new(name, target.shape(rank, dims), role, Travel::Up, Start::Artefact)
    };
    WarmUp {
        statistic: Statistic::BaseFactors,
        examples: 0,
        layout: vec![part(U, &[Dim::Out, Dim::Rank]), part(S, &[Dim::Rank]), part(V, &[Dim::Rank, Dim::In])],
        delta: Delta::Product(vec![Delta::mat(U), Delta::Diag(S.to_owned()), Delta::mat(V)]),
        law: LawKind::Agree,
    }
}

/// What a client uploads for one target: the leading `rank` triplets of its weight `[out, in]`, by part name.
pub fn factors(weight: &Matrix, rank: usize) -> Result<TensorSet, LinalgError> {
    let svd = truncated_svd(weight, rank)?;
    Ok(TensorSet::from([
        (U.to_owned(), Tensor::from_matrix(&svd.u)),
        (S.to_owned(), Tensor::from_vector(&svd.s)),
        (V.to_owned(), Tensor::from_matrix(&svd.v)),
    ]))
}
