//! Factors of the base weight W0 `[out, in]` that a client computes without
//! data: of its SVD, of its LU decomposition, or plain slices of it. Three parts
//! each, whose product is what clients must agree on.

use super::base_svd::{self, Parts};
use crate::delta::Delta;
use crate::dim::Dim;
use crate::law::LawKind;
use crate::layout::{Origin, Role, Start, Target, TensorSpec, Travel};
use crate::linalg::{LinalgError, Matrix};
use crate::tensor::{Tensor, TensorSet};
use crate::warm_up::{BaseFactors, Statistic, WarmUp};

/// First columns of P.L, `[out, r]`, of W0 = P.L.diag(D).U with unit diagonals in L and U.
pub const LU_LEFT: &str = "lu_l";
/// First pivots D, `[r]`.
pub const LU_PIVOTS: &str = "lu_d";
/// First rows of U, `[r, in]`.
pub const LU_RIGHT: &str = "lu_u";
/// First columns of W0, `[out, r]`.
pub const SLICE_COLUMNS: &str = "slice_columns";
/// Where they cross, `[r, r]`.
pub const SLICE_CROSS: &str = "slice_cross";
/// First rows of W0, `[r, in]`.
pub const SLICE_ROWS: &str = "slice_rows";

fn parts_of(factors: BaseFactors) -> Parts {
    match factors {
        BaseFactors::SvdHead => base_svd::HEAD,
        BaseFactors::SvdTail => base_svd::TAIL,
        BaseFactors::Lu => Parts { left: LU_LEFT, middle: LU_PIVOTS, right: LU_RIGHT },
        BaseFactors::Slice => Parts { left: SLICE_COLUMNS, middle: SLICE_CROSS, right: SLICE_ROWS },
    }
}

/// The warm-up that collects the factors of one target at a rank.
pub fn probe(factors: BaseFactors, target: &Target, rank: usize) -> WarmUp {
    let parts = parts_of(factors);
    let part = |name: &str, dims: &[Dim]| {
        let role = Role::Frozen { from: Origin::Base };
        TensorSpec::new(name, target.shape(rank, dims), role, Travel::Up, Start::Artefact)
    };
    let (middle, dims) = match factors {
        BaseFactors::Slice => (Delta::mat(parts.middle), vec![Dim::Rank, Dim::Rank]),
        BaseFactors::SvdHead | BaseFactors::SvdTail | BaseFactors::Lu => {
            (Delta::Diag(parts.middle.to_owned()), vec![Dim::Rank])
        }
    };
    WarmUp {
        statistic: Statistic::Base(factors),
        examples: 0,
        layout: vec![
            part(parts.left, &[Dim::Out, Dim::Rank]),
            part(parts.middle, &dims),
            part(parts.right, &[Dim::Rank, Dim::In]),
        ],
        delta: Delta::Product(vec![Delta::mat(parts.left), middle, Delta::mat(parts.right)]),
        law: LawKind::Agree,
    }
}

/// What a client uploads for one target: the factors of
/// its weight `[out, in]` at a rank, by part name.
///
/// # Errors
/// A rank that the weight cannot have; a weight that is not finite; an SVD that does not converge;
/// an LU decomposition that meets a pivot of zero.
pub fn compute(factors: BaseFactors, weight: &Matrix, rank: usize) -> Result<TensorSet, LinalgError> {
    let (rows, cols) = (weight.rows(), weight.cols());
    if rank == 0 || rank > rows.min(cols) {
        return Err(LinalgError::Rank { rank, rows, cols });
    }
    match factors {
        BaseFactors::SvdHead => base_svd::factors(weight, rank),
        BaseFactors::SvdTail => base_svd::tail(weight, rank),
        BaseFactors::Lu => lu(weight, rank),
        BaseFactors::Slice => Ok(parts_of(factors).named([
            Tensor::from_matrix(&weight.corner(rows, rank)),
            Tensor::from_matrix(&weight.corner(rank, rank)),
            Tensor::from_matrix(&weight.corner(rank, cols)),
        ])),
    }
}

/// The rank at which a probe's layout asks for factors; `None` for a layout of other parts.
pub fn rank_of<'a>(factors: BaseFactors, layout: impl IntoIterator<Item = &'a TensorSpec>) -> Option<usize> {
    let right = parts_of(factors).right;
    layout.into_iter().find(|spec| spec.part == right)?.shape.first().copied()
}

