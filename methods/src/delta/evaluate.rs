//! Values of delta expressions: dense, applied to x, folded into two factors. All in f64.

use super::{Delta, DeltaError};
use crate::linalg::Matrix;
use crate::tensor::{Tensor, TensorSet};

/// An expression folded into two factors: dW = scale *
/// left * right, left `[out, r]`, right `[r, in]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded {
    /// The factor of the outputs, `[out, r]`.
    pub left: Matrix,
    /// The factor of the inputs, `[r, in]`.
    pub right: Matrix,
    /// What the product is multiplied with.
    pub scale: f64,
}

impl Delta {
    fn check(&self, parts: &TensorSet) -> Result<(usize, usize), DeltaError> {
        self.shape(&|part| parts.get(part).map(|tensor| tensor.shape.clone()))
    }

    /// The dense value dW `[out, in]`.
    ///
    /// # Errors
    /// A part is missing, or shapes do not fit the expression (see [`Delta::shape`]).
    pub fn dense(&self, parts: &TensorSet) -> Result<Matrix, DeltaError> {
        self.check(parts)?;
        Ok(self.dense_checked(parts))
    }

    fn dense_checked(&self, parts: &TensorSet) -> Matrix {
        match self {
            Self::Mat(part) => parts[part].to_matrix(),
            Self::Diag(part) => Matrix::diagonal(&parts[part].data.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()),
            Self::Comb { weights, basis } => combined(&parts[weights], &parts[basis]),
            Self::Transpose(inner) => inner.dense_checked(parts).transposed(),
            Self::Scale(scale, inner) => inner.dense_checked(parts).scaled(*scale),
            // From the right, so that B.(R.A) is formed as cheaply
            // as (B.R).A and x never meets [out, in] twice.
            Self::Product(members) => members
                .iter()
                .rev()
                .map(|member| member.dense_checked(parts))
                .reduce(|right, left| left.times(&right))
                .unwrap_or_else(|| Matrix::zeros(0, 0)),
            Self::Sum(members) => members
                .iter()
                .map(|member| member.dense_checked(parts))
                .reduce(|mut sum, term| {
                    sum.add_scaled(1.0, &term);
                    sum
                })
                .unwrap_or_else(|| Matrix::zeros(0, 0)),
        }
    }

    /// The forward pass of the change: x `[n, in]` to x . dW^T
    /// `[n, out]`, factor by factor, never forming dW.
    ///
    /// # Errors
    /// A part is missing, shapes do not fit the expression (see [`Delta::shape`]), or x has another
    /// number of columns than dW.
    pub fn apply(&self, x: &Matrix, parts: &TensorSet) -> Result<Matrix, DeltaError> {
        let shape = self.check(parts)?;
        if x.cols() != shape.1 {
            return Err(DeltaError::Shapes {
                left: "x".into(),
                left_shape: (x.rows(), x.cols()),
                right: format!("({self})^T"),
                right_shape: (shape.1, shape.0),
                joined: "multiplied",
            });
        }
        Ok(self.apply_checked(x, parts, false))
    }

    /// x . D^T, or x . D when `flipped`.
    fn apply_checked(&self, x: &Matrix, parts: &TensorSet, flipped: bool) -> Matrix {
        match self {
            Self::Mat(part) => {
                let matrix = parts[part].to_matrix();
                if flipped { x.times(&matrix) } else { x.times(&matrix.transposed()) }
            }
            Self::Comb { weights, basis } => {
                let matrix = combined(&parts[weights], &parts[basis]);
                if flipped { x.times(&matrix) } else { x.times(&matrix.transposed()) }
            }
            Self::Diag(part) => {
                let mut out = x.clone();
                for row in 0..out.rows() {
                    for (value, &factor) in out.row_mut(row).iter_mut().zip(&parts[part].data) {
                        *value *= f64::from(factor);
                    }
                }
                out
            }
            Self::Transpose(inner) => inner.apply_checked(x, parts, !flipped),
            Self::Scale(scale, inner) => inner.apply_checked(x, parts, flipped).scaled(*scale),
            Self::Product(members) => {
                let step = |x: Matrix, member: &Delta| member.apply_checked(&x, parts, flipped);
                if flipped { members.iter().fold(x.clone(), step) } else { members.iter().rev().fold(x.clone(), step) }
            }
            Self::Sum(members) => members
                .iter()
                .map(|member| member.apply_checked(x, parts, flipped))
                .reduce(|mut sum, term| {
                    sum.add_scaled(1.0, &term);
                    sum
                })
                .unwrap_or_else(|| Matrix::zeros(x.rows(), 0)),
        }
    }

