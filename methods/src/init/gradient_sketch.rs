//! A federated randomised SVD of the first full-weight
//! gradient G `[out, in]`, which nobody ever forms.
//!
//! With seeded test matrices Omega `[k, in]` and Psi `[out, l]` (k = r + oversample, l = 2k,
//! both cut to the target's dimensions) a client attaches the probe dW = P.Omega + Psi.Q with P
//! `[out, k]` and Q `[l, in]` at zero. One backward pass gives the sketches Y = dL/dP =
//! G.Omega^T and Z = dL/dQ = Psi^T.G. Both are linear in G, so the weighted means of the
//! clients' sketches are the sketches of the mean gradient. The coordinator takes an
//! orthonormal basis Q_y of Y's columns, solves (Psi^T.Q_y) X = Z by least squares, and G ~
//! Q_y.X, whose SVD is that of the small X (Tropp, Yurtsever, Udell, Cevher 2017, "Practical
//! sketching algorithms for low-rank matrix approximation").

use crate::delta::Delta;
use crate::dim::Dim;
use crate::init::seeded::sketch_bound;
use crate::law::LawKind;
use crate::layout::{Start, Target, TensorSpec, Travel};
use crate::linalg::{LinalgError, Matrix, Svd, least_squares, qr, truncated_svd};
use crate::warm_up::{Statistic, WarmUp};

/// Range probe, `[out, k]`; its gradient is Y.
pub const P: &str = "sketch_p";
/// Seeded partner of P, `[k, in]`.
pub const OMEGA: &str = "sketch_omega";
/// Co-range probe, `[l, in]`; its gradient is Z.
pub const Q: &str = "sketch_q";
/// Seeded partner of Q, `[out, l]`.
pub const PSI: &str = "sketch_psi";

/// Sketch sizes (k, l) of a target.
pub fn sizes(target: &Target, rank: usize, oversample: usize) -> (usize, usize) {
    let k = (rank + oversample).min(target.out).min(target.inp);
    (k, (2 * k).min(target.out))
}

/// The warm-up that collects the sketches.
pub fn warm_up(target: &Target, rank: usize, oversample: usize, examples: u32) -> WarmUp {
    let (k, l) = sizes(target, rank, oversample);
    let shape = |dims: &[Dim]| target.shape(rank, dims);
    let probe = |part: &str, dims: &[Dim]| TensorSpec::trained(part, shape(dims), Travel::Up, Start::Zero);
    WarmUp {
        statistic: Statistic::Gradient,
        examples,
        layout: vec![
            probe(P, &[Dim::Out, Dim::Fixed(k)]),
            TensorSpec::seeded(OMEGA, shape(&[Dim::Fixed(k), Dim::In]), sketch_bound(target.inp)),
            probe(Q, &[Dim::Fixed(l), Dim::In]),
            TensorSpec::seeded(PSI, shape(&[Dim::Out, Dim::Fixed(l)]), sketch_bound(target.out)),
        ],
        delta: Delta::Sum(vec![Delta::product(&[P, OMEGA]), Delta::product(&[PSI, Q])]),
        law: LawKind::Mean,
    }
}

/// The leading `rank` triplets of G `[out, in]` from the mean
/// sketches: y `[out, k]`, z `[l, in]`, psi `[out, l]`.
///
/// # Errors
/// A sketch holds a number that is not finite, an SVD does not converge, or `rank` is outside 1 to
/// min(out, k, in).
pub fn reconstruct(y: &Matrix, z: &Matrix, psi: &Matrix, rank: usize) -> Result<Svd, LinalgError> {
    let (basis, _) = qr(y)?;
    let x = least_squares(&psi.transposed().times(&basis), z)?;
    let small = truncated_svd(&x, rank)?;
    Ok(Svd { u: basis.times(&small.u), s: small.s, v: small.v })
}
