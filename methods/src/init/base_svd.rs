//! The singular value decomposition of the base weight itself, W0 = U . diag(S) . V: its largest
//! triplets, or its smallest. Needs no data and costs no privacy.
//!
//! A client computes them from its own copy of the base and
//! uploads them once; the others' copies cross-check.

use crate::linalg::{LinalgError, Matrix, truncated_svd};
use crate::tensor::{Tensor, TensorSet};

/// Left vectors of the largest triplets, `[out, r]`.
pub const U: &str = "svd_u";
/// Largest singular values, `[r]`.
pub const S: &str = "svd_s";
/// Right vectors of the largest triplets as rows, `[r, in]`.
pub const V: &str = "svd_v";
/// Left vectors of the smallest triplets, `[out, r]`.
pub const TAIL_U: &str = "svd_tail_u";
/// Smallest singular values, `[r]`, descending.
pub const TAIL_S: &str = "svd_tail_s";
/// Right vectors of the smallest triplets as rows, `[r, in]`.
pub const TAIL_V: &str = "svd_tail_v";

/// Names of the three parts that a factorisation has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    pub(super) left: &'static str,
    pub(super) middle: &'static str,
    pub(super) right: &'static str,
}

impl Parts {
    pub(super) fn named(self, tensors: [Tensor; 3]) -> TensorSet {
        [self.left, self.middle, self.right].into_iter().map(str::to_owned).zip(tensors).collect()
    }
}

pub(super) const HEAD: Parts = Parts { left: U, middle: S, right: V };
pub(super) const TAIL: Parts = Parts { left: TAIL_U, middle: TAIL_S, right: TAIL_V };

/// What a client uploads for one target: the leading `rank`
/// triplets of its weight `[out, in]`, by part name.
///
/// # Errors
/// As [`truncated_svd`].
pub fn factors(weight: &Matrix, rank: usize) -> Result<TensorSet, LinalgError> {
    let svd = truncated_svd(weight, rank)?;
    Ok(HEAD.named([Tensor::from_matrix(&svd.u), Tensor::from_vector(&svd.s), Tensor::from_matrix(&svd.v)]))
}

/// The last `rank` triplets of a weight `[out, in]`, those of the smallest singular values.
pub(super) fn tail(weight: &Matrix, rank: usize) -> Result<TensorSet, LinalgError> {
    let (rows, cols) = (weight.rows(), weight.cols());
    let all = rows.min(cols);
    let Some(first) = all.checked_sub(rank).filter(|_| rank > 0) else {
        return Err(LinalgError::Rank { rank, rows, cols });
    };
    let svd = truncated_svd(weight, all)?;
    let columns = svd.u.transposed();
    let row_range = |matrix: &Matrix| {
        let kept = matrix.data()[first * matrix.cols()..].to_vec();
        Matrix::new(rank, matrix.cols(), kept)
    };
    let left = row_range(&columns).transposed();
    Ok(TAIL.named([
        Tensor::from_matrix(&left),
        Tensor::from_vector(&svd.s[first..]),
        Tensor::from_matrix(&row_range(&svd.v)),
    ]))
}