    /// Folds the expression into two factors with the narrowest middle a product offers; the terms
    /// of a sum stand side by side. A lone `[out, in]` matrix gets an identity as its partner.
    ///
    /// # Errors
    /// A part is missing, or shapes do not fit the expression (see [`Delta::shape`]).
    pub fn fold(&self, parts: &TensorSet) -> Result<Folded, DeltaError> {
        self.check(parts)?;
        Ok(self.fold_checked(parts))
    }

    fn fold_checked(&self, parts: &TensorSet) -> Folded {
        match self {
            Self::Scale(scale, inner) => {
                let folded = inner.fold_checked(parts);
                Folded { scale: scale * folded.scale, ..folded }
            }
            Self::Transpose(inner) => {
                let Folded { left, right, scale } = inner.fold_checked(parts);
                Folded { left: right.transposed(), right: left.transposed(), scale }
            }
            Self::Product(members) if members.len() > 1 => {
                let mut scale = 1.0;
                let matrices: Vec<Matrix> = members
                    .iter()
                    .map(|member| {
                        let mut member = member;
                        while let Self::Scale(factor, inner) = member {
                            scale *= factor;
                            member = inner;
                        }
                        member.dense_checked(parts)
                    })
                    .collect();
                // The last of the narrowest cuts: B.R.A becomes
                // (B.R).A, which keeps a frozen A as it is.
                let cut = (1..matrices.len()).rev().min_by_key(|&at| matrices[at].rows()).unwrap_or(1);
                let product = |factors: &[Matrix]| {
                    factors.iter().skip(1).fold(factors[0].clone(), |left, right| left.times(right))
                };
                Folded { left: product(&matrices[..cut]), right: product(&matrices[cut..]), scale }
            }
            Self::Sum(members) => {
                let terms: Vec<Folded> = members.iter().map(|member| member.fold_checked(parts)).collect();
                let lefts: Vec<Matrix> = terms.iter().map(|term| term.left.clone()).collect();
                let rights: Vec<Matrix> = terms.iter().map(|term| term.right.clone().scaled(term.scale)).collect();
                Folded { left: Matrix::beside(&lefts), right: Matrix::below(&rights), scale: 1.0 }
            }
            Self::Mat(_) | Self::Diag(_) | Self::Comb { .. } | Self::Product(_) => {
                let dense = self.dense_checked(parts);
                let (rows, cols) = (dense.rows(), dense.cols());
                if rows <= cols {
                    Folded { left: Matrix::identity(rows), right: dense, scale: 1.0 }
                } else {
                    Folded { left: dense, right: Matrix::identity(cols), scale: 1.0 }
                }
            }
        }
    }
}

/// sum_j w_j M_j of checked parts: weights `[k]`, basis `[k, rows, columns]`.
fn combined(weights: &Tensor, basis: &Tensor) -> Matrix {
    let (rows, cols) = (basis.shape[1], basis.shape[2]);
    let mut sum = vec![0.0; rows * cols];
    for (&weight, matrix) in weights.data.iter().zip(basis.data.chunks_exact((rows * cols).max(1))) {
        for (total, &x) in sum.iter_mut().zip(matrix) {
            *total += f64::from(weight) * f64::from(x);
        }
    }
    Matrix::new(rows, cols, sum)
}

impl Folded {
    /// The middle dimension r.
    pub fn rank(&self) -> usize {
        self.right.rows()
    }

    /// The dense value `[out, in]`.
    pub fn dense(&self) -> Matrix {
        self.left.times(&self.right).scaled(self.scale)
    }
}
