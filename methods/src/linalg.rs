//! Dense f64 matrices and their decompositions. The only file that uses faer, always on one thread.

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::{Qr, Svd as FaerSvd};
use faer::{Accum, Mat, MatMut, MatRef, Par};

/// A row-major f64 matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f64>,
}

/// Why a decomposition failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinalgError {
    /// The input holds NaN or an infinity.
    #[error("a [{rows}, {cols}] matrix to decompose holds numbers that are not finite")]
    NotFinite {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// The iteration did not converge.
    #[error("the SVD of a [{rows}, {cols}] matrix did not converge")]
    NoConvergence {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// An LU decomposition that needs more steps than the matrix has pivots.
    #[error("step {step} of the LU decomposition of a [{rows}, {cols}] matrix meets no pivot but zero; lower the rank")]
    Pivot {
        /// The step, from 0.
        step: usize,
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// A rank outside what the matrix has.
    #[error("rank {rank} is outside 1 to {} for a [{rows}, {cols}] matrix", (*.rows).min(*.cols))]
    Rank {
        /// The rank asked for.
        rank: usize,
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
}

/// A truncated singular value decomposition, M ~ u . diag(s) . v.
#[derive(Debug, Clone, PartialEq)]
pub struct Svd {
    /// Left vectors, `[m, r]`, orthonormal columns; in each the largest entry by absolute value is
    /// positive.
    pub u: Matrix,
    /// Singular values, descending.
    pub s: Vec<f64>,
    /// Right vectors as rows, `[r, n]`, orthonormal.
    pub v: Matrix,
}

impl Matrix {
    /// From row-major data; `data.len()` must be `rows * cols`.
    ///
    /// # Panics
    /// When the length does not fit: a fault of the caller.
    pub fn new(rows: usize, cols: usize, data: Vec<f64>) -> Self {
        assert_eq!(data.len(), rows * cols, "a [{rows}, {cols}] matrix needs {} numbers", rows * cols);
        Self { rows, cols, data }
    }

    /// All zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// Ones on the diagonal.
    pub fn identity(n: usize) -> Self {
        Self::diagonal(&vec![1.0; n])
    }

    /// A square matrix with these numbers on its diagonal.
    pub fn diagonal(values: &[f64]) -> Self {
        let mut matrix = Self::zeros(values.len(), values.len());
        for (index, &value) in values.iter().enumerate() {
            matrix.data[index * values.len() + index] = value;
        }
        matrix
    }

    /// Count of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Count of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row-major numbers.
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    /// One entry.
    pub fn at(&self, row: usize, col: usize) -> f64 {
        self.data[row * self.cols + col]
    }

    /// One row, to change.
    pub fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.data[row * self.cols..(row + 1) * self.cols]
    }

    /// The transpose.
    pub fn transposed(&self) -> Self {
        let mut out = Self::zeros(self.cols, self.rows);
        for row in 0..self.rows {
            for col in 0..self.cols {
                out.data[col * self.rows + row] = self.data[row * self.cols + col];
            }
        }
        out
    }

    /// Every entry times `factor`.
    pub fn scaled(mut self, factor: f64) -> Self {
        if factor != 1.0 {
            self.data.iter_mut().for_each(|x| *x *= factor);
        }
        self
    }

    /// Adds `factor * other`, of the same shape.
    ///
    /// # Panics
    /// When the shapes differ: a fault of the caller.
    pub fn add_scaled(&mut self, factor: f64, other: &Self) {
        assert_eq!((self.rows, self.cols), (other.rows, other.cols), "matrices of different shapes cannot be added");
        for (x, y) in self.data.iter_mut().zip(&other.data) {
            *x += factor * y;
        }
    }

    /// The matrix product.
    ///
    /// # Panics
    /// When the inner dimensions differ: a fault of the caller.
    pub fn times(&self, other: &Self) -> Self {
        assert_eq!(self.cols, other.rows, "inner dimensions of a product differ");
        let mut out = Self::zeros(self.rows, other.cols);
        if out.data.is_empty() || self.cols == 0 {
            return out;
        }
        let (rows, cols) = (out.rows, out.cols);
        let dst = MatMut::from_row_major_slice_mut(&mut out.data, rows, cols);
        matmul(dst, Accum::Replace, self.view(), other.view(), 1.0, Par::Seq);
        out
    }

    /// Matrices of equal height side by side; none gives `[0, 0]`.
    pub fn beside(parts: &[Self]) -> Self {
        let rows = parts.first().map_or(0, |part| part.rows);
        let cols = parts.iter().map(|part| part.cols).sum();
        let mut data = Vec::with_capacity(rows * cols);
        for row in 0..rows {
            for part in parts {
                data.extend_from_slice(&part.data[row * part.cols..(row + 1) * part.cols]);
            }
        }
        Self::new(rows, cols, data)
    }

    /// Matrices of equal width below each other; none gives `[0, 0]`.
    pub fn below(parts: &[Self]) -> Self {
        let cols = parts.first().map_or(0, |part| part.cols);
        let rows = parts.iter().map(|part| part.rows).sum();
        Self::new(rows, cols, parts.iter().flat_map(|part| part.data.iter().copied()).collect())
    }

    /// The first `rows` rows and `cols` columns.
    pub fn corner(&self, rows: usize, cols: usize) -> Self {
        let data = (0..rows).flat_map(|row| self.data[row * self.cols..row * self.cols + cols].iter().copied());
        Self::new(rows, cols, data.collect())
    }

    /// The Frobenius norm.
    pub fn norm(&self) -> f64 {
        self.data.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    /// True when no entry is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|x| x.is_finite())
    }

    fn view(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.data, self.rows, self.cols)
    }

    fn from_faer(matrix: MatRef<'_, f64>) -> Self {
        let (rows, cols) = matrix.shape();
        let data = (0..rows).flat_map(|row| (0..cols).map(move |col| matrix[(row, col)])).collect();
        Self { rows, cols, data }
    }

    fn to_faer(&self) -> Mat<f64> {
        self.view().to_owned()
    }

    fn check_finite(&self) -> Result<(), LinalgError> {
        if self.is_finite() { Ok(()) } else { Err(LinalgError::NotFinite { rows: self.rows, cols: self.cols }) }
    }
}

/// The thin QR decomposition of a matrix `[m, n]`: q `[m, k]` with orthonormal columns, r `[k, n]`
/// upper triangular, k = min(m, n).
///
/// # Errors
/// The matrix holds a number that is not finite.
pub fn qr(matrix: &Matrix) -> Result<(Matrix, Matrix), LinalgError> {
    matrix.check_finite()?;
    let size = matrix.rows.min(matrix.cols);
    if size == 0 {
        return Ok((Matrix::zeros(matrix.rows, 0), Matrix::zeros(0, matrix.cols)));
    }
    let faer = Qr::new(matrix.to_faer().as_ref());
    let mut r = Matrix::from_faer(faer.thin_R());
    for row in 1..r.rows {
        let width = row.min(r.cols);
        r.row_mut(row)[..width].fill(0.0);
    }
    Ok((Matrix::from_faer(faer.compute_thin_Q().as_ref()), r))
}

/// The leading `rank` singular triplets of a dense matrix `[m, n]`, in f64.
///
/// The signs are fixed (see [`Svd::u`]), but the last bits may differ between machines: whatever is
/// computed from this is computed once and shipped.
///
/// # Errors
/// `rank` is outside 1 to min(m, n), the matrix holds a number that is not finite, or the iteration
/// does not converge.
pub fn truncated_svd(matrix: &Matrix, rank: usize) -> Result<Svd, LinalgError> {
    let (rows, cols) = (matrix.rows, matrix.cols);
    if rank == 0 || rank > rows.min(cols) {
        return Err(LinalgError::Rank { rank, rows, cols });
    }
    matrix.check_finite()?;
    let full = FaerSvd::new_thin(matrix.to_faer().as_ref()).map_err(|_| LinalgError::NoConvergence { rows, cols })?;
    let mut u = Matrix::from_faer(full.U().subcols(0, rank));
    let mut v = Matrix::from_faer(full.V().subcols(0, rank)).transposed();
    let s = (0..rank).map(|index| full.S().column_vector()[index]).collect();
    for col in 0..rank {
        let largest =
            (0..rows).map(|row| u.at(row, col)).fold(0.0_f64, |best, x| if x.abs() > best.abs() { x } else { best });
        if largest < 0.0 {
            for row in 0..rows {
                u.data[row * rank + col] *= -1.0;
            }
            v.row_mut(col).iter_mut().for_each(|x| *x *= -1.0);
        }
    }
    Ok(Svd { u, s, v })
}

/// The leading `rank` singular triplets of left . right without forming the product: QR of both
/// factors, SVD of the small core. left `[m, k]`, right `[k, n]`. A rank above k brings singular
/// values of zero with vectors at right angles to the others, so that neither factor holds a dead
/// direction.
///
/// # Errors
/// `rank` is outside 1 to min(m, n), a factor holds a number that is not finite, or the SVD does
/// not converge.
pub fn truncated_svd_of_product(left: &Matrix, right: &Matrix, rank: usize) -> Result<Svd, LinalgError> {
    let (rows, cols) = (left.rows, right.cols);
    if rank == 0 || rank > rows.min(cols) {
        return Err(LinalgError::Rank { rank, rows, cols });
    }
    if rank > left.cols {
        // Householder's Q stays orthonormal over columns of zeros.
        let missing = rank - left.cols;
        let left = Matrix::beside(&[left.clone(), Matrix::zeros(rows, missing)]);
        let right = Matrix::below(&[right.clone(), Matrix::zeros(missing, cols)]);
        return truncated_svd_of_product(&left, &right, rank);
    }
    let (q_left, r_left) = qr(left)?;
    let (q_right, r_right) = qr(&right.transposed())?;
    let core = truncated_svd(&r_left.times(&r_right.transposed()), rank)?;
    Ok(Svd { u: q_left.times(&core.u), s: core.s, v: core.v.times(&q_right.transposed()) })
}

/// The least-squares solution X of a . X = b with the smallest norm; a `[m, k]`, b `[m, n]`, X
/// `[k, n]`.
///
/// # Errors
/// A matrix holds a number that is not finite, a has no rows or no columns, or the SVD of a does
/// not converge.
pub fn least_squares(a: &Matrix, b: &Matrix) -> Result<Matrix, LinalgError> {
    b.check_finite()?;
    let svd = truncated_svd(a, a.rows.min(a.cols))?;
    // Directions that hold nothing but rounding are left out, as numpy's lstsq does.
    let floor = svd.s.first().copied().unwrap_or(0.0) * f64::EPSILON * a.rows.max(a.cols) as f64;
    let inverse: Vec<f64> = svd.s.iter().map(|&s| if s > floor { 1.0 / s } else { 0.0 }).collect();
    let mut coordinates = svd.u.transposed().times(b);
    for (row, factor) in inverse.iter().enumerate() {
        coordinates.row_mut(row).iter_mut().for_each(|x| *x *= factor);
    }
    Ok(svd.v.transposed().times(&coordinates))
}