/// The first `rank` steps of Gaussian elimination with
/// row pivots: of equal pivots the first row wins.
fn lu(weight: &Matrix, rank: usize) -> Result<TensorSet, LinalgError> {
    let (rows, cols) = (weight.rows(), weight.cols());
    if !weight.is_finite() {
        return Err(LinalgError::NotFinite { rows, cols });
    }
    // What is left of the weight, its rows in their own places:
    // so the columns of L come out as those of P.L.
    let mut left_over = weight.clone();
    let mut used = vec![false; rows];
    let mut left = Matrix::zeros(rows, rank);
    let mut pivots = Vec::with_capacity(rank);
    let mut right = Matrix::zeros(rank, cols);
    for step in 0..rank {
        let mut row = None;
        for candidate in (0..rows).filter(|&row| !used[row]) {
            let size = left_over.at(candidate, step).abs();
            if row.is_none_or(|(_, largest)| size > largest) {
                row = Some((candidate, size));
            }
        }
        let Some((row, _)) = row.filter(|(_, size)| *size > 0.0) else {
            return Err(LinalgError::Pivot { step, rows, cols });
        };
        used[row] = true;
        let pivot = left_over.at(row, step);
        let unit: Vec<f64> =
            (0..cols).map(|col| if col < step { 0.0 } else { left_over.at(row, col) / pivot }).collect();
        for (other, &is_used) in used.iter().enumerate() {
            let factor = if other == row {
                1.0
            } else if is_used {
                0.0
            } else {
                left_over.at(other, step) / pivot
            };
            left.row_mut(other)[step] = factor;
            if factor != 0.0 && other != row {
                for (value, unit) in left_over.row_mut(other).iter_mut().zip(&unit) {
                    *value -= factor * pivot * unit;
                }
            }
        }
        pivots.push(pivot);
        right.row_mut(step).copy_from_slice(&unit);
    }
    let parts = parts_of(BaseFactors::Lu);
    Ok(parts.named([Tensor::from_matrix(&left), Tensor::from_vector(&pivots), Tensor::from_matrix(&right)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight() -> Matrix {
        Matrix::new(2, 3, vec![2.0, 4.0, 6.0, 1.0, 5.0, 7.0])
    }

    fn data(parts: &TensorSet, part: &str) -> Vec<f32> {
        parts[part].data.clone()
    }

    /// By hand: pivot 2 in the first row; with the rows exchanged P.L has them exchanged.
    #[test]
    fn lu_is_that_of_the_paper() {
        let one = compute(BaseFactors::Lu, &weight(), 1).unwrap();
        assert_eq!(data(&one, LU_LEFT), [1.0, 0.5]);
        assert_eq!(data(&one, LU_PIVOTS), [2.0]);
        assert_eq!(data(&one, LU_RIGHT), [1.0, 2.0, 3.0]);
        let exchanged = Matrix::new(2, 3, vec![1.0, 5.0, 7.0, 2.0, 4.0, 6.0]);
        assert_eq!(data(&compute(BaseFactors::Lu, &exchanged, 1).unwrap(), LU_LEFT), [0.5, 1.0]);
    }

    #[test]
    fn all_steps_give_the_weight_back() {
        for factors in [BaseFactors::SvdHead, BaseFactors::SvdTail, BaseFactors::Lu] {
            let target = Target { name: "t".into(), out: 2, inp: 3 };
            let probe = probe(factors, &target, 2);
            let parts = compute(factors, &weight(), 2).unwrap();
            assert_eq!(rank_of(factors, &probe.layout), Some(2));
            for spec in &probe.layout {
                assert_eq!(parts[&spec.part].shape, spec.shape, "{}", spec.part);
            }
            let mut back = probe.delta.dense(&parts).unwrap();
            back.add_scaled(-1.0, &weight());
            assert!(back.norm() < 1e-5, "{factors:?} {back:?}");
        }
    }

    #[test]
    fn slices_are_slices() {
        let parts = compute(BaseFactors::Slice, &weight(), 1).unwrap();
        assert_eq!(data(&parts, SLICE_COLUMNS), [2.0, 1.0]);
        assert_eq!(data(&parts, SLICE_CROSS), [2.0]);
        assert_eq!(data(&parts, SLICE_ROWS), [2.0, 4.0, 6.0]);
    }

    /// The smallest triplet of a matrix whose SVD is known.
    #[test]
    fn the_tail_is_the_smallest_triplet() {
        let diagonal = Matrix::new(2, 3, vec![3.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let parts = compute(BaseFactors::SvdTail, &diagonal, 1).unwrap();
        assert!((data(&parts, base_svd::TAIL_S)[0] - 1.0).abs() < 1e-6);
        let change = probe(BaseFactors::SvdTail, &Target { name: "t".into(), out: 2, inp: 3 }, 1).delta;
        let mut dense = change.dense(&parts).unwrap();
        dense.add_scaled(-1.0, &Matrix::new(2, 3, vec![0.0, 0.0, 0.0, 0.0, 1.0, 0.0]));
        assert!(dense.norm() < 1e-6, "{dense:?}");
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        let zero = Matrix::new(2, 2, vec![0.0, 1.0, 0.0, 2.0]);
        assert!(matches!(compute(BaseFactors::Lu, &zero, 1), Err(LinalgError::Pivot { step: 0, .. })));
        for factors in [BaseFactors::SvdHead, BaseFactors::SvdTail, BaseFactors::Lu, BaseFactors::Slice] {
            for rank in [0, 3] {
                assert!(matches!(compute(factors, &weight(), rank), Err(LinalgError::Rank { .. })), "{factors:?}");
            }
        }
        let bad = Matrix::new(1, 1, vec![f64::NAN]);
        assert!(matches!(compute(BaseFactors::Lu, &bad, 1), Err(LinalgError::NotFinite { .. })));
    }
}
